/** PodCertificateRequest: made by a node for a pod on it, and final with its first verdict. */
import { createPublicKey, type KeyObject } from 'node:crypto'

import { checkBase64, validateSignerName } from './csr.ts'
import { isProof, pemBlocks, readCertificate, readRequest, spkiOf } from './pkix.ts'
import { type Cause, forbidden, forbiddenValue, invalidValue, notSupported, quote, required } from './refusal.ts'
import { type Context, type Decoded, isNew, keep, named, type Resource, resourceOf } from './resource.ts'
import { byKey, fields, map, objectShape } from './shape.ts'
import { at, nameOf, namespaceOf, same, type Tree, textAt, treeAt, treesAt, uidOf, withoutEmpty } from './values.ts'

/** v1beta1 has requests by a stub of PKCS#10; v1alpha1 knows keys and proofs alone. */
export const podCertificateRequests = (version: 'v1alpha1' | 'v1beta1'): Resource => {
  const resource: Resource = resourceOf(
    {
      group: 'certificates.k8s.io',
      version,
      plural: 'podcertificaterequests',
      kind: 'PodCertificateRequest',
      namespaced: true,
      reset: { '': [['status']], status: [['spec'], ['metadata']] },
      shape: objectShape({
        spec: fields({ unverifiedUserAnnotations: map() }),
        status: fields({ conditions: byKey('type') }),
      }),
      selectable: ['spec.signerName', 'spec.podName', 'spec.nodeName'],
    },
    {
      decode: (object): Decoded => ({ object: normalForm(object, version), unknown: [] }),
      admit: (next, live, context) => {
        if (isNew(live)) restrictNode(next, context, resource)
        return next
      },
      prepare: (next, live, { subresource }) => {
        if (isNew(live)) return { ...next, status: {} }
        return subresource === 'status' ? keep(next, live, 'spec') : keep(next, live, 'status')
      },
      validate: (next, live, context) => {
        if (isNew(live)) return validateSpec(next)
        return context.subresource === 'status' ? validateVerdict(next, live, context) : []
      },
    },
  )
  return resource
}

const normalForm = (object: Tree, version: string): Tree => {
  const { spec, status, ...rest } = object
  const given = withoutEmpty(treeAt(spec))
  for (const name of ['pkixPublicKey', 'proofOfPossession', 'stubPKCS10Request']) checkBase64(textAt(given, name))
  const nothing =
    version === 'v1alpha1' ? {} : { pkixPublicKey: null, proofOfPossession: null, stubPKCS10Request: null }
  return {
    ...rest,
    // An empty struct has none of its fields; what was sent has its default.
    spec: Object.keys(given).length === 0 ? nothing : { maxExpirationSeconds: 86_400, ...nothing, ...given },
    status: withoutEmpty({
      ...treeAt(status),
      conditions: treesAt(status, 'conditions').map(withoutEmpty),
    }),
  }
}

/** Admission NodeRestriction. It comes before a name is generated. */
const restrictNode = (next: Tree, { user, store }: Context, resource: Resource): void => {
  if (!user.groups.includes('system:nodes')) return
  const spec = treeAt(next, 'spec')
  const node = textAt(spec, 'nodeName')
  const own = user.username.replace(/^system:node:/, '')
  const name = nameOf(next) || textAt(next, 'metadata', 'generateName')
  const refuse = (why: string): Error => forbidden(named(resource, name), why)
  if (node !== own)
    throw refuse(`PodCertificateRequest.Spec.NodeName=${quote(node)}, which is not the requesting node ${quote(own)}`)
  const podName = textAt(spec, 'podName')
  const pod = store.find('pods', namespaceOf(next), podName)
  const title = quote(`${namespaceOf(next)}/${podName}`)
  if (pod === undefined) throw refuse(`while retrieving pod ${title} named in the PodCertificateRequest: not found`)
  const differs = (what: string, mine: string, its: string): Error =>
    refuse(
      `PodCertificateRequest for pod ${title} contains ${what} (${quote(mine)}) that differs from running pod (${quote(its)})`,
    )
  if (textAt(spec, 'podUID') !== uidOf(pod)) throw differs('podUID', textAt(spec, 'podUID'), uidOf(pod))
  if (textAt(pod, 'spec', 'nodeName') !== node)
    throw refuse(`pod ${title} is not running on node ${quote(node)} named in the PodCertificateRequest`)
  const account = textAt(pod, 'spec', 'serviceAccountName')
  if (textAt(spec, 'serviceAccountName') !== account)
    throw differs('serviceAccountName', textAt(spec, 'serviceAccountName'), account)
}

const validateSpec = (next: Tree): Cause[] => [
  ...validateSignerName('spec.signerName', textAt(next, 'spec', 'signerName')),
  ...validateKey(treeAt(next, 'spec')),
  ...validateExpiration(treeAt(next, 'spec')),
  ...Object.keys(treeAt(next, 'spec', 'unverifiedUserAnnotations'))
    .filter((key) => !key.includes('/'))
    .map((key) =>
      invalidValue(
        'spec.unverifiedUserAnnotations',
        quote(key),
        'must be a domain-prefixed key (such as "acme.io/foo")',
      ),
    ),
]

const validateKey = (spec: Tree): Cause[] => {
  const [stub, pkix, proof] = ['stubPKCS10Request', 'pkixPublicKey', 'proofOfPossession'].map((name) =>
    textAt(spec, name),
  )
  const isPair = Boolean(pkix) && Boolean(proof)
  if ((stub !== '') === isPair || (stub !== '' && (pkix !== '' || proof !== ''))) {
    const detail = 'exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set'
    return [invalidValue('spec', undefined, detail)]
  }
  const field = isPair ? 'spec.pkixPublicKey' : 'spec.stubPKCS10Request'
  const key = keyOf(spec)
  if (key === undefined)
    return [invalidValue(field, undefined, isPair ? 'must be a valid PKIX public key' : 'must be a valid PKCS#10 CSR')]
  const bits = key.asymmetricKeyDetails?.modulusLength
  if (bits !== undefined && bits !== 3072 && bits !== 4096)
    return [invalidValue(field, `"${bits}-bit modulus"`, 'RSA keys must have modulus size 3072 or 4096')]
  if (isPair)
    return isProof(key, textAt(spec, 'podUID'), Buffer.from(String(proof), 'base64'))
      ? []
      : [invalidValue('spec.proofOfPossession', undefined, 'could not verify proof-of-possession signature')]
  const request = readRequest(Buffer.from(String(stub), 'base64'))
  return request?.isSelfSigned() === true ? [] : [invalidValue(field, undefined, 'must have a valid signature')]
}

const keyOf = (spec: Tree): KeyObject | undefined => {
  const pkix = textAt(spec, 'pkixPublicKey')
  const der =
    pkix === ''
      ? readRequest(Buffer.from(textAt(spec, 'stubPKCS10Request'), 'base64'))?.spki
      : Buffer.from(pkix, 'base64')
  try {
    return der === undefined ? undefined : createPublicKey({ key: der, format: 'der', type: 'spki' })
  } catch {
    return undefined
  }
}

const validateExpiration = (spec: Tree): Cause[] => {
  const seconds = Number(at(spec, 'maxExpirationSeconds'))
  const most = textAt(spec, 'signerName').startsWith('kubernetes.io/') ? 86_400 : 7_862_400
  return seconds >= 3600 && seconds <= most
    ? []
    : [invalidValue('spec.maxExpirationSeconds', String(seconds), `must be in the range [3600, ${most}]`)]
}

const validateVerdict = (next: Tree, live: Tree, context: Context): Cause[] => {
  const signer = textAt(live, 'spec', 'signerName')
  if (!context.maySign('certificates.k8s.io', 'sign', signer)) {
    const detail = `User ${quote(context.user.username)} is not permitted to "sign" for signer ${quote(signer)}`
    return [forbiddenValue('spec.signerName', detail)]
  }
  if (treesAt(live, 'status', 'conditions').length > 0)
    return same(next['status'], live['status'])
      ? []
      : [invalidValue('status', undefined, 'immutable after PodCertificateRequest is issued, denied, or failed')]
  const status = treeAt(next, 'status')
  const wrong = validateConditions(status)
  if (wrong.length > 0) return wrong
  const verdict = textAt(treesAt(status, 'conditions')[0], 'type')
  const { conditions: _, ...others } = status
  if (verdict === '')
    return Object.keys(others).length === 0
      ? []
      : [
          invalidValue(
            'status',
            undefined,
            'status is immutable unless transitioning to "Issued", "Denied", or "Failed"',
          ),
        ]
  if (verdict === 'Issued') return validateIssued(next, context.now)
  const detail = 'non-condition status fields must be empty when denying or failing the PodCertificateRequest'
  return Object.keys(others).length === 0 ? [] : [invalidValue('status', undefined, detail)]
}

const validateConditions = (status: Tree): Cause[] =>
  treesAt(status, 'conditions').flatMap((one, index) => [
    ...(verdicts.includes(textAt(one, 'type'))
      ? []
      : [notSupported(`status.conditions.[${index}].type`, textAt(one, 'type'), verdicts)]),
    ...(one['status'] === 'True'
      ? []
      : [notSupported(`status.conditions.[${index}].status`, textAt(one, 'status'), ['True'])]),
    ...(textAt(one, 'lastTransitionTime') === '' ? [required(`status.conditions[${index}].lastTransitionTime`)] : []),
  ])

const validateIssued = (next: Tree, now: Date): Cause[] => {
  const chain = textAt(next, 'status', 'certificateChain')
  const fault = (detail: string): Cause[] => [invalidValue('status.certificateChain', quote(chain), detail)]
  const blocks = pemBlocks(chain)
  const [block] = blocks
  if (block === undefined) return fault('issued certificate chain must contain at least one certificate')
  if (blocks.some(({ type }) => type !== 'CERTIFICATE'))
    return fault('issued certificate chain must consist entirely of CERTFICATE PEM blocks')
  const leaf = readCertificate(block.der)
  const wanted = keyOf(treeAt(next, 'spec'))
  if (leaf === undefined || blocks.some(({ der }) => readCertificate(der) === undefined))
    return fault('issued certificate chain must consist entirely of valid certificates')
  if (wanted === undefined || !spkiOf(leaf.publicKey).equals(spkiOf(wanted)))
    return fault('leaf certificate was not issued to the requested public key')
  const times = { notBefore: new Date(leaf.validFrom).getTime(), notAfter: new Date(leaf.validTo).getTime() }
  const wrong = validateTimes(treeAt(next, 'status'), times, now)
  return wrong.length > 0 ? wrong : validateLifetime(next, times)
}

interface Times {
  readonly notBefore: number
  readonly notAfter: number
}

const validateTimes = (status: Tree, leaf: Times, now: Date): Cause[] => {
  const causes = (['notBefore', 'notAfter'] as const).flatMap((name) => {
    const said = textAt(status, name)
    const title = name === 'notBefore' ? 'NotBefore' : 'NotAfter'
    if (said === '') return [required(`status.${name}`, 'must be present and consistent with the issued certificate')]
    return Date.parse(said) === leaf[name]
      ? []
      : [
          invalidValue(
            `status.${name}`,
            quote(said),
            `must be set to the ${title} time encoded in the leaf certificate`,
          ),
        ]
  })
  const refresh = textAt(status, 'beginRefreshAt')
  const field = 'status.beginRefreshAt'
  if (refresh === '') causes.push(required(field, 'must be present and in the range [notbefore+10min, notafter-10min]'))
  if (causes.length > 0) return causes
  if (Math.abs(leaf.notBefore - now.getTime()) > 5 * minute) {
    const detail = "must be set to within 5 minutes of kube-apiserver's current time"
    return [invalidValue('status.notBefore', quote(textAt(status, 'notBefore')), detail)]
  }
  if (Date.parse(refresh) < leaf.notBefore + 10 * minute)
    return [invalidValue(field, quote(refresh), 'must be at least 10 minutes after status.notBefore')]
  if (Date.parse(refresh) > leaf.notAfter - 10 * minute)
    return [invalidValue(field, quote(refresh), 'must be at least 10 minutes before status.notAfter')]
  return []
}

const validateLifetime = (next: Tree, { notBefore, notAfter }: Times): Cause[] => {
  const lifetime = (notAfter - notBefore) / 1000
  const most = Number(at(next, 'spec', 'maxExpirationSeconds'))
  const fault = (detail: string): Cause[] => [
    invalidValue('status.certificateChain', `${lifetime}000000000`, `leaf certificate lifetime must be ${detail}`),
  ]
  if (lifetime < 3600) return fault('>= 1 hour')
  return lifetime > most ? fault(`<= spec.maxExpirationSeconds (${most})`) : []
}

const verdicts = ['Issued', 'Denied', 'Failed']
const minute = 60_000

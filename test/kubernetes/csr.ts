/** CertificateSigningRequest: conditions that only come and never go, a certificate that is set once. */

import { userTree } from './people.ts'
import { pemBlocks, readCertificate, readRequest } from './pkix.ts'
import { type Cause, forbidden, forbiddenValue, invalidValue, notSupported, quote, required } from './refusal.ts'
import { type Context, type Decoded, isNew, keep, Malformed, named, type Resource, resourceOf } from './resource.ts'
import { byKey, fields, loose, map, objectShape } from './shape.ts'
import {
  at,
  condition,
  copy,
  nameOf,
  same,
  type Tree,
  textAt,
  textsAt,
  treeAt,
  treesAt,
  withoutEmpty,
} from './values.ts'

export const certificateSigningRequests: Resource = resourceOf(
  {
    group: 'certificates.k8s.io',
    version: 'v1',
    plural: 'certificatesigningrequests',
    kind: 'CertificateSigningRequest',
    namespaced: false,
    shortNames: ['csr'],
    reset: {
      '': [['spec'], ['status']],
      approval: [['spec'], ['status', 'certificate']],
      status: [['spec'], ['status', 'conditions']],
    },
    shape: objectShape({ spec: fields({ extra: map() }), status: fields({ conditions: byKey('type', loose) }) }),
    selectable: ['spec.signerName'],
  },
  {
    decode: (object): Decoded => ({ object: normalForm(object), unknown: [] }),
    admit: (next, live, context) => {
      if (isNew(live)) restrictNode(next, context)
      return next
    },
    prepare: (next, live, context) => prepare(next, live, context),
    validate: (next, live, context) => [...(isNew(live) ? [] : validateChange(next, live, context)), ...validate(next)],
    review: (next, live, context) => (isNew(live) ? reviewSubject(next) : reviewSigner(next, live, context)),
  },
)

const normalForm = (object: Tree): Tree => {
  for (const path of [
    ['spec', 'request'],
    ['status', 'certificate'],
  ])
    checkBase64(textAt(object, ...path))
  const { spec, status, ...rest } = object
  return {
    ...rest,
    spec: { ...withoutEmpty(treeAt(spec)) },
    status: withoutEmpty({
      ...treeAt(status),
      conditions: treesAt(status, 'conditions').map(withoutEmpty),
    }),
  }
}

/** As Go's decoder says it. */
export const checkBase64 = (text: string): void => {
  const position = text.search(/[^A-Za-z0-9+/=\r\n]/)
  const length = text.replace(/[\r\n]/g, '').length
  if (position < 0 && length % 4 === 0) return
  throw new Malformed(`illegal base64 data at input byte ${position < 0 ? length - (length % 4) : position}`)
}

const prepare = (next: Tree, live: Tree | undefined, { subresource, user, now }: Context): Tree => {
  if (isNew(live)) {
    const { username: _, uid: __, groups: ___, extra: ____, ...spec } = treeAt(next, 'spec')
    return { ...next, spec: { ...spec, ...userTree(user) }, status: {} }
  }
  if (subresource === '') return keep(next, live, 'spec', 'status')
  const kept = keep(next, live, 'spec')
  const status: Tree = { ...treeAt(kept, 'status') }
  if (subresource === 'approval') {
    delete status['certificate']
    const certificate = textAt(live, 'status', 'certificate')
    if (certificate !== '') status['certificate'] = certificate
  }
  const protectedTypes = subresource === 'approval' ? ['Failed'] : ['Approved', 'Denied']
  const conditions = treesAt(status, 'conditions').map((one) => {
    const old = condition(live, textAt(one, 'type'))
    return protectedTypes.includes(textAt(one, 'type')) && old !== undefined ? copy(old) : withTimes(one, old, now)
  })
  delete status['conditions']
  return { ...kept, status: conditions.length === 0 ? status : { ...status, conditions } }
}

const withTimes = (one: Tree, old: Tree | undefined, now: Date): Tree => {
  const time = `${now.toISOString().slice(0, 19)}Z`
  const since = old?.['status'] === one['status'] ? textAt(old, 'lastTransitionTime') : ''
  return {
    ...one,
    lastUpdateTime: textAt(one, 'lastUpdateTime') || time,
    lastTransitionTime: textAt(one, 'lastTransitionTime') || since || time,
  }
}

const validate = (next: Tree): Cause[] => [...validateSpec(next), ...validateConditions(next), ...validateChain(next)]

const validateSpec = (next: Tree): Cause[] => {
  const request = textAt(next, 'spec', 'request')
  const [block] = pemBlocks(Buffer.from(request, 'base64').toString())
  const expiration = at(next, 'spec', 'expirationSeconds')
  const list = textsAt(next, 'spec', 'usages')
  const signer = textAt(next, 'spec', 'signerName')
  return [
    ...(block?.type === 'CERTIFICATE REQUEST'
      ? []
      : [invalidValue('spec.request', quote(request), 'PEM block type must be CERTIFICATE REQUEST')]),
    ...(list.length === 0 ? [required('spec.usages')] : []),
    ...list.flatMap((usage, index) =>
      usages.includes(usage) ? [] : [notSupported(`spec.usages[${index}]`, usage, usages)],
    ),
    ...validateSignerName('spec.signerName', signer),
    ...(typeof expiration === 'number' && expiration < 600
      ? [
          invalidValue(
            'spec.expirationSeconds',
            String(expiration),
            'may not specify a duration less than 600 seconds (10 minutes)',
          ),
        ]
      : []),
  ]
}

export const validateSignerName = (field: string, signer: string): Cause[] =>
  /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+\/[^/]+$/.test(signer)
    ? []
    : [
        invalidValue(
          field,
          quote(signer),
          "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
      ]

const validateConditions = (next: Tree): Cause[] => {
  const conditions = treesAt(next, 'status', 'conditions')
  const decisions = conditions
    .map((one) => textAt(one, 'type'))
    .filter((type) => type === 'Approved' || type === 'Denied')
  const last = decisions.at(-1) ?? ''
  return [
    ...conditions.flatMap((one, index) =>
      terminal.includes(textAt(one, 'type')) && one['status'] !== 'True'
        ? [notSupported(`status.conditions[${index}].status`, textAt(one, 'status'), ['True'])]
        : [],
    ),
    ...(new Set(decisions).size > 1
      ? [invalidValue('status.conditions', quote(last), 'Approved and Denied conditions are mutually exclusive')]
      : []),
  ]
}

const validateChain = (next: Tree): Cause[] => {
  const encoded = textAt(next, 'status', 'certificate')
  if (encoded === '') return []
  const fault = (detail: string): Cause[] => [invalidValue('status.certificate', '"<certificate data>"', detail)]
  const blocks = pemBlocks(Buffer.from(encoded, 'base64').toString())
  const other = blocks.find(({ type }) => type !== 'CERTIFICATE')
  if (other !== undefined) return fault(`only CERTIFICATE PEM blocks are allowed, found ${quote(other.type)}`)
  if (blocks.length === 0) return fault('must contain at least one CERTIFICATE PEM block')
  return blocks.every(({ der }) => readCertificate(der) !== undefined) ? [] : fault('x509: malformed certificate')
}

const validateChange = (next: Tree, live: Tree, { subresource }: Context): Cause[] => {
  const lost = terminal
    .filter((type) => condition(live, type) !== undefined && condition(next, type) === undefined)
    .map((type) => forbiddenValue('status.conditions', `updates may not remove a condition of type ${quote(type)}`))
  const added = ['Approved', 'Denied']
    .filter((type) => condition(live, type) === undefined && condition(next, type) !== undefined)
    .map((type) => forbiddenValue('status.conditions', `updates may not add a condition of type ${quote(type)}`))
  const before = textAt(live, 'status', 'certificate')
  return [
    ...lost,
    ...(subresource === 'approval' ? [] : added),
    ...(before !== '' && textAt(next, 'status', 'certificate') !== before
      ? [forbiddenValue('status.certificate', 'updates may not modify existing certificate content')]
      : []),
  ]
}

const requestOf = (next: Tree): ReturnType<typeof readRequest> => {
  const [block] = pemBlocks(Buffer.from(textAt(next, 'spec', 'request'), 'base64').toString())
  return block === undefined ? undefined : readRequest(block.der)
}

/** Admission NodeRestriction. */
const restrictNode = (next: Tree, { user }: Context): void => {
  const signers = ['kubernetes.io/kubelet-serving', 'kubernetes.io/kube-apiserver-client-kubelet']
  if (!user.username.startsWith('system:node:') || !signers.includes(textAt(next, 'spec', 'signerName'))) return
  if (requestOf(next)?.commonName === user.username) return
  throw refuse(next, `can only create a node CSR with CN=${user.username}`)
}

/** Admission CertificateSubjectRestriction. */
const reviewSubject = (next: Tree): void => {
  const signer = 'kubernetes.io/kube-apiserver-client'
  if (textAt(next, 'spec', 'signerName') !== signer) return
  if (requestOf(next)?.organizations.includes('system:masters') === true)
    throw refuse(next, `use of ${signer} signer with system:masters group is not allowed`)
}

/** Admission CertificateApproval and CertificateSigning, against the signer of the old object. */
const reviewSigner = (next: Tree, live: Tree, { subresource, maySign }: Context): void => {
  const verb = { approval: 'approve', status: 'sign' }[subresource]
  if (verb === undefined || (verb === 'sign' && same(next['status'], live['status']))) return
  const signer = textAt(live, 'spec', 'signerName')
  if (!maySign('certificates.k8s.io', verb, signer))
    throw refuse(next, `user not permitted to ${verb} requests with signerName ${quote(signer)}`)
}

const refuse = (next: Tree, why: string): Error => forbidden(named(certificateSigningRequests, nameOf(next)), why)

const terminal = ['Approved', 'Denied', 'Failed']

const usages = [
  'any',
  'cert sign',
  'client auth',
  'code signing',
  'content commitment',
  'crl sign',
  'data encipherment',
  'decipher only',
  'digital signature',
  'email protection',
  'encipher only',
  'ipsec end system',
  'ipsec tunnel',
  'ipsec user',
  'key agreement',
  'key encipherment',
  'microsoft sgc',
  'netscape sgc',
  'ocsp signing',
  's/mime',
  'server auth',
  'signing',
  'timestamping',
]

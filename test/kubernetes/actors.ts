/** cert-manager's part in a cluster: it makes requests from Certificates, and approves those that it may. */
import { dns, extension, newP256, oid, pem, request, type Signer, san, seq, tlv, yes } from '../x509/build.ts'
import type { Client } from './cluster.ts'
import type { Double } from './double.ts'
import { loadExchanges } from './recordings.ts'
import { condition, nameOf, namespaceOf, type Tree, textAt, treeAt } from './values.ts'

export interface RequestParts {
  readonly namespace?: string
  readonly name: string
  /** As `issuerRef`; the group is ours if left out. */
  readonly issuer: { readonly kind?: string; readonly name: string; readonly group?: string }
  /** The uid of the Certificate for which it is, where that counts. */
  readonly certificate?: string
  /** DNS names of the request; its own name in `example.test` if left out. */
  readonly names?: readonly string[]
  readonly usages?: readonly string[]
  readonly duration?: string
  readonly isCA?: boolean
  /** DER; one is made if left out. */
  readonly request?: Buffer
  readonly signer?: Signer
}

export interface CertManager {
  /** Makes a CertificateRequest as cert-manager does for a Certificate. */
  create(parts: RequestParts): Promise<Tree>
  approve(object: Tree): Promise<Tree>
  deny(object: Tree, message?: string): Promise<Tree>
  /** From now on approves every request that it may approve, also those that it could not before. */
  approveAll(): void
  stop(): void
}

const path = (object: Tree): string =>
  `/apis/cert-manager.io/v1/namespaces/${namespaceOf(object)}/certificaterequests/${nameOf(object)}`

export const openCertManager = ({ store }: Double, client: Client): CertManager => {
  const storage = 'certificaterequests.cert-manager.io'
  let stop = (): void => undefined
  const decide = async (object: Tree, decision: Tree): Promise<Tree> => {
    const { status, body } = await client.request('PUT', `${path(object)}/status`, withDecision(object, decision), {
      query: { fieldManager: 'cert-manager-certificaterequests-approver' },
    })
    if (status >= 400) throw new Error(`${status} ${textAt(body, 'message')}`)
    return treeAt(body)
  }
  const manager: CertManager = {
    create: async (parts) => {
      const body = certificateRequest(parts)
      const { status, body: made } = await client.request('POST', path(body).replace(/\/[^/]+$/, ''), body, {
        query: { fieldManager: 'cert-manager-certificates-request-manager' },
      })
      if (status !== 201) throw new Error(`${status} ${textAt(made, 'message')}`)
      return treeAt(made)
    },
    approve: (object) => decide(object, approved),
    deny: (object, message = 'no policy allows this request') => decide(object, { ...denied, message }),
    approveAll: () => {
      const waiting = new Set<string>()
      const tryAll = (): void => {
        for (const key of [...waiting]) {
          const [namespace = '', name = ''] = key.split('/')
          const found = store.find(storage, namespace, name)
          waiting.delete(key)
          if (
            found === undefined ||
            condition(found, 'Approved') !== undefined ||
            condition(found, 'Denied') !== undefined
          )
            continue
          // What may not be approved yet waits until rights or kinds change.
          manager.approve(found).catch(() => waiting.add(key))
        }
      }
      stop()
      for (const object of store.all(storage)) waiting.add(`${namespaceOf(object)}/${nameOf(object)}`)
      tryAll()
      stop = store.follow(({ kind, type, object }) => {
        if (kind === storage && type === 'ADDED') waiting.add(`${namespaceOf(object)}/${nameOf(object)}`)
        if ((kind === storage && type === 'ADDED') || /^(cluster)?role|^customresource/.test(kind)) setImmediate(tryAll)
      })
    },
    stop: () => stop(),
  }
  return manager
}

const approved: Tree = {
  type: 'Approved',
  status: 'True',
  reason: 'cert-manager.io',
  message: 'Certificate request has been approved by cert-manager.io',
}
const denied: Tree = { type: 'Denied', status: 'True', reason: 'policy.example' }

const withDecision = (object: Tree, decision: Tree): Tree => {
  const status = treeAt(object, 'status')
  const lastTransitionTime = `${new Date().toISOString().slice(0, 19)}Z`
  const conditions = Array.isArray(status['conditions']) ? status['conditions'] : []
  return { ...object, status: { ...status, conditions: [...conditions, { ...decision, lastTransitionTime }] } }
}

const certificateRequest = (parts: RequestParts): Tree => {
  const { namespace = 'team-a', name, issuer, usages, duration, isCA } = parts
  const certificate = name.replace(/-\d+$/, '')
  const der = parts.request ?? requestFor(parts)
  return {
    apiVersion: 'cert-manager.io/v1',
    kind: 'CertificateRequest',
    metadata: {
      name,
      namespace,
      annotations: {
        'cert-manager.io/certificate-name': certificate,
        'cert-manager.io/certificate-revision': '1',
        'cert-manager.io/private-key-secret-name': `${certificate}-key`,
      },
      ...(parts.certificate !== undefined && { ownerReferences: [ownedBy(certificate, parts.certificate)] }),
    },
    spec: {
      request: Buffer.from(pem(der)).toString('base64'),
      issuerRef: { group: 'chancery.dev', ...issuer },
      ...(usages === undefined ? {} : { usages: [...usages] }),
      ...(duration === undefined ? {} : { duration }),
      ...(isCA === undefined ? {} : { isCA }),
    },
  }
}

const ownedBy = (name: string, uid: string): Tree => ({
  ...{ apiVersion: 'cert-manager.io/v1', kind: 'Certificate', name, uid },
  ...{ controller: true, blockOwnerDeletion: true },
})

/** With the usages that the webhook expects in it. */
const requestFor = ({ name, names, usages, isCA, signer = newP256() }: RequestParts): Buffer => {
  const wanted = [...(usages ?? ['digital signature', 'key encipherment']), ...(isCA === true ? ['cert sign'] : [])]
  const octet = wanted.reduce((bits, usage) => bits | (keyUsageBits[usage] ?? 0), 0)
  const purposes = wanted.flatMap((usage) => (purposeIds[usage] === undefined ? [] : [oid(purposeIds[usage])]))
  return request({
    signer,
    extensions: [
      san(...(names ?? [`${name}.example.test`]).map(dns)),
      ...(octet === 0 ? [] : [extension('2.5.29.15', tlv(0x03, Buffer.from([trailingZeros(octet), octet])), yes)]),
      ...(purposes.length === 0 ? [] : [extension('2.5.29.37', seq(...purposes))]),
    ],
  })
}

const trailingZeros = (octet: number): number => 31 - Math.clz32(octet & -octet)

const keyUsageBits: Readonly<Record<string, number>> = {
  'digital signature': 0x80,
  'key encipherment': 0x20,
  'data encipherment': 0x10,
  'key agreement': 0x08,
  'cert sign': 0x04,
  'crl sign': 0x02,
}

const purposeIds: Readonly<Record<string, string>> = {
  'server auth': '1.3.6.1.5.5.7.3.1',
  'client auth': '1.3.6.1.5.5.7.3.2',
}

/** The requests that cert-manager was recorded to make, as it sent them: each name once. */
export const recordedRequests = (): readonly Tree[] => {
  const found = new Map<string, Tree>()
  for (const { name, response } of loadExchanges('1.36')) {
    const { body } = response
    if (!name.startsWith('certificaterequests/') || textAt(body, 'kind') !== 'CertificateRequest') continue
    found.set(nameOf(body), sentAs(treeAt(body)))
  }
  return [...found.values()]
}

const sentAs = (object: Tree): Tree => {
  const { username: _, uid: __, groups: ___, extra: ____, ...spec } = treeAt(object, 'spec')
  const { name = '', namespace = '', annotations = {}, labels = {} } = treeAt(object, 'metadata')
  return {
    apiVersion: textAt(object, 'apiVersion'),
    kind: textAt(object, 'kind'),
    metadata: { name, namespace, annotations, labels },
    spec,
  }
}

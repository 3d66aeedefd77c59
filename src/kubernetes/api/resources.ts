/** The kinds that the controllers know, and where the API server has them. */

export interface Resource {
  /** Empty for the core. */
  readonly group: string
  readonly version: string
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
}

const issuers = { group: 'chancery.dev', version: 'v1alpha1', namespaced: true } as const
const signing = { group: 'certificates.k8s.io', version: 'v1', namespaced: false } as const

export const resources = {
  certificateRequests: {
    group: 'cert-manager.io',
    version: 'v1',
    plural: 'certificaterequests',
    kind: 'CertificateRequest',
    namespaced: true,
  },
  issuers: { ...issuers, plural: 'chanceryissuers', kind: 'ChanceryIssuer' },
  clusterIssuers: { ...issuers, plural: 'chanceryclusterissuers', kind: 'ChanceryClusterIssuer', namespaced: false },
  signingRequests: { ...signing, plural: 'certificatesigningrequests', kind: 'CertificateSigningRequest' },
  podCertificateRequests: {
    ...signing,
    version: 'v1beta1',
    plural: 'podcertificaterequests',
    kind: 'PodCertificateRequest',
    namespaced: true,
  },
  nodes: { group: '', version: 'v1', plural: 'nodes', kind: 'Node', namespaced: false },
  secrets: { group: '', version: 'v1', plural: 'secrets', kind: 'Secret', namespaced: true },
  leases: { group: 'coordination.k8s.io', version: 'v1', plural: 'leases', kind: 'Lease', namespaced: true },
  events: { group: 'events.k8s.io', version: 'v1', plural: 'events', kind: 'Event', namespaced: true },
} as const satisfies Readonly<Record<string, Resource>>

export interface Place {
  readonly namespace?: string | undefined
  readonly name?: string
  readonly subresource?: 'status' | 'approval'
}

export const apiVersionOf = ({ group, version }: Pick<Resource, 'group' | 'version'>): string =>
  group === '' ? version : `${group}/${version}`

/** Where the objects of a group and version are, without a slash at its end. */
export const rootOf = ({ group, version }: Pick<Resource, 'group' | 'version'>): string =>
  group === '' ? `/api/${version}` : `/apis/${group}/${version}`

/** Without a namespace, of a kind that has some: all of them. */
export const pathOf = (resource: Resource, { namespace, name, subresource }: Place = {}): string =>
  [
    rootOf(resource),
    ...(resource.namespaced && namespace !== undefined ? ['namespaces', encodeURIComponent(namespace)] : []),
    resource.plural,
    ...(name === undefined ? [] : [encodeURIComponent(name)]),
    ...(subresource === undefined ? [] : [subresource]),
  ].join('/')

/** Of this group, and of no other: an empty one is nobody's. */
export const issuerKinds = {
  ChanceryIssuer: resources.issuers,
  ChanceryClusterIssuer: resources.clusterIssuers,
} as const
export type IssuerKind = keyof typeof issuerKinds

export const isIssuerKind = (kind: unknown): kind is IssuerKind =>
  typeof kind === 'string' && Object.hasOwn(issuerKinds, kind)

/**
 * The objects of Kubernetes that the controllers read and write, as JSON has them: of each no more than what we look at.
 * The types of the client library turn times into dates and octets into text on their way, and so cannot be sent back as
 * they came.
 */

export interface Metadata {
  readonly name: string
  /** Empty where the kind belongs to the whole cluster. */
  readonly namespace?: string
  readonly uid: string
  readonly resourceVersion: string
  readonly generation?: number
  /** RFC 3339. */
  readonly creationTimestamp: string
  readonly deletionTimestamp?: string
  /** For whom it was made, the first alone. */
  readonly ownerReferences?: readonly { readonly apiVersion: string; readonly kind: string; readonly uid: string }[]
  readonly labels?: Readonly<Record<string, string>>
}

export interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: Metadata
}

export interface Condition {
  readonly type: string
  readonly status: 'True' | 'False' | 'Unknown'
  readonly reason?: string
  readonly message?: string
  readonly lastTransitionTime?: string
  readonly observedGeneration?: number
}

interface WithConditions {
  /** A new kind has `conditions: null`. */
  readonly status?: { readonly conditions?: readonly Condition[] | null } | undefined
}

/** Who has asked, as the API server or the webhook of cert-manager has written it down; nobody else can. */
export interface Requester {
  readonly username?: string
  readonly uid?: string
  readonly groups?: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

export interface CertificateRequest extends KubernetesObject {
  readonly spec: Requester & {
    /** PEM in base64. */
    readonly request: string
    /** As Go writes it: 24h0m0s. */
    readonly duration?: string
    readonly isCA?: boolean
    readonly usages?: readonly string[]
    readonly issuerRef: { readonly group?: string; readonly kind?: string; readonly name: string }
  }
  readonly status?: WithConditions['status'] & {
    readonly certificate?: string
    readonly ca?: string
    readonly failureTime?: string
  }
}

/** ChanceryIssuer and ChanceryClusterIssuer. */
export interface Issuer extends KubernetesObject {
  readonly spec: IssuerSpec
  readonly status?: WithConditions['status']
}

export interface IssuerSpec {
  /** `https://host:port`. */
  readonly url: string
  /** PEM in base64; what is trusted otherwise, the settings say. */
  readonly caBundle?: string
  readonly profile: string
  /** Whose certificates they must be; whichever the profile names otherwise. */
  readonly authority?: string
  readonly auth: {
    readonly serviceAccount?: { readonly audiences: readonly string[] }
    readonly tokenSecretRef?: { readonly name: string; readonly key?: string }
  }
  /** Whether Chancery is told who has asked; it is, unless this says no. */
  readonly onBehalfOf?: boolean
  /** Whether `status.ca` is written. */
  readonly includeCA?: boolean
}

export interface SigningRequest extends KubernetesObject {
  readonly spec: Requester & {
    /** PEM in base64. */
    readonly request: string
    readonly signerName: string
    readonly expirationSeconds?: number
    readonly usages: readonly string[]
  }
  readonly status?: WithConditions['status'] & { readonly certificate?: string }
}

export interface PodCertificateRequest extends KubernetesObject {
  readonly spec: {
    readonly signerName: string
    readonly podName: string
    readonly podUID: string
    readonly serviceAccountName: string
    readonly serviceAccountUID: string
    readonly nodeName: string
    readonly nodeUID: string
    readonly maxExpirationSeconds?: number
    /** DER in base64. Kubelets before 1.36 send a key and a proof in its place. */
    readonly stubPKCS10Request?: string | null
    readonly unverifiedUserAnnotations?: Readonly<Record<string, string>>
  }
  readonly status?: WithConditions['status'] & { readonly certificateChain?: string }
}

export interface Node extends KubernetesObject {
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] }
}

export const conditionOf = ({ status }: WithConditions, type: string): Condition | undefined =>
  status?.conditions?.find((condition) => condition.type === type)

/** Whether this condition is True. */
export const isTrue = (object: WithConditions, type: string): boolean => conditionOf(object, type)?.status === 'True'

/** What is held of an object in memory: all but what only the API server needs. */
export const keepMetadata = (metadata: Metadata): Metadata => {
  const { annotations: _, managedFields: __, ...kept } = metadata as Metadata & Readonly<Record<string, unknown>>
  return kept as unknown as Metadata
}

/** The name in its kind: `namespace/name`, or the name. */
export const keyOf = ({ namespace, name }: Pick<Metadata, 'namespace' | 'name'>): string =>
  namespace === undefined ? name : `${namespace}/${name}`

/** Why nothing can be asked through it, after its name; undefined where it is ready. */
export const unready = (issuer: Issuer | undefined): string | undefined => {
  if (issuer === undefined) return 'does not exist'
  const ready = conditionOf(issuer, 'Ready')
  // Convention 12: what was said of an older spec says nothing of this one.
  const isCurrent = (ready?.observedGeneration ?? 0) >= (issuer.metadata.generation ?? 0)
  if (ready === undefined || !isCurrent || ready.status === 'Unknown') return 'has not been checked yet'
  return ready.status === 'True' ? undefined : 'is not ready'
}

export const isReady = (issuer: Issuer | undefined): issuer is Issuer => unready(issuer) === undefined

/**
 * The settings of the controller: one YAML file, described here and nowhere else. docs/controller.md is made from it and
 * compared in the tests. A path is relative to the file. A `description` says what a value must be; a `$comment`, what it does.
 */
import { closed, type Static, Type } from '../lib/schema.ts'

const Name = Type.String({
  pattern: '^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$',
  maxLength: 253,
  description: '1 to 253 lower-case letters, digits, hyphens and dots, with a letter or digit at both ends',
})
const Path = Type.String({ minLength: 1, maxLength: 4_096, description: 'the path of a file' })
const Duration = Type.String({
  pattern: '^[1-9][0-9]{0,8}[smhd]$',
  maxLength: 10,
  description: 'a whole number with a unit: 30s, 5m, 24h or 7d',
})
/** Facts of a pod stand in it in braces. */
const Template = Type.String({
  pattern: '^([^{}\\s]|\\{(namespace|serviceAccount|pod|node)\\})+$',
  maxLength: 1_024,
  description: 'a name without spaces, of a pod by {namespace}, {serviceAccount}, {pod} and {node}',
})
const HttpsUrl = Type.String({
  pattern: '^https://[^/?#@\\s]+/?$',
  maxLength: 2_048,
  description: 'an https:// URL without a path',
})

const ServerDocument = Type.Object(
  {
    url: HttpsUrl,
    caFile: Type.Optional(Path),
    token: Type.Optional(
      Type.Object({ audience: Type.String({ minLength: 1, maxLength: 1_024 }), file: Path }, closed),
    ),
  },
  closed,
)

const SignerDocument = Type.Object(
  {
    name: Type.String({
      pattern: '^[a-z0-9.-]+\\.[a-z0-9.-]+/[A-Za-z0-9._:/-]+$',
      maxLength: 571,
      description: 'a domain and a path, like example.com/internal',
    }),
    issuer: Name,
    podNames: Type.Optional(
      Type.Object(
        {
          uri: Type.Optional(Type.Array(Template, { minItems: 1, maxItems: 10 })),
          dns: Type.Optional(Type.Array(Template, { minItems: 1, maxItems: 10 })),
        },
        { ...closed, minProperties: 1 },
      ),
    ),
  },
  closed,
)

export const ControllerDocument = Type.Object(
  {
    listen: Type.Optional(
      Type.String({
        pattern: '^(\\[[0-9a-fA-F:.]+\\]|[^\\s:[\\]]+):\\d{1,5}$',
        default: '0.0.0.0:8081',
        description: 'an address and a port, like 0.0.0.0:8081 or [::]:8081',
        $comment:
          'Where `/livez`, `/readyz` and `/metrics` are: plain HTTP, for the kubelet and for whoever collects metrics. They tell numbers and names of signers, and take nothing.',
      }),
    ),
    log: Type.Optional(
      Type.Enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal'], {
        default: 'info',
        $comment: 'From which level on lines are written.',
      }),
    ),
    kubeconfig: Type.Optional({
      ...Path,
      $comment:
        'How to reach the API server, for a controller outside of the cluster; the service account of the pod when unset.',
    }),
    namespace: Type.Optional({
      ...Name,
      $comment: 'Where its Lease is; the namespace of the pod, or of the context, when unset.',
    }),
    lease: Type.Optional({
      ...Name,
      default: 'chancery-controller',
      $comment: 'The name of the Lease. Instances that share it take turns; two controllers with two of them do not.',
    }),
    secretNamespace: Type.Optional({
      ...Name,
      $comment:
        'Where the Secrets are that a ChanceryClusterIssuer names: the cluster resource namespace. `namespace` when unset; say another where that has the keys of a CA, since a right to read Secrets is for all of a namespace. Those of a ChanceryIssuer are always in its own.',
    }),
    certManager: Type.Optional(
      Type.Boolean({
        default: true,
        $comment:
          'Whether CertificateRequests of cert-manager are served. `false` where cert-manager is not installed.',
      }),
    ),
    signers: Type.Optional(
      Type.Array(SignerDocument, {
        maxItems: 256,
        default: [],
        $comment:
          'Which signers of CertificateSigningRequests we are: each has a `name`, such as `example.com/internal`, and the ChanceryClusterIssuer (`issuer`) whose profile it signs by. Those of kubernetes.io follow the rules of Kubernetes, too; the cluster’s own controller must leave them to us.',
      }),
    ),
    approveKubeletServing: Type.Optional(
      Type.Boolean({
        default: false,
        $comment:
          'Whether requests for `kubernetes.io/kubelet-serving` are approved when a node asks for itself, and for nothing but what its Node object says of it. Whatever differs is left to people. Client certificates are never approved.',
      }),
    ),
    podCertificates: Type.Optional(
      Type.Boolean({
        default: false,
        $comment:
          'Whether PodCertificateRequests are served, for those of the `signers` that have `podNames`, and where the API server has them (certificates.k8s.io/v1beta1, Kubernetes 1.36). Their names are made of what the API server has verified: `podNames` has templates with `{namespace}`, `{serviceAccount}`, `{pod}` and `{node}`, for `uri` and `dns`, such as `uri: ["spiffe://cluster.local/ns/{namespace}/sa/{serviceAccount}"]`. A name with `{serviceAccount}` or `{pod}` tells its namespace as well: a slash parts `{namespace}` from the others, or a dot where all of them are on one side of it. One with neither is for every pod there is, or every one of a node: of which namespaces, the profile must say (`origin`).',
      }),
    ),
    servers: Type.Optional(
      Type.Array(ServerDocument, {
        maxItems: 64,
        default: [],
        $comment:
          'What goes with a `url` of Chancery, whichever issuer names it. `caFile`: what is trusted there where the issuer has no `caBundle`. `token`: the file with a token of the controller’s own service account (a projected volume) and its `audience`. An issuer with `auth.serviceAccount` is followed only to a server that has one here: else whoever may make issuers could have the controller show its token to a server of theirs. Where any are named, issuers are followed to no others, by whatever token.',
      }),
    ),
    recheck: Type.Optional({
      ...Duration,
      default: '5m',
      $comment:
        'How often an issuer that is ready is looked at again, every `7d` at least; one that is not is tried every few seconds, at last every minute.',
    }),
    retryFor: Type.Optional({
      ...Duration,
      $comment:
        'For how long after its creation a request is tried again before it fails for good. When unset it is tried for ever, which is what you want: cert-manager gives a failed request a pause of an hour and more, and a pending one is issued as soon as Chancery is back.',
    }),
    concurrency: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 256,
        default: 16,
        description: 'a whole number within 1 and 256',
        $comment: 'How many requests are under way at Chancery at a time, of each kind.',
      }),
    ),
  },
  closed,
)

export type ControllerDocument = Static<typeof ControllerDocument>
export type ServerSettings = Static<typeof ServerDocument>
export type SignerSettings = Static<typeof SignerDocument>

/** What a controller runs by: nothing is left open, durations are seconds, paths are absolute. */
export interface ControllerSettings {
  readonly listen: { readonly host: string; readonly port: number }
  readonly namespace: string
  readonly lease: string
  readonly secretNamespace: string
  readonly certManager: boolean
  readonly signers: readonly SignerSettings[]
  readonly approveKubeletServing: boolean
  readonly podCertificates: boolean
  readonly servers: readonly ServerSettings[]
  readonly recheck: number
  readonly retryFor: number | undefined
  readonly concurrency: number
}

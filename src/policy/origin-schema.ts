/** On whose behalf a request is made, as it is written and sent. What the shapes cannot say is in origin.ts. */
import { closed, type DeepReadonly, type Static, Type } from '../lib/schema.ts'

const text = (maxLength: number, description: string) => Type.String({ minLength: 1, maxLength, description })
const maybe = (maxLength: number, description: string) => Type.Optional(text(maxLength, description))

const OriginObject = Type.Object(
  {
    apiVersion: text(320, 'group and version, like cert-manager.io/v1'),
    kind: text(63, 'like CertificateRequest'),
    name: text(253, 'its name'),
    uid: maybe(128, 'its UID: names come back'),
  },
  { ...closed, description: 'the object that asks, in the namespace of the origin if it lies in one' },
)

export const OriginSchema = Type.Object(
  {
    user: maybe(512, 'the user, as the API server of the cluster has authenticated it'),
    uid: maybe(128, 'what tells this user from others of the name'),
    groups: Type.Optional(
      Type.Array(text(256, '1 to 256 characters'), { maxItems: 256, description: 'of this user; none twice' }),
    ),
    extra: Type.Optional(
      Type.Record(Type.String(), Type.Array(Type.String({ maxLength: 1024 }), { maxItems: 32 }), {
        maxProperties: 32,
        description: 'what else is known of this user',
      }),
    ),
    namespace: maybe(63, 'a DNS label: where the object lies, or the service account'),
    object: Type.Optional(OriginObject),
    serviceAccount: maybe(253, 'of a pod that is to have the certificate'),
    serviceAccountUid: maybe(128, 'its UID'),
    pod: maybe(253, 'that is to have the certificate'),
    podUid: maybe(128, 'its UID'),
    node: maybe(253, 'on which it runs'),
    nodeUid: maybe(128, 'its UID'),
  },
  { ...closed, minProperties: 1, description: 'on whose behalf' },
)

const Pattern = text(512, 'a glob: `*` for one or more characters other than a colon, `**` for one or more of any')
const Patterns = Type.Array(Pattern, { minItems: 1, maxItems: 100, description: 'a list of 1 to 100 patterns' })
const AllowDeny = Type.Object(
  { allow: Type.Optional(Patterns), deny: Type.Optional(Patterns) },
  { ...closed, minProperties: 1, description: 'an object with allow, deny or both' },
)

/** Which origins: of a profile as `origin`, of a grant as `onBehalfOf`. */
export const OriginRulesSchema = Type.Object(
  {
    required: Type.Optional(Type.Boolean({ description: 'true: a request without an origin is refused' })),
    namespaces: Type.Optional(AllowDeny),
    users: Type.Optional(AllowDeny),
    groups: Type.Optional(
      Type.Object(
        { require: Type.Optional(Patterns), deny: Type.Optional(Patterns) },
        {
          ...closed,
          minProperties: 1,
          description: 'an object with require (one of its groups matches), deny or both',
        },
      ),
    ),
  },
  { ...closed, description: 'rules of origins' },
)

export type Origin = DeepReadonly<Static<typeof OriginSchema>>
export type OriginRules = DeepReadonly<Static<typeof OriginRulesSchema>>

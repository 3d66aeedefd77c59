/** What of the document of an identity provider can be judged by its sense, as of a profile's: each part whose own shape is sound. */
import { isObject } from '../canonical.ts'
import {
  ClaimValueSchema,
  type MappingDocument,
  type ProviderDocument,
  ProviderDocumentSchema,
} from './identity-document.ts'
import { soundItems, soundMembers, valueAt } from './shape.ts'

type Grant = NonNullable<MappingDocument['grants']>[number]

export type SoundMapping = Partial<Pick<MappingDocument, 'id' | 'principal'>> &
  Pick<MappingDocument, 'claims'> & {
    readonly grants: readonly {
      readonly names: NonNullable<Grant['names']>
      readonly onBehalfOf?: Grant['onBehalfOf']
    }[]
  }

export type SoundProvider = Partial<Omit<ProviderDocument, 'keys' | 'mappings'>> & {
  readonly keys: Pick<ProviderDocument['keys'], 'ca'> & {
    readonly static: ProviderDocument['keys']['static'] | undefined
  }
  /** What is written of keys, sound or not: a way to them that is there in a bad shape is not missing besides. */
  readonly written: readonly string[] | undefined
  readonly mappings: readonly SoundMapping[]
}

export const soundPartsOfProvider = (input: unknown): SoundProvider => {
  const keys = valueAt(input, '/keys')
  return {
    ...(soundMembers(parts, input) as Partial<ProviderDocument>),
    keys: {
      ...(soundMembers(parts.keys.properties, keys) as Pick<ProviderDocument['keys'], 'ca'>),
      static: soundItems(parts.keys.properties.static, valueAt(keys, '/static')) as ProviderDocument['keys']['static'],
    },
    written: isObject(keys) ? Object.keys(keys).filter((key) => keys[key] !== undefined) : undefined,
    mappings: itemsAt(input, '/mappings', parts.mappings).map(soundMapping),
  }
}

const soundMapping = (input: unknown): SoundMapping => ({
  ...soundMembers(mapping, input),
  claims: soundClaims(valueAt(input, '/claims')),
  grants: itemsAt(input, '/grants', mapping.grants).map((given) => ({
    ...soundMembers(grant, given),
    names: soundMembers(grant.names.properties, valueAt(given, '/names')),
  })),
})

const soundClaims = (claims: unknown): MappingDocument['claims'] =>
  isObject(claims)
    ? (soundMembers(
        Object.fromEntries(Object.keys(claims).map((name) => [name, ClaimValueSchema])),
        claims,
      ) as MappingDocument['claims'])
    : {}

/** As many as there may be. */
const itemsAt = (input: unknown, path: string, schema: object): readonly unknown[] => {
  const list = valueAt(input, path)
  return Array.isArray(list) ? list.slice(0, Number((schema as { readonly maxItems?: number }).maxItems)) : []
}

const parts = ProviderDocumentSchema.properties
const mapping = parts.mappings.items.properties
const grant = mapping.grants.items.properties

/** What of the document of an identity provider can be judged by its sense, as of a profile's: each part whose own shape is sound. */
import { isObject } from '../lib/canonical-json.ts'
import {
  ClaimValueSchema,
  type MappingDocument,
  type ProviderDocument,
  ProviderDocumentSchema,
} from './identity-document.ts'
import { type KindRules, type RuledKind, ruledKinds } from './names.ts'
import { soundItems, soundMembers, valueAt } from './shape.ts'

type Grant = NonNullable<MappingDocument['grants']>[number]

export type SoundMapping = Partial<Pick<MappingDocument, 'id' | 'principal'>> &
  Pick<MappingDocument, 'claims'> & {
    readonly grants: readonly {
      readonly names: Readonly<Partial<Record<RuledKind, Partial<KindRules>>>>
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
    ...(soundMembers(others, input) as Partial<Omit<ProviderDocument, 'keys' | 'mappings'>>),
    keys: {
      ...(soundMembers({ ca: ofKeys.ca }, keys) as Pick<ProviderDocument['keys'], 'ca'>),
      static: soundItems(ofKeys.static, valueAt(keys, '/static')) as ProviderDocument['keys']['static'],
    },
    written: isObject(keys) ? Object.keys(keys).filter((key) => keys[key] !== undefined) : undefined,
    mappings: itemsAt(input, '/mappings', mappings).map(soundMapping),
  }
}

const soundMapping = (input: unknown): SoundMapping => ({
  ...soundMembers({ id: ofMapping.id, principal: ofMapping.principal }, input),
  claims: soundClaims(valueAt(input, '/claims')),
  grants: itemsAt(input, '/grants', ofMapping.grants).map((given) => ({
    ...soundMembers({ onBehalfOf: ofGrant.onBehalfOf }, given),
    names: soundNameRules(valueAt(given, '/names')),
  })),
})

const soundNameRules = (names: unknown): SoundMapping['grants'][number]['names'] =>
  Object.fromEntries(
    ruledKinds.map((kind) => [
      kind,
      soundMembers(ofGrant.names.properties[kind].properties, valueAt(names, `/${kind}`)),
    ]),
  )

const soundClaims = (claims: unknown): MappingDocument['claims'] => {
  if (!isObject(claims)) return {}
  const names = Object.keys(claims).slice(0, mostClaims)
  const schemas = Object.fromEntries(names.map((name) => [name, ClaimValueSchema]))
  return soundMembers(schemas, claims) as MappingDocument['claims']
}

/** As many as there may be. */
const itemsAt = (input: unknown, path: string, schema: object): readonly unknown[] => {
  const list = valueAt(input, path)
  return Array.isArray(list) ? list.slice(0, Number((schema as { readonly maxItems?: number }).maxItems)) : []
}

const { keys: schemaOfKeys, mappings, ...others } = ProviderDocumentSchema.properties
const ofKeys = schemaOfKeys.properties
const ofMapping = mappings.items.properties
const ofGrant = ofMapping.grants.items.properties
const mostClaims = Number((ofMapping.claims as { readonly maxProperties?: number }).maxProperties)

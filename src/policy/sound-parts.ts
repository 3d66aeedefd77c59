/** What of a profile document can be judged by its sense: each part whose own shape is sound, whatever is wrong with the others. */
import { isObject } from '../lib/canonical-json.ts'
import { type NameKind, nameKinds } from '../x509/names.ts'
import { type ProfileDocument, ProfileDocumentSchema } from './document.ts'
import { soundItems, soundMembers, valueAt } from './shape.ts'

type Names = NonNullable<ProfileDocument['names']>
type NameRules = Partial<NonNullable<Names['dns']>>

export type Sound = Partial<Omit<ProfileDocument, 'validity' | 'subject' | 'names'>> & {
  readonly validity: Partial<ProfileDocument['validity']>
  readonly subject: Partial<ProfileDocument['subject']>
  readonly names: Pick<Names, 'max' | 'require'> & Readonly<Partial<Record<NameKind, NameRules>>>
  /** What has rules at all, sound or not: a rule that is there in a bad shape is not missing besides. */
  readonly ruled: ReadonlySet<string>
}

export const soundPartsOf = (input: unknown): Sound => {
  const written = (path: string): readonly string[] => {
    const part = valueAt(input, path)
    return isObject(part) ? Object.keys(part) : []
  }
  return {
    ...(soundMembers(parts, input) as Partial<ProfileDocument>),
    ...soundLists(input),
    validity: soundMembers(parts.validity.properties, valueAt(input, '/validity')),
    subject: soundMembers(parts.subject.properties, valueAt(input, '/subject')),
    names: { ...(soundMembers(parts.names.properties, valueAt(input, '/names')) as Names), ...soundNameRules(input) },
    ruled: new Set([...written('/subject'), ...written('/names')]),
  }
}

/** An entry that is not sound leaves a hole: the others keep their places, and are judged. */
const soundLists = (input: unknown): Partial<ProfileDocument> =>
  Object.fromEntries(lists.map((list) => [list, soundItems(parts[list], valueAt(input, `/${list}`))]))

const soundNameRules = (input: unknown): Partial<Record<NameKind, NameRules>> =>
  Object.fromEntries(
    nameKinds
      .filter((kind) => isObject(valueAt(input, `/names/${kind}`)))
      .map((kind) => [kind, soundMembers(parts.names.properties[kind].properties, valueAt(input, `/names/${kind}`))]),
  )

const parts = ProfileDocumentSchema.properties
/** Whose entries say what they say by themselves. */
const lists = ['keys', 'extendedKeyUsage', 'bind', 'rules'] as const

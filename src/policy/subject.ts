/** The subject that a profile composes: what it fixes, and what it takes from the request. */
import type { Attribute, AttributeType, Subject } from '../x509/subject.ts'

/** Order of the attributes in a composed subject: the widest first, as directories name them. */
export const attributeTypes = [
  'domainComponent',
  'country',
  'province',
  'locality',
  'streetAddress',
  'postalCode',
  'organization',
  'organizationalUnit',
  'title',
  'givenName',
  'surname',
  'userId',
  'commonName',
  'serialNumber',
  'emailAddress',
] as const satisfies readonly AttributeType[]

/** The group that Kubernetes lets past every authorizer. */
export const systemMasters = 'system:masters'

/** A glob over a text: `*` stands for one or more characters other than a colon, `**` for one or more of any. */
export interface TextPattern {
  readonly text: string
  matches(value: string): boolean
}

/** What a profile says about one type of attribute. */
export interface AttributeRule {
  readonly type: AttributeType
  /** Exactly these values, whatever the request says; undefined: they come from the request. */
  readonly fixed?: readonly string[]
  /** Values from the request match one of these; undefined (commonName only): they are among the names. */
  readonly match?: readonly TextPattern[]
  /** With `match`: a value that is among the names is accepted too. */
  readonly orName: boolean
  readonly required: boolean
  readonly max: number
}

/** Reads a glob; a string says what is wrong with it. At most one wildcard, so that matching needs no search. */
export const readTextPattern = (text: string): TextPattern | string => {
  if (!isText(text)) return 'has a NUL, or half of a character'
  const first = text.indexOf('*')
  if (first === -1) return { text, matches: (value) => value === text }
  const anything = text.startsWith('**', first)
  const before = text.slice(0, first)
  const after = text.slice(first + (anything ? 2 : 1))
  if (after.includes('*')) return 'has more than one wildcard'
  return {
    text,
    matches: (value) =>
      value.length > before.length + after.length &&
      value.startsWith(before) &&
      value.endsWith(after) &&
      (anything || !value.slice(before.length, value.length - after.length).includes(':')),
  }
}

/** Of one that is known to be good; a bad one throws TypeError. */
export const compileTextPattern = (text: string): TextPattern => {
  const pattern = readTextPattern(text)
  if (typeof pattern === 'string') throw new TypeError(`the pattern ${text} ${pattern}`)
  return pattern
}

/** Whether it can be kept: PostgreSQL's text holds no NUL, and UTF-8 no lone surrogate. */
export const isText = (text: string): boolean => !text.includes('\0') && text.isWellFormed()

export const valuesOf = (subject: Subject, type: AttributeType): readonly string[] => {
  const values: string[] = []
  for (const attribute of subject) if (attribute.type === type) values.push(attribute.value)
  return values
}

/** The subject by the rules alone: fixed values, and what was asked for where a rule takes it from the request. */
export const composeSubject = (rules: readonly AttributeRule[], asked: Subject): Subject => {
  const subject: Attribute[] = []
  for (const { type, fixed } of rules) {
    if (fixed === undefined) for (const attribute of asked) if (attribute.type === type) subject.push(attribute)
    if (fixed !== undefined) for (const value of fixed) subject.push({ type, value })
  }
  return subject
}

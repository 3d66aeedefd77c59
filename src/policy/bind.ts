/**
 * Bindings: names tied to each other, to the caller and to the origin. Values are compared literally, octet by octet;
 * nothing that was asked for or that names a caller ever acts as a pattern (incident 26).
 *
 *     { id, names: <which>, <how>: { of: <source>, after?: <prefix> }, when?: origin }
 *     { id, names: <which>, matches: <pattern with sources in braces>, when?: origin }
 *
 * which   commonName, dns, ip, uri, email: every name of that kind must be tied
 * how     equals          the name is the value
 *         firstLabel      the left-most DNS label is the value
 *         leadingLabels   the DNS name is the value, or begins with it and a dot
 *         matches         the name matches one of these patterns, in which each source stands for its value
 * source  commonName, principal, origin.<fact>; `after`: the value is what follows this prefix, and it must be there
 * when    origin: names are tied where the request has an origin only
 */
import { readTemplate, type Template } from './claims.ts'
import { type BindingDocument, listOf, type SourceDocument } from './document.ts'
import { readNameTemplate } from './identity-templates.ts'
import { type NameParts, type RuledKind, readPattern } from './names.ts'
import { factOf, type Origin, originFacts } from './origin.ts'
import { readTextPattern } from './subject.ts'

/** What a source may be taken from. */
export interface Sources {
  readonly commonName: string | undefined
  readonly principal: string
  readonly origin: Origin | undefined
}

export interface Binding {
  readonly id: string
  readonly check: string
  readonly names: RuledKind
  /** Ties nothing of a request without an origin. */
  readonly onlyWithOrigin: boolean
  /** As a reason says it. */
  readonly tie: string
  /** What names are tied to; undefined where a source has no value, and then nothing is tied. */
  read(sources: Sources): Tied | undefined
}

export interface Tied {
  readonly value: string
  /** `parts` of the name, unless it is a common name. */
  holds(name: string, parts: NameParts | undefined): boolean
}

const valueMethods = ['equals', 'firstLabel', 'leadingLabels'] as const
type ValueMethod = (typeof valueMethods)[number]
const bindingMethods = [...valueMethods, 'matches'] as const
export type BindingMethod = (typeof bindingMethods)[number]

/** The methods that a binding document names; exactly one in a good one. */
export const methodsOf = (document: BindingDocument): readonly BindingMethod[] =>
  bindingMethods.filter((method) => document[method] !== undefined)

/** Compiles a binding that has exactly one method. */
export const compileBinding = (document: BindingDocument): Binding => {
  const { id, names, matches, when } = document
  return {
    id,
    check: `bind.${id}`,
    names,
    onlyWithOrigin: when === 'origin',
    ...(matches === undefined ? valueBinding(document) : patternBinding(names, listOf(matches))),
  }
}

type Tying = Pick<Binding, 'tie' | 'read'>

const valueBinding = (document: BindingDocument): Tying => {
  const method = valueMethods.find((candidate) => document[candidate] !== undefined)
  const source = method === undefined ? undefined : document[method]
  if (method === undefined || source === undefined) throw new TypeError(`the binding ${document.id} ties nothing`)
  const after = source.after ?? ''
  const read = readerOf(source.of)
  const holds = methods[method]
  return {
    tie: `${phrases[method]} ${source.of}${after === '' ? '' : ` after ${after}`}`,
    read: (sources) => {
      const value = read(sources)
      if (value === undefined || !value.startsWith(after) || value.length === after.length) return undefined
      const rest = value.slice(after.length)
      return rest.includes('*') ? undefined : { value: rest, holds: (name) => holds(name, rest) }
    },
  }
}

const readerOf = (of: SourceDocument['of']): ((sources: Sources) => string | undefined) => {
  if (of === 'commonName') return (sources) => sources.commonName
  if (of === 'principal') return (sources) => sources.principal
  const fact = of.slice('origin.'.length)
  return ({ origin }) => factOf(origin, fact)
}

// Patterns with sources ---------------------------------------------------------------------------------------------------

/** A pattern with sources in braces. A string says what is wrong with it. */
export const readBindingTemplate = (names: Binding['names'], text: string): Template | string => {
  const template =
    names === 'commonName'
      ? readTemplate(text, (value) => /^[^*{}]+$/.test(value), 'source')
      : readNameTemplate(names, text, 'source')
  if (typeof template === 'string') return template
  if (template.claims.length === 0) return 'has no source in braces, like {origin.namespace}, and ties nothing'
  const stranger = template.claims.find((source) => !isSource(source))
  if (stranger !== undefined) return `has {${stranger}}, which is none of ${knownSources.join(', ')}`
  if (names !== 'commonName') return template
  if (template.claims.includes('commonName')) return 'is tied to itself'
  const pattern = readTextPattern(template.fill(() => 'x') ?? '')
  return typeof pattern === 'string' ? pattern : template
}

const knownSources: readonly string[] = ['commonName', 'principal', ...originFacts.map((fact) => `origin.${fact}`)]
const isSource = (text: string): boolean => knownSources.includes(text)

const patternBinding = (names: Binding['names'], texts: readonly string[]): Tying => {
  const templates = texts.map((text) => {
    const template = readBindingTemplate(names, text)
    if (typeof template === 'string') throw new TypeError(`the pattern ${text} ${template}`)
    return template
  })
  return {
    tie: `within ${texts.join(' or ')}`,
    read: (sources) => {
      const filled = templates.flatMap((template) => {
        const text = template.fill((source) => readerOf(source)(sources))
        const matches = text === undefined ? undefined : matcherOf(names, text)
        return text === undefined || matches === undefined ? [] : [{ text, matches }]
      })
      if (filled.length === 0) return undefined
      return {
        value: filled.map(({ text }) => text).join(', '),
        holds: (name, parts) => filled.some(({ matches }) => matches(name, parts)),
      }
    },
  }
}

/** Undefined where what came of it is no pattern: too long, say. */
const matcherOf = (names: Binding['names'], text: string): Tied['holds'] | undefined => {
  if (names === 'commonName') {
    const pattern = readTextPattern(text)
    return typeof pattern === 'string' ? undefined : (name) => pattern.matches(name)
  }
  const pattern = readPattern(names, text)
  return typeof pattern === 'string' ? undefined : (_name, parts) => parts !== undefined && pattern.covers(parts)
}

// Values ------------------------------------------------------------------------------------------------------------------

const methods: Readonly<Record<ValueMethod, (name: string, value: string) => boolean>> = {
  equals: (name, value) => name === value,
  firstLabel: (name, value) => !value.includes('.') && (name === value || name.startsWith(`${value}.`)),
  leadingLabels: (name, value) => name === value || name.startsWith(`${value}.`),
}

const phrases: Readonly<Record<ValueMethod, string>> = {
  equals: 'equal to',
  firstLabel: 'with a first label equal to',
  leadingLabels: 'equal to, or below the labels of,',
}

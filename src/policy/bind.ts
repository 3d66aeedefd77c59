/**
 * Bindings: names tied to each other and to the caller. Values are compared literally, octet by octet; nothing that was
 * asked for or that names a caller ever acts as a pattern (incident 26).
 *
 *     { id, names: <which>, <how>: { of: <source>, after?: <prefix> } }
 *
 * which   commonName, dns, ip, uri, email: every name of that kind must be tied
 * how     equals          the name is the value
 *         firstLabel      the left-most DNS label is the value
 *         leadingLabels   the DNS name is the value, or begins with it and a dot
 * source  commonName, principal, origin.<fact>; `after`: the value is what follows this prefix, and it must be there
 */
import type { NameKind } from '../x509/names.ts'
import type { BindingDocument, SourceDocument } from './document.ts'

/** What a source may be taken from. */
export interface Sources {
  readonly commonName: string | undefined
  readonly principal: string
  readonly origin: Readonly<Record<string, string>> | undefined
}

export interface Binding {
  readonly id: string
  readonly check: string
  readonly names: NameKind | 'commonName'
  /** As a reason says it. */
  readonly tie: string
  /** The value that names are tied to; undefined where the source has none, and then nothing is tied. */
  read(sources: Sources): string | undefined
  holds(name: string, value: string): boolean
}

export const bindingMethods = ['equals', 'firstLabel', 'leadingLabels'] as const
export type BindingMethod = (typeof bindingMethods)[number]

/** The methods that a binding document names; exactly one in a good one. */
export const methodsOf = (document: BindingDocument): readonly BindingMethod[] =>
  bindingMethods.filter((method) => document[method] !== undefined)

/** Compiles a binding that has exactly one method. */
export const compileBinding = (document: BindingDocument): Binding => {
  const [method] = methodsOf(document)
  const source = method === undefined ? undefined : document[method]
  if (method === undefined || source === undefined) throw new TypeError(`the binding ${document.id} ties nothing`)
  const after = source.after ?? ''
  const read = readers(source)
  return {
    id: document.id,
    check: `bind.${document.id}`,
    names: document.names,
    tie: `${phrases[method]} ${source.of}${after === '' ? '' : ` after ${after}`}`,
    read: (sources) => {
      const value = read(sources)
      if (value === undefined || !value.startsWith(after) || value.length === after.length) return undefined
      const rest = value.slice(after.length)
      return rest.includes('*') ? undefined : rest
    },
    holds: methods[method],
  }
}

const readers = ({ of }: SourceDocument): ((sources: Sources) => string | undefined) => {
  if (of === 'commonName') return (sources) => sources.commonName
  if (of === 'principal') return (sources) => sources.principal
  const fact = of.slice('origin.'.length)
  return ({ origin }) => (origin !== undefined && Object.hasOwn(origin, fact) ? origin[fact] : undefined)
}

const methods: Readonly<Record<BindingMethod, (name: string, value: string) => boolean>> = {
  equals: (name, value) => name === value,
  firstLabel: (name, value) => !value.includes('.') && (name === value || name.startsWith(`${value}.`)),
  leadingLabels: (name, value) => name === value || name.startsWith(`${value}.`),
}

const phrases: Readonly<Record<BindingMethod, string>> = {
  equals: 'equal to',
  firstLabel: 'with a first label equal to',
  leadingLabels: 'equal to, or below the labels of,',
}

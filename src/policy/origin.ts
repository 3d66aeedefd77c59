/**
 * On whose behalf a request is made: what a controller says of the user, namespace and object in its cluster. It is
 * believed of those alone whose grant says so, and what it says never acts as a pattern.
 */
import { Problem, type Violation } from '../errors.ts'
import { pointer, show } from './names.ts'
import type { Origin } from './origin-schema.ts'

export type { Origin, OriginRules } from './origin-schema.ts'

/** The texts that bindings may be tied to, as `origin.<fact>`. */
export const originFacts = [
  'user',
  'uid',
  'namespace',
  'serviceAccount',
  'serviceAccountUid',
  'pod',
  'podUid',
  'node',
  'nodeUid',
] as const satisfies readonly (keyof Origin)[]

/** Undefined where there is no such text: a list of groups is none. */
export const factOf = (origin: Origin | undefined, fact: string): string | undefined => {
  if (origin === undefined || !Object.hasOwn(origin, fact)) return undefined
  const value: unknown = origin[fact as keyof Origin]
  return typeof value === 'string' ? value : undefined
}

/** The same, if every text in it can be what it says to be and all of it is small. Throws `origin.malformed` otherwise. */
export const readOrigin = (origin: Origin): Origin => {
  const faults: Violation[] = []
  for (const find of senses)
    find(origin, (field, value, reason) =>
      faults.push({ check: 'origin.form', field: `${originField}${field}`, value: show(value), reason }),
    )
  if (faults.length === 0) return origin
  throw new Problem('origin.malformed', 'What is said of on whose behalf this is asked cannot be.', {
    violations: faults.slice(0, mostTold),
  })
}

type Report = (field: string, value: string, reason: string) => void
type Sense = (origin: Origin, report: Report) => void

const textFaults: Sense = (origin, report) => {
  eachText(origin, '', (text, field) => {
    if (unprintable.test(text)) report(field, text, 'has control characters, or half of a character')
  })
}

/** Of JSON: what it holds is texts, lists and objects. */
const eachText = (value: unknown, field: string, visit: (text: string, field: string) => void): void => {
  if (typeof value === 'string') return visit(value, field)
  if (typeof value !== 'object' || value === null) return
  for (const [name, member] of Object.entries(value)) eachText(member, `${field}/${pointer(name)}`, visit)
}

const formFaults: Sense = (origin, report) => {
  for (const [fact, { pattern, reason }] of Object.entries(forms)) {
    const value = factOf(origin, fact)
    if (value !== undefined && !pattern.test(value)) report(`/${fact}`, value, reason)
  }
  const { object } = origin
  if (object && !apiVersion.test(object.apiVersion))
    report('/object/apiVersion', object.apiVersion, 'is no group and version, like cert-manager.io/v1')
  if (object && !kind.test(object.kind)) report('/object/kind', object.kind, 'is no kind, like CertificateRequest')
}

const groupFaults: Sense = ({ groups = [] }, report) => {
  const seen = new Set<string>()
  groups.forEach((group, i) => {
    if (seen.has(group)) report(`/groups/${i}`, group, 'occurs twice')
    seen.add(group)
  })
}

const extraFaults: Sense = ({ extra = {} }, report) => {
  for (const name of Object.keys(extra))
    if (!extraName.test(name)) report(`/extra/${pointer(name)}`, name, 'is no name: 1 to 256 visible ASCII characters')
}

/** What means nothing without the other, by the facts that it needs. */
const needs: readonly (readonly [string, string])[] = [
  ['uid', 'user'],
  ['serviceAccount', 'namespace'],
  ['serviceAccountUid', 'serviceAccount'],
  ['pod', 'namespace'],
  ['podUid', 'pod'],
  ['nodeUid', 'node'],
]

const needFaults: Sense = (origin, report) => {
  if (origin.user === undefined && origin.serviceAccount === undefined)
    report('', '', 'names nobody: it needs a user or a serviceAccount')
  for (const [fact, other] of needs) {
    const value = factOf(origin, fact)
    if (value !== undefined && factOf(origin, other) === undefined) report(`/${fact}`, value, `needs a ${other}`)
  }
}

/** All of it stands in the entry of its certificate, for ever. */
const sizeFaults: Sense = (origin, report) => {
  // Half of a character, which has no text, is told already.
  const octets = Buffer.byteLength(JSON.stringify(origin))
  if (octets > maxOctets) report('', '', `takes ${octets} octets of JSON; at most ${maxOctets} are allowed`)
}

const senses: readonly Sense[] = [needFaults, textFaults, formFaults, groupFaults, extraFaults, sizeFaults]

/** Where a request has it, as a JSON pointer. */
export const originField = '/onBehalfOf'

const label = { pattern: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, reason: 'is no DNS label in lower case' }
const subdomain = {
  pattern: /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/,
  reason: 'is no DNS name in lower case',
}
const forms = { namespace: label, serviceAccount: subdomain, pod: subdomain, node: subdomain } as const
const apiVersion = /^([a-z0-9]([a-z0-9.-]*[a-z0-9])?\/)?v[0-9][a-z0-9]{0,30}$/
const kind = /^[A-Z][A-Za-z0-9]*$/
const extraName = /^[\x21-\x7e]{1,256}$/
/** Controls (C0, DEL, C1), the separators of lines and paragraphs, and lone surrogates. */
const unprintable = /[\p{Cc}\p{Cs}\u2028\u2029]/u
/** Of JSON: an entry holds it beside the certificate (tlog/entries.ts). */
const maxOctets = 8_192
const mostTold = 20

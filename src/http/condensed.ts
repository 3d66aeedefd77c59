/** The description, written so that it is short: what has a name, or is said by several calls, is said once. */
import type { ProblemCode } from '../errors.ts'
import { formNumbers } from './api/schemas.ts'
import { problemType } from './problem.ts'

/** Paths in order; each shape that has a name, and each answer that several calls give in the same words, written once. */
export const condensed = <T extends object>(document: T): T => {
  const { paths = {}, components = {} } = hoisted(document as Description)
  const uses = new Map<string, number>()
  const answers = Object.values(paths).flatMap((path) => Object.values(path).map(({ responses }) => responses))
  for (const answer of answers.flatMap(Object.values)) uses.set(nameOf(answer), (uses.get(nameOf(answer)) ?? 0) + 1)
  const responses: Record<string, Answer> = {}
  for (const answer of answers) {
    for (const [status, response] of Object.entries(answer)) {
      const name = nameOf(response)
      if (name === '' || (uses.get(name) ?? 0) < 2) continue
      assertSame(name, responses[name] ?? response, response)
      responses[name] = response
      answer[status] = { $ref: `#/components/responses/${name}` }
    }
  }
  return { ...document, components: { ...components, responses: sorted(responses) }, paths: sorted(paths) }
}

const told = (paths: Paths): Paths => {
  for (const operation of Object.values(paths).flatMap((path) => Object.values(path)))
    if (operation.parameters) operation.parameters = operation.parameters.map(asValue).map(unsent)
  return paths
}

/**
 * Whatever stands in a query or a path is a text, and is judged as one; whoever makes types of the description has the number or
 * the truth value that it is, which every client writes as that text.
 */
const asValue = (parameter: Parameter): Parameter => {
  const { pattern = '', enum: values } = parameter.schema ?? {}
  if (String(values) === 'true,false') return { ...parameter, schema: { type: 'boolean' } }
  const span = formNumbers.get(pattern)
  if (span === undefined) return parameter
  const schema = { type: 'integer', ...span }
  return { ...parameter, schema, ...(parameter.example !== undefined && { example: Number(parameter.example) }) }
}

/** swagger-ui sends the example of a parameter that nobody has touched: a search by all filters at once finds nothing. */
const unsent = (parameter: Parameter): Parameter => {
  const { example, ...rest } = parameter
  if (parameter.required || example === undefined) return parameter
  return { ...rest, schema: { ...parameter.schema, examples: [example] } }
}

/** Shapes with a title become components of that name; their examples stand with the answers. */
const hoisted = ({ paths, components }: Description): Description => {
  const schemas: Record<string, object> = {}
  const walk = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(walk)
    if (typeof node !== 'object' || node === null) return node
    const members = Object.entries(node).map(([key, value]) => [key, isExample(key, value) ? value : walk(value)])
    const written = typed(Object.fromEntries(members))
    const { title, examples: _, ...schema } = written
    if (typeof title !== 'string') return written
    assertSame(title, schemas[title] ?? schema, schema)
    schemas[title] = schema
    return { $ref: `#/components/schemas/${title}` }
  }
  const walked = walk(paths) as Paths
  return { paths: told(walked), components: { ...components, schemas: sorted(schemas) } }
}

/** Who checks values need not be told what type they have; who makes types of the description would take any. */
const typed = (node: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> => {
  if (node['type'] !== undefined || !Array.isArray(node['enum'])) return node
  const types = new Set(node['enum'].map((value) => (Number.isInteger(value) ? 'integer' : typeof value)))
  return types.size === 1 ? { type: [...types][0], ...node } : node
}

/** Data, which may have a title of its own; but a member of that name has a shape. */
const isExample = (key: string, value: unknown): boolean =>
  key === 'example' || (key === 'examples' && Array.isArray(value))

const assertSame = (name: string, one: object, other: object): void => {
  if (JSON.stringify(one) !== JSON.stringify(other)) throw new Error(`Two parts of the description are called ${name}.`)
}

const sorted = <V>(record: Readonly<Record<string, V>>): Record<string, V> =>
  Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)))

interface Answer {
  readonly $ref?: string
  readonly content?: { readonly [problemType]?: { readonly schema?: { readonly allOf?: readonly unknown[] } } }
}

type Paths = Record<
  string,
  Record<string, { readonly responses: Record<string, Answer>; parameters?: readonly Parameter[] }>
>

interface Parameter {
  readonly required?: boolean
  readonly schema?: { readonly pattern?: string; readonly enum?: readonly unknown[]; readonly [more: string]: unknown }
  readonly example?: unknown
}

interface Description {
  readonly components?: object
  readonly paths?: Paths
}

/** Those of the problem that an answer is; none of any other. */
export const codesIn = ({ content }: Answer): readonly ProblemCode[] => {
  const narrowed = content?.[problemType]?.schema?.allOf?.[1] as
    | { properties: { code: { enum: readonly ProblemCode[] } } }
    | undefined
  return narrowed?.properties.code.enum ?? []
}

/** A problem answer is named by its code, or by what its codes have in common; any other has no name. */
const nameOf = (answer: Answer): string => {
  const isOnly = Object.keys(answer.content ?? {}).length === 1
  const [first, ...more] = isOnly ? codesIn(answer) : []
  if (first === undefined) return ''
  if (more.length === 0) return first.replaceAll(/(?:^|[._])([a-z])/g, (_, letter: string) => letter.toUpperCase())
  const codes: readonly string[] = [first, ...more]
  const found = groups.find(([code, , beside]) => codes.includes(code) && (!beside || codes.includes(beside)))
  return found?.[1] ?? codes.join('-or-')
}

/** Answers of several codes, by the first of these that they have, where they have that other one as well. */
const groups: readonly (readonly [code: ProblemCode, name: string, beside?: ProblemCode])[] = [
  ['origin.malformed', 'AskUnreadable'],
  ['csr.pem', 'RequestUnreadable'],
  ['renewal.names', 'RenewalRefused'],
  ['renewal.forbidden', 'MayNotRenew'],
  ['renewal.foreign', 'NotTheHolder'],
  ['origin.required', 'MayNotAsk'],
  ['approval.too_many', 'RequestsLimited'],
  ['limit.certificates_per_day', 'IssuanceLimited'],
  ['rate.limited', 'ProofLimited'],
  ['limit.failed_authentication', 'Limited'],
  ['limit.address_requests', 'AddressLimited'],
  ['san.forbidden', 'Refusal'],
  ['issuer.none_active', 'IssuanceUnavailable', 'key.unavailable'],
  ['issuer.none_active', 'BundleUnavailable'],
  ['roll.unanchored', 'RollUnavailable'],
  ['key.unavailable', 'KeyUnavailable'],
  ['policy.lint', 'IssuanceFailed'],
  ['auth.missing', 'Unauthenticated'],
  ['request.cursor', 'SearchMalformed'],
  ['clock.skewed', 'ClockNotTrusted', 'auth.unavailable'],
  // Whoever proves to hold the key is not asked who that is.
  ['clock.skewed', 'ProofUnavailable'],
  ['roll.inconsistent', 'ChangeUnavailable'],
  ['overload.queue', 'SearchUnavailable'],
  ['db.unavailable', 'Unavailable'],
  ['overload.deadline', 'Overload'],
  ['state.exists', 'StateConflict'],
  ['issuer.chain', 'ImportRefused'],
  ['profile.lockout', 'WouldLockOut'],
  ['principal.disabled', 'PrincipalClosed'],
  ['revocation.state', 'RevocationRefused'],
  ['approval.twice', 'ApprovalRefused'],
  ['approval.own', 'ApprovalForbidden'],
  ['approval.failed', 'RequestClosed'],
  ['csr.key_material', 'BodyMalformed'],
]

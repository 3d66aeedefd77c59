/** The description, made shorter: shapes with a name and problems are components. */
import type { ProblemCode } from '../errors.ts'
import { formNumbers } from './api/schemas.ts'
import { problemType } from './problem.ts'

/** Paths in order; each shape that has a name, and each answer that is a problem, written once. */
export const condensed = <T extends object>(document: T): T => {
  const { paths = {}, components = {} } = hoisted(document as Description)
  const inOrder = sorted(paths)
  return { ...document, components: { ...components, responses: shareProblems(inOrder) }, paths: inOrder }
}

/** Replaces answers that are a problem and nothing else by references, named by their one code, or as Problem503, Problem503b. */
const shareProblems = (paths: Paths): Readonly<Record<string, Answer>> => {
  const names = new Map<string, string>()
  const shared: Record<string, Answer> = {}
  for (const { responses } of Object.values(paths).flatMap((path) => Object.values(path))) {
    for (const [status, answer] of Object.entries(responses)) {
      if (Object.keys(answer.content ?? {}).join() !== problemType) continue
      const text = JSON.stringify(answer)
      const others = Object.keys(shared).filter((name) => name.startsWith(`Problem${status}`)).length
      const [code = '', ...more] = codesIn(answer)
      const own = more.length === 0 ? camelCase(code) : `Problem${status}${others === 0 ? '' : letters[others]}`
      const name = names.get(text) ?? own
      names.set(text, name)
      shared[name] = answer
      responses[status] = { $ref: `#/components/responses/${name}` }
    }
  }
  return sorted(shared)
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

const camelCase = (code: string): string =>
  code.replaceAll(/(?:^|[._])([a-z])/g, (_, letter: string) => letter.toUpperCase())
const letters = 'abcdefghijklmnopqrstuvwxyz'

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

/** What every answer that a test gets must be: one of the description of the API, with places as docs/errors.md has them. */
import { readFileSync } from 'node:fs'

interface Fields {
  readonly [name: string]: string | readonly string[] | undefined
  readonly 'content-type'?: string | undefined
}

interface Described {
  readonly $ref?: string
  readonly headers?: Readonly<Record<string, unknown>>
  readonly content?: Readonly<Record<string, unknown>>
}

type Operations = Readonly<Record<string, { readonly responses: Readonly<Record<string, Described>> }>>

/**
 * Throws for a status that the call is not described with, for another media type of its body, and for a header field that a
 * client acts on and is told nothing of.
 * What is no call of the API may answer what it likes.
 */
export const assertDescribed = (method: string, path: string, status: number, fields: Fields = {}): void => {
  description ??= readDescription()
  const { calls, shared } = description
  // Wherever GET is, HEAD is too, and answers the same.
  const operation = method === 'HEAD' ? 'get' : method.toLowerCase()
  const call = calls.find(({ form, operations }) => operations[operation] && form.test(path))
  if (call && !Object.hasOwn(call.operations[operation]?.responses ?? {}, status))
    throw new Error(`${method} ${call.path} answers ${status}, which openapi/chancery.json does not have`)
  const answer = call?.operations[operation]?.responses[status]
  if (answer === undefined) return
  const { headers = {}, content = {} } =
    answer.$ref === undefined ? answer : (shared[answer.$ref.split('/').at(-1) ?? ''] ?? {})
  const [type] = (fields['content-type'] ?? '').split(';', 1)
  // 304 has no body, whatever its fields say of the one that is held.
  if (type && status !== 304 && !Object.hasOwn(content, type))
    throw new Error(`${method} ${call?.path} answers ${status} as ${type}, which openapi/chancery.json does not have`)
  const known = new Set(Object.keys(headers).map((name) => name.toLowerCase()))
  for (const field of actedOn)
    if (Object.hasOwn(fields, field) && !known.has(field))
      throw new Error(
        `${method} ${call?.path} answers ${status} with ${field}, which openapi/chancery.json does not have`,
      )
}

/** Throws for a member of a problem that clients are not told of. */
export const assertMembers = (problem: unknown): void => {
  description ??= readDescription()
  for (const member of Object.keys(problem as object))
    if (!description.members.has(member))
      throw new Error(`A problem has ${member}, which openapi/chancery.json does not have`)
}

/** Throws where what is told of a place, as violations, checks and notes are, names it by anything but a JSON pointer (RFC 6901). */
export const assertPointers = (told: unknown): void => {
  if (typeof told !== 'object' || told === null) return
  const { field, reason } = told as { readonly field?: unknown; readonly reason?: unknown }
  if (typeof field === 'string' && typeof reason === 'string' && !pointer.test(field))
    throw new Error(`${field} is no JSON pointer: ${reason}`)
  for (const member of Object.values(told)) assertPointers(member)
}

/** Throws for a problem that sends its reader to violations that it does not have. */
export const assertNext = (told: unknown): void => {
  const { next, violations } = (told ?? {}) as { readonly next?: unknown; readonly violations?: readonly unknown[] }
  if (typeof next === 'string' && /\bthe violations\b/.test(next) && !violations?.length)
    throw new Error(`There are no violations, and it says: ${next}`)
}

interface Call {
  readonly path: string
  readonly form: RegExp
  readonly operations: Operations
}

interface Description {
  /** Those of fixed paths before those that would take them for a name. */
  readonly calls: readonly Call[]
  readonly shared: Readonly<Record<string, Described>>
  /** Of problems. */
  readonly members: ReadonlySet<string>
}

const readDescription = (): Description => {
  const text = readFileSync(new URL('../../openapi/chancery.json', import.meta.url), 'utf8')
  const { paths, components } = JSON.parse(text) as {
    readonly paths: Readonly<Record<string, Operations>>
    readonly components: {
      readonly responses: Readonly<Record<string, Described>>
      readonly schemas: { readonly Problem: { readonly properties: object } }
    }
  }
  const calls = Object.entries(paths)
    .sort(([one], [other]) => one.split('{').length - other.split('{').length)
    .map(([path, operations]) => ({ path, form: formOf(path), operations }))
  const { responses: shared, schemas } = components
  return { calls, shared, members: new Set(Object.keys(schemas.Problem.properties)) }
}

const formOf = (path: string): RegExp =>
  new RegExp(
    `^${path
      .replaceAll('.', '[.]')
      .replace('{path}', '.+')
      .replaceAll(/\{\w+\}/g, '[^/]+')}$`,
  )

/** '' is all of it. */
const pointer = /^([/]([^~/]|~[01])*)*$/
/** Others say how an answer may be kept and shown, and are no part of what a call does. */
const actedOn = ['etag', 'link', 'location', 'retry-after', 'www-authenticate']
let description: Description | undefined

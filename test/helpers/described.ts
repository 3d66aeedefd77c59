/**
 * What every answer that a test gets must be: one of the description of the API, of the shape that it has there, with places as
 * docs/errors.md has them.
 */
import { readFileSync } from 'node:fs'

import { Ajv2020 } from 'ajv/dist/2020.js'

interface Fields {
  readonly [name: string]: string | readonly string[] | undefined
  readonly 'content-type'?: string | undefined
}

interface Answered {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly fields: Fields
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
  const { call, answer } = answerOf(method, path, status)
  if (call && answer === undefined)
    throw new Error(`${method} ${call.path} answers ${status}, which openapi/chancery.json does not have`)
  if (answer === undefined) return
  const { headers = {}, content = {} } = answer
  const type = typeOf(fields)
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

/** Throws for JSON of another shape than the call is described with: whoever makes types of it reads members that are not there. */
export const assertShape = ({ method, path, status, fields }: Answered, json: unknown): void => {
  const { call, answer, place } = answerOf(method, path, status)
  const type = typeOf(fields)
  if (!answer?.content?.[type] || !['application/json', 'application/problem+json'].includes(type)) return
  ajv ??= openAjv()
  const fits = ajv.getSchema(`chancery#${place}/content/${escaped(type)}/schema`)
  if (fits?.(json) === true) return
  const faults = ajv.errorsText(fits?.errors)
  throw new Error(`${method} ${call?.path} answers ${status} unlike openapi/chancery.json: ${faults}`)
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
  const { paths, components } = readJson() as {
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

/** What a call is described to answer with, and where in the description that is. */
const answerOf = (method: string, path: string, status: number) => {
  description ??= readDescription()
  const { calls, shared } = description
  // Wherever GET is, HEAD is too, and answers the same.
  const operation = method === 'HEAD' ? 'get' : method.toLowerCase()
  const call = calls.find(({ form, operations }) => operations[operation] && form.test(path))
  const responses = call?.operations[operation]?.responses ?? {}
  const answer = Object.hasOwn(responses, status) ? responses[status] : undefined
  if (answer?.$ref === undefined)
    return { call, answer, place: `/paths/${escaped(call?.path ?? '')}/${operation}/responses/${status}` }
  return { call, answer: shared[answer.$ref.split('/').at(-1) ?? ''], place: answer.$ref.slice(1) }
}

const typeOf = (fields: Fields): string => (fields['content-type'] ?? '').split(';', 1)[0] ?? ''

/** As part of a JSON pointer in a fragment (RFC 6901 6). */
const escaped = (key: string): string => encodeURIComponent(key.replaceAll('~', '~0').replaceAll('/', '~1'))

/** Each file of tests compiles what it sees, once: of all there is in half the time where nothing is optimized (measured). */
const openAjv = (): Ajv2020 => {
  const quick = { inlineRefs: false, code: { optimize: false } }
  const options = { strict: false, validateSchema: false, allErrors: true, formats: { 'date-time': rfc3339 }, ...quick }
  return new Ajv2020(options).addSchema(readJson() as object, 'chancery')
}

const readJson = (): unknown =>
  JSON.parse(readFileSync(new URL('../../openapi/chancery.json', import.meta.url), 'utf8'))

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
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/
let description: Description | undefined
let ajv: Ajv2020 | undefined

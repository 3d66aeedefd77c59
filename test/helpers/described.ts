/** What every answer that a test gets must be: one of the description of the API, with places as docs/errors.md has them. */
import { readFileSync } from 'node:fs'

type Operations = Readonly<Record<string, { readonly responses: Readonly<Record<string, unknown>> }>>

/** Throws for a status that the call is not described with. What is no call of the API may answer what it likes. */
export const assertDescribed = (method: string, path: string, status: number): void => {
  calls ??= readCalls()
  // Wherever GET is, HEAD is too, and answers the same.
  const operation = method === 'HEAD' ? 'get' : method.toLowerCase()
  const call = calls.find(({ form, operations }) => operations[operation] && form.test(path))
  if (call && !Object.hasOwn(call.operations[operation]?.responses ?? {}, status))
    throw new Error(`${method} ${call.path} answers ${status}, which openapi/chancery.json does not have`)
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

/** Those of fixed paths before those that would take them for a name. */
const readCalls = (): readonly Call[] => {
  const text = readFileSync(new URL('../../openapi/chancery.json', import.meta.url), 'utf8')
  const { paths } = JSON.parse(text) as { readonly paths: Readonly<Record<string, Operations>> }
  return Object.entries(paths)
    .sort(([one], [other]) => one.split('{').length - other.split('{').length)
    .map(([path, operations]) => ({ path, form: formOf(path), operations }))
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
let calls: readonly Call[] | undefined

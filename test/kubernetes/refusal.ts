/** Refusals: each an error that carries the Status document which the API server answers with. */
import type { Tree } from './values.ts'

export interface Cause {
  readonly reason: string
  readonly message: string
  readonly field: string
}

export class Refusal extends Error {
  readonly code: number
  readonly body: Tree | string
  readonly headers: Readonly<Record<string, string>>

  constructor(code: number, body: Tree | string, headers: Readonly<Record<string, string>> = {}) {
    super(typeof body === 'string' ? body : String(body['message']))
    this.code = code
    this.body = body
    this.headers = headers
  }
}

export interface Named {
  readonly group: string
  /** The plural for most, the kind for what is invalid. */
  readonly kind: string
  readonly name?: string
}

export const failure = (code: number, reason: string, message: string, more: Tree = {}): Refusal => {
  const { metadata = {}, headers, ...rest } = more
  return new Refusal(
    code,
    {
      kind: 'Status',
      apiVersion: 'v1',
      metadata,
      status: 'Failure',
      message,
      ...(reason === '' ? {} : { reason }),
      ...rest,
      code,
    },
    (headers ?? {}) as Record<string, string>,
  )
}

export const notFoundText = (): Refusal =>
  new Refusal(404, '404 page not found\n', { 'content-type': 'text/plain; charset=utf-8' })

export const unauthorized = (): Refusal => failure(401, 'Unauthorized', 'Unauthorized')
export const badRequest = (message: string): Refusal => failure(400, 'BadRequest', message)

/** 500 without a reason: what the server says where it did not think of the case. */
export const unexpected = (message: string): Refusal => failure(500, '', message)

export const internal = (message: string): Refusal =>
  failure(500, 'InternalError', `Internal error occurred: ${message}`, { details: { causes: [{ message }] } })

export const notFound = (what: Named): Refusal =>
  failure(404, 'NotFound', `${title(what)} not found`, { details: details(what) })

export const alreadyExists = (what: Named): Refusal =>
  failure(409, 'AlreadyExists', `${title(what)} already exists`, { details: details(what) })

export const stale = (what: Named): Refusal =>
  failure(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${title(what)}: the object has been modified; please apply your changes to the latest version and try again`,
    { details: details(what) },
  )

/** A precondition of a deletion. */
export const unmet = (what: Named, why: string): Refusal =>
  failure(409, 'Conflict', `Operation cannot be fulfilled on ${title(what)}: ${why}`, { details: details(what) })

export const gone = (what: Named, { key, uid }: { readonly key: string; readonly uid: string }): Refusal =>
  failure(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${title(what)}: StorageError: invalid object, Code: 4, Key: /registry/${key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: ${uid}, UID in object meta: `,
    { details: details(what) },
  )

export const forbidden = (what: Named, why: string): Refusal =>
  failure(403, 'Forbidden', `${title(what)} is forbidden: ${why}`, { details: details(what) })

/** What a validating webhook turns down: 403 as well, but without details. */
export const deniedByWebhook = (webhook: string, causes: readonly Cause[]): Refusal =>
  failure(403, 'Forbidden', `admission webhook "${webhook}" denied the request: ${list(causes)}`)

export const invalid = (what: Named, causes: readonly Cause[]): Refusal =>
  failure(422, 'Invalid', `${dotted(what)} "${what.name ?? ''}" is invalid: ${list(causes)}`, {
    details: { ...details(what), causes: causes.map((cause) => ({ ...cause })) },
  })

/** The path of a whole document is written without a path: its causes have the field `<nil>` or none. */
export const invalidValue = (field: string, value: string | undefined, detail: string): Cause => ({
  reason: 'FieldValueInvalid',
  message: value === undefined ? `Invalid value: ${detail}` : `Invalid value: ${value}: ${detail}`,
  field,
})

export const required = (field: string, detail = ''): Cause => ({
  reason: 'FieldValueRequired',
  message: detail === '' ? 'Required value' : `Required value: ${detail}`,
  field,
})

export const forbiddenValue = (field: string, detail: string): Cause => ({
  reason: 'FieldValueForbidden',
  message: `Forbidden: ${detail}`,
  field,
})

export const notSupported = (field: string, value: string, supported: readonly string[]): Cause => ({
  reason: 'FieldValueNotSupported',
  message: `Unsupported value: ${quote(value)}: supported values: ${supported.map(quote).join(', ')}`,
  field,
})

export const wrongType = (field: string, value: string, detail: string): Cause => ({
  reason: 'FieldValueTypeInvalid',
  message: `Invalid value: ${quote(value)}: ${detail}`,
  field,
})

export const quote = (text: string): string => JSON.stringify(text)

const list = (causes: readonly Cause[]): string => {
  const each = [...new Set(causes.map(({ field, message }) => (field === '' ? message : `${field}: ${message}`)))]
  return each.length === 1 ? String(each[0]) : `[${each.join(', ')}]`
}

const dotted = ({ group, kind }: Named): string => (group === '' ? kind : `${kind}.${group}`)
const title = (what: Named): string => (what.name === undefined ? dotted(what) : `${dotted(what)} "${what.name}"`)

const details = ({ group, kind, name }: Named): Tree => ({
  ...(name === undefined || name === '' ? {} : { name }),
  ...(group === '' ? {} : { group }),
  ...(kind === '' ? {} : { kind }),
})

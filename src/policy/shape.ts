/** The shape of documents that people write: a closed schema, and every fault with its place. */
import type { TSchema } from 'typebox'
// Not `typebox/value`, which says the same and loads 140 modules more.
import { Check, Errors } from 'typebox/schema'
import { Settings } from 'typebox/system'

import { isRecord, pointer, show } from './names.ts'

export interface ShapeFault {
  /** A JSON pointer (RFC 6901). */
  readonly field: string
  readonly value: string
  readonly reason: string
}

/** Every fault of the input's shape, once: an unknown field, a missing one, a value that is not what its description says. */
export const shapeFaults = (schema: TSchema, input: unknown): ShapeFault[] => {
  const faults = new Map<string, ShapeFault>()
  const add = (field: string, value: unknown, reason: string): void => {
    const key = `${field}\n${reason}`
    if (!faults.has(key)) faults.set(key, { field, value: show(value), reason })
  }
  for (const { keyword, schemaPath, instancePath, params, message } of allErrors(schema, input)) {
    // A union speaks for its branches, and `additionalProperties` for the false schema behind it.
    if (keyword === 'boolean' || schemaPath.includes('/anyOf/')) continue
    const detail: Readonly<Record<string, unknown>> = { ...params }
    if (keyword === 'additionalProperties') {
      for (const name of namesIn(detail.additionalProperties))
        add(`${instancePath}/${pointer(name)}`, name, 'is not a known field')
    } else if (keyword === 'required') {
      for (const name of namesIn(detail.requiredProperties)) add(`${instancePath}/${pointer(name)}`, '', 'is missing')
    } else {
      add(instancePath, valueAt(input, instancePath), reasonOf(keyword, valueAt(schema, schemaPath.slice(1)), message))
    }
  }
  return [...faults.values()]
}

/** The value at a JSON pointer (RFC 6901); undefined where there is none. */
export const valueAt = (root: unknown, path: string): unknown =>
  path
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
    .reduce<unknown>((value, token) => {
      if (Array.isArray(value)) return indexForm.test(token) ? value[Number(token)] : undefined
      return isRecord(value) && Object.hasOwn(value, token) ? value[token] : undefined
    }, root)

/** The members whose own shape is sound, whatever is wrong with the others. */
export const soundMembers = (
  schemas: Readonly<Record<string, object>>,
  input: unknown,
): Readonly<Record<string, unknown>> =>
  isRecord(input)
    ? Object.fromEntries(
        Object.entries(schemas)
          .filter(([key, schema]) => Object.hasOwn(input, key) && input[key] !== undefined && Check(schema, input[key]))
          .map(([key]) => [key, input[key]]),
      )
    : {}

/** The library stops at eight errors unless told otherwise, and can only be told so globally; we put it back. */
const allErrors = (schema: TSchema, input: unknown): ReturnType<typeof Errors>[1] => {
  const { maxErrors } = Settings.Get()
  Settings.Set({ maxErrors: 1000 })
  try {
    return Errors(schema, input)[1]
  } finally {
    Settings.Set({ maxErrors })
  }
}

const reasonOf = (keyword: string, schema: unknown, message: string): string => {
  if (keyword === 'uniqueItems') return 'holds an item twice'
  if (!isRecord(schema)) return message
  if (typeof schema.description === 'string') return `must be ${schema.description}`
  if (Array.isArray(schema.enum)) return `must be one of ${schema.enum.join(', ')}`
  return keyword === 'type' ? `must be of type ${show(schema.type)}` : message
}

const namesIn = (value: unknown): readonly string[] => (Array.isArray(value) ? value.map(String) : [])

/** RFC 6901 4. */
const indexForm = /^(0|[1-9][0-9]*)$/

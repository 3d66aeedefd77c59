/**
 * Descriptions of JSON, as values that say what they describe to JSON Schema and to TypeScript. TypeBox is what they are to
 * TypeScript; at run time each is a plain object that a line makes, because loading the library's 370 modules for that took a
 * third of what a command costs.
 */
import type { Type as TypeBox } from 'typebox'

export type { Static, TOptional, TSchema, TStringOptions } from 'typebox'

/** Of objects: an unknown member is an error. */
export const closed = { additionalProperties: false } as const

/** Documents are read, and never written to. */
export type DeepReadonly<T> = T extends readonly (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T

type Schema = Readonly<Record<string, unknown>>

/** Properties that may be missing. What is spread from one is not one. */
const optional = new WeakSet<Schema>()

const isRequired = ([, schema]: readonly [string, Schema]): boolean => !optional.has(schema)

const object = (properties: Readonly<Record<string, Schema>>, options?: Schema): Schema => {
  const required = Object.entries(properties).filter(isRequired)
  return {
    type: 'object',
    ...(required.length > 0 && { required: required.map(([name]) => name) }),
    properties,
    ...options,
  }
}

const asOptional = (schema: Schema): Schema => {
  const copy = { ...schema }
  optional.add(copy)
  return copy
}

const writers = {
  Array: (items: Schema, options?: Schema) => ({ type: 'array', items, ...options }),
  Boolean: (options?: Schema) => ({ type: 'boolean', ...options }),
  Enum: (values: readonly unknown[], options?: Schema) => ({ enum: [...values], ...options }),
  Integer: (options?: Schema) => ({ type: 'integer', ...options }),
  Literal: (value: unknown, options?: Schema) => ({ type: typeof value, const: value, ...options }),
  Null: (options?: Schema) => ({ type: 'null', ...options }),
  Object: object,
  Optional: asOptional,
  Record: (names: Schema, values: Schema, options?: Schema) => ({
    type: 'object',
    // Of any name: a dot would leave those out that have a line end, whose values nobody would look at then.
    patternProperties: { [String(names['pattern'] ?? anyText)]: values },
    ...options,
  }),
  String: (options?: Schema) => ({ type: 'string', ...options }),
  Union: (anyOf: readonly Schema[], options?: Schema) => ({ anyOf, ...options }),
  Unknown: (options?: Schema) => ({ ...options }),
}

const anyText = '^[\\s\\S]*$'

export const Type = writers as unknown as Pick<typeof TypeBox, keyof typeof writers>

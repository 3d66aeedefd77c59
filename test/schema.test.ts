import t from 'tap'
import { Type as TypeBox } from 'typebox'

import { Type } from '../src/schema.ts'

/** What one function of the library writes, and ours. */
type Write = (type: typeof Type) => unknown

const cases: Readonly<Record<keyof typeof Type, readonly Write[]>> = {
  Array: [(type) => type.Array(type.String(), { maxItems: 2 }), (type) => type.Array(type.Null())],
  Boolean: [(type) => type.Boolean({ default: true }), (type) => type.Boolean()],
  Enum: [(type) => type.Enum(['a', 'b'], { description: 'one of two' })],
  Integer: [(type) => type.Integer({ minimum: 1 })],
  Literal: [(type) => ['a', 201, true].map((value) => type.Literal(value, { description: 'itself' }))],
  Null: [(type) => type.Null()],
  Object: [
    (type) => type.Object({}),
    (type) => type.Object({ a: type.String(), b: type.Optional(type.Integer()) }, { additionalProperties: false }),
    (type) => type.Object({ b: type.Optional(type.Integer()) }),
    (type) => type.Object({ outer: type.Object({ inner: type.Null() }) }),
  ],
  Optional: [
    (type) => type.Object({ again: type.Optional(type.Optional(type.String())) }),
    // What is one in a place is what it was in all others.
    (type) => {
      const text = type.String()
      return type.Object({ may: type.Optional(text), must: text })
    },
    (type) => type.Object({ spread: { ...type.Optional(type.String()), description: 'must be there' } }),
  ],
  Record: [
    (type) => type.Record(type.String(), type.Integer(), { maxProperties: 3 }),
    (type) => type.Record(type.String({ pattern: '^a' }), type.Integer()),
  ],
  String: [(type) => type.String({ pattern: '^a', maxLength: 3 })],
  Union: [(type) => type.Union([type.Null(), type.String()], { description: 'either' })],
  Unknown: [(type) => type.Unknown({ description: 'anything' }), (type) => type.Unknown()],
}

for (const [name, writes] of Object.entries(cases))
  t.test(`${name} writes at run time what TypeBox, whose types it has, writes`, async (t) => {
    for (const write of writes) t.equal(JSON.stringify(write(Type)), JSON.stringify(write(TypeBox as typeof Type)))
  })

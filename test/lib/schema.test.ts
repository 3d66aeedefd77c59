import t from 'tap'
import { Type as TypeBox } from 'typebox'

import { Type } from '../../src/lib/schema.ts'

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
  Record: [(type) => type.Record(type.String({ pattern: '^a' }), type.Integer(), { maxProperties: 3 })],
  String: [(type) => type.String({ pattern: '^a', maxLength: 3 })],
  Union: [(type) => type.Union([type.Null(), type.String()], { description: 'either' })],
  Unknown: [(type) => type.Unknown({ description: 'anything' }), (type) => type.Unknown()],
}

for (const [name, writes] of Object.entries(cases))
  t.test(`${name} writes at run time what TypeBox, whose types it has, writes`, async (t) => {
    for (const write of writes) t.equal(JSON.stringify(write(Type)), JSON.stringify(write(TypeBox as typeof Type)))
  })

t.test('Record of any name has those with a line end as well, which the library leaves out', async (t) => {
  const write: Write = (type) => type.Record(type.String(), type.Integer(), { maxProperties: 3 })
  const [ours, theirs] = [write(Type), write(TypeBox as typeof Type)].map((schema) => JSON.stringify(schema))
  t.equal(ours, theirs?.replace('^.*$', '^[\\\\s\\\\S]*$'))
  const [pattern = ''] = Object.keys((write(Type) as { patternProperties: object }).patternProperties)
  for (const name of ['', 'a', 'a\nb', '\r', '\u2028', '\u2029']) t.match(name, new RegExp(pattern, 'u'))
})

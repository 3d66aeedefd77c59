/** What is said of documents whose shape is not sound. */
import t from 'tap'

import { Type } from '../../src/lib/schema.ts'
import { ProfileDocumentSchema } from '../../src/policy/document.ts'
import { shapeFaults } from '../../src/policy/shape.ts'

t.test('no more faults are told than anybody reads', async (t) => {
  const fields = Object.fromEntries(Array.from({ length: 30_000 }, (_, at) => [`field${at}`, at]))
  t.equal(shapeFaults(ProfileDocumentSchema, fields).length, 1000)
})

t.test('what is said of a fault without a description is a sentence of its own', async (t) => {
  const closed = { additionalProperties: false }
  const text = Type.String({ pattern: '^[a-z]*$', minLength: 2, maxLength: 3 })
  const list = Type.Array(Type.Integer({ minimum: 1, maximum: 2 }), { minItems: 1, maxItems: 2, uniqueItems: true })
  const shape = Type.Object(
    {
      text,
      list,
      either: Type.Union([Type.Null(), Type.Literal('none')]),
      one: Type.Enum(['a', 'b']),
      map: Type.Record(Type.String(), Type.Boolean(), { minProperties: 1, maxProperties: 1 }),
    },
    closed,
  )
  const said = (document: unknown) => shapeFaults(shape, document).map(({ field, reason }) => `${field} ${reason}`)
  t.same(said({ text: 'A', list: [3, 3, 0], either: 1, one: 'c', map: {} }), [
    '/text must have at least 2 characters',
    '/text must match ^[a-z]*$',
    '/list must have at most 2 items',
    '/list/0 must be at most 2',
    '/list/1 must be at most 2',
    '/list/2 must be at least 1',
    '/list holds an item twice',
    '/either must be one of what may stand here',
    '/one must be one of a, b',
    '/map must have at least 1 field',
  ])
  t.same(said({ text: '😀😀😀', list: [], either: 'none', map: { a: 1, b: true } }), [
    '/one is missing',
    '/text must match ^[a-z]*$',
    '/list must have at least 1 item',
    '/map must have at most 1 field',
    '/map/a must be of type boolean',
  ])
})

t.test('one text in place of a document is shown to nobody: it may be a token', (t) => {
  const shape = Type.Object({ text: Type.String() }, { additionalProperties: false })
  for (const secret of ['a passphrase', 20_261_127])
    t.match(shapeFaults(shape, secret), [{ field: /^$/, value: /^$/, reason: /object/ }])
  t.match(shapeFaults(shape, { text: 7 }), [{ field: '/text', value: '7' }])
  t.end()
})

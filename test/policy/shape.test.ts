/** The shapes of documents, held against a library: seeded, so that what it finds is found again. */
import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'

import { Ajv, type ErrorObject } from 'ajv'
import fc from 'fast-check'
import t from 'tap'

import { schemas as ceremonies } from '../../src/cli/ceremony/schema.ts'
import { ControllerDocument } from '../../src/kubernetes/settings.ts'
import { type TSchema, Type } from '../../src/lib/schema.ts'
import { ProfileDocumentSchema } from '../../src/policy/document.ts'
import { faultsOf } from '../../src/policy/faults.ts'
import { ProviderDocumentSchema } from '../../src/policy/identity-document.ts'
import { faultsOfProvider } from '../../src/policy/identity-faults.ts'
import { pointer } from '../../src/policy/names.ts'
import { shapeFaults, soundMembers } from '../../src/policy/shape.ts'

const documents = {
  profile: ProfileDocumentSchema,
  provider: ProviderDocumentSchema,
  controller: ControllerDocument,
  ...ceremonies,
}
const ajv = new Ajv({ allErrors: true, verbose: true, ownProperties: true, strictTypes: false })
  // Its own passes over items that are not of the type that they should have.
  .removeKeyword('uniqueItems')
  .addKeyword({
    keyword: 'uniqueItems',
    type: 'array',
    validate: (_: boolean, items: readonly unknown[]) =>
      items.every((item, at) => !items.slice(at + 1).some((other) => isDeepStrictEqual(item, other))),
  })

/** Where the library finds a fault; of a union only that no branch fits. */
const placesByLibrary = (errors: readonly ErrorObject[]): readonly string[] => [
  ...new Set(
    errors
      .filter(({ schemaPath }) => !schemaPath.includes('/anyOf/'))
      .map(({ instancePath, params }) => {
        const member = params['additionalProperty'] ?? params['missingProperty']
        return member === undefined ? instancePath : `${instancePath}/${pointer(String(member))}`
      }),
  ),
]

interface Shape {
  readonly [keyword: string]: unknown
  readonly properties?: Readonly<Record<string, Shape>>
  readonly patternProperties?: Readonly<Record<string, Shape>>
  readonly items?: Shape
  readonly anyOf?: readonly Shape[]
  readonly required?: readonly string[]
}

const odd = fc.constantFrom<unknown>(
  null,
  true,
  0,
  1,
  1.5,
  -1,
  '',
  'x',
  'rsa',
  'none',
  '1d',
  'é😀',
  [],
  ['a', 'a'],
  {},
  { a: 1 },
)

/** Values that fit a shape often enough to come past its first keyword, and in everything else do not. */
const valueFor = (shape: Shape): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 9, arbitrary: fitting(shape) }, { weight: 1, arbitrary: odd })

const fitting = ({ anyOf, enum: values, const: constant, type, items, ...more }: Shape): fc.Arbitrary<unknown> => {
  if (anyOf) return fc.oneof(...anyOf.map(valueFor))
  if (Array.isArray(values)) return fc.constantFrom(...values)
  if (constant !== undefined) return fc.constant(constant)
  if (type === 'array') return fc.array(items ? valueFor(items) : odd, { maxLength: 4 })
  if (type === 'object') return objectFor(more)
  if (type === 'integer' || type === 'number') return fc.integer({ min: -1, max: 120 })
  if (type === 'boolean') return fc.boolean()
  if (typeof more['pattern'] === 'string') return fc.oneof(fc.stringMatching(new RegExp(more['pattern'])), fc.string())
  return fc.string({ maxLength: 8 })
}

const objectFor = ({ properties = {}, patternProperties = {}, required = [] }: Shape): fc.Arbitrary<unknown> => {
  const [free] = Object.values(patternProperties)
  if (free) return fc.dictionary(fc.string({ minLength: 1, maxLength: 4 }), valueFor(free), { maxKeys: 3 })
  const members = Object.entries(properties).map(([name, member]): [string, fc.Arbitrary<unknown>] => [
    name,
    valueFor(member),
  ])
  const known = Object.fromEntries(members)
  return fc.oneof(
    { weight: 6, arbitrary: fc.record(known, { requiredKeys: [...required] }) },
    { weight: 1, arbitrary: fc.record({ ...known, unknown: odd, 'a/b~c': odd }, { requiredKeys: [] }) },
  )
}

const runs = { seed: 20261127, numRuns: 400 }

for (const [name, schema] of Object.entries(documents) as unknown as [string, Shape & TSchema][]) {
  t.test(`the faults of a ${name} are where a library finds them`, async (t) => {
    const validate = ajv.compile(schema)
    const property = fc.property(valueFor(schema), (document) => {
      const places = validate(document) ? [] : placesByLibrary(validate.errors ?? [])
      const found = new Set(shapeFaults(schema, document).map(({ field }) => field))
      assert.deepEqual([...found].sort(), [...places].sort())
    })
    t.doesNotThrow(() => fc.assert(property, runs))
  })

  t.test(`the members of a ${name} that are sound are those in which a library finds no fault`, async (t) => {
    const properties = schema.properties ?? {}
    const members = Object.entries(properties).map(([key, member]) => [key, ajv.compile(member)] as const)
    let sound = 0
    const property = fc.property(objectFor(schema), (document) => {
      const held = document as Readonly<Record<string, unknown>>
      const fitting = members.filter(([key, validate]) => Object.hasOwn(held, key) && validate(held[key]))
      sound += fitting.length
      assert.deepEqual(
        Object.keys(soundMembers(properties, document)),
        fitting.map(([key]) => key),
      )
    })
    t.doesNotThrow(() => fc.assert(property, runs))
    t.ok(sound > 400, `${sound} sound members were among them`)
  })
}

t.test('a keyword that shapes are not judged by is a fault of ours', async (t) => {
  t.throws(() => shapeFaults(Type.Integer({ multipleOf: 2 }), 3), { message: /^multipleOf is no keyword/ })
})

t.test('no more faults are told than anybody reads', async (t) => {
  const fields = Object.fromEntries(Array.from({ length: 30_000 }, (_, at) => [`field${at}`, at]))
  t.equal(shapeFaults(ProfileDocumentSchema, fields).length, 1000)
  // Nor of the sense.
  const names = { dns: { allow: Array(1000).fill('a b'), deny: Array(1000).fill('a b') } }
  t.equal(faultsOf({ names }).faults.length, 1000)
  t.equal(faultsOfProvider({ mappings: [{ grants: [{ names }] }] }).faults.length, 1000)
  // Nor of the place.
  t.equal(faultsOf({ names, name: 'one' }, { name: 'other' }).faults.length, 1000)
  t.equal(faultsOfProvider({ ...fields, name: 'one' }, { name: 'other' }).faults.length, 1000)
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
    '/text must match ^[a-z]*$',
    '/text must have at least 2 characters',
    '/list must have at most 2 items',
    '/list holds an item twice',
    '/list/0 must be at most 2',
    '/list/1 must be at most 2',
    '/list/2 must be at least 1',
    '/either must be one of what may stand here',
    '/one must be one of a, b',
    '/map must have at least 1 fields',
  ])
  t.same(said({ text: '😀😀😀', list: [], either: 'none', map: { a: 1, b: true } }), [
    '/one is missing',
    '/text must match ^[a-z]*$',
    '/list must have at least 1 items',
    '/map must have at most 1 fields',
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

/** Keys of an issuer that is away, or publishes what cannot be read, just when it has a new one. */
import { generateKeyPairSync } from 'node:crypto'

import t from 'tap'

import { TokenFault } from '../../src/keys/jwt.ts'
import { fetchedKeys, KeysUnavailable, staticKeys } from '../../src/keys/key-set.ts'

const publicKey = (kid: string): object => {
  const { publicKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { ...key.export({ format: 'jwk' }), kid, alg: 'ES256', use: 'sig' }
}

/** With a clock, and an issuer that answers with whatever `published` is, or fails. */
const open = () => {
  const state = { now: 0, published: { keys: [publicKey('one')] } as unknown, tries: 0, failures: [] as unknown[] }
  const keys = fetchedKeys({
    now: () => state.now,
    fetched: ({ length }) => (length === 0 ? 'There are none.' : undefined),
    failed: (error) => `Failure ${state.failures.push(error)}.`,
    fetch: async () => {
      state.tries += 1
      if (state.published instanceof Error) throw state.published
      return state.published
    },
  })
  return { state, keys, find: (kid: string) => keys.find({ alg: 'ES256', kid }) }
}

t.test('a key that nobody knows yet is asked for again, while its issuer cannot say', async (t) => {
  for (const trouble of [new Error('down'), { keys: [null] }, { keys: 'none' }, null]) {
    const { state, keys, find } = open()
    t.ok(await find('one'))
    await t.rejects(find('two'), TokenFault, 'it was asked a moment ago, and has none such')
    state.now += 10_000
    const published = { keys: [publicKey('two')] }
    state.published = trouble
    const { generation } = keys
    await t.rejects(find('two'), KeysUnavailable, `${trouble}`)
    await t.rejects(find('two'), KeysUnavailable, 'and nobody fetches again at once')
    t.equal(state.failures.length, 1)
    t.equal(keys.generation, generation, 'what was verified before is as good as before')
    t.ok(await find('one'), 'as is every key that is known')
    state.published = published
    state.now += 10_000
    t.ok(await find('two'), 'it mends itself')
    await t.rejects(find('three'), TokenFault, 'and who says no again means it')
    t.equal(state.tries, 3)
  }
})

t.test('who takes all keys back is believed: none of before is accepted any longer', async (t) => {
  const { state, keys, find } = open()
  t.ok(await find('one'))
  const { generation } = keys
  state.published = { keys: [] }
  state.now += 10_000
  await t.rejects(find('two'), TokenFault)
  await t.rejects(find('one'), TokenFault)
  t.not(keys.generation, generation, 'and what was verified by one is worth nothing')
  t.same(state.failures, [])
})

t.test('whoever wants to know whether there are keys has them fetched, no more often than tokens do', async (t) => {
  const { state, keys, find } = open()
  state.published = new Error('down')
  t.equal(await keys.check(), 'Failure 1.')
  state.published = { keys: [] }
  t.equal(await keys.check(), 'Failure 1.', 'which is a moment ago')
  await t.rejects(find('one'), KeysUnavailable)
  state.now += 10_000
  t.equal(await keys.check(), 'There are none.')
  state.published = { keys: [publicKey('one')] }
  state.now += 10_000
  t.equal(await keys.check(), undefined)
  t.ok(await find('one'))
  t.equal(state.tries, 3)
  t.equal(
    await staticKeys([publicKey('one')]).check(),
    undefined,
    'nothing is to be fetched of those that are written down',
  )
})

t.test('keys are fetched again after five minutes, and after an hour without news none of them holds', async (t) => {
  const { state, keys, find } = open()
  t.equal(keys.ageMs, undefined)
  t.ok(await find('one'))
  const { generation } = keys
  state.now = 300_000
  t.ok(await find('one'))
  t.equal(state.tries, 1)
  state.now += 1
  t.ok(await find('one'))
  t.equal(state.tries, 2, 'beside answering')
  t.equal(keys.ageMs, 0)
  t.equal(keys.generation, generation, 'the same keys again')
  state.published = new Error('down')
  state.now += 3_600_000
  t.ok(await find('one'), 'as long as its issuer may be away')
  t.equal(keys.generation, generation)
  state.now += 1
  t.ok(Number.isNaN(keys.generation), 'nor what was verified by them')
  await t.rejects(find('one'), KeysUnavailable)
  state.published = { keys: [publicKey('one')] }
  state.now += 10_000
  t.ok(await find('one'))
})

/** Limits of addresses in one process: what they let through, what they say, and that no flood grows them. */
import t from 'tap'

import { type AddressLimits, type Entry, openAddresses } from '../../src/http/addresses.ts'

const open = (limits: Partial<AddressLimits>, more: { replicas?: () => number; most?: number } = {}) => {
  const clock = { ms: 1_000_000 }
  const told: string[] = []
  const addresses = openAddresses({
    limits: { requestsPerSecond: 1e6, concurrent: 1e6, failedAuthentications: 1e6, ...limits },
    replicas: () => 1,
    now: () => clock.ms,
    clock: () => new Date(clock.ms),
    limited: (name) => told.push(name),
    ...more,
  })
  const pass = (address: string): void => addresses.leave(addresses.enter(address))
  const fail = (address: string, credentials = 'bad'): void => {
    const entry = addresses.enter(address)
    try {
      addresses.assertTrusted(entry, () => credentials)
      addresses.failed(entry, () => credentials)
    } finally {
      addresses.leave(entry)
    }
  }
  return { addresses, clock, told, pass, fail }
}

t.test('requests a second, each address by itself', async (t) => {
  const { pass, clock, told } = open({ requestsPerSecond: 10 })
  for (let i = 0; i < 10; i += 1) pass('a')
  const limit = { name: 'addressRequests', value: 10, freesAt: new Date(clock.ms + 100).toISOString() }
  t.throws(() => pass('a'), { code: 'limit.address_requests', options: { retryAfter: 1, extra: { limit } } })
  pass('b')
  clock.ms += 250
  pass('a')
  pass('a')
  const half = { name: 'addressRequests', value: 10, freesAt: new Date(clock.ms + 50).toISOString() }
  t.throws(() => pass('a'), { code: 'limit.address_requests', options: { extra: { limit: half } } })
  clock.ms += 3_600_000
  for (let i = 0; i < 10; i += 1) pass('a')
  t.throws(() => pass('a'), { code: 'limit.address_requests' }, 'never more than those of one second are saved')
  t.same(told, ['addressRequests', 'addressRequests', 'addressRequests'])
})

t.test('requests under way, each address by itself', async (t) => {
  const { addresses } = open({ concurrent: 2 })
  const [first] = [addresses.enter('a'), addresses.enter('a')]
  t.throws(() => addresses.enter('a'), {
    code: 'limit.address_concurrent',
    options: { extra: { limit: { value: 2 } } },
  })
  addresses.enter('b')
  addresses.leave(first as Entry)
  addresses.enter('a')
})

t.test('failed authentications are a bucket of their own, and whoever was good goes on', async (t) => {
  const { addresses, fail, clock } = open({ failedAuthentications: 3 })
  const entry = addresses.enter('a')
  const caller = {}
  addresses.succeeded(entry, caller, () => 'good')
  addresses.succeeded(entry, caller, () => {
    throw new Error('it is known already')
  })
  for (let i = 0; i < 3; i += 1) fail('a')
  const refused = { code: 'limit.failed_authentication', options: { retryAfter: 1, extra: { limit: { value: 3 } } } }
  t.throws(() => fail('a'), refused)
  addresses.assertTrusted(entry, () => 'good')
  t.throws(() => addresses.assertTrusted(entry, () => 'unknown'), refused)
  addresses.assertTrusted(addresses.enter('b'), () => 'unknown')
  clock.ms += 1_000
  fail('a')
  t.throws(() => fail('a'), refused, 'one more each second')
  clock.ms += 1_000
  fail('a', 'good')
  t.throws(() => addresses.assertTrusted(entry, () => 'good'), refused, 'what is good no more is not trusted')
})

t.test('whoever was good is not forgotten for many others who are, there or elsewhere', async (t) => {
  const { addresses, fail } = open({ failedAuthentications: 1 })
  const entry = addresses.enter('a')
  const succeed = (address: string, id: string): void => addresses.succeeded(addresses.enter(address), {}, () => id)
  succeed('a', 'good')
  for (let i = 0; i < 12_000; i += 1) succeed('c', 'again')
  succeed('gone', 'x')
  fail('gone', 'x')
  // As many as one address may have, each of nine.
  for (let i = 0; i < 9_000; i += 1) succeed(`b${i % 9}`, `${i}`)
  for (let i = 0; i < 900; i += 1) succeed('a', `${i}`)
  fail('a')
  addresses.assertTrusted(entry, () => 'good')
  for (let i = 0; i < 99; i += 1) succeed('a', `more ${i}`)
  addresses.assertTrusted(entry, () => 'good')
  for (let i = 99; i < 200; i += 1) succeed('a', `more ${i}`)
  t.throws(
    () => addresses.assertTrusted(entry, () => 'good'),
    { code: 'limit.failed_authentication' },
    'the oldest goes',
  )
  addresses.assertTrusted(entry, () => 'more 0')
  for (let i = 0; i < 12_000; i += 1) succeed(`c${i}`, 'x')
  fail('b8')
  t.throws(() => addresses.assertTrusted(addresses.enter('b8'), () => '8999'), { code: 'limit.failed_authentication' })
})

t.test('instances share the limits of an address', async (t) => {
  const shared = { replicas: () => 4 }
  const { pass, fail, addresses, clock } = open(
    { requestsPerSecond: 40, failedAuthentications: 20, concurrent: 8 },
    shared,
  )
  for (let i = 0; i < 10; i += 1) pass('a')
  t.throws(() => pass('a'), { code: 'limit.address_requests' })
  for (let i = 0; i < 5; i += 1) fail('b')
  t.throws(() => fail('b'), { code: 'limit.failed_authentication', options: { retryAfter: 4 } })
  clock.ms += 2_000
  t.throws(() => fail('b'), { code: 'limit.failed_authentication', options: { retryAfter: 2 } })
  addresses.enter('c')
  addresses.enter('c')
  t.throws(() => addresses.enter('c'), { code: 'limit.address_concurrent' })
})

t.test(
  'a flood of addresses grows nothing, and does not make an address forgotten that has requests under way',
  async (t) => {
    const { addresses, pass, clock } = open({ requestsPerSecond: 2, concurrent: 1 }, { most: 500 })
    addresses.enter('busy')
    for (let i = 0; i < 20_000; i += 1) {
      if (i % 100 === 0) clock.ms += 1
      pass(`2001:db8:${i}`)
      if (i === 10_000) t.throws(() => addresses.enter('busy'), { code: 'limit.address_concurrent' })
    }
    t.equal(addresses.size, 500)
    t.throws(() => addresses.enter('busy'), { code: 'limit.address_concurrent' })
  },
)

t.test('whoever has failed is not forgotten for one of whom there is nothing to remember', async (t) => {
  // A failure comes back only after ten seconds, as of ten instances.
  const { pass, fail, clock } = open({ failedAuthentications: 20 }, { most: 2, replicas: () => 10 })
  pass('bad')
  pass('good')
  clock.ms += 61_000
  fail('bad')
  fail('bad')
  clock.ms += 1
  // Behind the other from now on.
  pass('good')
  clock.ms += 2_000
  pass('another')
  t.throws(() => fail('bad'), { code: 'limit.failed_authentication' })
})

t.test('whoever comes all the time is not forgotten for those who have stayed away', async (t) => {
  const { pass, fail, clock } = open({ failedAuthentications: 3 }, { most: 100 })
  let tried = 0
  for (let i = 0; i < 600; i += 1) {
    clock.ms += 100
    try {
      fail('guesses')
      tried += 1
    } catch (error) {
      t.match(error, { code: 'limit.failed_authentication' })
    }
    for (const other of ['a', 'b']) pass(`${other}${i}`)
  }
  t.ok(tried <= 3 + 60, `${tried} in a minute: three at once, and one each second`)
})

import t from 'tap'

import { newSerial, shardOf } from '../../src/ca/issuance/serial.ts'
import { pooledRandom, timeOrderedIds } from '../../src/keys/random.ts'

t.test('octets are given once, whoever writes into them', async (t) => {
  const random = pooledRandom()
  const seen = new Set<string>()
  for (let i = 0; i < 2000; i += 1) {
    const octets = random(16)
    seen.add(octets.toString('hex'))
    octets.fill(0)
  }
  t.equal(seen.size, 2000)
  t.equal(random(5000).length, 5000, 'more than a block')
})

t.test('a serial has 16 octets, is positive, and each of its 126 random bits is one in half of them', async (t) => {
  const random = pooledRandom()
  const n = 20_000
  const ones = new Array<number>(128).fill(0)
  for (let i = 0; i < n; i += 1) {
    const serial = newSerial(random)
    for (let bit = 0; bit < 128; bit += 1)
      ones[bit] = (ones[bit] ?? 0) + (((serial[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1)
  }
  t.equal(ones[0], 0, 'positive')
  t.equal(ones[1], n, 'never shortened')
  // Six standard deviations: a sound generator fails once in five million runs.
  const bound = 6 * Math.sqrt(n / 4)
  t.same(
    ones.slice(2).filter((count) => Math.abs(count - n / 2) > bound),
    [],
  )
})

t.test('a serial is what was drawn but for its first two bits, and its last four octets are its shard', async (t) => {
  const drawn = 'c102030405060708090a0b0c0d0e0f10'
  const serial = newSerial(() => Buffer.from(drawn, 'hex'))
  t.equal(serial.toString('hex'), `41${drawn.slice(2)}`)
  t.same(
    [128, 1000, 1].map((shards) => shardOf(serial, shards)),
    [0x10, 0x0d0e0f10 % 1000, 0],
  )
})

t.test('ids are UUIDs of version 7, in the order of time', async (t) => {
  let now = 1_795_564_800_000
  const newId = timeOrderedIds(() => new Date(now), pooledRandom())
  const ids = Array.from({ length: 100 }, () => {
    now += 1
    return newId()
  })
  t.ok(ids.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)))
  t.same([...ids].sort(), ids)
  t.equal(Number.parseInt((ids[0] ?? '').replaceAll('-', '').slice(0, 12), 16), 1_795_564_800_001)
})

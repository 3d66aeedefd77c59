/** How lists are dated, as settings and clocks go: without records. */
import t from 'tap'

import type { Placed } from '../../src/ca/issuers/issuers.ts'
import {
  type CrlHead,
  type CrlPublisherDeps,
  type CrlTimes,
  type IntendedCrl,
  openCrlPublisher,
} from '../../src/ca/revocation/crl.ts'
import { aloneFor } from '../helpers/publisher.ts'
import { openTestService } from '../helpers/service.ts'

const { service } = await openTestService(t)
const placed = service.issuers.all().find(({ issuer }) => issuer.name === 'default') as Placed

/** One shard, whose last list is what `head` says of those that were made. */
const open = (
  times: CrlTimes,
  now: () => Date,
  head: (last: IntendedCrl | undefined) => CrlHead | undefined,
  over: Partial<CrlPublisherDeps> = {},
) => {
  const made: IntendedCrl[] = []
  const failures: unknown[] = []
  const publisher = openCrlPublisher({
    ...aloneFor(placed, 1),
    times,
    clock: now,
    published: () => {},
    failed: (_issuer, error) => failures.push(error),
    store: {
      rollSize: async () => 0,
      heads: async () => [head(made.at(-1))].filter((one) => one !== undefined),
      changed: async () => new Map(),
      revoked: async () => [],
      record: async (_event, lists) => made.push(...lists) > 0,
      publish: async () => {},
    },
    ...over,
  })
  return { publisher, made, failures }
}

t.test('a list for minutes is for now, and made anew as often as it says', async (t) => {
  let now = Date.now()
  const { publisher, made, failures } = open(
    { periodMs: 30_000, validityMs: 61_000 },
    () => new Date(now),
    (last) => last && { ...last, published: true, publishedUpdate: last.thisUpdate },
  )
  for (let seconds = 0; seconds <= 60; seconds += 5, now += 5_000) {
    await publisher.run()
    const { thisUpdate, nextUpdate } = made.at(-1) as IntendedCrl
    t.ok(thisUpdate.getTime() < now && now + 10_000 < nextUpdate.getTime(), `after ${seconds} s`)
  }
  t.same(failures, [])
  t.same(
    made.map(({ number }) => number),
    [1, 2, 3],
  )
})

t.test('one is made in place of one for a shorter time, which was dated back by less', async (t) => {
  const now = new Date(Math.floor(Date.now() / 1000) * 1000)
  const madeFrom = async (agoMs: number) => {
    const thisUpdate = new Date(now.getTime() - agoMs)
    const head: CrlHead = {
      ...{ shard: 0, number: 1, covers: 0, revoked: 0, published: false, publishedUpdate: thisUpdate, thisUpdate },
      nextUpdate: new Date(thisUpdate.getTime() + 80_000),
    }
    const { publisher, made, failures } = open(
      { periodMs: 43_200_000, validityMs: 259_200_000 },
      () => now,
      () => head,
    )
    await publisher.run()
    return { failures, update: made[0]?.thisUpdate, thisUpdate }
  }
  const { failures, update, thisUpdate } = await madeFrom(10_000)
  t.same(failures, [])
  t.same(update, thisUpdate, 'and is not dated before it')
  t.match(await madeFrom(9_000), { failures: [{ message: /clock has gone back/ }], update: undefined })
})

t.test('in the last quarter of its time a list is made anew by chance, so that not all are at once', async (t) => {
  const last = Math.floor(Date.now() / 1000) * 1000
  const isMade = async (ageMs: number, chance: number): Promise<boolean> => {
    const { publisher, made, failures } = open(
      { periodMs: 40_000_000, validityMs: 90_000_000 },
      () => new Date(last + 60_000 + ageMs),
      () => ({
        ...{ shard: 0, number: 1, covers: 0, revoked: 0, published: true },
        ...{ thisUpdate: new Date(last), publishedUpdate: new Date(last), nextUpdate: new Date(last + 90_000_000) },
      }),
      { chance: () => chance },
    )
    await publisher.run()
    t.same(failures, [])
    return made.length > 0
  }
  t.equal(await isMade(29_999_000, 0), false)
  t.equal(await isMade(30_000_000, 0), true)
  t.equal(await isMade(39_999_000, 0.002), false)
  t.equal(await isMade(40_000_000, 0.002), true, 'and at its end whatever the chance')
})

/** No open intent is passed over: by a look that is overtaken, a pause, a clock that was set, or a commit that comes late. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { reconcile } from '../../src/ca/issuance/reconcile.ts'
import type { Database } from '../../src/db/database.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { openIntents } from '../../src/db/open-intents.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica } from '../helpers/replica.ts'

/** Old enough to be ended, in these tests. */
const ageMs = 50

const open = async (t: Test, most?: number) => {
  const { stores, database } = await openReplica(t)
  const recorder = openRecorder({ ...stores, meter: silentMeter, refusalsPerMinute: 60 })
  const owner = new pg.Client({ connectionString: database.ownerUrl })
  await owner.connect()
  t.teardown(async () => {
    await recorder.close()
    await owner.end()
  })
  const asked = { looks: 0 }
  const hooks: { beforeUpdate?: (() => Promise<void>) | undefined } = {}
  const db: Database = {
    ...stores.db,
    query: async (statement, values) => {
      if ('name' in statement && statement.name === 'select_open_intents') asked.looks += 1
      const hook = hooks.beforeUpdate
      if ('name' in statement && statement.name === 'update_reconciled' && hook) {
        hooks.beforeUpdate = undefined
        await hook()
      }
      return stores.db.query(statement, values)
    },
  }
  const clock = { elapsed: 0 }
  const intents = openIntents(db, stores.roll, () => new Date('2030-01-01'), {
    elapsedMs: () => clock.elapsed,
    ...(most && { most }),
  })
  const intend = async (shard = 0): Promise<Buffer> => {
    const serial = randomBytes(16)
    await recorder.recordIntent({
      request: { principal: 'admin', key: null, digest: Buffer.alloc(32) },
      attempt: 1,
      serial,
      issuer: 'default',
      states: ['active'],
      shard,
      profile: { name: 'server', version: 1 },
      tbs: randomBytes(100),
      plan: Buffer.alloc(32),
      keySha256: randomBytes(32),
      names: 1,
      notAfter: new Date(Date.now() + 3_600_000),
    })
    return serial
  }
  const lookAtAll = () => reconcile(intents, ageMs)
  return { owner, asked, hooks, clock, intend, lookAtAll, look: () => intents.abandon(ageMs, 100) }
}

t.test('an intent that comes of age while a look ends is found by the next one', async (t) => {
  const { hooks, intend, look } = await open(t)
  t.equal(await look(), 0)
  hooks.beforeUpdate = async () => {
    await intend()
    await sleep(3 * ageMs)
  }
  t.equal(await look(), 0)
  t.equal(await look(), 1)
  t.equal(await look(), 0)
})

t.test('an intent that two replicas find is ended once', async (t) => {
  const { intend, look } = await open(t)
  await intend()
  await sleep(3 * ageMs)
  t.same((await Promise.all([look(), look()])).sort(), [0, 1])
})

t.test('a clock that was set back takes the mark with it', async (t) => {
  const { owner, intend, look } = await open(t)
  t.equal(await look(), 0)
  await owner.query("update reconciled set until = clock_timestamp() + interval '1 hour'")
  t.equal(await look(), 0)
  await intend()
  await sleep(3 * ageMs)
  t.equal(await look(), 1)
})

t.test('an intent whose commit comes late is found by a deep look, however long the pause before it', async (t) => {
  const { owner, clock, look } = await open(t)
  t.equal(await look(), 0)
  await owner.query('begin')
  await owner.query(
    `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
    values ($1, 'admin', 1, $2, 'default', 0, 'server', 1, $1, $2)`,
    [randomBytes(16), Buffer.alloc(32)],
  )
  await sleep(3 * ageMs)
  t.equal(await look(), 0)
  await owner.query('commit')
  t.equal(await look(), 0, 'a shallow look begins where the last one ended')
  // As after ten minutes in which nobody looked: the mark is far ahead of where the last deep look ended.
  clock.elapsed = 600_000
  t.equal(await look(), 1)
})

t.test('what is too much for one statement is looked at by several', async (t) => {
  const { asked, clock, intend, look } = await open(t, 3)
  for (let i = 0; i < 10; i += 1) await intend()
  await sleep(3 * ageMs)
  let found = 0
  for (let last = -1; last !== 0; found += last) {
    last = await look()
    t.ok(last <= 3)
  }
  t.equal(found, 10)
  clock.elapsed = 600_000
  asked.looks = 0
  t.equal(await look(), 0)
  t.ok(asked.looks >= 4, `${asked.looks} statements`)
  await intend()
  await sleep(3 * ageMs)
  t.equal(await look(), 1, 'what comes later is found at once')
  for (let i = 0; i < 10; i += 1) await intend()
  await sleep(3 * ageMs)
  for (let last = -1; last !== 0; found += last) last = await look()
  t.equal(found, 20, 'also where none of the looks goes back')
})

t.test('what was left by a crash long ago is found by whoever starts next', async (t) => {
  const { owner, look } = await open(t)
  await owner.query("update reconciled set until = now() - interval '3 days'")
  await owner.query(
    `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at)
    values ($1, 'admin', 1, $2, 'default', 0, 'server', 1, $1, $2, now() - interval '2 days')`,
    [randomBytes(16), Buffer.alloc(32)],
  )
  t.equal(await look(), 1)
  t.equal(await look(), 0)
})

t.test('each is revoked on the list of its own shard, since its intent', async (t) => {
  const { owner, intend, look } = await open(t)
  const shards = [7, 0, 127]
  for (const shard of shards) await intend(shard)
  await sleep(3 * ageMs)
  t.equal(await look(), 3)
  const { rows } = await owner.query(`
    select r.shard, r.issuer, r.reason, r.not_after, e.body::jsonb ->> 'shard' = r.shard::text as told,
      r.revoked_at = date_trunc('milliseconds', i.created_at) as since,
      (e.body::jsonb ->> 'intended')::timestamptz = r.revoked_at as "sinceTold"
    from intents i join revocations r using (serial) join outcomes o using (serial) join entries e on e.index = r.entry
    where o.entry = r.entry and o.kind = 'abandoned' and e.type = 'issuance.abandoned' order by i.created_at`)
  const of = { issuer: 'default', reason: null, not_after: new Date('2030-01-01') }
  t.same(
    rows,
    shards.map((shard) => ({ shard, ...of, told: true, since: true, sinceTold: true })),
  )
})

t.test('all that are due are ended at once, however many, and told of', async (t) => {
  const { intend, look, lookAtAll } = await open(t)
  await Promise.all(Array.from({ length: 400 }, () => intend()))
  await sleep(3 * ageMs)
  t.equal(await lookAtAll(), 400, 'two slices, and one with nothing in it')
  t.equal(await look(), 0)
  t.equal(await lookAtAll(), 0)
})

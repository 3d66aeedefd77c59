/** Orders to revoke many, in the records: what is true of them whoever carries them out, and however many do. */
import { setTimeout as pause } from 'node:timers/promises'

import pg from 'pg'
import t from 'tap'

import { type MassAsk, type MassRevocations, openMassRevocations } from '../../src/ca/revocation/mass-revocation.ts'
import { openMassRevocationStore } from '../../src/db/mass-revocations.ts'
import { massRevocationJob } from '../../src/server/jobs/mass-revocation.ts'
import type { Stores } from '../../src/server/stores.ts'
import { fill, nameOf } from '../helpers/filling.ts'
import { quiet } from '../helpers/log.ts'
import { massFacts } from '../helpers/mass.ts'
import { holdTurn } from '../helpers/turn.ts'
import { openTestStores, type TestStores } from './stores.ts'

t.setTimeout(300_000)

const certificates = 1_250
let world: TestStores
let owner: pg.Client
let one: MassRevocations
let two: MassRevocations
let stores: Stores

t.before(async () => {
  world = await openTestStores(t)
  stores = world.stores
  owner = new pg.Client({ connectionString: world.service.database.ownerUrl })
  await owner.connect()
  t.teardown(() => owner.end())
  const { serial } = await world.issue([`dns:${nameOf(0)}`])
  await fill(owner, { serial, first: 1, last: certificates - 1 })
  // While the test has the lease the service leaves orders alone, and the test carries them out itself.
  await holdTurn(t, stores.db, 'mass-revocation')
  ;[one, two] = [revocationsOf(stores), revocationsOf(await world.open())]
})

const revocationsOf = (stores: Stores): MassRevocations =>
  openMassRevocations({ store: openMassRevocationStore(stores), changed: () => {} })
const ask = (search: MassAsk['search'], reason: MassAsk['reason'] = 'superseded'): MassAsk => ({
  search,
  reason,
  invalidSince: null,
})
const orderAll = async (wanted: MassAsk, by = 'ops'): Promise<string> => {
  const { digest, asOf } = await one.plan(wanted)
  await one.order(wanted, { digest, asOf }, by)
  return digest
}
const carryOut = async (revocations: MassRevocations, digest: string): Promise<number> => {
  let slices = 0
  while (await revocations.advance(digest)) slices += 1
  return slices
}
const factsOf = (digest: string) => massFacts(world.service.database.ownerUrl, digest)
const sound = { twice: 0, others: 0, unlike: 0 }

t.test('two instances at once, without the lease: each certificate once, each slice once', async (t) => {
  const wanted = ask({ name: '*.example.com' }, 'certificateHold')
  const digest = await orderAll(wanted)
  t.equal(await two.open(), digest)
  t.match(await factsOf(digest), { planned: certificates, slices: 13, outcomes: 0, rows: 0, done: 0 })
  const alone = await one.advance(digest)
  t.match(alone, { revoked: 100, skipped: { expired: 0, revoked: 0 }, done: false })
  t.match(await two.read(digest), { total: certificates, revoked: 100, finishedAt: null })
  const shares = await Promise.all([one, two, one, two].map((each) => carryOut(each, digest)))
  t.equal(
    shares.reduce((sum, n) => sum + n, 1),
    13,
  )
  t.match(await factsOf(digest), {
    ...sound,
    ...{ planned: certificates, outcomes: 13, revoked: certificates, passed: 0 },
    ...{ rows: certificates, once: certificates, events: certificates, done: 1 },
  })
  t.equal(await one.open(), undefined)
  t.equal(await one.advance(digest), undefined, 'and nothing more')
  t.match(await factsOf(digest), { rows: certificates, done: 1 })
})

t.test('the same order at once from many becomes one', async (t) => {
  const wanted = ask({ name: '*.example.com' })
  const { digest, asOf } = await one.plan(wanted)
  const orders = await Promise.all([one, two, one, two, two].map((each) => each.order(wanted, { digest, asOf }, 'ops')))
  t.equal(new Set(orders.map(({ index }) => index)).size, 1)
  const { rows } = await owner.query(
    `select body::jsonb -> 'asOf' as "asOf" from entries where type = 'revocations.ordered' and body::jsonb ->> 'plan' = $1`,
    [digest],
  )
  t.same(rows, [{ asOf: { size: asOf.size, time: asOf.time.toISOString() } }], 'which makes the set again, for ever')
  for (const more of [
    { invalidSince: new Date('2026-11-01T00:00:00Z') },
    { reason: 'unspecified' as const },
    { search: { ...wanted.search, profile: 'server' } },
  ])
    await t.rejects(one.order({ ...wanted, ...more }, { digest, asOf }, 'ops'), { code: 'revocation.plan' })
  t.match(await factsOf(digest), { planned: certificates, slices: 13, outcomes: 0 })
})

t.test('whoever orders something else under a digest at the same moment is told so, and leaves nothing', async (t) => {
  /** Resolves when so many have written a set down, or are about to, and wait. */
  const waiting = async (n: number): Promise<void> => {
    const text = `
      select count(*)::integer as n from pg_locks s
      where relation = 'mass_revocation_slices'::regclass and mode = 'RowExclusiveLock'
        and exists (select from pg_locks w where w.pid = s.pid and not w.granted)`
    while ((await owner.query<{ n: number }>(text)).rows[0]?.n !== n) await pause(10)
  }
  for (const [name, other] of [
    ['reason.example.net', { reason: 'unspecified' }],
    ['set.example.net', { reason: 'keyCompromise', search: { name: '*.example.com' } }],
  ] as const) {
    await world.issue([`dns:${name}`])
    const wanted = ask({ name })
    const { digest, asOf } = await one.plan(wanted)
    const orders: Promise<unknown>[] = []
    await stores.db.transaction(async (tx) => {
      await tx.query({ text: 'select from roll where id = 1 for update' }, [])
      for (const [each, more] of [
        [one, {}],
        [two, other],
      ] as const) {
        orders.push(each.order({ ...wanted, ...more }, { digest, asOf }, 'ops'))
        await waiting(orders.length)
      }
    })
    const [first, second] = await Promise.allSettled(orders)
    t.match(first, { value: { reason: 'superseded' } })
    t.match(second, { reason: { code: 'revocation.plan' } })
    await carryOut(one, digest)
    t.match(await factsOf(digest), { ...sound, planned: 1, slices: 1, outcomes: 1, rows: 1, done: 1 }, name)
  }
})

t.test('the job goes on while it has the lease and nobody stops it, and leaves the rest to the next run', async (t) => {
  const digest = (await one.open()) as string
  const { outcomes } = await factsOf(digest)
  const done = async (): Promise<number> => (await factsOf(digest)).outcomes - outcomes
  /** One run: what it is told each time that it asks for the lease, and what happens while it leaves room. */
  const run = async (leases: readonly boolean[], between: () => Promise<void> | void = () => {}) => {
    const asked: boolean[] = []
    let rests = 0
    const job = massRevocationJob({
      revocations: one,
      lease: async () => {
        asked.push(true)
        return leases[asked.length - 1] ?? false
      },
      sleep: async () => {
        rests += 1
        await between()
      },
      isStopping: () => stopping,
      log: quiet,
    })
    await job.run()
    return { asked: asked.length, rests }
  }
  let stopping = false
  t.same(await run([false]), { asked: 1, rests: 0 })
  t.equal(await done(), 0, 'another instance is at it')
  stopping = true
  t.same(await run([true]), { asked: 0, rests: 0 }, 'who stops keeps nobody else from it')
  t.equal(await done(), 0)
  stopping = false
  const stop = (): void => {
    stopping = true
  }
  t.same(await run([true], stop), { asked: 1, rests: 1 })
  t.equal(await done(), 1, 'who stops ends the slice that it is at')
  stopping = false
  const late = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1_100))
  t.same(await run([true, false, false], late), { asked: 3, rests: 1 })
  t.equal(await done(), 2, 'nor goes on who has lost the lease meanwhile')
  t.equal(await one.open(), digest)
})

t.test(
  'while an order is carried out, single revocations and issuing go on; what they changed is passed by',
  async (t) => {
    const digest = (await one.open()) as string
    await one.advance(digest)
    const { rows } = await owner.query<{ serial: string }>(
      `select encode(serial, 'hex') as serial from certificates where entry in (
       select unnest(certificates) from mass_revocation_slices where number = 7 and plan = decode($1, 'hex')) limit 3`,
      [digest],
    )
    await world.service.request('POST', '/v1/grants', { body: { principal: 'admin', role: 'operator' } })
    for (const { serial } of rows)
      await world.service.request('POST', `/v1/certificates/${serial}/revocation`, {
        body: { reason: 'privilegeWithdrawn' },
      })
    const [, issued] = await Promise.all([carryOut(two, digest), world.issue(['dns:beside.example.com'])])
    t.match(await factsOf(digest), {
      ...sound,
      ...{ planned: certificates, outcomes: 13, revoked: certificates - 3, passed: 3, rows: certificates - 3, done: 1 },
    })
    t.match(await one.read(digest), { revoked: certificates - 3, skipped: { revoked: 3, expired: 0 } })
    const { rows: standing } = await owner.query(`select from revocations where serial = decode($1, 'hex')`, [
      issued.serial,
    ])
    t.equal(standing.length, 0, 'what was issued meanwhile is none of it')
  },
)

t.test('an order that fails half-way leaves nothing, and goes on when it is asked again', async (t) => {
  const wanted = ask({ name: '*.example.com' }, 'keyCompromise')
  const { digest, asOf } = await one.plan(wanted)
  t.match(await one.plan(wanted), { skipped: { revoked: 0 } })
  const broken = openMassRevocations({
    store: openMassRevocationStore({
      ...stores,
      roll: {
        ...stores.roll,
        change: (make, prepare) =>
          stores.roll.change(async (tx, time, index) => {
            await make(tx, time, index)
            throw new Error('pulled')
          }, prepare),
      },
    }),
    changed: () => t.fail('told of a change that was not made'),
  })
  await t.rejects(broken.order(wanted, { digest, asOf }, 'ops'), /pulled/)
  t.match(await factsOf(digest), { planned: 0, outcomes: 0 })
  await t.rejects(one.read(digest), { code: 'revocation.not_found' })
  await one.order(wanted, { digest, asOf }, 'ops')
  await one.advance(digest)
  await t.rejects(broken.advance(digest), /pulled/)
  t.match(await factsOf(digest), { outcomes: 1, rows: 100, done: 0 })
  const told: number[] = []
  const telling = openMassRevocations({
    store: openMassRevocationStore(stores),
    changed: (_, index) => told.push(index),
  })
  await carryOut(telling, digest)
  const { rows } = await owner.query<{ entry: string }>(
    `select entry from revocations where entry >= $1 and reason = 'keyCompromise' order by entry`,
    [told[0]],
  )
  t.same(
    told,
    rows.map(({ entry }) => Number(entry)),
    'this instance is told of each change',
  )
  t.match(await factsOf(digest), { ...sound, outcomes: 13, events: certificates + 1, done: 1 })
  const { rows: keys } = await owner.query('select from compromised_keys')
  t.equal(keys.length, 1, 'one key for all of them here')
})

t.test('a plan is bounded, and so is what it lists', async (t) => {
  const bounded = openMassRevocations({ store: openMassRevocationStore(stores), changed: () => {}, most: 500 })
  const wanted = ask({ name: '*.example.com' })
  await t.rejects(bounded.plan(wanted), { code: 'revocation.too_many' })
  await t.rejects(bounded.order(wanted, { digest: 'ab'.repeat(32) }, 'ops'), { code: 'revocation.too_many' })
  for (let i = 0; i < 23; i += 1) {
    const principal = `p${String(i).padStart(2, '0')}`
    await world.service.request('POST', '/v1/principals', { body: { name: principal } })
    for (const host of i < 2 ? ['a', 'b'] : ['a']) await world.issue([`dns:${host}.${principal}.test`], { principal })
  }
  const { byPrincipal, count, sample } = await bounded.plan(ask({ name: '*.test' }))
  t.equal(count, 25)
  const bounds = (most: number) =>
    openMassRevocations({ store: openMassRevocationStore(stores), changed: () => {}, most })
  t.match(await bounds(25).plan(ask({ name: '*.test' })), { count })
  await t.rejects(bounds(24).plan(ask({ name: '*.test' })), { code: 'revocation.too_many' })
  t.equal(sample.length, 10)
  t.equal(byPrincipal.items.length, 20)
  t.match(byPrincipal.items.slice(0, 3), [
    { name: 'p00', count: 2 },
    { name: 'p01', count: 2 },
    { name: 'p02', count: 1 },
  ])
  t.same(byPrincipal.others, { names: 3, count: 3 })
})

t.test('what was approved, written down and done stays as it is', async (t) => {
  for (const table of ['mass_revocations', 'mass_revocation_slices', 'mass_revocation_outcomes'])
    for (const text of [`delete from ${table}`, `truncate ${table} cascade`])
      await t.rejects(owner.query(text), { code: '23001' }, text)
  const digest = (await one.list({ limit: 1 })).items[0]?.digest
  const again = `insert into mass_revocation_outcomes select * from mass_revocation_outcomes where plan = decode($1, 'hex')`
  await t.rejects(owner.query(again, [digest]), { code: '23505' }, 'a slice ends once')
  await t.rejects(
    owner.query(`insert into mass_revocation_slices values (decode($1, 'hex'), 0, '{1}')`, ['cd'.repeat(32)]),
    { code: '23503' },
    'no set without its order',
  )
})

t.test('since when a key is not to be trusted is judged by the time of now, and not as of the set', async (t) => {
  const asOf = await stores.db.query<{ size: number }>({ text: 'select size from roll' })
  const past = { size: asOf.rows[0]?.size ?? 0, time: new Date(Date.now() - 3_600_000) }
  const since = (ms: number) => ({ ...ask({ name: '*.test' }), invalidSince: new Date(Date.now() + ms) })
  t.match(await one.plan(since(-60_000), past), { asOf: past })
  await t.rejects(one.plan(since(60_000), past), { code: 'request.malformed', detail: /in the future/ })
})

t.test('while the clocks disagree nothing is ordered, and what was ordered waits', async (t) => {
  await world.service.request('POST', '/v1/principals', { body: { name: 'skewed' } })
  await world.issue(['dns:a.skewed.example.com'], { principal: 'skewed' })
  const wanted = ask({ name: '*.skewed.example.com' })
  const behind = revocationsOf(await world.open(() => new Date(Date.now() - 86_400_000)))
  const { digest, asOf } = await one.plan(wanted)
  await t.rejects(behind.order(wanted, { digest, asOf }, 'ops'), { code: 'clock.skewed', kind: { retryable: true } })
  const dated = { ...wanted, invalidSince: new Date(asOf.time.getTime() - 1_000) }
  await t.rejects(behind.plan(dated), { code: 'clock.skewed' }, 'nor is a date judged')
  await t.rejects(behind.order(dated, { digest }, 'ops'), { code: 'clock.skewed' })
  const ancient = { ...wanted, invalidSince: new Date('1949-12-31T00:00:00Z') }
  await t.rejects(behind.plan(ancient), { code: 'request.malformed' }, 'whoever can mend it is told so')
  await one.order(wanted, { digest, asOf }, 'ops')
  await t.rejects(behind.advance(digest), { code: 'clock.skewed' })
  t.equal(await carryOut(one, digest), 1)
  t.match(await factsOf(digest), sound)
})

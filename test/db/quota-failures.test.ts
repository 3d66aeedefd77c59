/** Of intents that are counted together, who has no place and what fails is told of those that it hits, and of no others. */
import { randomBytes, randomUUID } from 'node:crypto'

import t from 'tap'

import type { Booking, CountedLimits } from '../../src/ca/access/limits.ts'
import type { Intent } from '../../src/ca/issuance/recorder.ts'
import type { Database } from '../../src/db/database.ts'
import { sqlState } from '../../src/db/errors.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { isProblem } from '../../src/errors.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica } from '../helpers/replica.ts'

const { stores } = await openReplica(t)
/**
 * Told of what a statement that records intents has recorded; the next one fails where it says so. And of one that has found a
 * ledger held for a quarter of a second.
 */
const hooks = { recorded: (_count: number): boolean => false, locked: async (): Promise<void> => {} }
let fails = false
const db: Database = {
  ...stores.db,
  query: async (statement, values) => {
    if (!('name' in statement) || statement.name !== 'insert_booked_intents') return stores.db.query(statement, values)
    if (fails) throw new Error('the connection was lost')
    const result = await stores.db.query(statement, values).catch(async (error: unknown) => {
      if (sqlState(error) === '55P03') await hooks.locked()
      throw error
    })
    fails = hooks.recorded((result.rows[0] as { readonly recorded: number }).recorded)
    return result as never
  },
}
const recorder = openRecorder({ ...stores, db, meter: silentMeter, refusalsPerMinute: 60 })
t.teardown(() => recorder.close())
t.afterEach(() => {
  hooks.recorded = () => false
  hooks.locked = async () => {}
  fails = false
})

const intentOf = (grant: string, limits: CountedLimits, { version = 1, names = 1 } = {}): Intent => ({
  request: { principal: 'admin', key: randomUUID(), digest: Buffer.alloc(32) },
  ...{ attempt: 1, serial: randomBytes(16), issuer: 'default', states: ['active'], shard: 0 },
  ...{ profile: { name: 'server', version }, tbs: randomBytes(10), plan: Buffer.alloc(32) },
  keySha256: randomBytes(32),
  booking: {
    grants: [{ id: grant, profiles: ['server'], limits }],
    ...{ names, notAfter: new Date(Date.now() + 3_600_000) },
  },
})

const recordAll = async (intents: readonly Intent[]): Promise<readonly string[]> => {
  const ends = await Promise.allSettled(intents.map((intent) => recorder.recordIntent(intent)))
  return ends.map((end) => {
    if (end.status === 'fulfilled') return String(end.value)
    return isProblem(end.reason) ? end.reason.code : 'failed'
  })
}

/** Of a ledger: intents that are counted, and the newest total. */
const countedIn = async (grant: string): Promise<object | undefined> => {
  const text = `
    select count(*) filter (where serial <> '')::integer as rows, max(certificates) as total from limit_uses
    where grant_id = $1 and serial in (select serial from intents union select '')`
  return (await stores.db.query<object>({ text }, [grant])).rows[0]
}

t.test('what was recorded before the records were lost is not said to have failed', async (t) => {
  const grant = randomUUID()
  const limits = { certificatesPerDay: 2 }
  hooks.recorded = (count) => count > 0
  t.same(await recordAll(Array.from({ length: 3 }, () => intentOf(grant, limits))), ['recorded', 'recorded', 'failed'])
  t.same(await countedIn(grant), { rows: 2, total: 2 })
})

t.test('one that the database refuses fails alone, and takes no room', async (t) => {
  const grant = randomUUID()
  const limits = { certificatesPerDay: 5 }
  const versions = [1, 1, 99, 1]
  t.same(await recordAll(versions.map((version) => intentOf(grant, limits, { version }))), [
    ...['recorded', 'recorded'],
    ...['failed', 'recorded'],
  ])
  t.same(await countedIn(grant), { rows: 3, total: 3 })
})

t.test('what does not fit keeps none of those that come with it, and what is recorded stays so', async (t) => {
  const grant = randomUUID()
  const limits = { namesPerDay: 12 }
  t.same(await recordAll([intentOf(grant, limits, { names: 5 })]), ['recorded'])
  const full = 'limit.names_per_day'
  const ends = await recordAll([8, 1, 9, 2].map((names) => intentOf(grant, limits, { names })))
  t.same(ends, [full, 'recorded', full, 'recorded'])
  t.same(await countedIn(grant), { rows: 3, total: 3 })
})

t.test('of what comes at once only so many are recorded as fit together', async (t) => {
  for (const [limits, code] of [
    [{ certificatesPerDay: 2 }, 'limit.certificates_per_day'],
    [{ namesPerDay: 8 }, 'limit.names_per_day'],
    [{ certificatesAlive: 2 }, 'limit.certificates_alive'],
  ] as const) {
    const grant = randomUUID()
    const ends = await recordAll(Array.from({ length: 3 }, () => intentOf(grant, limits, { names: 3 })))
    t.same(ends, ['recorded', 'recorded', code])
  }
})

t.test('under several grants nothing is recorded that one of them has no room for', async (t) => {
  const [narrow, wide] = [{ certificatesPerDay: 1 }, { namesPerDay: 9 }].map((limits) => {
    const { booking } = intentOf(randomUUID(), limits)
    return booking?.grants ?? []
  })
  const under = (...grants: readonly (Booking['grants'] | undefined)[]): Intent => {
    const intent = intentOf(randomUUID(), {})
    return { ...intent, booking: { ...(intent.booking as Booking), grants: grants.flatMap((of) => of ?? []) } }
  }
  t.same(await recordAll([under(narrow)]), ['recorded'])
  const full = 'limit.certificates_per_day'
  for (const both of [under(narrow, wide), under(wide, narrow)]) t.same(await recordAll([both]), [full])
  t.same(await recordAll([under(narrow, wide), under(wide)]), [full, 'recorded'])
  const [one, two] = [1, 2].map(() => (wide ?? []).map((grant) => ({ ...grant, id: randomUUID() })))
  const together = [under(one, two), under(two), under(one, two)]
  t.same(await recordAll(together), ['recorded', 'recorded', 'recorded'])
  t.match(await countedIn(one?.[0]?.id ?? ''), { rows: 2, total: 2 })
  t.match(await countedIn(two?.[0]?.id ?? ''), { rows: 3, total: 3 }, 'each counts for itself')
})

t.test('who comes second under a key is told so, and not that there is no room', async (t) => {
  const intent = intentOf(randomUUID(), { certificatesPerDay: 1 })
  const again = (attempt: number): Intent => ({ ...intent, attempt, serial: randomBytes(16) })
  t.same(await recordAll([intent]), ['recorded'])
  t.same(await recordAll([again(1), again(2)]), ['taken', 'limit.certificates_per_day'])
  // Keys are each principal's own.
  await stores.db.query({ text: `insert into principals (name, created_by) values ('other', 'test')` })
  const theirs = { ...again(2), request: { ...intent.request, principal: 'other' } }
  t.same(await recordAll([theirs]), ['recorded'])
  t.same(await recordAll([again(2)]), ['limit.certificates_per_day'])
})

t.test('a ledger that somebody has for longer is come back for', async (t) => {
  const grant = randomUUID()
  let release = (): void => {}
  const holding = Promise.withResolvers<void>()
  const held = stores.db.transaction(async (tx) => {
    await tx.query({ text: `select pg_advisory_xact_lock(4711001, hashtext($1 || chr(10) || 'admin'))` }, [grant])
    await new Promise<void>((resolve) => {
      release = resolve
      holding.resolve()
    })
  })
  await holding.promise
  let locked = 0
  hooks.locked = async () => {
    locked += 1
    release()
    await held
  }
  t.same(await recordAll([intentOf(grant, { certificatesPerDay: 1 })]), ['recorded'])
  t.equal(locked, 1)
})

t.test('whoever stops waits for what is being counted', async (t) => {
  const grant = randomUUID()
  const ends: string[] = []
  const recording = Array.from({ length: 3 }, async () =>
    ends.push(await recorder.recordIntent(intentOf(grant, { certificatesAlive: 3 }))),
  )
  await recorder.drain()
  t.same(ends, ['recorded', 'recorded', 'recorded'])
  await Promise.all(recording)
})

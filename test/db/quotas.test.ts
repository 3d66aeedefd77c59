/** Limits of certificates and names, counted in the transaction that records an intent. */
import { randomBytes, randomUUID } from 'node:crypto'

import t from 'tap'

import type { CountedLimits } from '../../src/ca/access/limits.ts'
import type { Intent } from '../../src/ca/issuance/recorder.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { isProblem } from '../../src/errors.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica } from '../helpers/replica.ts'
import { openSql } from '../helpers/sql.ts'

const { database, stores } = await openReplica(t)
const recorder = openRecorder({ ...stores, meter: silentMeter, refusalsPerMinute: 60 })
t.teardown(() => recorder.close())
await stores.db.query({
  text: `insert into principals (name, created_by) select 'p' || n, 'test' from generate_series(1, 40) n`,
})

let principals = 0
const newPrincipal = (): string => `p${++principals}`

const intentOf = (principal: string, limits: CountedLimits, more: Partial<Intent> = {}): Intent => ({
  request: { principal, key: randomUUID(), digest: Buffer.alloc(32) },
  ...{ attempt: 1, serial: randomBytes(16), issuer: 'default', states: ['active'], shard: 0 },
  ...{ profile: { name: 'server', version: 1 }, tbs: randomBytes(10), plan: Buffer.alloc(32) },
  ...{ keySha256: randomBytes(32), names: 1, notAfter: new Date(Date.now() + 3_600_000) },
  limitedBy: [{ profiles: ['server'], limits }],
  ...more,
})

const recordAll = async (intents: readonly Intent[]): Promise<readonly string[]> => {
  const ends = await Promise.allSettled(intents.map((intent) => recorder.recordIntent(intent)))
  return ends.map((end) => {
    if (end.status === 'fulfilled') return String(end.value)
    return isProblem(end.reason) ? end.reason.code : 'failed'
  })
}

t.test('an intent that the database rejects fails alone, and takes no room', async (t) => {
  const principal = newPrincipal()
  const limits = { certificatesPerDay: 4 }
  const intents = [1, 1, 99, 1].map((version) => intentOf(principal, limits, { profile: { name: 'server', version } }))
  t.same(await recordAll(intents), ['recorded', 'recorded', 'failed', 'recorded'])
  t.same(await recordAll([intentOf(principal, limits), intentOf(principal, limits)]), [
    'recorded',
    'limit.certificates_per_day',
  ])
})

t.test('an intent that does not fit keeps back none of those that come with it', async (t) => {
  const principal = newPrincipal()
  const limits = { namesPerDay: 12 }
  t.same(await recordAll([intentOf(principal, limits, { names: 5 })]), ['recorded'])
  const full = 'limit.names_per_day'
  const ends = await recordAll([8, 1, 9, 2].map((names) => intentOf(principal, limits, { names })))
  t.same(ends, [full, 'recorded', full, 'recorded'])
})

t.test('of intents that come at once only as many are recorded as fit together', async (t) => {
  for (const [limits, code] of [
    [{ certificatesPerDay: 2 }, 'limit.certificates_per_day'],
    [{ namesPerDay: 8 }, 'limit.names_per_day'],
    [{ certificatesAlive: 2 }, 'limit.certificates_alive'],
  ] as const) {
    const principal = newPrincipal()
    const ends = await recordAll(Array.from({ length: 3 }, () => intentOf(principal, limits, { names: 3 })))
    t.same(ends, ['recorded', 'recorded', code])
  }
})

t.test('an intent is recorded only where each of several grants leaves room', async (t) => {
  const principal = newPrincipal()
  const narrow = { profiles: ['server'], limits: { certificatesPerDay: 1 } }
  const wide = { profiles: ['server', 'other'], limits: { namesPerDay: 9 } }
  const elsewhere = { profiles: ['other'], limits: { certificatesPerDay: 1 } }
  const under = (...limitedBy: NonNullable<Intent['limitedBy']>): Intent => intentOf(principal, {}, { limitedBy })
  t.same(await recordAll([under(narrow), under(narrow, wide), under(wide, narrow), under(wide, elsewhere)]), [
    'recorded',
    'limit.certificates_per_day',
    'limit.certificates_per_day',
    'recorded',
  ])
})

t.test('the second intent under a key is taken, not refused for want of room', async (t) => {
  const [principal, other] = [newPrincipal(), newPrincipal()]
  const intent = intentOf(principal, { certificatesPerDay: 1 })
  const again = (attempt: number): Intent => ({ ...intent, attempt, serial: randomBytes(16) })
  t.same(await recordAll([intent]), ['recorded'])
  t.same(await recordAll([again(1), again(2)]), ['taken', 'limit.certificates_per_day'])
  const another = { ...again(2), keySha256: randomBytes(32), request: { ...intent.request, principal: other } }
  t.same(await recordAll([another]), ['recorded'])
})

t.test('intents under the same keys at once take their room once', async (t) => {
  const principal = newPrincipal()
  const ask = (key: string): Intent => {
    const intent = intentOf(principal, { certificatesPerDay: 3 })
    return { ...intent, request: { ...intent.request, key } }
  }
  t.same(await recordAll(['a', 'a', 'b', 'b', 'c', 'd'].map(ask)), [
    ...['recorded', 'taken', 'recorded', 'taken', 'recorded'],
    'limit.certificates_per_day',
  ])
})

t.test('what was recorded without a limit counts under a new one, until it ends or the key was not used', async (t) => {
  const principal = newPrincipal()
  const { limitedBy: _, ...first } = intentOf(principal, {}, { names: 3 })
  t.same(await recordAll([first]), ['recorded'])
  t.same(await recordAll([intentOf(principal, { certificatesPerDay: 1 })]), ['limit.certificates_per_day'])
  t.same(await recordAll([intentOf(principal, { namesPerDay: 3 })]), ['limit.names_per_day'])
  const notAfter = new Date(Date.now() - 2_000)
  const { limitedBy: __, ...ended } = intentOf(principal, {}, { notAfter })
  t.same(await recordAll([ended]), ['recorded'])
  t.same(await recordAll([intentOf(principal, { certificatesAlive: 2 })]), ['recorded'])
  await recorder.recordUnsigned(first)
  const limits = { certificatesAlive: 2 }
  t.same(await recordAll([intentOf(principal, limits), intentOf(principal, limits)]), [
    'recorded',
    'limit.certificates_alive',
  ])
})

t.test('a day by UTC ends at midnight, and its certificates stay alive', async (t) => {
  const principal = newPrincipal()
  const daily = { certificatesPerDay: 1 }
  t.same(await recordAll([intentOf(principal, daily)]), ['recorded'])
  const owner = await openSql(t, database.ownerUrl)
  await owner.query('alter table intents disable trigger user')
  await owner.query(`update intents set created_at = created_at - interval '24 hours' where principal = $1`, [
    principal,
  ])
  t.same(await recordAll([intentOf(principal, { certificatesAlive: 1 })]), ['limit.certificates_alive'])
  t.same(await recordAll([intentOf(principal, daily), intentOf(principal, daily)]), [
    'recorded',
    'limit.certificates_per_day',
  ])
})

t.test('two instances never exceed a limit together', async (t) => {
  const principal = newPrincipal()
  const second = openRecorder({ ...stores, meter: silentMeter, refusalsPerMinute: 60 })
  t.teardown(() => second.close())
  const ends = await Promise.allSettled(
    Array.from({ length: 40 }, (_, i) =>
      (i % 2 ? recorder : second).recordIntent(intentOf(principal, { certificatesPerDay: 7 })),
    ),
  )
  t.equal(ends.filter(({ status }) => status === 'fulfilled').length, 7)
})

t.test('draining waits for intents that are being counted', async (t) => {
  const principal = newPrincipal()
  const ends: string[] = []
  const recording = Array.from({ length: 3 }, async () =>
    ends.push(await recorder.recordIntent(intentOf(principal, { certificatesAlive: 3 }))),
  )
  await recorder.drain()
  t.same(ends, ['recorded', 'recorded', 'recorded'])
  await Promise.all(recording)
})

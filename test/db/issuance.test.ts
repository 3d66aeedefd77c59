/** The recorder by itself: what becomes of enrolments that meet an outcome of somebody else. */
import { randomBytes, randomUUID } from 'node:crypto'
import { mock } from 'node:test'
import { setTimeout } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import type { Enrolment, Intent } from '../../src/ca/issuance/recorder.ts'
import type { Meter } from '../../src/ca/meter.ts'
import type { Database, Statement } from '../../src/db/database.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { Problem } from '../../src/errors.ts'
import type { Log } from '../../src/log.ts'
import { quiet } from '../helpers/log.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica, type Replica } from '../helpers/replica.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { tamper } from '../helpers/tamper.ts'

const open = async (t: Test, beside?: Replica) => {
  const replica = await openReplica(t, beside && { beside })
  const { stores } = replica
  const batches: number[] = []
  const told: object[] = []
  const log: Log = { ...quiet, warn: (line: object) => void told.push(line) }
  const meter: Meter = { ...silentMeter, batch: (kind, size) => void (kind === 'intent' && batches.push(size)) }
  const recorder = openRecorder({ ...stores, log, meter, refusalsPerMinute: 60 })
  t.teardown(recorder.close)
  /** Of the request under this key. */
  const intentOf = (key: string, attempt: number, keySha256: Intent['keySha256'] = randomBytes(32)): Intent => ({
    request: { principal: 'admin', key, digest: Buffer.alloc(32, key) },
    attempt,
    serial: randomBytes(16),
    issuer: 'default',
    states: ['active'],
    shard: 0,
    profile: { name: 'server', version: 1 },
    tbs: randomBytes(100),
    plan: Buffer.alloc(32),
    keySha256,
    names: 1,
    notAfter: new Date(Date.now() + 3_600_000),
  })
  const intend = async (...asked: Parameters<typeof intentOf>): Promise<Intent> => {
    const intent = intentOf(...asked)
    t.equal(await recorder.recordIntent(intent), 'recorded')
    return intent
  }
  const outcomesOf = async (...intents: readonly Intent[]): Promise<readonly (string | undefined)[]> => {
    const { rows } = await stores.db.query<{ serial: Buffer; kind: string }>({
      text: 'select serial, kind from outcomes',
    })
    return intents.map(({ serial }) => rows.find((row) => row.serial.equals(serial))?.kind)
  }
  /** The rows of each connection that there is. */
  const askEach = async <Row>(columns: string, pool?: Statement['pool']): Promise<readonly Row[]> => {
    const statement = { text: `select ${columns}, pg_sleep(0.05)::text as slept`, ...(pool && { pool }) }
    const asking = Array.from({ length: replica.config.database.poolSize }, () => stores.db.query<Row>(statement))
    return (await Promise.all(asking)).flatMap(({ rows }) => rows)
  }
  /** Each connection tells what it has read; by itself it does so a while later. */
  const tellReads = async (): Promise<void> => {
    const flush = 'pg_stat_force_next_flush()::text as flushed'
    await Promise.all([askEach(flush), askEach(flush, 'issuing')])
  }
  /** Rows that were ever read, once the server has counted so many insertions. */
  const readOfOutcomes = async (inserted = 0): Promise<Reads> => {
    await tellReads()
    for (;;) {
      const { rows } = await stores.db.query<Reads>({ text: selectReads })
      if (rows[0] && rows[0].inserted >= inserted) return rows[0]
      await setTimeout(100)
    }
  }
  return { replica, recorder, batches, told, intentOf, intend, outcomesOf, askEach, tellReads, readOfOutcomes }
}

interface Reads {
  /** Rows of indexes of the outcomes. */
  readonly read: number
  /** Rows of tables that were read as a whole. */
  readonly scanned: number
  /** Rows of indexes of the intents. */
  readonly ofIntents: number
  readonly inserted: number
}

const selectReads = `
  select coalesce(sum(i.idx_tup_read), 0)::bigint as read, t.n_tup_ins as inserted,
    (select sum(seq_tup_read)::bigint from pg_stat_user_tables where relname = any ('{intents,outcomes,entries,certificate_names}'))
      as scanned,
    (select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = 'intents') as "ofIntents"
  from pg_stat_user_tables t join pg_stat_user_indexes i using (relid)
  where t.relname = 'outcomes' group by t.n_tup_ins`

const signed = (intent: Intent): Enrolment => ({
  intent,
  signature: randomBytes(70),
  event: {
    type: 'certificate.issued',
    serial: intent.serial.toString('hex'),
    certificate: intent.tbs.toString('base64'),
    issuer: intent.issuer,
    principal: intent.request.principal,
    profile: intent.profile,
    request: intent.request.digest.toString('hex'),
    plan: intent.plan.toString('hex'),
    ...{ approval: null, origin: null, replaces: null },
  },
  subject: '',
  names: [],
  keySha256: intent.keySha256,
  notBefore: new Date(0),
  notAfter: new Date(1_000),
})

t.test('intents wait for one that is expected, and are recorded with it', async (t) => {
  const { recorder, batches, intend } = await open(t)
  // So that no patience ends.
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const over = recorder.expectIntent()
  const first = [intend('a', 1), intend('b', 1)]
  for (let turns = 0; turns < 5; turns += 1) await new Promise((resolve) => setImmediate(resolve))
  t.same(batches, [])
  const last = intend('c', 1)
  over()
  await Promise.all([...first, last])
  t.same(batches, [3])
})

t.test('an intent that the database does not take fails alone, wherever in a batch it is', async (t) => {
  const { recorder, intentOf, batches } = await open(t)
  const bad = { principal: 'nobody\0', key: null, digest: Buffer.alloc(32) }
  for (const place of [0, 1, 63, 64, 126, 127]) {
    const intents = Array.from({ length: 128 }, (_, i) => intentOf(`${place} ${i}`, 1))
    const ends = await Promise.allSettled(
      intents.map((intent, i) => recorder.recordIntent(i === place ? { ...intent, request: bad } : intent)),
    )
    t.same(
      ends.flatMap(({ status }, i) => (status === 'rejected' ? i : [])),
      [place],
    )
  }
  t.same(batches, Array(6).fill(128))
})

t.test('a second certificate of one request is refused alone, and whoever is in its batch is enrolled', async (t) => {
  const { recorder, intend, outcomesOf } = await open(t)
  const late = await intend('k1', 1)
  const early = await intend('k1', 2)
  const innocent = [await intend('k2', 1), await intend('k3', 1)] as const
  t.match(await recorder.recordCertificate(signed(early)), { index: Number })
  const results = await Promise.allSettled(
    [innocent[0], late, innocent[1]].map((intent) => recorder.recordCertificate(signed(intent))),
  )
  t.match(results[1], { status: 'rejected', reason: { code: 'issuance.abandoned', kind: { retryable: true } } })
  t.match([results[0], results[2]], [{ status: 'fulfilled' }, { status: 'fulfilled' }])
  t.same(await outcomesOf(...innocent), ['certificate', 'certificate'])
  t.same(await outcomesOf(early, late), ['certificate', undefined], 'the reconciler ends the late one')
  t.match(await recorder.findRequest('admin', 'k1'), { open: false, certificate: { serial: early.serial } })
})

t.test('the database takes no outcome without its intent, and none of a batch that has one', async (t) => {
  const { replica, recorder, told, intend, outcomesOf } = await open(t)
  const intent = await intend('k1', 1)
  const insert = (...serials: readonly Buffer[]) =>
    replica.stores.db.query(
      { text: `insert into outcomes (serial, kind, at) select unnest($1::bytea[]), 'unsigned', now()` },
      [serials],
    )
  await t.rejects(insert(intent.serial, randomBytes(16)), { code: '23503', message: /an outcome is of no intent/ })
  t.same(await outcomesOf(intent), [undefined])
  await insert(intent.serial)
  t.same(await outcomesOf(intent), ['unsigned'])
  await t.rejects(recorder.recordCertificate(signed(intent)), { code: 'issuance.abandoned' })
  t.match(
    told,
    [{ event: 'enrolment.looking', lost: false, err: { constraint: 'outcomes_pkey' } }],
    'and why it looked',
  )
})

t.test('an intent that the database has lost ends as abandoned, and whoever is in its batch is enrolled', async (t) => {
  const { replica, recorder, intend, outcomesOf } = await open(t)
  const [lost, alone] = [await intend('k1', 1), await intend('k2', 1)]
  const innocent = [await intend('k3', 1), await intend('k4', 1)] as const
  // As by a standby that took over without the last commits.
  await tamper(replica.database, ['delete from intents where serial = any ($1)', [[lost.serial, alone.serial]]])
  const abandoned = { code: 'issuance.abandoned', kind: { status: 503, retryable: true } }
  await t.rejects(recorder.recordCertificate(signed(alone)), abandoned)
  const results = await Promise.allSettled(
    [innocent[0], lost, innocent[1]].map((intent) => recorder.recordCertificate(signed(intent))),
  )
  t.match(results[1], { status: 'rejected', reason: abandoned })
  t.match([results[0], results[2]], [{ status: 'fulfilled' }, { status: 'fulfilled' }])
  t.same(await outcomesOf(...innocent, lost), ['certificate', 'certificate', undefined])
  t.equal(await recorder.findRequest('admin', 'k1'), undefined, 'asked again, it begins anew')
})

t.test('what every certificate waits for is planned for any values, from the first on, and only there', async (t) => {
  const { recorder, intend, askEach } = await open(t)
  t.match(await recorder.recordCertificate(signed(await intend('k1', 1))), { index: Number })
  t.match(await recorder.findRequest('admin', 'k1'), { open: false })
  const own = ['enrol', 'insert_intents', 'select_requests']
  interface Prepared {
    readonly of: Readonly<Record<string, number>> | null
  }
  const planned = async (pool?: Statement['pool']): Promise<Readonly<Record<string, number>>> => {
    const custom = `(select json_object_agg(name, custom_plans) from pg_prepared_statements where generic_plans + custom_plans > 0)`
    const rows = await askEach<Prepared>(`${custom} as of`, pool)
    return Object.assign({}, ...rows.map((row) => row.of))
  }
  t.strictSame(await planned('issuing'), Object.fromEntries(own.map((name) => [name, 0])))
  const others = await planned()
  t.notOk(own.some((name) => name in others))
})

t.test('of two intents of one request in the same batch one becomes its certificate', async (t) => {
  const { recorder, intend, outcomesOf } = await open(t)
  const [first, second] = [await intend('k1', 1), await intend('k1', 2)]
  const innocent = await intend('k2', 1)
  const results = await Promise.allSettled(
    [first, innocent, second].map((intent) => recorder.recordCertificate(signed(intent))),
  )
  t.match(results, [
    { status: 'fulfilled' },
    { status: 'fulfilled' },
    { status: 'rejected', reason: { code: 'issuance.abandoned', kind: { retryable: true } } },
  ])
  t.same(await outcomesOf(first, innocent, second), ['certificate', 'certificate', undefined])
})

slowTest(
  'in a young table without statistics a key that is asked for again and again costs no more each time',
  async (t) => {
    const first = await open(t)
    const shared = randomBytes(32)
    await issue(first, 20, shared)
    // Its connections have plans of their own, made now that indexes are of different height.
    const second = await open(t, first.replica)
    await first.tellReads()
    const before = await second.readOfOutcomes(20 * batch)
    await issue(second, rounds, shared)
    const after = await second.readOfOutcomes((20 + rounds) * batch)
    // The first and the last of its principals, the intent's outcome, what the unique indexes look at.
    t.ok(after.read - before.read < 8 * rounds * batch, `${after.read - before.read} rows of indexes were read`)
  },
)

t.test('plans that were made while statistics said that there was little do not read all that comes', async (t) => {
  const first = await open(t)
  await issue(first, 4)
  const owner = await openSql(t, first.replica.database.ownerUrl)
  await owner.query('analyze')
  const second = await open(t, first.replica)
  await first.tellReads()
  const before = await second.readOfOutcomes(4 * batch)
  await issue(second, rounds)
  const after = await second.readOfOutcomes((4 + rounds) * batch)
  t.ok(after.scanned - before.scanned < rounds * batch, `${after.scanned - before.scanned} rows of tables were read`)
  const walked = after.ofIntents - before.ofIntents
  t.ok(walked < 4 * rounds * batch, `${walked} rows of the intents' indexes were read`)
})

slowTest('of many principals, issuers and compromised keys those are read that a batch is of', async (t) => {
  const first = await open(t)
  const owner = await openSql(t, first.replica.database.ownerUrl)
  const readOfOthers = async (): Promise<number> => {
    const { rows } = await owner.query<{ readonly read: string }>(
      `
      select sum(idx_tup_read) + (select sum(seq_tup_read) from pg_stat_user_tables where relname = any ($1)) as read
      from pg_stat_user_indexes where relname = any ($1)`,
      [['principals', 'issuers', 'profiles', 'compromised_keys']],
    )
    return Number(rows[0]?.read)
  }
  await owner.query('analyze')
  await issue(first, 8)
  await owner.query(
    `insert into principals (name, created_by) select 'robot-' || i, 'admin' from generate_series(1, 10_000) i`,
  )
  await owner.query(`
    insert into compromised_keys (key_sha256, serial, entry)
    select sha256(i::text::bytea), (select min(serial) from intents), 1 from generate_series(1, 10_000) i`)
  await issue(first, 1)
  await first.tellReads()
  const before = await readOfOthers()
  await issue(first, rounds)
  await owner.query('analyze')
  const second = await open(t, first.replica)
  await issue(second, rounds)
  await Promise.all([first.tellReads(), second.tellReads()])
  const read = (await readOfOthers()) - before
  t.ok(read < 2 * rounds * 20 + 4_000, `${read} rows were read`)
})

const rounds = 30
const batch = 16

/** Rounds of certificates, of one key or of many. */
const issue = async (
  { recorder, intend }: Awaited<ReturnType<typeof open>>,
  rounds: number,
  key?: Intent['keySha256'],
): Promise<void> => {
  for (let round = 0; round < rounds; round += 1) {
    const intents = await Promise.all(Array.from({ length: batch }, () => intend(randomUUID(), 1, key)))
    await Promise.all(intents.map((intent) => recorder.recordCertificate(signed(intent))))
  }
}

t.test('an intent that damaged files keep open is left to the reconciler at once', async (t) => {
  const { replica, intend, told } = await open(t)
  const intent = await intend('damaged', 1)
  const fault = { code: 'XX001', routine: 'buffer_readv_report' }
  const cause = Object.assign(new pg.DatabaseError('invalid page in block 0', 0, 'error'), fault)
  let tries = 0
  const db: Database = {
    ...replica.stores.db,
    query: async () => {
      tries += 1
      throw new Problem('db.unavailable', 'a test', { cause })
    },
  }
  const log: Log = { ...quiet, warn: (line: object) => void told.push(line) }
  const recorder = openRecorder({ ...replica.stores, db, log, meter: silentMeter, refusalsPerMinute: 60 })
  t.teardown(recorder.close)
  await recorder.recordUnsigned(intent)
  t.equal(tries, 1)
  t.match(told, [{ event: 'intent.unsigned_failed' }])
})

/** Instances that do not follow the records by themselves: what the records let them do with what they believe. */
import { randomBytes } from 'node:crypto'
import { mock } from 'node:test'

import t, { type Test } from 'tap'

import type { IssueInput } from '../../src/ca/issuance/issuance.ts'
import { openIssuance } from '../../src/ca/issuance/issue.ts'
import { openIssuerLife } from '../../src/ca/issuers/issuer-life.ts'
import type { IssuerLife } from '../../src/ca/issuers/life.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { openIssuerStore, selectLiving } from '../../src/db/issuers.ts'
import { openIntents } from '../../src/db/open-intents.ts'
import { Problem } from '../../src/errors.ts'
import type { Keyring } from '../../src/keys/keyring.ts'
import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { checkOne } from '../../src/keys/verifier-batch.ts'
import { openKeyed } from '../../src/server/issuers.ts'
import { openRollSide } from '../../src/server/log.ts'
import type { KeyKind } from '../../src/x509/algorithms.ts'
import { encodePem, parsePemCertificates } from '../../src/x509/pem.ts'
import { faultsInRecords } from '../crash/checker.ts'
import { named, openTestRoot, span } from '../helpers/ceremony.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica } from '../helpers/replica.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { derFor } from '../http/people.ts'

type Keys = Pick<Keyring, 'open' | 'create'>
const day = 86_400_000
const how = { by: 'admin', reason: 'a test' }

const open = async (t: Test) => {
  const { database, stores, keys: ring } = await openReplica(t)
  const grants = await stores.access.listGrants('admin')
  const caller = { principal: 'admin', proof: { kind: 'own' } as const, grants }
  const openInstance = async ({
    ahead = 0,
    stagingMs = 0,
    assertClock = stores.dbClock.assertSane,
    keysOf = (real: Keys): Keys => real,
  } = {}) => {
    const clock = () => new Date(Date.now() + ahead)
    const keys = keysOf(ring)
    const issuers = await openKeyed(stores, keys, silentMeter)
    const recorder = openRecorder({ ...stores, meter: silentMeter, refusalsPerMinute: 60 })
    t.teardown(recorder.close)
    const verify = async (check: Parameters<typeof checkOne>[0]) => checkOne(check)
    const side = await openRollSide(stores, ring)
    t.teardown(side.close)
    const issuance = openIssuance({
      ...stores,
      clock,
      recorder,
      issuers,
      meter: silentMeter,
      isBlocked: () => false,
      verify,
      approvals: openApprovalStore({ ...stores, proposed: () => {} }),
      sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      nextTurn: () => new Promise((resolve) => setImmediate(resolve)),
      assertClock,
      checkpoints: side.checkpoints,
      limits: { queue: 100, requestDeadlineMs: 300 },
    })
    const life = openIssuerLife({
      store: openIssuerStore({ db: stores.db, roll: stores.roll, longestValidity: () => 90 * 86_400 }),
      keys,
      issuers,
      verify,
      clock,
      stagingMs,
      keyUriFault: () => undefined,
      wayToSign: () => undefined,
      keyNameOf: (uri) => uri,
      rollKey: Buffer.alloc(0),
      publicUrl: 'http://pki.test',
      revoked: () => [],
    })
    const asked = { csr: derFor('web.example.com'), profile: 'server' }
    const issue = async (more: Partial<IssueInput> = {}) => (await issuance.issue(caller, { ...asked, ...more })).issuer
    return { issuers, life, issue, explain: () => issuance.explain(caller, asked) }
  }
  return { database, stores, ring, openInstance, faults: () => faultsInRecords(database.ownerUrl, []) }
}

const root = openTestRoot()
const stage = async (
  life: IssuerLife,
  name: string,
  { algorithm = 'ec-p256', days = 365 }: { readonly algorithm?: KeyKind; readonly days?: number } = {},
): Promise<void> => {
  const ask = {
    name,
    authority: 'default',
    subject: named(name),
    algorithm,
    keyUri: `file:keys/${name}.pem`,
  }
  const { csr } = await life.request(ask, 'admin')
  const chain = root.certify(encodePem('CERTIFICATE REQUEST', csr), span(days)) + root.pem
  await life.stage(name, { chain: parsePemCertificates(chain, 8) }, 'admin')
}

slowTest('whoever has not followed a move signs with the issuer that is active now', async (t) => {
  const { openInstance, faults } = await open(t)
  const { life } = await openInstance()
  const late = await openInstance()
  await stage(life, 'next')
  await life.move('next', 'activate', how)
  t.match(await late.issue(), 'next', 'the old one is retiring, and what it would sign is not recorded')
  await life.move('default', 'activate', how)
  t.equal(late.issuers.active('default', 'ec-p256').name, 'next', 'as it believes')
  const all = await Promise.all(Array.from({ length: 20 }, () => late.issue()))
  t.same([...new Set(all)], ['default'])
  t.same(await faults(), [])
})

slowTest(
  'whoever asks again gets what another instance has issued, also by an issuer that is not known here yet',
  async (t) => {
    const { openInstance } = await open(t)
    const { life, issue } = await openInstance()
    const late = await openInstance()
    await stage(life, 'next')
    await life.move('next', 'activate', how)
    const asked = { csr: derFor('web.example.com'), idempotencyKey: 'k1' }
    t.equal(await issue(asked), 'next')
    t.notOk(
      late.issuers.all().some(({ issuer }) => issuer.name === 'next'),
      'as it believes',
    )
    t.equal(await late.issue(asked), 'next')
    await t.rejects(late.issuers.find('none'), { code: 'issuer.not_found' })
  },
)

t.test('an issuer that has ended has signed nothing that is still valid', async (t) => {
  const { openInstance } = await open(t)
  const { life } = await openInstance()
  const late = await openInstance()
  await stage(life, 'next')
  await life.move('next', 'activate', how)
  await late.issuers.refresh()
  await life.move('default', 'activate', how)
  t.match(await life.move('next', 'end', how), { state: 'retired' })
  t.equal(late.issuers.active('default', 'ec-p256').name, 'next', 'as it believes')
  t.equal(await late.issue(), 'default')
  await stage(life, 'third')
  await life.move('third', 'activate', how)
  await t.rejects(life.move('default', 'end', how), { code: 'issuer.state', message: /have not expired/ })
})

slowTest('an intent whose outcome is open, or that was abandoned, keeps its issuer from ending', async (t) => {
  const { database, stores, openInstance } = await open(t)
  const { life } = await openInstance()
  await stage(life, 'next')
  await life.move('next', 'activate', how)
  const recorder = openRecorder({ ...stores, meter: silentMeter, refusalsPerMinute: 60 })
  t.teardown(recorder.close)
  const serial = randomBytes(16)
  const intent = {
    request: { principal: 'admin', key: null, digest: Buffer.alloc(32) },
    attempt: 1,
    serial,
    issuer: 'default',
    states: ['active', 'retiring'] as const,
    shard: 0,
    profile: { name: 'server', version: 1 },
    tbs: randomBytes(100),
    plan: Buffer.alloc(32),
    keySha256: randomBytes(32),
    names: 1,
    notAfter: new Date(Date.now() + 3_600_000),
  }
  t.equal(await recorder.recordIntent({ ...intent, states: ['active'] }), 'moved')
  t.match(await life.move('default', 'close', how), { state: 'crl-only' })
  t.equal(await recorder.recordIntent(intent), 'moved')
  t.equal(await recorder.recordIntent({ ...intent, states: ['crl-only'] }), 'recorded', 'who may, says the intent')
  await t.rejects(life.move('default', 'end', how), { code: 'issuer.state' }, 'while it is open')
  const early = { ...intent, serial: randomBytes(16) }
  await (await openSql(t, database.ownerUrl)).query(
    `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at)
      select $2, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at + interval '1 day'
      from intents where serial = $1`,
    [intent.serial, early.serial],
  )
  await recorder.recordUnsigned(intent)
  await t.rejects(
    life.move('default', 'end', how),
    { code: 'issuer.state' },
    'while one is open of a clock set back since',
  )
  await recorder.recordUnsigned(early)
  const second = { ...intent, serial: randomBytes(16), states: ['crl-only'] as const, keySha256: randomBytes(32) }
  t.equal(await recorder.recordIntent(second), 'recorded')
  // Whole seconds, as in certificates, and the one that it names is still within.
  const until = Math.ceil(Date.now() / 1_000) * 1_000 + 2_000
  t.equal(await openIntents(stores.db, stores.roll, () => new Date(until)).abandon(0, 10), 1)
  await t.rejects(life.move('default', 'end', how), { code: 'issuer.state' }, 'while it would be valid')
  await pause(until + 1_010 - Date.now())
  t.match(await life.move('default', 'end', how), { state: 'retired' })
})

t.test('whether one may end is looked up, however many have been signed by it', async (t) => {
  const { database } = await open(t)
  const owner = await openSql(t, database.ownerUrl)
  await owner.query(`
    insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at)
      select decode(lpad(to_hex(n), 32, '0'), 'hex'), 'admin', 1, sha256(''), 'default', 0, 'server', 1, '', sha256(''),
        now() - make_interval(secs => n) from generate_series(1, 20000) n`)
  await owner.query(`insert into outcomes (serial, kind, at) select serial, 'unsigned', created_at from intents`)
  await owner.query('update reconciled set until = now()')
  await owner.query('analyze intents, outcomes')
  const { rows } = await owner.query<{ 'QUERY PLAN': string }>(`explain (analyze) ${selectLiving.text}`, [
    'default',
    new Date(),
  ])
  const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
  const read = [...plan.matchAll(/actual time=\S+ rows=([\d.]+) loops/g)].map(([, count]) => Number(count))
  t.match(plan, / using intents_by_age on intents i /)
  // Those of the last minutes, for each of which its outcome is looked up.
  t.ok(Math.max(...read) <= 200, plan)
  const removed = [...plan.matchAll(/Rows Removed by Filter: (\d+)/g)].map(([, count]) => Number(count))
  t.ok(Math.max(0, ...removed) <= 200, plan)
})

t.test('by a clock that is wrong no issuer ends, and none is refused for good what goes by time', async (t) => {
  const { openInstance } = await open(t)
  const { life } = await openInstance()
  await stage(life, 'next')
  await life.move('next', 'activate', how)
  mock.timers.enable({ apis: ['Date'], now: Date.now() + 400 * day })
  t.teardown(() => mock.timers.reset())
  const skewed = { code: 'clock.skewed', kind: { retryable: true } }
  for (const move of ['end', 'activate'] as const) await t.rejects(life.move('default', move, how), skewed, move)
  await t.rejects(life.move('next', 'retire', how), skewed)
  await t.rejects(life.move('next', 'end', how), { code: 'issuer.state', message: /is active/ }, 'by any clock')
  t.match(await life.move('next', 'halt', how), { state: 'crl-only' }, 'what does not go by time is done')
  mock.timers.reset()
  t.match(await life.move('default', 'end', how), { state: 'retired' })
})

t.test('a halt holds from its commit on, whatever other instances believe', async (t) => {
  const { stores, openInstance } = await open(t)
  const { life } = await openInstance()
  const late = await openInstance()
  t.equal(await late.issue(), 'default')
  await life.move('default', 'halt', how)
  const count = async () =>
    (await stores.db.query<{ count: number }>({ text: 'select count(*)::integer as count from intents' })).rows[0]
      ?.count
  const before = await count()
  t.equal(late.issuers.active('default', 'ec-p256').name, 'default', 'as it believes')
  await t.rejects(late.issue(), { code: 'issuer.none_active', kind: { status: 503, retryable: true } })
  t.equal(await count(), before)
})

t.test('an intent waits for a move that is under way, and a move for intents that are', async (t) => {
  const { stores, openInstance } = await open(t)
  const { issue, life } = await openInstance()
  const [begun, moving] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const ended: string[] = []
  const text = `insert into issuer_states (issuer, state, by) values ('default', 'crl-only', 'test')`
  const move = stores.db.transaction(async (tx) => {
    await tx.query({ text })
    begun.resolve()
    await moving.promise
    ended.push('move')
  })
  await begun.promise
  const issued = issue().catch((error: { code: string }) => ended.push(error.code))
  await pause()
  t.same(ended, [], 'it waits')
  moving.resolve()
  await Promise.all([move, issued])
  t.same(ended, ['move', 'issuer.none_active'])

  await stage(life, 'next')
  const [asked, asking] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const intent = stores.db.transaction(async (tx) => {
    t.match((await tx.query({ text: `select state_for_intent('next') as state` })).rows, [{ state: 'staged' }])
    asked.resolve()
    await asking.promise
    ended.push('intent')
  })
  await asked.promise
  const second = life.move('next', 'halt', how).then(() => ended.push('halt'))
  await pause()
  asking.resolve()
  await Promise.all([intent, second])
  t.same(ended.slice(2), ['intent', 'halt'])
})

t.test('whoever meets a new issuer whose key is being opened waits for it', async (t) => {
  const { openInstance } = await open(t)
  const gate = Promise.withResolvers<void>()
  const late = await openInstance({
    keysOf: (real) => ({
      ...real,
      open: async (uri) => {
        if (uri.includes('next')) await gate.promise
        return real.open(uri)
      },
    }),
  })
  const { life } = await openInstance()
  await stage(life, 'next')
  await life.move('next', 'activate', how)
  await late.issuers.refresh()
  const issued = late.issue()
  await pause()
  gate.resolve()
  t.equal(await issued, 'next')
})

t.test('an issuer whose key cannot be opened now takes the place of none, and may be halted', async (t) => {
  const { openInstance } = await open(t)
  let isAway = false
  const { issuers, life, issue } = await openInstance({
    keysOf: (real) => ({
      ...real,
      open: (uri) => (isAway && uri.includes('next') ? Promise.reject(new Error('no such token')) : real.open(uri)),
    }),
  })
  isAway = true
  await stage(life, 'next')
  t.equal(issuers.byName('next').name, 'next', 'it is known here at once')
  await t.rejects(life.move('next', 'activate', how), { code: 'issuer.state', message: /no such token/ })
  t.equal(await issue(), 'default')
  isAway = false
  const late = await openInstance()
  await stage(late.life, 'third')
  t.match(await life.move('third', 'activate', how), { state: 'active' }, 'though it was not heard of here')
  t.equal(issuers.active('default', 'ec-p256').name, 'third', 'and is followed here at once')
  isAway = true
  t.match(await life.move('next', 'halt', how), { state: 'crl-only' }, 'for that nobody needs its key')
})

t.test('what answers for an issuer is certified by it in whichever state, until it has retired', async (t) => {
  const { openInstance } = await open(t)
  const { life, issue } = await openInstance()
  await stage(life, 'next')
  t.equal(await issue({ issuer: 'next' }), 'next', 'staged')
  await life.move('next', 'activate', how)
  t.same([await issue(), await issue({ issuer: 'default' })], ['next', 'default'], 'retiring')
  await life.move('default', 'close', how)
  t.equal(await issue({ issuer: 'default' }), 'default', 'closed')
  const late = await openInstance()
  await stage(late.life, 'unwanted')
  await life.move('unwanted', 'discard', how)
  t.ok(
    late.issuers.all().some(({ issuer }) => issuer.name === 'unwanted'),
    'as it believes',
  )
  await t.rejects(late.issue({ issuer: 'unwanted' }))
})

t.test('no issuer of another authority signs, though it is named', async (t) => {
  const { openInstance, faults } = await open(t)
  const { issue } = await openInstance()
  t.equal(await issue({ issuer: 'default' }), 'default')
  await t.rejects(issue({ issuer: 'etcd' }), { message: /etcd is not one of the authority default/ })
  t.same(await faults(), [])
})

t.test('a key by which a request for an issuer was made is closed, whether it is taken or not', async (t) => {
  const { ring, openInstance } = await open(t)
  const held = new Set<string>()
  let isMute = false
  const counted = async (opening: Promise<SigningKey>): Promise<SigningKey> => {
    const key = await opening
    held.add(key.id)
    return {
      ...key,
      sign: (messages) => (isMute ? Promise.resolve([new SigningFault('before', 'no session')]) : key.sign(messages)),
      close: async () => {
        held.delete(key.id)
        await key.close()
      },
    }
  }
  const keysOf = (real: Keys): Keys => ({
    open: (uri) => counted(real.open(uri)),
    create: (uri, kind) => counted(real.create(uri, kind)),
  })
  const { life } = await openInstance({ keysOf })
  const before = [...held]
  const ask = { name: 'next', authority: 'default', subject: named('Next'), keyUri: 'file:keys/next.pem' }
  await life.request({ ...ask, algorithm: 'ec-p256' }, 'admin')
  const waits = { code: 'issuer.state', message: /is requested: its key waits for a certificate/ }
  for (const move of ['activate', 'halt'] as const) await t.rejects(life.move('next', move, how), waits)
  await t.rejects(
    life.stage('next', { chain: [] }, 'admin'),
    { code: 'issuer.not_found' },
    'nor is it staged without one',
  )
  t.same([...held], before)
  await t.rejects(life.request({ ...ask, algorithm: 'ec-p256' }, 'admin'), { code: 'state.exists' })
  const loose = { ...ask, name: 'other', keyUri: 'file:keys/other.pem' }
  await (await ring.create(loose.keyUri, 'ec-p384')).close()
  await t.rejects(life.request({ ...loose, algorithm: 'ec-p256' }, 'admin'), {
    message: /already, of the type ec-p384/,
  })
  t.same([...held], before)
  isMute = true
  const mute = { ...ask, name: 'mute', keyUri: 'file:keys/mute.pem' }
  await t.rejects(life.request({ ...mute, algorithm: 'ec-p256' }, 'admin'), { code: 'key.unavailable' })
  t.same([...held], before)
  const names = (await life.requests()).map(({ name }) => name)
  t.same(names, ['next'], 'what did not sign is asked for by nobody')
})

t.test('how long a chain was published is told by the database, not by the clock of whoever is asked', async (t) => {
  const { openInstance } = await open(t)
  const good = await openInstance({ stagingMs: day })
  const fast = await openInstance({ stagingMs: day, ahead: 25 * 3_600_000 })
  await stage(good.life, 'next')
  for (const { life } of [good, fast])
    await t.rejects(life.move('next', 'activate', how), { code: 'issuer.state', message: /published until/ })
})

const pause = (ms = 100): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

t.test('by a clock that is wrong every issuer has expired, and nobody is told that of a request', async (t) => {
  const { openInstance } = await open(t)
  let isWrong = true
  const assertClock = (): void => {
    if (isWrong) throw new Problem('clock.skewed', 'a test')
  }
  const { issue, explain } = await openInstance({ ahead: 10_000 * day, assertClock })
  await t.rejects(issue(), { code: 'clock.skewed', kind: { retryable: true } })
  await t.rejects(explain(), { code: 'clock.skewed' }, 'nor of a dry run')
  isWrong = false
  const expired = {
    code: 'issuer.expired',
    kind: { status: 503, retryable: true },
    detail: /^The issuer default has expired, at \d{4}-.*Z\.$/,
  }
  await t.rejects(issue(), expired, 'where the clocks agree it has, and the request is not at fault')
  await t.rejects(explain(), expired)
  await t.rejects(issue({ validity: 1e9 }), { code: 'validity.forbidden' }, 'but for one that no issuer would grant')

  const early = await openInstance({ ahead: -10_000 * day, assertClock })
  const soon = { code: 'validity.issuer', detail: 'the issuer is not valid now' }
  await t.rejects(early.issue(), soon, 'one that is still to come, where the clocks agree')
  isWrong = true
  await t.rejects(early.issue(), { code: 'clock.skewed' })
  await t.rejects(early.explain(), { code: 'clock.skewed' })
  const today = await openInstance({ assertClock })
  await t.rejects(today.issue({ validity: 1 }), { code: 'validity.forbidden' }, 'what no clock would change is told')
  t.match(await today.explain(), { allowed: true })
})

t.test('of two active issuers the one that has not expired signs, but not because a clock is wrong', async (t) => {
  const { openInstance } = await open(t)
  const { life } = await openInstance()
  await stage(life, 'next', { algorithm: 'ec-p384', days: 3_000 })
  await life.move('next', 'activate', how)
  let isWrong = false
  const assertClock = (): void => {
    if (isWrong) throw new Problem('clock.skewed', 'a test')
  }
  const today = await openInstance({ assertClock })
  t.equal(await today.issue(), 'default', 'the one with the type of the key')
  const late = await openInstance({ ahead: 2_000 * day, assertClock })
  t.match(await late.explain(), { allowed: true })
  t.equal(await late.issue(), 'next')
  isWrong = true
  await t.rejects(late.explain(), { code: 'clock.skewed' }, 'another issuer is another plan')
  const last = await openInstance({ ahead: 10_000 * day })
  await t.rejects(last.explain(), { code: 'issuer.expired', detail: /^The issuer default has expired/ }, 'both have')
})

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import type { Issuance } from '../../src/ca/issuance/issuance.ts'
import { openDatabase } from '../../src/db/database.ts'
import { isHeldUp } from '../../src/db/lock-waits.ts'
import { openTurnedDown } from '../../src/db/write-failures.ts'
import { Problem, type ProblemCode } from '../../src/errors.ts'
import { SigningFault, type SigningKey, trialText } from '../../src/keys/signing-key.ts'
import { sha256 } from '../../src/lib/sha256.ts'
import type { ServerCertificate } from '../../src/server/jobs/own-certificate.ts'
import { openRollSide, rollKeyOf } from '../../src/server/log.ts'
import { readAnchor } from '../../src/server/log-checks.ts'
import { openOwnCertificate, ownProfileName } from '../../src/server/own-certificates.ts'
import { openService, type Service } from '../../src/server/service.ts'
import { parseVerifierKey } from '../../src/tlog/note.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica, type Replica, type ReplicaOptions } from '../helpers/replica.ts'
import { slowTest, slowUnless } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { csrFor } from '../http/people.ts'

/** A service that listens nowhere, with keys as the test wants them. Its jobs run. */
const openReplicaService = async (
  t: Test,
  { wrap = (key) => key, ...options }: ReplicaOptions & { readonly wrap?: (key: SigningKey) => SigningKey } = {},
): Promise<Replica & { readonly service: Service }> => {
  const replica = await openReplica(t, options)
  const { keys, stores } = replica
  const service = await openService(stores, { ...keys, open: async (uri) => wrap(await keys.open(uri)) })
  t.teardown(service.close)
  return { ...replica, service }
}

/** The header fields of the first administrator. */
const adminOf = async ({ config }: Pick<Replica, 'config'>): Promise<{ readonly authorization: string }> => ({
  authorization: `Bearer ${(await readFile(join(config.dataDir, 'admin.token'), 'utf8')).trim()}`,
})

/** Asks for a certificate, as often as it is called. */
const issuing = (service: Service, headers: { readonly authorization: string }, name: string) => async () => {
  const payload = { csr: csrFor(name), profile: 'server' }
  const answer = await service.app.inject({ method: 'POST', url: '/v1/certificates', headers, payload })
  return { status: answer.statusCode, code: answer.json().code, retryAfter: answer.headers['retry-after'] }
}

const breakages: Readonly<Record<string, { sign: SigningKey['sign']; first: string; reason: RegExp }>> = {
  'answers with a fault': {
    sign: async (messages) => messages.map(() => new SigningFault('before', 'no session')),
    first: 'key.unavailable',
    reason: /default: no session/,
  },
  'does not answer': {
    sign: () => new Promise<never>(() => {}),
    first: 'key.unavailable',
    reason: /default: no signature within 500 ms/,
  },
}
for (const [what, { sign, first, reason }] of Object.entries(breakages))
  slowUnless(
    what === 'does not answer',
    `a key that ${what} is found again by the job, and issuance goes on without a restart`,
    async (t) => {
      let broken = false
      const asked = new Set<string>()
      // Lists of what is revoked are signed by every key, in their own time.
      const isAsked = (messages: readonly Buffer[]): boolean => messages.some((message) => message.equals(trialText))
      const wrap = (key: SigningKey): SigningKey => ({
        ...key,
        sign: (messages) => {
          if (isAsked(messages)) asked.add(basename(key.id))
          return broken && key.id.endsWith('default.pem') ? sign(messages) : key.sign(messages)
        },
      })
      // Signatures of sound keys are not late on a busy machine; and it is over before readiness gives an answer up, in a second.
      const env = { CHANCERY_SIGNING_DEADLINE: '500ms' }
      const { service, config, stores } = await openReplicaService(t, { wrap, env })
      const headers = await adminOf({ config })
      const issue = issuing(service, headers, 'faulty.example.com')
      const readiness = async () => {
        const answer = await service.app.inject({ url: '/readyz', headers })
        const { checks } = answer.json<{ checks: readonly { name: string; ok: boolean; reason: string }[] }>()
        return { status: answer.statusCode, key: checks.find(({ name }) => name === 'key') }
      }
      const countIntents = async () =>
        (await stores.db.query<{ n: number }>({ text: 'select count(*)::integer as n from intents' })).rows[0]?.n
      t.match(await issue(), { status: 201 })

      broken = true
      t.match(await issue(), { status: 503, code: first }, 'whoever meets it first has an intent already')
      const intents = await countIntents()
      t.match(await readiness(), { status: 503, key: { ok: false, reason } }, 'readiness tells which key, and why')
      const unavailable = { status: 503, code: 'key.unavailable', retryAfter: '1' }
      t.same(await issue(), unavailable, 'and then nobody')
      // Long enough for the job to have looked, and for readiness to have forgotten.
      asked.clear()
      await sleep(2_200)
      for (let looks = 0; asked.size === 0 && looks < 500; looks += 1) await sleep(20)
      t.same(await issue(), unavailable, 'for as long as it lasts')
      t.equal(await countIntents(), intents, 'nothing was to be signed meanwhile')
      t.same([...asked], ['default.pem'], 'the job asks this key, and leaves sound ones in peace')

      broken = false
      // Issuing does not touch a key that is out of use, and nobody asks for readiness: the job finds it, or nobody does.
      let answer = await issue()
      for (const deadline = Date.now() + 10_000; answer.status !== 201 && Date.now() < deadline; await sleep(50))
        answer = await issue()
      t.match(answer, { status: 201 }, 'issuance goes on')
      t.match(await readiness(), { status: 200, key: { ok: true } }, 'and readiness says so')
    },
  )

slowTest('replicas with different names keep their own profile, and leave the one of the others alone', async (t) => {
  const one = await openReplicaService(t, { env: { CHANCERY_NAMES: 'one.test,10.0.0.1' } })
  const { policies, records } = one.stores
  const versionsOf = async ({ config }: Pick<Replica, 'config'>) =>
    (await policies.versions(ownProfileName(config))).map(({ profile }) => profile.version)
  const namesOf = async ({ config }: Pick<Replica, 'config'>) => {
    const { items } = await records.certificates({ profile: ownProfileName(config) }, { limit: 1 })
    return items[0]?.names.map(({ value }) => value)
  }
  const other = await openReplicaService(t, { beside: one, env: { CHANCERY_NAMES: 'other.test,fd00::1' } })
  t.not(ownProfileName(one.config), ownProfileName(other.config))
  t.same(await namesOf(one), ['one.test', '10.0.0.1'])
  t.same(await namesOf(other), ['other.test', 'fd00::1'])
  // A renewal is what happens at a start: the profile is put, and a certificate is issued under it.
  for (const CHANCERY_NAMES of ['one.test,10.0.0.1', 'other.test,fd00::1', 'one.test,10.0.0.1', 'other.test,fd00::1'])
    await openReplicaService(t, { beside: one, env: { CHANCERY_NAMES } })
  t.same(await versionsOf(one), [1])
  t.same(await versionsOf(other), [1])
  const ours = (await policies.list())
    .map(({ profile }) => profile.name)
    .filter((name) => name.startsWith('chancery-api'))
  t.same(ours.sort(), [ownProfileName(one.config), ownProfileName(other.config)].sort(), 'and there is no third')
  for (const replica of [one, other])
    t.equal((await records.certificates({ profile: ownProfileName(replica.config) }, { limit: 10 })).items.length, 3)
})

slowTest('names of every form that a setting takes are in the HTTPS certificate', async (t) => {
  const names = ['chancery_ca', 'xn--bcher-kva.example', '*.ca.example.com', '10.0.0.1']
  const { stores, keys } = await openReplica(t, { env: { CHANCERY_NAMES: names.join(',') } })
  const told: ServerCertificate[] = []
  const service = await openService(stores, keys, async (one) => void told.push(one))
  t.teardown(service.close)
  t.match(told, [{ standIn: false }])
  const { items } = await stores.records.certificates({ profile: ownProfileName(stores.config) }, { limit: 1 })
  t.same(
    items[0]?.names.map(({ value }) => value),
    names,
  )
})

slowTest('where a late part does not open, what was opened before is closed, but for the stores', async (t) => {
  const { stores, keys } = await openReplica(t)
  t.teardown(stores.close)
  const held: string[] = []
  const open = async (uri: string): Promise<SigningKey> => {
    const key = await keys.open(uri)
    held.push(uri)
    const close = async (): Promise<void> => {
      held.splice(held.indexOf(uri), 1)
      await key.close()
    }
    return { ...key, close }
  }
  const told = async (): Promise<void> => {
    t.not(held.length, 0, 'keys are open by then')
    throw new Error('no room')
  }
  await t.rejects(openService(stores, { ...keys, open }, told), { message: 'no room' })
  t.same(held, [])
  await stores.policies.refresh()
})

t.test(
  'what somebody made of the profile of our own certificate is undone before the next one is issued',
  async (t) => {
    const { config, stores, keys } = await openReplica(t, { env: { CHANCERY_NAMES: 'own.test' } })
    const { policies } = stores
    const name = ownProfileName(config)
    const { profile } = await policies.read(name)
    await policies.put({ ...profile.document, names: { dns: { allow: ['elsewhere.test'] } } }, 'admin', {})
    const service = await openService(stores, keys)
    t.teardown(service.close)
    t.same(
      (await policies.versions(name)).map(({ profile: { version, sha256 } }) => [version, sha256 === profile.sha256]),
      [
        [3, true],
        [2, false],
        [1, true],
      ],
    )
  },
)

t.test(
  'an HTTPS certificate that has expired gives way to a stand-in, and that to the first that is signed',
  async (t) => {
    const { stores, service } = await openReplicaService(t)
    const world = { away: false, ours: 0, theirs: 0, why: 'key.unavailable' as ProblemCode }
    let tries = 0
    const at = (days: number): Date => new Date(Date.now() + days * 86_400_000)
    const issuance: Issuance = {
      ...service.issuance,
      issue: (...asked) => {
        tries += 1
        return world.away ? Promise.reject(new Problem(world.why, 'away')) : service.issuance.issue(...asked)
      },
    }
    const clocks = { clock: () => at(world.ours), dbClock: { ...stores.dbClock, now: () => at(world.theirs) } }
    const open = async (now: Partial<typeof world>) => {
      Object.assign(world, { away: false, ours: 0, theirs: 0 })
      const own = await openOwnCertificate({ ...stores, ...clocks }, issuance, async () => {})
      Object.assign(world, now)
      return own
    }
    const installed: ServerCertificate[] = []
    const install = async (certificate: ServerCertificate) => void installed.push(certificate)
    const ends = async (): Promise<number> =>
      (await stores.metrics.registry.getSingleMetric(ownEnd)?.get())?.values[0]?.value ?? Number.NaN

    for (const wrong of [
      { ours: 2, theirs: 0 },
      { ours: 2, theirs: 0.9 },
    ]) {
      const kept = await open({ away: true, ...wrong })
      await t.rejects(kept.renew(install), { code: 'key.unavailable' }, 'by one clock that is wrong it has not')
      t.equal(await ends(), kept.current().notAfter.getTime() / 1000)
    }
    const own = await open({ away: true, ours: 2, theirs: 2 })
    await own.renew(install)
    t.match(installed, [{ standIn: true }])
    t.equal(await ends(), 0)
    world.away = false
    await own.renew(install)
    t.match(installed, [{ standIn: true }, { standIn: false }], 'without waiting a minute')
    t.equal(await ends(), own.current().notAfter.getTime() / 1000)

    const expired = await open({ away: true, ours: 2, theirs: 2 })
    await expired.renew(install)
    world.why = 'validity.issuer'
    const before = tries
    for (let i = 0; i < 3; i += 1) await expired.renew(install)
    t.equal(tries, before + 1, 'but where its issuer has expired: each try is a refusal on record')

    Object.assign(world, { away: true, ours: 0, theirs: 0, why: 'san.forbidden' })
    const unnamed = await openOwnCertificate({ ...stores, ...clocks }, issuance, async () => {})
    const first = tries
    for (let i = 0; i < 3; i += 1) await unnamed.renew(install)
    t.equal(tries, first, 'or by which the names are turned down, from the start on')
  },
)

t.test('the HTTPS certificate is renewed after two thirds of its life, and not each second', async (t) => {
  const { stores, service } = await openReplicaService(t)
  let [now, tries, isAway] = [new Date(), 0, false]
  const issuance: Issuance = {
    ...service.issuance,
    issue: (...asked) => {
      tries += 1
      return isAway ? Promise.reject(new Problem('key.unavailable', 'away')) : service.issuance.issue(...asked)
    },
  }
  const clocks = { clock: () => now, dbClock: { ...stores.dbClock, now: () => now } }
  for (isAway of [false, true]) {
    now = new Date()
    const away = isAway
    isAway = false
    const own = await openOwnCertificate({ ...stores, ...clocks }, issuance, async () => {})
    isAway = away
    const first = own.current()
    const [begins, ends] = [first.notBefore.getTime(), first.notAfter.getTime()]
    t.equal(first.renewAt.getTime(), Math.floor(begins + ((ends - begins) * 2) / 3))
    const installed: ServerCertificate[] = []
    const renew = () => own.renew(async (certificate) => void installed.push(certificate))
    tries = 0
    now = new Date(first.renewAt.getTime() - 1)
    await renew()
    t.equal(tries, 0, 'not before')
    now = first.renewAt
    if (isAway) await t.rejects(renew(), { code: 'key.unavailable' })
    else await renew()
    await renew()
    t.equal(tries, 1, 'and once in a minute')
    t.same(installed, isAway ? [] : [own.current()])
    t.equal(own.current() === first, isAway)
    const [leaf, ...above] = own
      .current()
      .cert.split(/(?=-----BEGIN)/)
      .map((pem) => new X509Certificate(pem))
    t.ok(leaf?.checkPrivateKey(createPrivateKey(own.current().key)))
    t.ok((above.at(-1) ?? leaf)?.verify(new X509Certificate(own.current().anchor).publicKey))

    isAway = false
    now = new Date(own.current().notAfter.getTime() + 30 * 86_400_000)
    await renew()
    t.equal(tries, 2, 'but at once where it has ended meanwhile')
  }
})

t.test('an HTTPS certificate that is revoked, or whose issuer signs no more, is renewed at once', async (t) => {
  const { config, stores, service } = await openReplicaService(t)
  const headers = await adminOf({ config })
  const post = async (url: string, payload: object): Promise<number> =>
    (await service.app.inject({ method: 'POST', url, headers, payload })).statusCode
  const calls: readonly ((serial: string | undefined) => Promise<number>)[] = [
    (serial) => post(`/v1/certificates/${serial}/revocation`, { reason: 'superseded' }),
    () => post('/v1/issuers/default/moves', { move: 'halt', reason: 'lost' }),
  ]
  let tries = 0
  const issuance: Issuance = {
    ...service.issuance,
    issue: (...asked) => {
      tries += 1
      return service.issuance.issue(...asked)
    },
  }
  for (const [i, call] of calls.entries()) {
    const own = await openOwnCertificate(stores, issuance, async () => {})
    const first = own.current()
    const installed: ServerCertificate[] = []
    const renew = () => own.renew(async (certificate) => void installed.push(certificate))
    await renew()
    t.same(installed, [], 'not before')
    t.equal(await call(first.serial), 200)
    tries = 0
    if (i === 0) await renew()
    else await t.rejects(renew(), { code: 'issuer.none_active' }, 'where another one could sign it')
    t.equal(own.current() === first, i > 0)
    await renew()
    t.equal(tries, 1, 'and once in a minute')
  }
})

t.test('a stand-in of a clock that was ahead is gone once that is right', async (t) => {
  const { stores, service } = await openReplicaService(t)
  let ahead = 2 * 86_400_000
  const clock = (): Date => new Date(Date.now() + ahead)
  const issuance: Issuance = {
    ...service.issuance,
    issue: (...asked) =>
      ahead > 0 ? Promise.reject(new Problem('clock.skewed', 'ahead')) : service.issuance.issue(...asked),
  }
  const own = await openOwnCertificate({ ...stores, clock }, issuance, async () => {})
  t.match(own.current(), { standIn: true })
  ahead = 0
  await own.renew(async () => {})
  t.match(own.current(), { standIn: false })
})

t.test('so is a certificate that was issued, or made, while both clocks were days ahead', async (t) => {
  const { stores, service } = await openReplicaService(t)
  let ahead = 0
  const now = (): Date => new Date(Date.now() + ahead * 86_400_000)
  let why: ProblemCode | undefined
  const issuance: Issuance = {
    ...service.issuance,
    issue: (...asked) => (why ? Promise.reject(new Problem(why, 'away')) : service.issuance.issue(...asked)),
  }
  const clocks = { clock: now, dbClock: { ...stores.dbClock, now } }
  const own = await openOwnCertificate({ ...stores, ...clocks }, issuance, async () => {})
  const signed = own.current()
  const holds = (): boolean => own.current().notBefore <= now() && now() <= own.current().notAfter
  const installed: boolean[] = []
  const renew = () => own.renew(async ({ standIn }) => void installed.push(standIn))

  // Nothing is issued while the database's clock is behind the last event on the roll.
  Object.assign(signed, { notBefore: new Date(now().getTime() + 30 * 3_600_000) })
  why = 'clock.skewed'
  await renew()
  t.same([installed, holds()], [[true], true], 'a stand-in takes its place at once')
  ahead = -5
  await renew()
  t.same([installed, holds()], [[true, true], true], 'and one that holds the place of one from days ahead')
  await renew()
  t.same(installed, [true, true], 'which stays while nothing can be issued')
  ahead = 0
  why = undefined
  await renew()
  t.same([installed, holds()], [[true, true, false], true], 'until the first that is signed')
})

t.test('a start asks a key that is away to come back, and waits for nothing else', async (t) => {
  const { stores, service } = await openReplicaService(t)
  const told: unknown[] = []
  const tell = ({ event }: { readonly event?: unknown }) => void told.push(event)
  const log = { ...quiet, info: tell, warn: tell }
  let why: Error | undefined
  let asked = 0
  const issuance: Issuance = {
    ...service.issuance,
    issue: (...asks) => (why ? Promise.reject(why) : service.issuance.issue(...asks)),
  }
  const open = (fault: Error) => {
    why = fault
    asked = 0
    return openOwnCertificate({ ...stores, log }, issuance, async () => {
      asked += 1
      why = undefined
    })
  }
  t.match((await open(new Problem('key.unavailable', 'away'))).current(), { standIn: false })
  t.equal(asked, 1)
  t.same(told, [])
  const own = await open(new Problem('db.unavailable', 'away'))
  t.match(own.current(), { standIn: true })
  t.equal(asked, 0)
  t.same(told, ['own-certificate.missing'])

  const ours = new Error('a fault of ours')
  await t.rejects(open(ours), ours)
  const install = () => Promise.reject(new Error('no place for it'))
  await t.rejects(own.renew(install), ours, 'which is told at a renewal as well')
  why = undefined
  await t.rejects(own.renew(install), { message: 'no place for it' }, 'as is what keeps one from being used')
  why = new Problem('db.unavailable', 'away')
  const next = await openOwnCertificate({ ...stores, log }, issuance, async () => {})
  why = undefined
  await next.renew(async () => {})
  t.same(told.slice(1), ['own-certificate.missing', 'own-certificate.renewed'])
})

t.test('why a stand-in stays is told once, in whatever words it is put at each look', async (t) => {
  const { stores, service } = await openReplicaService(t)
  const told: unknown[] = []
  const log = {
    ...quiet,
    warn: ({ event, code }: { event?: unknown; code?: unknown }) => void told.push([event, code]),
  }
  let why = new Problem('clock.skewed', 'our clock is 9.0 s ahead')
  const issuance: Issuance = { ...service.issuance, issue: () => Promise.reject(why) }
  const own = await openOwnCertificate({ ...stores, log }, issuance, async () => {})
  const renew = () => own.renew(async () => t.fail('nobody can sign'))
  for (const seconds of [8.9, 8.8]) {
    why = new Problem('clock.skewed', `our clock is ${seconds} s ahead`)
    await renew()
  }
  const refused = (value: string) => ({
    violations: [{ check: 'issuer.nameConstraints', field: '/names', value, reason: 'not permitted' }],
  })
  for (const value of ['one.example.com', 'one.example.com', 'two.example.com']) {
    why = new Problem('key.unavailable', 'away', refused(value))
    await renew()
  }
  t.same(told, [
    ['own-certificate.missing', 'clock.skewed'],
    ['own-certificate.missing', 'key.unavailable'],
    ['own-certificate.missing', 'key.unavailable'],
  ])
})

t.test('an HTTPS certificate holds at both ends of its time, and no millisecond longer', async (t) => {
  const { stores, service } = await openReplicaService(t)
  let [now, isAway] = [new Date(), false]
  const told: unknown[] = []
  const tell = ({ event }: { readonly event?: unknown }) => void told.push(event)
  const issuance: Issuance = {
    ...service.issuance,
    issue: (...asked) =>
      isAway ? Promise.reject(new Problem('key.unavailable', 'away')) : service.issuance.issue(...asked),
  }
  const log = { ...quiet, info: tell, warn: tell }
  const clocks = { clock: () => now, dbClock: { ...stores.dbClock, now: () => now }, log }
  const holds = async (end: 'notBefore' | 'notAfter', ms: number): Promise<boolean> => {
    now = new Date()
    isAway = false
    const own = await openOwnCertificate({ ...stores, ...clocks }, issuance, async () => {})
    now = new Date(own.current()[end].getTime() + ms)
    isAway = true
    await own.renew(async () => {}).catch(() => {})
    return !own.current().standIn
  }
  t.equal(await holds('notBefore', 0), true)
  t.equal(await holds('notBefore', -1), false)
  // The second that it names is within (RFC 5280 4.1.2.5).
  t.equal(await holds('notAfter', 999), true)
  t.equal(await holds('notAfter', 1000), false)
  t.same(told, ['own-certificate.missing', 'own-certificate.missing'], 'no stand-in is a renewal')
})

slowTest('the anchor of an HTTPS certificate is the root above the issuer that has signed it', async (t) => {
  const { stores, service, config } = await openReplicaService(t, { env: { CHANCERY_STAGING_TIME: '0s' } })
  const headers = await adminOf({ config })
  const call = async (method: 'POST' | 'PUT', url: string, payload: object) => {
    const answer = await service.app.inject({ method, url, headers, payload })
    t.equal(answer.statusCode < 300, true, answer.body)
    return answer.json()
  }
  const root = openTestRoot('Next Root')
  let now = new Date()
  const before = await openOwnCertificate({ ...stores, clock: () => now }, service.issuance, async () => {})
  const name = 'default-next'
  const { csr } = await call('POST', '/v1/issuer-requests', { name, authority: 'default', subject: named('Next') })
  await call('PUT', `/v1/issuers/${name}`, { chain: root.certify(csr) + root.pem })
  await call('POST', `/v1/issuers/${name}/moves`, { move: 'activate' })
  const own = await openOwnCertificate(stores, service.issuance, async () => {})
  const anchor = parsePem(root.pem, 'CERTIFICATE')
  t.same(own.current().anchor, anchor)

  await before.renew(async () => t.fail('of an issuer that has another one in its place, it goes on for hours'))
  now = new Date(now.getTime() + 4.1 * 3_600_000)
  t.ok(now < before.current().renewAt)
  await before.renew(async () => {})
  t.same(before.current().anchor, anchor)
})

t.test('a start in the last hours of its issuer has an HTTPS certificate for what is left of them', async (t) => {
  const before = await openReplicaService(t)
  const [ends] = before.service.issuers.all().map(({ issuer }) => issuer.bounds.notAfter)
  const late = (): Date => new Date((ends as Date).getTime() - 3_600_000)
  const { stores, keys } = await openReplica(t, { beside: before })
  const dbClock = { ...stores.dbClock, now: late, assertSane: () => {} }
  const told: ServerCertificate[] = []
  const service = await openService({ ...stores, clock: late, dbClock }, keys, async (one) => void told.push(one))
  t.teardown(service.close)
  t.same(
    told.map(({ standIn, notAfter }) => [standIn, notAfter]),
    [[false, ends]],
  )
})

slowTest('a database without room on its disk takes no records, though it answers', async (t) => {
  const { service, stores, config, database } = await openReplicaService(t)
  const headers = await adminOf({ config })
  const ready = async () => {
    return (await service.app.inject({ url: '/readyz', headers })).json<{ checks: readonly { name: string }[] }>()
      .checks
  }
  const noRoom = `begin raise exception 'no room' using errcode = 'disk_full'; end`
  const full = { text: `do $$ ${noRoom} $$` }
  await t.rejects(stores.db.query(full), { code: 'db.unavailable' })
  t.match(await ready(), [{ name: 'database', ok: false, reason: 'the database has no room on its disk' }])
  const ask = async (url: string, payload: object) => {
    const answer = await service.app.inject({ method: 'POST', url, headers, payload })
    return { status: answer.statusCode, ...answer.json() }
  }
  const issue = () => ask('/v1/certificates', { csr: csrFor('room.example.com'), profile: 'server' })
  const { serial } = await issue()
  const owner = openDatabase({ url: database.ownerUrl, max: 1, log: quiet, applicationName: 'owner' })
  t.teardown(owner.close)
  await owner.query({ text: `create function fill() returns trigger language plpgsql as $$ ${noRoom} $$` })
  const fill = (table: string) =>
    owner.query({ text: `create trigger fill before insert on ${table} for each row execute function fill()` })
  const room = 'The database has no room left on its disk: its operator has to make some.'
  const unavailable = { status: 503, code: 'db.unavailable', retryable: true, retryAfter: 1, detail: room }
  await fill('outcomes')
  const unknown = `Whether the certificate was recorded is not known; it was not handed out. ${room}`
  t.match(await issue(), { ...unavailable, retryAfter: 5, detail: unknown })
  for (const table of ['intents', 'entries']) await fill(table)
  t.match(await issue(), unavailable)
  t.match(await ask(`/v1/certificates/${serial}/revocation`, { reason: 'superseded' }), unavailable)
  t.match(await ask('/v1/principals', { name: 'somebody' }), unavailable)
  for (const table of ['outcomes', 'intents', 'entries']) await owner.query({ text: `drop trigger fill on ${table}` })
  t.equal((await issue()).status, 201)
  t.match(openRoomAt(29_999).fault(), /no room/, 'though what is small goes through in between')
  t.equal(openRoomAt(30_000).fault(), undefined)
})

slowTest(
  'a right that somebody takes from the role that serves is told of, and is nothing to give up for',
  async (t) => {
    const { service, config, database } = await openReplicaService(t)
    const owner = openDatabase({ url: database.ownerUrl, max: 1, log: quiet, applicationName: 'owner' })
    t.teardown(owner.close)
    const headers = await adminOf({ config })
    const issue = issuing(service, headers, 'right.example.com')
    await owner.query({ text: 'revoke insert on intents from chancery' })
    t.match(await issue(), { status: 503, code: 'db.unavailable', retryAfter: '30' })
    const { checks } = (await service.app.inject({ url: '/readyz', headers })).json()
    t.match(checks, [
      { name: 'database', ok: false, reason: /^the role that serves lacks a right .*"chancery migrate"/ },
    ])
    await owner.query({ text: `select grant_serving('chancery')` })
    t.equal((await issue()).status, 201)
    const back = performance.now()
    const isReady = async () => (await service.app.inject({ url: '/readyz', headers })).statusCode === 200
    while (!(await isReady()) && performance.now() - back < 20_000) await new Promise((end) => setTimeout(end, 200))
    t.ok(performance.now() - back < 15_000, 'and soon after it is back')
  },
)

slowTest(
  'a lock that a forgotten transaction has is told by /readyz once it kept somebody waiting, to its end',
  async (t) => {
    const { service, stores, config, database } = await openReplicaService(t)
    const forgotten = await openSql(t, database.ownerUrl)
    const headers = await adminOf({ config })
    await forgotten.query('begin')
    await forgotten.query('lock table intents')
    const wait = `do $$ begin set local lock_timeout = '1ms'; perform from intents; end $$`
    await t.rejects(stores.db.query({ text: wait }), { code: 'db.unavailable', detail: /a lock of another session/ })
    const asked = await service.app.inject({ url: '/readyz', headers })
    t.equal(asked.statusCode, 503)
    t.match(asked.json().checks, [
      { name: 'database', ok: false, reason: /^a lock of another session .*"chancery doctor"/ },
    ])
    await forgotten.query('rollback')
    const isReady = async () => (await service.app.inject({ url: '/readyz', headers })).statusCode === 200
    while (!(await isReady())) await new Promise((end) => setTimeout(end, 200))
  },
)

slowTest('whatever table somebody keeps, issuing goes on, or it is said to be held up', async (t) => {
  const { service, stores, config, database } = await openReplicaService(t)
  const forgotten = await openSql(t, database.ownerUrl)
  const headers = await adminOf({ config })
  const post = (url: string, payload: object) => service.app.inject({ method: 'POST', url, headers, payload })
  await post('/v1/principals', { name: 'limited' })
  const limits = { certificatesPerDay: 1_000 }
  await post('/v1/grants', { principal: 'limited', role: 'requester', profiles: ['server'], limits })
  const made = await post('/v1/tokens', { principal: 'limited', label: 'a test' })
  // One key is certified for one principal.
  const asks = [headers, { authorization: `Bearer ${made.json().secret}` }].map((headers) => ({
    ...({ method: 'POST', url: '/v1/certificates', headers } as const),
    payload: { csr: csrFor('held.example.com'), profile: 'server' },
  }))
  const tables = await forgotten.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition`,
  )
  for (const { name } of tables.rows) {
    await forgotten.query(`begin; lock table ${name}`)
    for (const [i, ask] of (await isHeldUp(stores.db)) ? [] : asks.entries())
      t.equal((await service.app.inject(ask)).statusCode, 201, `${name}, ${i === 0 ? 'without' : 'under'} limits`)
    await forgotten.query('rollback')
  }
})

t.test('a function of the server that the role may not call is not missed', async (t) => {
  const { stores } = await openReplica(t)
  const text = (name: string): string =>
    `do $$ begin raise exception 'permission denied for function ${name}' using errcode = '42501'; end $$`
  await t.rejects(stores.db.query({ text: text('pg_control_system') }), { code: '42501' })
  t.equal(stores.turnedDown.fault(), undefined)
  await t.rejects(stores.db.query({ text: text('take_turn') }), { code: '42501' })
  t.match(stores.turnedDown.fault(), /lacks a right/)
})

/** At this time, after a statement that found none. */
const openRoomAt = (later: number) => {
  let now = 0
  const room = openTurnedDown(() => now)
  room.failed(new Problem('db.unavailable', 'a test', { cause: diskFull }))
  now = later
  return room
}
const diskFull = Object.assign(new pg.DatabaseError('no room', 0, 'error'), { code: '53100' })

const ownEnd = 'chancery_own_certificate_not_after_timestamp_seconds'

t.test('checkpoints are signed by a key of Ed25519, which is made once', async (t) => {
  const { keys, config } = await openReplica(t)
  const told = (uri: string) => rollKeyOf(keys, { roll: { ...config.roll, key: uri } }, 'ca.test/roll')
  await (await keys.create('file:keys/odd.pem', 'ec-p256')).close()
  await t.rejects(told('file:keys/odd.pem'), { message: /^CHANCERY_ROLL_KEY: .*odd\.pem is not an Ed25519 key/ })
  const made = await told('file:keys/new.pem')
  t.equal(await told('file:keys/new.pem'), made)
  const key = await keys.open('file:keys/new.pem')
  t.same(Buffer.from(parseVerifierKey(made, sha256).publicKey), key.spki.subarray(12))
  await key.close()
  await writeFile(join(config.dataDir, 'keys/new.pem'), 'nothing', { mode: 0o600 })
  const unopened: Error = await keys.open('file:keys/new.pem').then(t.fail, (error) => error)
  await t.rejects(told('file:keys/new.pem'), { message: unopened.message }, 'and not made anew where it does not open')
})

t.test('what there is when an anchor is opened for the first time is in it, before anything is signed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-anchor-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const { stores, keys, config } = await openReplica(t, { env: { CHANCERY_ROLL_ANCHOR: join(folder, 'anchor') } })
  t.equal(await readAnchor(config), undefined)
  const { close } = await openRollSide(stores, keys)
  t.match(await readAnchor(config), { size: (await stores.roll.head()).size })
  await close()
})

t.test('what was written last is in the anchor after a stop, also where the database is away by then', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-anchor-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const { stores, keys, config } = await openReplica(t, { env: { CHANCERY_ROLL_ANCHOR: join(folder, 'anchor') } })
  let isAway = false
  const roll = {
    ...stores.roll,
    head: () => (isAway ? Promise.reject(new Problem('db.unavailable', 'It is away.')) : stores.roll.head()),
  }
  const { checkpoints, close } = await openRollSide({ ...stores, roll }, keys)
  const { size } = await checkpoints.newest()
  const event = { type: 'principal.created', principal: 'last', by: 'test' } as const
  await stores.roll.change(async () => ({ events: [event], result: undefined }))
  isAway = true
  await close()
  t.match(await readAnchor(config), { size: size + 1 })
})

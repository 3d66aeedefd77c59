/** What is remembered of issuers ends with them. */
import { Registry } from 'prom-client'
import t from 'tap'

import { ApiFault } from '../../src/kubernetes/api/client.ts'
import type { Issuer } from '../../src/kubernetes/api/objects.ts'
import type { Watch } from '../../src/kubernetes/api/watch.ts'
import type { Fault } from '../../src/kubernetes/decide/outcome.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import { type Health, type IssuerName, issuerName, openIssuers } from '../../src/kubernetes/reconcile/issuers.ts'
import { issuerOf } from './objects.ts'

const silent: Fault = { kind: 'unreachable', message: 'nobody is there' }
const keyAway: Fault = { kind: 'problem', problem: { code: 'key.unavailable', detail: 'No.', retryable: true } }
const keyGone: Fault = { ...keyAway, problem: { ...keyAway.problem, retryable: false } }
const issued = { kind: 'issued', issued: { serial: '', issuer: '', certificate: '', chain: [] } } as const
const name = issuerName('ChanceryIssuer', 'team-a/default-ca')
const { signal } = new AbortController()

const key = 'team-a/default-ca'
const servers = [{ url: 'https://chancery.test:8443' }, { url: 'https://trusted.test', caFile: 'ca.crt' }]

interface Written {
  readonly metadata: Issuer['metadata']
  readonly status: Issuer['status']
}

type Call = (method: string, path: string, call: { readonly body: Written }) => Promise<Issuer>

const writes: Call = async (_, __, { body: { status } }) => ({ ...issuerOf(), ...(status && { status }) })

const open = (there: Map<string, Issuer>, probe: () => Fault | undefined = () => undefined, call = writes) => {
  const woken: unknown[] = []
  const told: unknown[] = []
  const health = new Map<IssuerName, Health>()
  const time = { now: 0 }
  const watch = { get: (name: string) => there.get(name) } as unknown as Watch<Issuer>
  const seen: Call = async (...written) => {
    const issuer = await call(...written)
    there.set(key, issuer)
    return issuer
  }
  const issuers = openIssuers(
    {
      ...{ api: { call: seen as never }, watches: { ChanceryIssuer: watch, ChanceryClusterIssuer: watch } },
      ...{ asker: { ask: async () => ({ outcome: { kind: 'fault', fault: silent } }), probe: async () => probe() } },
      ...{ recorder: { record: (_, event) => told.push(event) > 0, close: async () => {} } },
      meter: openMeter(new Registry()),
      ...{ clock: () => new Date(0), now: () => time.now, random: () => 0, recheck: 300, servers },
      health,
    },
    (_, why) => woken.push(why),
  )
  return { health, issuers, time, told, woken }
}

t.test('an issuer that is deleted takes with it what spoke against it', async (t) => {
  const issuer = issuerOf()
  const there = new Map([['team-a/default-ca', issuer]])
  const { health, issuers } = open(there)
  issuers.suspect(issuer, silent)
  t.equal(health.size, 1)
  there.clear()
  await issuers.look(name, { reported: {}, signal })
  t.equal(health.size, 0, 'of who was silent')
  there.set('team-a/default-ca', issuer)
  issuers.suspect(issuer, keyGone)
  await issuers.look(name, { reported: {}, signal })
  t.equal(health.get(name)?.falls, 1)
  there.set('team-a/default-ca', {
    ...issuer,
    metadata: { ...issuer.metadata, deletionTimestamp: '2026-11-24T23:00:00Z' },
  })
  await issuers.look(name, { reported: {}, signal })
  t.equal(health.size, 0, 'of who could not sign')
})

t.test('whoever answers is not silent, whoever issues is not in doubt', (t) => {
  const issuer = issuerOf()
  const { health, issuers } = open(new Map([['team-a/default-ca', issuer]]))
  issuers.suspect(issuer, silent)
  issuers.hear(issuer, { kind: 'waiting', id: '1' })
  t.equal(health.get(name)?.silences, 0)
  issuers.suspect(issuer, silent)
  issuers.hear(issuer, { kind: 'fault', fault: keyAway })
  t.equal(health.get(name)?.silences, 0, 'nor is whoever says why not')
  issuers.suspect(issuer, silent)
  for (const silences of [2, 3]) {
    t.equal(health.get(name)?.fault, undefined)
    issuers.suspect(issuer, silent)
    t.equal(health.get(name)?.silences, silences)
  }
  t.equal(health.get(name)?.fault, silent, 'three times in a row is believed')
  issuers.hear(issuer, issued)
  t.equal(health.size, 0)
  t.end()
})

t.test(
  'whoever is not ready again within a minute is believed later each time, until it has issued or stood',
  async (t) => {
    let answers = false
    const { issuers, time } = open(new Map([[key, issuerOf()]]), () => (answers ? undefined : silent))
    const fall = async (): Promise<number | undefined> => {
      answers = false
      const looked = await issuers.look(name, { reported: {}, signal })
      return looked.kind === 'retry' ? looked.after : undefined
    }
    const rise = async (after = 0): Promise<void> => {
      time.now += after * 1_000
      answers = true
      t.equal((await issuers.look(name, { reported: {}, signal })).kind, 'end')
    }
    const waits: (number | undefined)[] = []
    for (let flips = 0; flips < 8; flips += 1) {
      waits.push(await fall())
      await rise(waits.at(-1))
    }
    t.strictSame(waits, [1, 2, 4, 8, 16, 32, 60, 60])
    t.equal(await fall(), 60)
    t.equal(await fall(), 60, 'it is the same fall')
    await rise()
    time.now += 60_000
    t.equal(await fall(), 1, 'it has stood for a minute')
    await rise()
    for (let i = 0; i < 2; i += 1) await rise(30)
    t.equal(await fall(), 1, 'however often it was looked at meanwhile')
    await rise()
    t.equal(await fall(), 2)
    await rise()
    issuers.suspect(issuerOf(), keyGone)
    t.equal(await fall(), 4, 'whatever shows it')
    await rise()
    issuers.hear(issuerOf(), issued)
    t.equal(await fall(), 1, 'it has issued')
  },
)

t.test(
  'a signature that comes late is believed to be more after three in a row, or one of a row that goes on',
  async (t) => {
    const there = new Map([[key, issuerOf()]])
    const { health, issuers, woken, time } = open(there)
    const suspects = (fault: Fault, is: Fault | undefined): void => {
      issuers.hear(issuerOf(), { kind: 'fault', fault })
      issuers.suspect(issuerOf(), fault)
      t.equal(health.get(name)?.fault, is)
    }
    suspects(keyAway, undefined)
    suspects(keyAway, undefined)
    issuers.hear(issuerOf(), issued)
    t.equal(health.size, 0, 'a certificate ends the row')
    suspects(keyAway, undefined)
    for (let i = 0; i < 2; i += 1) {
      await issuers.look(name, { reported: {}, signal })
      time.now += 60_000
    }
    t.equal(health.size, 1, 'before the first fall, time does not')
    issuers.hear(issuerOf(), { kind: 'waiting', id: '1' })
    suspects(silent, undefined)
    suspects(keyAway, undefined)
    t.strictSame(woken, ['awaited'], 'a probe shows silence alone')
    suspects(keyAway, keyAway)
    const fell = async (after: number): Promise<void> => {
      t.match(await issuers.look(name, { reported: {}, signal }), { kind: 'retry', after })
      t.equal((await issuers.look(name, { reported: {}, signal })).kind, 'end', 'it answers a probe')
    }
    await fell(1)
    suspects(silent, undefined)
    suspects(keyAway, keyAway)
    await fell(2)
    time.now += 60_000
    await issuers.look(name, { reported: {}, signal })
    t.equal(health.get(name)?.falls, 0, 'it has stood for a minute')
    suspects(keyAway, undefined)
    suspects({ ...keyGone, problem: { ...keyGone.problem, code: 'auth.invalid' } }, undefined)
    suspects(keyGone, keyGone)
  },
)

t.test(
  'records that are only read answer a probe: it is asked at once, and believed no more after three in a row',
  async (t) => {
    const there = new Map([[key, issuerOf()]])
    const { health, issuers, woken } = open(there)
    const readOnly: Fault = { kind: 'problem', problem: { ...keyAway.problem, code: 'db.unavailable' } }
    for (const is of [undefined, undefined, readOnly]) {
      issuers.hear(issuerOf(), { kind: 'fault', fault: readOnly })
      issuers.suspect(issuerOf(), readOnly)
      t.equal(health.get(name)?.fault, is)
    }
    t.strictSame(woken, ['awaited', 'awaited', 'awaited'])
    t.match(await issuers.look(name, { reported: {}, signal }), { kind: 'retry', after: 1 })
    t.equal((await issuers.look(name, { reported: {}, signal })).kind, 'end', 'it answers a probe')
    issuers.suspect(issuerOf(), readOnly)
    t.match(await issuers.look(name, { reported: {}, signal }), { kind: 'retry', after: 2 })
    issuers.hear(issuerOf(), issued)
    t.equal(health.size, 0)
  },
)

t.test('who was asked before an issuer fell says nothing more of it, unless it has issued', async (t) => {
  let answers = false
  const there = new Map([[key, issuerOf()]])
  const { health, issuers, woken, time } = open(there, () => (answers ? undefined : silent))
  await issuers.look(name, { reported: {}, signal })
  issuers.suspect(issuerOf(), keyAway)
  t.strictSame(health.get(name)?.fault, undefined)
  issuers.hear(issuerOf(), issued)
  t.strictSame(woken, [], 'a second is soon enough')
  for (const does of [false, true, false]) {
    answers = does
    time.now += 1_000
    await issuers.look(name, { reported: {}, signal })
    for (let i = 0; !does && i < 3; i += 1) issuers.suspect(issuerOf(), keyAway)
    t.equal(health.get(name)?.fault, undefined)
  }
  issuers.hear(issuerOf(), issued)
  t.strictSame(woken, [], 'it has fallen once since it has issued')
  for (const does of [true, false, true, false]) {
    answers = does
    await issuers.look(name, { reported: {}, signal })
  }
  issuers.hear(issuerOf(), issued)
  t.strictSame(woken, ['changed'])
})

t.test('what is left to the people of a namespace is what they have brought themselves', async (t) => {
  const there = new Map<string, Issuer>()
  let fault: Fault | undefined
  const { issuers } = open(there, () => fault)
  const problem = (code: string, status: number): Fault => ({
    ...{ kind: 'problem', problem: { code, status, detail: 'No.', retryable: false } },
  })
  const misconfigured: Fault = { kind: 'misconfigured', message: 'no' }
  const untrusted: Fault = { ...misconfigured, about: 'trust' }
  const misnamed: Fault = { ...misconfigured, about: 'server' }
  const foreign: Fault = { kind: 'foreign', message: 'no' }
  const own = { serviceAccount: { audiences: ['https://chancery.test'] } }
  const elsewhere = 'https://nobody.test'
  const trusted = 'https://trusted.test'
  const cases: readonly (readonly [Partial<Issuer['spec']>, Fault | undefined, boolean])[] = [
    [{}, misconfigured, true],
    [{}, problem('profile.not_found', 404), true],
    [{}, problem('internal', 500), false],
    [{}, silent, false],
    [{ auth: own }, misconfigured, false],
    [{ auth: own }, problem('auth.invalid', 401), false],
    [{ auth: own, caBundle: 'x' }, misconfigured, false],
    [{ auth: own, caBundle: 'x' }, untrusted, true],
    [{ auth: own, caBundle: 'x' }, misnamed, false],
    [{ auth: own, url: elsewhere }, misnamed, true],
    [{ auth: own, caBundle: 'x', url: trusted }, untrusted, false],
    [{ auth: own }, untrusted, false],
    [{}, untrusted, false],
    [{}, misnamed, false],
    [{ caBundle: 'x', url: trusted }, untrusted, true],
    [{}, foreign, false],
    [{ url: elsewhere }, foreign, true],
    [{ auth: own, caBundle: 'x' }, problem('profile.not_found', 404), false],
    [{ auth: own, url: elsewhere }, misconfigured, true],
    [{ url: elsewhere }, silent, true],
    [{ url: elsewhere }, undefined, false],
  ]
  for (const [spec, told, isLeft] of cases) {
    there.set(key, issuerOf(spec))
    fault = told
    const looked = await issuers.look(name, { reported: {}, signal })
    t.equal(looked.kind === 'retry' && looked.isLeft, isLeft, JSON.stringify([spec, told]))
    t.equal(issuers.isLeft(name), isLeft, 'and so are the requests through it')
  }
  fault = silent
  there.set(key, issuerOf({ url: elsewhere }))
  await issuers.look(name, { reported: {}, signal })
  t.equal(issuers.isLeft(name), true)
  there.clear()
  await issuers.look(name, { reported: {}, signal })
  t.equal(issuers.isLeft(name), false, 'nothing is left to them by one that is gone')
})

t.test('nothing is said of an issuer whose spec has changed while it was looked at', async (t) => {
  for (const [generation, versions, events] of [
    [1, ['9', '10'], [{ type: 'Warning', reason: 'Pending' }]],
    [2, ['9'], []],
  ] as const) {
    const asked: string[] = []
    const { metadata } = issuerOf()
    const fresh = { ...issuerOf(), metadata: { ...metadata, resourceVersion: '10', generation } }
    const { issuers, told } = open(
      new Map([[key, issuerOf()]]),
      () => silent,
      async (method, _, { body }) => {
        if (method === 'GET') return fresh
        if (asked.push(body.metadata.resourceVersion) === 1) throw new ApiFault(409, 'it was written meanwhile')
        return fresh
      },
    )
    await issuers.look(name, { reported: {}, signal })
    t.strictSame(asked, versions)
    t.match(told, events)
    t.equal(told.length, events.length)
  }
})

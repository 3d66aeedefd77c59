/** What is remembered of issuers ends with them. */
import { Registry } from 'prom-client'
import t from 'tap'

import { openDoubts } from '../../src/kubernetes/doubts.ts'
import { issuerName, openIssuers } from '../../src/kubernetes/issuers.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import type { Issuer } from '../../src/kubernetes/objects.ts'
import type { Fault } from '../../src/kubernetes/outcome.ts'
import { openSayings } from '../../src/kubernetes/sayings.ts'
import type { Watch } from '../../src/kubernetes/watch.ts'
import { issuerOf } from './objects.ts'

const silent: Fault = { kind: 'unreachable', message: 'nobody is there' }
const keyAway: Fault = { kind: 'problem', problem: { code: 'key.unavailable', detail: 'No.', retryable: true } }
const name = issuerName('ChanceryIssuer', 'team-a/default-ca')
const { signal } = new AbortController()

const open = (there: Map<string, Issuer>) => {
  const doubts = openDoubts()
  const watch = { get: (key: string) => there.get(key), learn: () => {} } as unknown as Watch<Issuer>
  const issuers = openIssuers(
    {
      ...{
        api: { call: async () => issuerOf() as never },
        watches: { ChanceryIssuer: watch, ChanceryClusterIssuer: watch },
      },
      ...{ asker: { ask: async () => ({ outcome: { kind: 'fault', fault: silent } }), probe: async () => undefined } },
      ...{ recorder: { record: () => {}, close: async () => {} }, meter: openMeter(new Registry()) },
      ...{
        clock: () => new Date(0),
        random: () => 0,
        recheck: 300,
        sayings: openSayings(() => 0),
        doubts,
        servers: [],
      },
    },
    () => {},
  )
  return { doubts, issuers }
}

t.test('an issuer that is deleted takes with it what spoke against it', async (t) => {
  const issuer = issuerOf()
  const there = new Map([['team-a/default-ca', issuer]])
  const { doubts, issuers } = open(there)
  issuers.suspect(issuer, silent)
  t.equal(doubts.size, 1)
  there.clear()
  await issuers.look(name, signal)
  t.equal(doubts.size, 0, 'of who was silent')
  there.set('team-a/default-ca', issuer)
  issuers.suspect(issuer, keyAway)
  await issuers.look(name, signal)
  t.equal(doubts.of(name, issuer).times, 1)
  there.set('team-a/default-ca', {
    ...issuer,
    metadata: { ...issuer.metadata, deletionTimestamp: '2026-11-24T23:00:00Z' },
  })
  await issuers.look(name, signal)
  t.equal(doubts.size, 0, 'of who could not sign')
})

t.test(
  'whoever answers is not silent, whoever issues is not in doubt, and nothing is said of another of the name',
  (t) => {
    const issuer = issuerOf()
    const { doubts, issuers } = open(new Map([['team-a/default-ca', issuer]]))
    issuers.suspect(issuer, silent)
    issuers.hear(issuer, { kind: 'waiting', id: '1' })
    t.equal(doubts.size, 0)
    issuers.suspect(issuer, silent)
    t.equal(doubts.of(name, { ...issuer, metadata: { ...issuer.metadata, uid: 'other' } }).silences, 0)
    for (const silences of [2, 0]) {
      issuers.suspect(issuer, silent)
      t.equal(doubts.of(name, issuer).silences, silences)
    }
    t.equal(doubts.of(name, issuer).fault, silent, 'three times in a row is believed')
    issuers.hear(issuer, { kind: 'issued', issued: { serial: '', issuer: '', certificate: '', chain: [] } })
    t.equal(doubts.size, 0)
    t.end()
  },
)

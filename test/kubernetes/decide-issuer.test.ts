/** What is written to issuers of the cluster, and when it is not. */
import t from 'tap'

import { decideIssuer } from '../../src/kubernetes/decide/issuer.ts'
import type { Fault } from '../../src/kubernetes/decide/outcome.ts'
import { issuerOf } from './objects.ts'

const now = new Date('2026-11-24T23:20:00.500Z')
const away: Fault = { kind: 'unreachable', message: 'nobody is there' }
const fresh = issuerOf({}, null)

t.test('one that can be asked through is Ready, of the generation that was looked at', async (t) => {
  const write = decideIssuer(fresh, undefined, { now })
  t.same(write?.status.conditions, [
    {
      ...{ type: 'Ready', status: 'True', reason: 'Checked', observedGeneration: 1 },
      message: 'profile server of https://chancery.test:8443 can be asked for',
      lastTransitionTime: '2026-11-24T23:20:00Z',
    },
  ])
  const note = 'profile server of https://chancery.test:8443 can be asked for'
  t.same(write?.event, { type: 'Normal', reason: 'Checked', action: 'Check', note })
})

t.test('what mends itself is Pending; what people must mend is Failed', async (t) => {
  const reasonFor = (fault: Fault) => decideIssuer(fresh, fault, { now })?.status.conditions[0].reason
  t.equal(reasonFor(away), 'Pending')
  t.equal(reasonFor({ kind: 'misconfigured', message: 'no token' }), 'Failed')
  t.equal(reasonFor({ kind: 'foreign', message: 'a proxy' }), 'Failed')
  const problem = { code: 'auth.expired', detail: 'It was over at 12.30 h.', retryable: false, requestId: 'r-1' }
  t.equal(reasonFor({ kind: 'problem', problem }), 'Failed')
  t.equal(reasonFor({ kind: 'problem', problem: { ...problem, retryable: true } }), 'Pending')
  const write = decideIssuer(fresh, { kind: 'problem', problem }, { now })
  const note = 'It was over at 12.30 h (auth.expired)'
  t.equal(write?.status.conditions[0].message, note, 'the same for every try')
  t.same(write?.event, { type: 'Warning', reason: 'Failed', action: 'Check', note })
})

t.test('the same is not written twice, and told once; a new generation is written without a word', async (t) => {
  const said = (fault: Fault | undefined) => {
    const [condition] = decideIssuer(fresh, fault, { now })?.status.conditions ?? []
    return issuerOf({}, condition ?? null)
  }
  for (const fault of [undefined, away]) {
    const known = said(fault)
    t.equal(decideIssuer(known, fault, { now: new Date(now.getTime() + 60_000) }), undefined)
    const changed = { ...known, metadata: { ...known.metadata, generation: 2 } }
    const write = decideIssuer(changed, fault, { now: new Date(now.getTime() + 60_000) })
    t.equal(write?.status.conditions[0].observedGeneration, 2)
    t.equal(write?.status.conditions[0].lastTransitionTime, '2026-11-24T23:20:00Z')
    t.equal(write?.event, undefined)
  }
  const back = decideIssuer(said(away), undefined, { now: new Date(now.getTime() + 60_000) })
  t.equal(back?.status.conditions[0].lastTransitionTime, '2026-11-24T23:21:00Z')
})

t.test(
  'words of a server that change at every look are written once a minute, what people mend here at once',
  async (t) => {
    const wordy = (detail: string): Fault => ({
      kind: 'problem',
      problem: { code: 'auth.expired', detail, retryable: false },
    })
    const [condition] = decideIssuer(fresh, wordy('one'), { now })?.status.conditions ?? []
    const known = issuerOf({}, condition ?? null)
    t.equal(decideIssuer(known, wordy('two'), { now, wasJustTold: true }), undefined)
    t.match(decideIssuer(known, wordy('two'), { now }), { status: {} })
    const pending = issuerOf({}, decideIssuer(fresh, away, { now })?.status.conditions[0] ?? null)
    const turned = decideIssuer(pending, wordy('one'), { now, wasJustTold: true })
    t.equal(turned?.status.conditions[0].reason, 'Failed', 'that people must mend it is news')
    const foreign: Fault = { kind: 'foreign', message: 'three' }
    t.equal(decideIssuer(known, foreign, { now, wasJustTold: true }), undefined)
    t.match(decideIssuer(known, undefined, { now, wasJustTold: true }), { status: {} }, 'that it is ready is news')
    t.match(decideIssuer(known, { kind: 'misconfigured', message: 'x' }, { now, wasJustTold: true }), { status: {} })
  },
)

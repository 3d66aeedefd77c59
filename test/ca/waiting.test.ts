/** What a request that waits for people comes to, as whoever asks is told; and that it goes on as approved or not at all. */

import t from 'tap'

import type { Caller, Grant } from '../../src/ca/access/access.ts'
import type { ProposedRequest } from '../../src/ca/approvals/approvals.ts'
import type { RequestState } from '../../src/ca/approvals/request.ts'
import { assertApproved, assertFree, findWaiting, proposalOf, waitingFor } from '../../src/ca/approvals/waiting.ts'
import type { Draft } from '../../src/ca/issuance/draft.ts'
import type { ApprovedPlan } from '../../src/ca/issuance/issuance.ts'
import { Problem } from '../../src/errors.ts'
import { decide } from '../../src/policy/decide.ts'
import { context, csrOf, namesOf, profileOf } from '../policy/requests.ts'

const rightClock = (): void => {}
const asked = { principal: 'ci', key: 'k', digest: Buffer.alloc(32, 1) }
const proposed = (state: RequestState, more: object = {}): ProposedRequest =>
  ({ request: { id: 'r1', state, end: null, obstacle: null, ...more }, digest: asked.digest }) as never

/** A draft of the profile's version 7, whose plan has the digest of threes. */
const draftWith = (approvals: { readonly required: number } | null): Draft => {
  const profile = profileOf()
  const decision = decide(profile, { csr: csrOf({ names: namesOf('dns:a.example.com') }) }, context)
  if (!decision.allowed) throw new Error(JSON.stringify(decision.violations))
  const intent = { plan: Buffer.alloc(32, 3), issuer: 'default', profile: { name: 'pay', version: 7 } }
  return { decision: { ...decision, profile: { ...profile, approvals } }, intent } as never
}
const approvedAs = (plan: number, version: number): ApprovedPlan =>
  ({ id: 'r1', plan: Buffer.alloc(32, plan), profile: { name: 'pay', version } }) as never

t.test('what waits is told as it stands, and an end as what it is, with its reason', async (t) => {
  for (const state of ['pending', 'approved'] as const)
    t.match(waitingFor(proposed(state), asked, rightClock), { waiting: { id: 'r1', state } })
  for (const state of ['rejected', 'withdrawn', 'expired', 'failed'] as const) {
    const told = (more: object = {}) => waitingFor(proposed(state, more), asked, rightClock)
    const code = `approval.${state}`
    t.throws(() => told(), { code, message: /The request r1 has ended without a certificate\.$/ })
    t.throws(() => told({ end: { reason: 'not today' } }), { code, message: /a certificate: not today$/ })
    const obstacle = { code: 'limit.names', detail: 'too many' }
    t.throws(() => told({ obstacle }), { code, message: /a certificate: limit\.names: too many$/ })
  }
})

t.test('what was asked under a key is found there until it has become a certificate', async (t) => {
  const found = (known: ProposedRequest | undefined, key: string | null = 'k') => {
    const find = async (...whose: readonly string[]) => {
      t.same(whose, ['ci', 'k'])
      return known
    }
    return findWaiting({ approvals: { find } as never, assertClock: rightClock }, { ...asked, key })
  }
  t.equal(await found(undefined), undefined)
  t.equal(await found(proposed('pending'), null), undefined, 'under no key there is none')
  t.match(await found(proposed('approved')), { waiting: { id: 'r1' } })
  await t.rejects(found(proposed('rejected')), { code: 'approval.rejected' })
  t.equal(await found(proposed('issued', { serial: 'ab' })), undefined, 'it is a certificate')
})

t.test('that its time is over is told by a clock that is right, until it is on record', async (t) => {
  const wrongClock = () => {
    throw new Problem('clock.skewed', 'It is yesterday.')
  }
  const told = (state: RequestState, more: object = {}) => waitingFor(proposed(state, more), asked, wrongClock)
  t.throws(() => told('expired'), { code: 'clock.skewed', kind: { retryable: true } })
  t.throws(() => told('expired', { end: { reason: null } }), { code: 'approval.expired' })
  t.match(told('pending'), { waiting: { state: 'pending' } })
})

t.test('nobody is told of a request with other content under the same key', async (t) => {
  for (const state of ['pending', 'failed'] as const)
    t.throws(() => waitingFor(proposed(state), { ...asked, digest: Buffer.alloc(32, 2) }, rightClock), {
      code: 'idempotency.reused',
    })
})

t.test('what was approved goes on as that very plan, and says by which request', async (t) => {
  const drafted = draftWith({ required: 1 })
  t.match(assertApproved(drafted, approvedAs(3, 7)), { intent: { approval: 'r1' } })
  t.equal(assertApproved(drafted, undefined), drafted)
  const code = 'approval.plan'
  t.throws(() => assertApproved(drafted, approvedAs(4, 7)), { code, message: /was approved\.$/ })
  t.throws(() => assertApproved(drafted, approvedAs(4, 6)), { code, message: /pay is at version 7, and was at 6\.$/ })
})

t.test('a profile that has come to want approvals lets nothing on that nobody has approved', async (t) => {
  const [free, bound] = [draftWith(null), draftWith({ required: 1 })]
  t.equal(assertFree(free, undefined), free)
  t.equal(assertFree(bound, approvedAs(3, 7)), bound)
  t.throws(() => assertFree(bound, undefined), {
    code: 'request.in_progress',
    kind: { retryable: true },
    options: { retryAfter: 1 },
  })
})

t.test('with a proposal is kept what a token brought along, and no more', async (t) => {
  const grants = ['idp@2/web/0', 'idp@21/web/0', 'other@2/web/0', 'my-idp@2/web/0', '01a2'].map(
    (id) => ({ id }) as Grant,
  )
  const vouched = (proof: object, draft = draftWith({ required: 1 })) =>
    proposalOf(asked, { caller: { principal: 'ci', proof, grants } as never as Caller, input: {} as never }, draft)
      .vouched
  t.same(vouched({ kind: 'jwt', provider: 'idp', version: 2 }), {
    provider: 'idp',
    version: 2,
    grants: [{ id: 'idp@2/web/0' }],
  })
  t.equal(vouched({ kind: 'token', id: 'x' }), null, 'what is on record is looked up again')
  t.throws(() => vouched({ kind: 'token', id: 'x' }, draftWith(null)), { message: /nobody has to approve/ })
})

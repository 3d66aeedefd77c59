/**
 * Between steps 5 and 6 of an issuance: what its profile wants approved waits for people, and goes on as the very plan that
 * they have approved. `approvals.ts` has what they do meanwhile.
 */

import { Problem, type ProblemCode } from '../../errors.ts'
import type { Caller } from '../access/access.ts'
import { type Draft, type DraftDeps, planDocument } from '../issuance/draft.ts'
import type { ApprovedPlan, IssueInput, Waiting } from '../issuance/issuance.ts'
import type { RequestRow } from '../issuance/recorder.ts'
import { type ApprovalDesk, isOverByTime, type Proposal, type ProposedRequest, type Vouched } from './approvals.ts'
import type { ApprovalRequest, RequestState } from './request.ts'

export const mustWait = ({ decision }: Draft, approved: ApprovedPlan | undefined): boolean =>
  approved === undefined && decision.profile.approvals !== null

/** The very plan that people have approved, or nothing. */
export const assertApproved = (drafted: Draft, approved: ApprovedPlan | undefined): Draft => {
  if (approved === undefined) return drafted
  const { intent } = drafted
  if (intent.plan.equals(approved.plan)) return { ...drafted, intent: { ...intent, approval: approved.id } }
  const why = intent.profile.version === approved.profile.version ? '' : changedText(intent, approved)
  throw new Problem('approval.plan', `By now another certificate would be issued than the one that was approved${why}.`)
}

/** The most common cause, and all that who asks can do about it is to ask anew. */
const changedText = ({ profile }: Draft['intent'], approved: ApprovedPlan): string =>
  `: the profile ${profile.name} is at version ${profile.version}, and was at ${approved.profile.version}`

/** An issuer has moved, and while it did, the profile came to want approvals. */
export const assertFree = (drafted: Draft, approved: ApprovedPlan | undefined): Draft => {
  if (!mustWait(drafted, approved)) return drafted
  throw new Problem('request.in_progress', 'The profile has changed; ask again.', { retryAfter: 1 })
}

/** The request that was made under this key; undefined where there is none, or where it has become a certificate. */
export const findWaiting = async (
  { approvals, assertClock }: Pick<DraftDeps, 'assertClock'> & { readonly approvals: ApprovalDesk },
  asked: RequestRow,
): Promise<Waiting | undefined> => {
  if (asked.key === null) return undefined
  const known = await approvals.find(asked.principal, asked.key)
  if (known?.request.state === 'issued') return undefined
  return known && waitingFor(known, asked, assertClock)
}

/**
 * What whoever asks is told of it. Throws `approval.*` where it has ended without a certificate, and `clock.skewed` where nobody can
 * tell whether its time is over.
 */
export const waitingFor = (
  { request, digest }: ProposedRequest,
  asked: RequestRow,
  assertClock: DraftDeps['assertClock'],
): Waiting => {
  if (!digest.equals(asked.digest)) throw reused()
  const code = endCodes[request.state]
  if (code === undefined) return { waiting: request }
  if (isOverByTime(request)) assertClock()
  throw new Problem(code, endText(request))
}

const endText = ({ id, end, obstacle }: ApprovalRequest): string => {
  const why = end?.reason ?? (obstacle ? `${obstacle.code}: ${obstacle.detail}` : undefined)
  return `The request ${id} has ended without a certificate${why ? `: ${why}` : '.'}`
}

const endCodes: { readonly [S in RequestState]?: ProblemCode } = {
  rejected: 'approval.rejected',
  withdrawn: 'approval.withdrawn',
  expired: 'approval.expired',
  failed: 'approval.failed',
}

export const proposalOf = (
  asked: RequestRow,
  { caller, input }: { readonly caller: Caller; readonly input: IssueInput },
  { decision, intent }: Draft,
): Proposal => {
  const { plan, profile } = decision
  if (profile.approvals === null) throw new Error('nobody has to approve this')
  return {
    ...asked,
    input,
    vouched: vouchedFor(caller),
    profile: intent.profile,
    plan: intent.plan,
    decided: planDocument(plan, intent.issuer),
    approvals: profile.approvals,
  }
}

/** Grants that its token brought along are nowhere in the records: they are kept with what was asked. */
const vouchedFor = ({ proof, grants }: Caller): Vouched | null => {
  if (proof.kind !== 'jwt') return null
  const { provider, version } = proof
  return { provider, version, grants: grants.filter(({ id }) => id.startsWith(`${provider}@${version}/`)) }
}

export const reused = (): Problem =>
  new Problem('idempotency.reused', 'This Idempotency-Key belongs to a request with other content.')

/**
 * Requests that people must approve. What was decided when one came is its plan, and its digest is what they approve. At the
 * last approval the policy is decided again, by whichever instance comes to it: that very plan is issued, through the cycle
 * of every other certificate, or the request fails and nothing is. What becomes of a request is one row, for good.
 */

import { isProblem, Problem, type ProblemCode } from '../../errors.ts'
import type { ProfileVersion, RequestDecided } from '../../tlog/entries.ts'
import { type Caller, type Grant, hasRole } from '../access/access.ts'
import type { Issuance, Issued, IssueInput } from '../issuance/issuance.ts'
import type { RequestRow } from '../issuance/recorder.ts'
import type { Page, PageRequest } from '../records.ts'
import type { Now } from '../revocation/revoke.ts'
import type { ApprovalRequest, PlanDocument, RequestState } from './request.ts'

/** What a token of an identity provider let its bearer ask for, as long as this version of its document holds. */
export interface Vouched {
  readonly provider: string
  readonly version: number
  readonly grants: readonly Grant[]
}

export interface Asked {
  readonly input: IssueInput
  readonly vouched: Vouched | null
}

/** A request that was decided, and is to be put before people. */
export interface Proposal extends RequestRow, Asked {
  readonly profile: ProfileVersion
  readonly plan: Buffer
  readonly decided: PlanDocument
  readonly approvals: { readonly required: number; readonly expires: number }
}

export interface ProposedRequest {
  readonly request: ApprovalRequest
  /** Of what was asked, as in `RequestRow`. */
  readonly digest: Buffer
}

/** What the cycle of issuance needs of approvals. */
export interface ApprovalDesk {
  /** What a principal has asked under this key, if people were to approve it. */
  find(principal: string, key: string): Promise<ProposedRequest | undefined>
  /**
   * Durable, and on the roll, when it resolves. Under a key it is the request that is there, whatever was asked. Throws
   * `approval.too_many`.
   */
  propose(proposal: Proposal): Promise<ProposedRequest>
}

export interface RequestFilter {
  readonly state?: RequestState
  readonly profile?: string
}

/** Whose requests somebody sees: all (null), or their own and those of profiles that they approve. */
export type Sight = { readonly principal: string; readonly profiles: readonly string[] } | null

/** What a request ends with, beside a certificate. */
export type Ending =
  | { readonly kind: 'expired' }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string }

/** What the store does for it. */
export interface ApprovalStore extends ApprovalDesk {
  read(id: string): Promise<ApprovalRequest | undefined>
  /** Newest first. */
  list(sight: Sight, filter: RequestFilter, page: PageRequest): Promise<Page<ApprovalRequest>>
  /**
   * Records what somebody has decided, with its event, while nobody else can decide anything; what `judge` throws leaves
   * nothing. Resolves to the request as it is then. Throws `approval.closed` where it is being issued and is to end.
   */
  decide(id: string, decided: RequestDecided, judge: Judge): Promise<ApprovalRequest>
  now(): Promise<Now>
  /** What was asked, to be asked again. */
  asked(id: string): Promise<Asked>
  /** What somebody holds at this moment; undefined for whoever is closed. */
  grantsOf(principal: string): Promise<readonly Grant[] | undefined>
  /** Whether the document of the provider is still this version. */
  holds(vouched: Vouched): Promise<boolean>
  /** Idempotent. False where it was not ended so: it has ended before, or is being issued. */
  end(id: string, ending: Ending): Promise<boolean>
  /** That it has become this certificate. Idempotent. */
  endIssued(id: string, serial: string): Promise<void>
  /** Those about which there may be something to do now, the longest due first. */
  due(): Promise<readonly DueRequest[]>
  /** Nothing could be done about it, or for this reason: it is due again later, each time by more, up to a minute. */
  postpone(id: string, why?: { readonly code: string; readonly detail: string }): Promise<void>
  figures(): Promise<ApprovalFigures>
}

/** With the grants, as they are in the records, of whoever decides. */
export type Judge = (request: ApprovalRequest, grants: readonly Grant[], now: Now) => void

export interface Decision {
  readonly id: string
  readonly event: RequestDecided
  readonly judge: Judge
}

export interface DueRequest {
  readonly id: string
  readonly isApproved: boolean
  /** Its time is over. */
  readonly isDue: boolean
}

export interface Decided {
  /** Of the plan that was looked at. */
  readonly digest: string
  readonly reason: string
}

export interface Approvals {
  /** Throws `approval.not_found`, also for what the caller may not see. */
  read(caller: Caller, id: string): Promise<ApprovalRequest>
  list(caller: Caller, filter: RequestFilter, page: PageRequest): Promise<Page<ApprovalRequest>>
  /**
   * Durable, and on the roll, when it resolves; by the last one that it takes, the request as it stands after it was carried
   * out, or could not be. Throws `approval.*`, `auth.forbidden`.
   */
  approve(caller: Caller, id: string, decided: Decided): Promise<ApprovalRequest>
  /** Also after having approved it, until it is being issued. */
  reject(caller: Caller, id: string, decided: Decided): Promise<ApprovalRequest>
  /** By who asked, until it is being issued. */
  withdraw(caller: Caller, id: string, reason: string): Promise<ApprovalRequest>
  /**
   * Looks at what is due; where there is anything, and `mayAct` agrees, carries out what is approved and ends what has
   * expired, wherever it was left.
   */
  follow(mayAct: () => Promise<boolean>): Promise<void>
  /** As of the last look. Of a state, ten thousand at most are counted. */
  readonly figures: ApprovalFigures
}

export interface ApprovalFigures {
  readonly pending: number
  readonly approved: number
  /** When the oldest came that has not ended; null: none. */
  readonly oldest: Date | null
}

export interface ApprovalsDeps {
  readonly store: ApprovalStore
  readonly issuance: Pick<Issuance, 'issueApproved'>
  /** Resolves when profiles and issuers are known as they are in the records. */
  readonly refresh: () => Promise<unknown>
  readonly ended: (kind: 'created' | 'issued' | 'rejected' | 'withdrawn' | Ending['kind']) => void
  /** What could not be carried out, and is tried again. */
  readonly failed: (id: string, error: unknown) => void
}

export const openApprovals = (deps: ApprovalsDeps): Approvals => {
  const { store } = deps
  let figures: ApprovalFigures = { pending: 0, approved: 0, oldest: null }
  const read = async (caller: Caller, id: string): Promise<ApprovalRequest> => {
    const request = await store.read(id)
    if (request && maySee(caller, request)) return request
    throw new Problem('approval.not_found', `There is no request ${id} that you may see.`)
  }
  const decide = async (caller: Caller, id: string, decided: RequestDecided): Promise<ApprovalRequest> => {
    const judge: Judge = (request, grants, now) => judges[decided.type]({ ...caller, grants }, request, decided, now)
    // What is turned down keeps nobody from the head of the roll.
    const [request, now] = await Promise.all([read(caller, id), store.now()])
    judge(request, caller.grants, now)
    return store.decide(id, decided, judge)
  }
  return {
    read,
    list: (caller, filter, page) => store.list(sightOf(caller), filter, page),
    approve: async (caller, id, { digest, reason }) => {
      const by = caller.principal
      const request = await decide(caller, id, { type: 'request.approved', id, plan: digest, reason, by })
      if (request.state !== 'approved') return request
      await carryOut(deps, id)
      return read(caller, id)
    },
    reject: async (caller, id, { digest, reason }) => {
      const by = caller.principal
      const request = await decide(caller, id, { type: 'request.rejected', id, plan: digest, reason, by })
      deps.ended('rejected')
      return request
    },
    withdraw: async (caller, id, reason) => {
      const { digest: plan } = await read(caller, id)
      const by = caller.principal
      const request = await decide(caller, id, { type: 'request.withdrawn', id, plan, reason, by })
      deps.ended('withdrawn')
      return request
    },
    follow: async (mayAct) => {
      figures = await store.figures()
      const due = await store.due()
      if (due.length === 0 || !(await mayAct())) return
      // One that waits for an open intent is no reason for the others to wait.
      for (let from = 0; from < due.length; from += atOnce)
        await Promise.all(due.slice(from, from + atOnce).map((request) => followOne(deps, request)))
    },
    get figures() {
      return figures
    },
  }
}

/** Of what is said of a request this alone goes by the clock, until it is on record. */
export const isOverByTime = ({ state, end }: ApprovalRequest): boolean => state === 'expired' && end === null

// Who may what ----------------------------------------------------------------------------------------------------------

const approves = ({ grants }: Pick<Caller, 'grants'>, profile: string): boolean =>
  grants.some((grant) => grant.role === 'approver' && grant.profiles?.includes(profile))

const sightOf = (caller: Caller): Sight => {
  if ((['auditor', 'operator', 'admin'] as const).some((role) => hasRole(caller, role))) return null
  const { principal, grants } = caller
  return { principal, profiles: grants.flatMap(({ role, profiles }) => (role === 'approver' ? (profiles ?? []) : [])) }
}

const maySee = (caller: Caller, { principal, profile }: ApprovalRequest): boolean => {
  const sight = sightOf(caller)
  return sight === null || principal === sight.principal || sight.profiles.includes(profile.name)
}

type Judged = (caller: Caller, request: ApprovalRequest, decided: RequestDecided, now: Now) => void

/** Whoever asked is one principal, by whichever credential. */
const assertApprover = (caller: Caller, { profile, principal }: ApprovalRequest): void => {
  if (principal === caller.principal) throw new Problem('approval.own', 'This request is your own.')
  if (!approves(caller, profile.name))
    throw new Problem('auth.forbidden', `You have no grant to approve requests of profile ${profile.name}.`)
}

const assertIn = (request: ApprovalRequest, states: readonly RequestState[], now: Now): void => {
  const { state, serial } = request
  if (isOverByTime(request)) now()
  if (state === 'expired') throw new Problem('approval.expired', 'The time of this request is over.')
  if (states.includes(state)) return
  const stopped = serial === null ? '' : `, with serial ${serial}; revoke the certificate if nobody is to use it`
  throw new Problem('approval.closed', `This request is ${state}${stopped}.`)
}

const assertPlan = ({ digest }: ApprovalRequest, { plan }: RequestDecided): void => {
  if (plan !== digest)
    throw new Problem('approval.plan', 'This is the digest of another plan than that of the request.')
}

const judges: { readonly [T in RequestDecided['type']]: Judged } = {
  'request.approved': (caller, request, decided, now) => {
    assertApprover(caller, request)
    assertIn(request, ['pending'], now)
    if (request.approvals.some(({ principal }) => principal === caller.principal))
      throw new Problem('approval.twice', 'You have approved this request before.')
    assertPlan(request, decided)
  },
  // What waits for a key or a limit can still be stopped.
  'request.rejected': (caller, request, decided, now) => {
    assertApprover(caller, request)
    assertIn(request, ['pending', 'approved'], now)
    assertPlan(request, decided)
  },
  'request.withdrawn': ({ principal }, request, _decided, now) => {
    if (principal !== request.principal) throw new Problem('approval.not_own', 'A request is withdrawn by who asked.')
    assertIn(request, ['pending', 'approved'], now)
  },
}

// What becomes of it ------------------------------------------------------------------------------------------------------

/** Whatever goes wrong with one is no reason to leave the others. */
const followOne = async (deps: ApprovalsDeps, { id, isApproved, isDue }: DueRequest): Promise<void> => {
  if (isApproved) await carryOut(deps, id, isDue)
  if (!isDue) return
  try {
    if (await deps.store.end(id, { kind: 'expired' })) deps.ended('expired')
    else await deps.store.postpone(id)
  } catch (error) {
    await keep(deps, id, error)
  }
}

/**
 * May be done by two at once, and again after a crash anywhere: under the key of the request there is one certificate. What
 * may succeed later stays approved, until its time is over. Never rejects.
 */
const carryOut = async (deps: ApprovalsDeps, id: string, isDue = false): Promise<void> => {
  const { store, ended } = deps
  try {
    const request = await store.read(id)
    if (request?.state === 'issued' && request.serial !== null) return await store.endIssued(id, request.serial)
    // What was left of it after its time, as by an outage, only ends.
    if (request?.state !== 'approved' || isDue) return
    const issued = await issue(deps, request)
    await store.endIssued(id, issued.serial)
    ended('issued')
  } catch (error) {
    const ending = endingOf(error)
    if (ending === undefined) return keep(deps, id, error)
    try {
      if (await store.end(id, ending)) ended('failed')
    } catch (cause) {
      await keep(deps, id, cause)
    }
  }
}

/** It is tried again later; meanwhile whoever reads it is told what keeps it. Never rejects. */
const keep = async ({ store, failed }: ApprovalsDeps, id: string, error: unknown): Promise<void> => {
  // Somebody has ended it meanwhile, or its time is over.
  if (!isProblem(error, 'approval.closed')) failed(id, error)
  const why = isProblem(error) ? error : new Problem('internal', 'A fault of ours: the log has more.')
  await store.postpone(id, { code: why.code, detail: why.detail }).catch((cause: unknown) => failed(id, cause))
}

const issue = async ({ store, issuance, refresh }: ApprovalsDeps, request: ApprovalRequest): Promise<Issued> => {
  const { id, principal, profile, digest, approvals } = request
  const { input, vouched } = await store.asked(id)
  for (const { principal: approver } of approvals) {
    const grants = await store.grantsOf(approver)
    if (!grants || !approves({ grants }, profile.name)) throw changed(`${approver} may not approve it any more`)
  }
  const askNow = async (): Promise<Caller> => {
    const caller = await askerOf(store, principal, vouched)
    await refresh()
    return caller
  }
  const caller = { ...(await askNow()), again: askNow }
  return issuance.issueApproved(caller, input, { id, plan: Buffer.from(digest, 'hex'), profile })
}

/** Who asked, with what the records let it ask for at this moment. */
const askerOf = async (store: ApprovalStore, principal: string, vouched: Vouched | null): Promise<Caller> => {
  const own = await store.grantsOf(principal)
  if (!own) throw changed(`${principal} is closed`)
  const grants = vouched && (await store.holds(vouched)) ? [...own, ...vouched.grants] : own
  return { principal, proof: { kind: 'own' }, grants }
}

const changed = (why: string): Problem => new Problem('approval.plan', `It is not to be issued by now: ${why}.`)

/** Undefined for what may succeed later, for what is a defect of ours, and for what is ended by others. */
const endingOf = (error: unknown): Ending | undefined => {
  if (!isProblem(error) || error.kind.retryable || endsNothing.includes(error.code)) return undefined
  if (error.code === 'approval.plan') return { kind: 'failed', code: error.code, reason: error.detail }
  // The policy says no by now: to those who wait, that is another plan.
  return { kind: 'failed', code: 'approval.plan', reason: `${error.code}: ${error.detail}` }
}

/** So many are carried out or ended at a time. */
const atOnce = 10
const endsNothing: readonly ProblemCode[] = ['internal', 'approval.closed']

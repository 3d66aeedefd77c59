/**
 * Requests that people must approve. What was decided when one came is its plan, and its digest is what they approve. At the
 * last approval the policy is decided again, by whichever instance comes to it: that very plan is issued, through the cycle
 * of every other certificate, or the request fails and nothing is. What becomes of a request is one row, for good.
 */
import { isProblem, Problem } from '../errors.ts'
import type { RequestDecided } from '../roll/entries.ts'
import { type Caller, type Grant, hasRole } from './access.ts'
import type { PlanDocument } from './draft.ts'
import type { Issuance, Issued, IssueInput } from './issuance.ts'
import type { ProfileVersion, RequestRow } from './recorder.ts'
import type { Page, PageRequest } from './records.ts'

export const requestStates = ['pending', 'approved', 'issued', 'rejected', 'expired', 'failed'] as const
/** `approved`: by all who must; it is being issued, or will be when what keeps it is mended. */
export type RequestState = (typeof requestStates)[number]

export interface Approval {
  readonly principal: string
  readonly at: Date
  readonly reason: string
  /** Of its event on the roll. */
  readonly index: number
}

export interface ApprovalRequest {
  readonly id: string
  /** Of its event on the roll. */
  readonly index: number
  readonly principal: string
  readonly profile: ProfileVersion
  readonly state: RequestState
  readonly plan: PlanDocument
  /** SHA-256 (hex) of canonical JSON of the plan. */
  readonly digest: string
  readonly required: number
  readonly approvals: readonly Approval[]
  readonly createdAt: Date
  readonly expiresAt: Date
  readonly end: RequestEnd | null
  /** Of the certificate that it has become. */
  readonly serial: string | null
}

export interface RequestEnd {
  readonly at: Date
  /** Who rejected it. */
  readonly by: string | null
  /** Why it failed, for programs. */
  readonly code: string | null
  readonly reason: string | null
}

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
   * nothing. Resolves to the request as it is then.
   */
  decide(id: string, decided: RequestDecided, judge: (request: ApprovalRequest) => void): Promise<ApprovalRequest>
  /** What was asked, to be asked again; undefined where the request was recovered from the roll, which does not have it. */
  asked(id: string): Promise<Asked | undefined>
  /** What somebody holds at this moment; undefined for whoever is closed. */
  grantsOf(principal: string): Promise<readonly Grant[] | undefined>
  /** Whether the document of the provider is still this version. */
  holds(vouched: Vouched): Promise<boolean>
  /** Idempotent. False where it was not ended so: it has ended before, or is being issued. */
  end(id: string, ending: Ending): Promise<boolean>
  /** That it has become this certificate. Idempotent. */
  endIssued(id: string, serial: string): Promise<void>
  /** Those that have not ended, oldest first. */
  open(): Promise<readonly OpenRequest[]>
}

export interface OpenRequest {
  readonly id: string
  readonly createdAt: Date
  readonly isApproved: boolean
  /** What was asked is not known any more: it will never be issued. */
  readonly isLost: boolean
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
  reject(caller: Caller, id: string, decided: Decided): Promise<ApprovalRequest>
  /**
   * Looks at what is open; where there is anything, and `mayAct` agrees, carries out what is approved and ends what has
   * expired: all of it, wherever it was left.
   */
  follow(mayAct: () => Promise<boolean>): Promise<void>
  /** As of the last look. */
  readonly figures: ApprovalFigures
}

export interface ApprovalFigures {
  readonly pending: number
  readonly approved: number
  /** When the oldest came that has not ended; undefined: none. */
  readonly oldest: Date | undefined
}

export interface ApprovalsDeps {
  readonly store: ApprovalStore
  readonly issuance: Pick<Issuance, 'issueApproved'>
  /** Resolves when profiles and issuers are known as they are in the records. */
  readonly refresh: () => Promise<unknown>
  readonly ended: (kind: 'created' | 'issued' | 'rejected' | Ending['kind']) => void
  /** What could not be carried out, and is tried again. */
  readonly failed: (id: string, error: unknown) => void
  /** Milliseconds since some moment. */
  readonly elapsed: () => number
}

export const openApprovals = (given: ApprovalsDeps): Approvals => {
  const { store } = given
  const pauses = openPauses(given.elapsed)
  const failed: ApprovalsDeps['failed'] = (id, error) => {
    pauses.begin(id)
    given.failed(id, error)
  }
  const deps = { ...given, failed }
  let figures: ApprovalFigures = { pending: 0, approved: 0, oldest: undefined }
  const read = async (caller: Caller, id: string): Promise<ApprovalRequest> => {
    const request = await store.read(id)
    if (request && maySee(caller, request)) return request
    throw new Problem('approval.not_found', `There is no request ${id} that you may see.`)
  }
  const decide = async (caller: Caller, id: string, decided: RequestDecided): Promise<ApprovalRequest> => {
    const judge = (request: ApprovalRequest): void => assertMayDecide(caller, request, decided)
    // What is turned down keeps nobody from the head of the roll.
    judge(await read(caller, id))
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
    follow: async (mayAct) => {
      const open = await store.open()
      const approved = open.filter(({ isApproved }) => isApproved)
      figures = { pending: open.length - approved.length, approved: approved.length, oldest: open[0]?.createdAt }
      const due = open.filter(
        ({ id, isApproved, isLost, isDue }) => (isApproved || isLost || isDue) && pauses.isOver(id),
      )
      pauses.forgetOthers(open)
      if (due.length === 0 || !(await mayAct())) return
      for (const request of due) await followOne(deps, request)
    },
    get figures() {
      return figures
    },
  }
}

/** What could not be carried out is tried again after a second, and then ever more rarely, up to a minute. */
const openPauses = (elapsed: () => number) => {
  const pauses = new Map<string, { readonly milliseconds: number; readonly until: number }>()
  return {
    begin: (id: string): void => {
      const milliseconds = Math.min(2 * (pauses.get(id)?.milliseconds ?? 500), 60_000)
      pauses.set(id, { milliseconds, until: elapsed() + milliseconds })
    },
    isOver: (id: string): boolean => elapsed() >= (pauses.get(id)?.until ?? 0),
    forgetOthers: (open: readonly OpenRequest[]): void => {
      const ids = new Set(open.map(({ id }) => id))
      for (const id of pauses.keys()) if (!ids.has(id)) pauses.delete(id)
    },
  }
}

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

/** Whoever asked is one principal, by whichever credential. */
const assertMayDecide = (caller: Caller, request: ApprovalRequest, { plan }: RequestDecided): void => {
  const { profile, state, principal, approvals, digest } = request
  if (principal === caller.principal) throw new Problem('approval.own', 'This request is your own.')
  if (!approves(caller, profile.name))
    throw new Problem('auth.forbidden', `You have no grant to approve requests of profile ${profile.name}.`)
  if (state === 'expired') throw new Problem('approval.expired', 'The time of this request is over.')
  if (state !== 'pending') throw new Problem('approval.closed', `This request is ${state}.`)
  if (approvals.some((approval) => approval.principal === caller.principal))
    throw new Problem('approval.twice', 'You have approved this request before.')
  if (plan !== digest)
    throw new Problem('approval.plan', 'This is the digest of another plan than that of the request.')
}

// What becomes of it ------------------------------------------------------------------------------------------------------

/** Whatever goes wrong with one is no reason to leave the others. */
const followOne = async (deps: ApprovalsDeps, { id, isApproved, isLost, isDue }: OpenRequest): Promise<void> => {
  if (isApproved && !isLost) await carryOut(deps, id, isDue)
  const ending: Ending | undefined = isLost ? lost : isDue ? { kind: 'expired' } : undefined
  if (!ending) return
  try {
    if (await deps.store.end(id, ending)) deps.ended(ending.kind)
  } catch (error) {
    deps.failed(id, error)
  }
}

/**
 * May be done by two at once, and again after a crash anywhere: under the key of the request there is one certificate. What
 * may succeed later stays approved, until its time is over. Never rejects.
 */
const carryOut = async (deps: ApprovalsDeps, id: string, isDue = false): Promise<void> => {
  const { store, ended, failed } = deps
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
    if (ending === undefined) return failed(id, error)
    if (await store.end(id, ending).catch((cause: unknown) => failed(id, cause))) ended('failed')
  }
}

const issue = async ({ store, issuance, refresh }: ApprovalsDeps, request: ApprovalRequest): Promise<Issued> => {
  const { id, principal, profile, digest, approvals } = request
  const asked = await store.asked(id)
  if (!asked) throw new Problem(lost.code, lost.reason)
  for (const { principal: approver } of approvals) {
    const grants = await store.grantsOf(approver)
    if (!grants || !approves({ grants }, profile.name)) throw changed(`${approver} may not approve it any more`)
  }
  const own = await store.grantsOf(principal)
  if (!own) throw changed(`${principal} is closed`)
  const { input, vouched } = asked
  const grants = vouched && (await store.holds(vouched)) ? [...own, ...vouched.grants] : own
  await refresh()
  const caller: Caller = { principal, proof: { kind: 'own' }, grants }
  return issuance.issueApproved(caller, input, { id, plan: Buffer.from(digest, 'hex') })
}

const lost = {
  kind: 'failed',
  code: 'approval.plan',
  reason: 'What was asked was lost with the records, and is on no roll.',
} as const

const changed = (why: string): Problem => new Problem('approval.plan', `It is not to be issued by now: ${why}.`)

/** Undefined for what may succeed later, and for what is a defect of ours. */
const endingOf = (error: unknown): Ending | undefined => {
  if (!isProblem(error) || error.kind.retryable || error.code === 'internal') return undefined
  if (error.code === 'approval.plan') return { kind: 'failed', code: error.code, reason: error.detail }
  // The policy says no by now: to those who wait, that is another plan.
  return { kind: 'failed', code: 'approval.plan', reason: `${error.code}: ${error.detail}` }
}

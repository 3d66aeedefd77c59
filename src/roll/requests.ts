/**
 * Requests that people must approve, on a roll: how many each version of a profile wants, who may approve, and what is known
 * of each request until it has ended. Nothing is kept of it after that.
 */
import type { EntryOf } from './forms.ts'
import type { Approver, Known, Request, Tell } from './known.ts'

type Created = EntryOf<'request.created'>
type Decided = EntryOf<'request.approved' | 'request.rejected' | 'request.withdrawn'>
type Issued = EntryOf<'certificate.issued'>

/** Entries of version 1 do not say how many a version of a profile wants: the first request of it does then. */
export const wantApprovals = ({ profile, ...entry }: EntryOf<'profile.changed'>, { wanted }: Known): void => {
  if (entry.v > 1) wanted.set(versionText(profile), entry.approvals)
}

export const keepApprover = (
  { grant, change, role, principal, profiles }: EntryOf<'grant.changed'>,
  { approvers }: Known,
): void => {
  if (change === 'revoked') approvers?.delete(grant)
  else if (role === 'approver') approvers?.set(grant, { principal, profiles: profiles ?? [] })
}

export const createRequest = ({ id, principal, profile, plan, required }: Created, known: Known, tell: Tell): void => {
  const { requests, wanted } = known
  const version = versionText(profile)
  const wants = wanted.get(version) ?? Math.max(1, required)
  wanted.set(version, wants)
  if (wants !== required)
    tell(
      'approval.required',
      `the request ${id} is to be approved by ${required}, and the profile ${version} wants ${wants}`,
    )
  if (requests.has(id)) return tell('reference.state', `the request ${id} was created before`)
  requests.set(id, { principal, profile: version, plan, required, approvers: [] })
}

export const approveRequest = (entry: Decided, known: Known, tell: Tell): void => {
  const { id, by } = entry
  const request = openRequest(entry, known, tell)
  if (request === undefined) return
  assertApprover(entry, request, known, tell)
  if (request.approvers.includes(by)) return tell('approval.approver', `${by} has approved the request ${id} before`)
  request.approvers = [...request.approvers, by]
}

export const rejectRequest = (entry: Decided, known: Known, tell: Tell): void => {
  const request = endRequest(entry, known, tell)
  if (request) assertApprover(entry, request, known, tell)
}

export const withdrawRequest = (entry: Decided, known: Known, tell: Tell): void => {
  const request = endRequest(entry, known, tell)
  if (request && request.principal !== entry.by)
    tell('approval.approver', `${entry.by} withdraws the request ${entry.id} of ${request.principal}`)
}

export const endRequest = (
  entry: { readonly id: string; readonly plan: string },
  known: Known,
  tell: Tell,
): Request | undefined => {
  const request = openRequest(entry, known, tell)
  known.requests.delete(entry.id)
  return request
}

/** What names a request is its certificate, once, of the plan that others than its principal have approved. */
export const issueApproved = (entry: Issued, known: Known, tell: Tell): void => {
  const version = versionText(entry.profile)
  if (!('approval' in entry)) {
    const wants = known.wanted.get(version) ?? 0
    if (wants > 0) tell('approval.missing', `${wants} were to approve what the profile ${version} yields`)
    return
  }
  const { approval: id, plan, principal } = entry as Issued & { readonly approval: string }
  const request = endRequest({ id, plan }, known, tell)
  if (request === undefined) return
  if (request.principal !== principal) tell('reference.state', `the request ${id} is of ${request.principal}`)
  if (request.profile !== undefined && request.profile !== version)
    tell('approval.missing', `the request ${id} is of the profile ${request.profile}`)
  const count = request.approvers.filter((by) => by !== request.principal).length
  if (count < request.required)
    tell('approval.missing', `${count} have approved the request ${id}, of ${request.required}`)
}

/** One that has not ended, of this plan. */
const openRequest = (
  { id, plan }: { readonly id: string; readonly plan: string },
  { requests }: Known,
  tell: Tell,
): Request | undefined => {
  const request = requests.get(id)
  if (request === undefined) tell('reference.missing', `there is no request ${id} that has not ended`)
  else if (request.plan !== plan) tell('reference.state', `the request ${id} is of the plan ${request.plan}`)
  return request
}

const assertApprover = ({ id, by }: Decided, request: Request, known: Known, tell: Tell): void => {
  if (by === request.principal) return tell('approval.approver', `${by} decides about the own request ${id}`)
  if (known.principals.get(by) === false)
    return tell('approval.approver', `${by}, who decides about ${id}, is disabled`)
  if (known.approvers === undefined || request.profile === undefined) return
  const name = request.profile.slice(0, request.profile.lastIndexOf('@'))
  if (![...known.approvers.values()].some((approver) => mayApprove(approver, by, name)))
    tell('approval.approver', `${by} has no grant to decide about the request ${id} of the profile ${name}`)
}

const mayApprove = ({ principal, profiles }: Approver, by: string, profile: string): boolean =>
  principal === by && profiles.includes(profile)

const versionText = ({ name, version }: { readonly name: string; readonly version: number }): string =>
  `${name}@${version}`

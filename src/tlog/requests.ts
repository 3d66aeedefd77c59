/**
 * Requests that people must approve, on a roll: how many each version of a profile wants, who may approve, and what is known
 * of each request until it has ended. Nothing is kept of it after that.
 */
import { canonicalJson } from '../lib/canonical-json.ts'
import type { EntryOf } from './forms.ts'
import {
  type Approver,
  digestOf,
  type Known,
  type Request,
  type RollCertificate,
  type Shown,
  type Tell,
} from './known.ts'

type Created = EntryOf<'request.created'>
type Decided = EntryOf<'request.approved' | 'request.rejected' | 'request.withdrawn'>
type Issued = EntryOf<'certificate.issued'>
type Approved = Issued & { readonly approval: string }

export const wantApprovals = ({ profile, approvals }: EntryOf<'profile.changed'>, { wanted }: Known): void => {
  wanted.set(versionText(profile), approvals)
}

export const keepApprover = (
  { grant, change, role, principal, profiles, time }: EntryOf<'grant.changed'>,
  { approvers }: Known,
): void => {
  if (role !== 'approver') return
  const ended = change === 'revoked' && { until: time }
  approvers.set(grant, { principal, profiles: profiles ?? [], ...ended })
}

export const createRequest = (
  { id, principal, profile, plan, required, request: asked, decided, expires }: Created,
  known: Known,
  tell: Tell,
): void => {
  const { requests, wanted } = known
  const version = versionText(profile)
  const wants = wanted.get(version)
  if (wants !== undefined && wants !== required)
    tell(
      'approval.required',
      `the request ${id} is to be approved by ${required}, and the profile ${version} wants ${wants}`,
    )
  if (digestOfJson(decided, known) !== plan)
    tell('approval.plan', `what was decided for the request ${id} does not have the digest ${plan}`)
  if (requests.has(id)) return tell('reference.state', `the request ${id} was created before`)
  const shown = shownOf(decided, known)
  requests.set(id, { principal, profile: version, plan, required, approvers: [], expires, asked, shown })
}

export const approveRequest = (entry: Decided, known: Known, tell: Tell): void => {
  const { id, by } = entry
  const request = openRequest(entry, known, tell)
  if (request === undefined) return
  assertApprover(entry, request, known, tell)
  if (entry.time >= request.expires)
    tell('approval.time', `the time of the request ${id} was over at ${request.expires}`)
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

export const expireRequest = (entry: EntryOf<'request.expired'>, known: Known, tell: Tell): void => {
  const { expires } = endRequest(entry, known, tell) ?? {}
  if (expires !== undefined && entry.time < expires)
    tell('approval.time', `the request ${entry.id} was open until ${expires}`)
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

interface Certified {
  readonly der: Uint8Array
  readonly certificate: RollCertificate | undefined
}

/** What names a request is its certificate, once, of the plan that others than its principal have approved. */
export const issueApproved = (entry: Issued, certified: Certified, known: Known, tell: Tell): void => {
  const version = versionText(entry.profile)
  if (entry.approval === null) {
    const wants = known.wanted.get(version) ?? 0
    if (wants > 0) tell('approval.missing', `${wants} were to approve what the profile ${version} yields`)
    return
  }
  const approved = entry as Approved
  const { approval: id, plan, principal } = approved
  const request = endRequest({ id, plan }, known, tell)
  if (request === undefined) return
  if (request.principal !== principal) tell('reference.state', `the request ${id} is of ${request.principal}`)
  if (request.profile !== version) tell('approval.missing', `the request ${id} is of the profile ${request.profile}`)
  assertBegun(approved, request, known, tell)
  assertShown(approved, { ...certified, request }, known, tell)
}

/** In time, of somebody who may still ask, and approved by as many who may still approve it. */
const assertBegun = ({ approval: id, time }: Approved, request: Request, known: Known, tell: Tell): void => {
  const begun = new Date(Date.parse(time) - longestIssuance).toISOString()
  if (begun >= request.expires) tell('approval.time', `the time of the request ${id} was over at ${request.expires}`)
  const gone = known.closings.get(request.principal)
  if (gone !== undefined && gone <= begun)
    tell('approval.missing', `${request.principal}, who has asked for ${id}, is disabled since ${gone}`)
  const count = request.approvers.filter(
    (by) => by !== request.principal && mayStillApprove(by, request, known, begun),
  ).length
  if (count < request.required)
    tell('approval.missing', `${count} who may have approved the request ${id}, of ${request.required}`)
}

/** Whoever has approved and may no longer, counts for what was begun before that. */
const mayStillApprove = (by: string, { profile }: Request, { approvers, closings }: Known, begun: string): boolean => {
  const gone = closings.get(by)
  if (gone !== undefined && gone <= begun) return false
  const grants = [...approvers.values()].filter((approver) => mayApprove(approver, by, nameOf(profile)))
  // Of whoever had none at all that was told with the approval.
  return grants.length === 0 || grants.some(({ until }) => until === undefined || until > begun)
}

/** A certificate says what people were shown. */
const assertShown = (
  { approval: id, ...entry }: Approved,
  { der, certificate, request: { shown, asked } }: Certified & { readonly request: Request },
  known: Known,
  tell: Tell,
): void => {
  if (certificate === undefined) return
  const contents = known.deps.readContents(der)
  const told = { issuer: entry.issuer, origin: entry.origin }
  const said = contents && {
    ...shownOf({ ...contents, ...told, key: digestOf(certificate.spki, known) }, known),
    asked: entry.request,
  }
  const others = Object.entries({ ...shown, asked }).flatMap(([what, value]) =>
    said?.[what as keyof typeof said] === value ? [] : [words[what as keyof typeof words]],
  )
  if (others.length > 0)
    tell('approval.plan', `for the request ${id} people have approved another certificate: ${others.join(', ')}`)
}

const words: { readonly [W in keyof Shown | 'asked']: string } = {
  issuer: 'the issuer',
  key: 'the key',
  validity: 'the validity',
  subject: 'the subject',
  names: 'the names',
  usages: 'the usages',
  origin: 'the origin',
  asked: 'what was asked',
}

/** Of a plan, or of what a certificate and its entry say. Names and usages are in no order. */
const shownOf = (of: Readonly<Record<string, unknown>>, known: Known): Shown => ({
  issuer: String(of['issuer']),
  key: String(of['key']),
  validity: Number(of['validity']),
  subject: digestOfJson(of['subject'] ?? null, known),
  names: digestOfJson(sorted(of['names']), known),
  usages: digestOfJson([sorted(of['keyUsage']), sorted(of['extendedKeyUsage'])], known),
  origin: digestOfJson(of['origin'] ?? null, known),
})

const sorted = (values: unknown): readonly string[] | null =>
  Array.isArray(values) ? values.map((value) => canonicalJson(value)).sort() : null

const digestOfJson = (value: unknown, known: Known): string =>
  digestOf(new TextEncoder().encode(canonicalJson(value)), known)

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
  const name = nameOf(request.profile)
  if (![...known.approvers.values()].some((approver) => !approver.until && mayApprove(approver, by, name)))
    tell('approval.approver', `${by} has no grant to decide about the request ${id} of the profile ${name}`)
}

const mayApprove = ({ principal, profiles }: Approver, by: string, profile: string): boolean =>
  principal === by && profiles.includes(profile)

const nameOf = (profile: string): string => profile.slice(0, profile.lastIndexOf('@'))

const versionText = ({ name, version }: { readonly name: string; readonly version: number }): string =>
  `${name}@${version}`

/**
 * Milliseconds from an intent, for which people and time are looked at, to its certificate: the longest that a signature and a
 * request may be set to take, and what is left before an intent is given up.
 */
const longestIssuance = 130_000

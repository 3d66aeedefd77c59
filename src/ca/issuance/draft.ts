/**
 * Steps 3 to 5 of an issuance: octets to values, values to a plan, and a plan to the very octets that are to be signed.
 * Nothing here is durable, and nothing of it is told before the asker has proved to hold the key.
 */

import { isProblem, Problem } from '../../errors.ts'
import { canonicalJson } from '../../lib/canonical-json.ts'
import { sha256 } from '../../lib/sha256.ts'
import type { KeyStanding } from '../../policy/check.ts'
import {
  type Ask,
  type Context,
  type Decision,
  decide,
  hangsOnGrant,
  isOfIssuer,
  type Plan,
  recheck,
  refusal,
  toldOf,
} from '../../policy/decide.ts'
import type { Profile } from '../../policy/profile.ts'
import { hasEnded, lengthOf } from '../../policy/validity.ts'
import { type CertificationRequest, parseRequest } from '../../x509/csr.ts'
import type { KeyBlockList } from '../../x509/keys.ts'
import type { Subject } from '../../x509/subject.ts'
import { encodeTbs } from '../../x509/tbs.ts'
import { formatTime } from '../../x509/time.ts'
import type { Caller, Grant, Held } from '../access/access.ts'
import { assertNamesFit, countedGrants } from '../access/limits.ts'
import type { PlanDocument } from '../approvals/request.ts'
import type { Issuer } from '../issuers/issuer.ts'
import type { Issuers } from '../issuers/issuers.ts'
import type { Stage } from '../meter.ts'
import type { Policies } from '../policies.ts'
import { heldBy } from './holders.ts'
import type { IssueInput } from './issuance.ts'
import { lint } from './lint.ts'
import type { Intent, RequestRow } from './recorder.ts'
import { asRenewal } from './renew.ts'
import { newSerial, shardOf } from './serial.ts'

export interface DraftDeps {
  readonly policies: Policies
  readonly issuers: Issuers
  /** Keys that are known to be compromised, beside our own issuers'. */
  readonly isBlocked: KeyBlockList
  readonly clock: () => Date
  /** Throws `clock.skewed` while our clock and the database's disagree too much to issue. */
  readonly assertClock: () => void
  readonly random: (octets: number) => Buffer
  /** Resolves in a later turn of the event loop: a thousand requests of a hundred names each can come at once. */
  readonly nextTurn: () => Promise<void>
}

export interface Draft {
  readonly decision: Judged & { readonly allowed: true }
  readonly intent: Intent
}

/** Decides and prepares, after the requests of this turn were sent to be checked. */
export const draft = async (
  deps: DraftDeps,
  { attempt, request, ...asked }: Omit<Case, 'profile' | 'issuer' | 'now'> & Pick<Preparation, 'request' | 'attempt'>,
  lap: (ended: Stage) => void,
): Promise<Draft> => {
  await deps.nextTurn()
  // 4. One immutable version of the profile, the grant and the request make a plan, or a list of violations.
  const profile = currentProfile(deps, asked.input.profile)
  const held = heldBy(asked.caller)
  const csr = held ? asRenewal(profile, held, asked.csr, await fixedThen(deps, profile, held)) : asked.csr
  const issuer = await issuerFor(deps, profile, asked.input, csr)
  const decision = await judge(deps, { ...asked, csr, profile, issuer, now: deps.clock() })
  assertTimely(deps, decision)
  if (!decision.allowed) throw refusal(decision)
  lap('decide')

  // 5. The very octets to be signed, read back and judged again.
  const intent = prepare(deps, { issuer, decision, input: asked.input, request, attempt, held })
  lap('prepare')
  telling(decision, () => assertNamesFit(asked.caller, profile.name, decision.plan))
  const limitedBy = countedGrants(asked.caller, profile.name)
  return { decision, intent: limitedBy.length > 0 ? { ...intent, limitedBy } : intent }
}

export const readRequest = (deps: DraftDeps, input: IssueInput): CertificationRequest =>
  parseRequest(input.csr, {
    blocked: (sha256, key) => deps.issuers.isIssuerKey(sha256) || deps.isBlocked(sha256, key),
  })

export const currentProfile = (deps: DraftDeps, name: string): Profile => {
  const profile = deps.policies.current(name)
  if (!profile) throw new Problem('profile.not_found', `There is no profile ${JSON.stringify(name)}.`)
  return profile
}

/** By the profile of its day in the subject of a certificate, where that of today says nothing of some of it. */
const fixedThen = async ({ policies }: DraftDeps, { subject: rules }: Profile, held: Held): Promise<Subject> => {
  if (held.subject.every(({ type }) => rules.some((rule) => rule.type === type))) return []
  const { profile } = await policies.read(held.profile, held.profileVersion)
  return profile.subject.flatMap(({ type, fixed = [] }) => fixed.map((value) => ({ type, value })))
}

interface Case {
  readonly profile: Profile
  readonly issuer: Issuer
  readonly caller: Caller
  readonly grants: readonly Grant[]
  readonly csr: CertificationRequest
  readonly input: IssueInput
  readonly now: Date
  readonly keyStanding?: KeyStanding
}

const sharesKey = ({ caller, grants, csr }: Pick<Case, 'caller' | 'grants' | 'csr'>): boolean =>
  grants.some(({ sharedKeys }) => sharedKeys) || heldBy(caller)?.spki.equals(csr.key.spki) === true

export type Judged = Decision & { readonly profile: Profile; readonly ask: Ask; readonly context: Context }

/**
 * The first grant that allows the request, but for the issuer, decides; when none does, the first one's reasons are told. Each
 * after the first has a turn of the event loop of its own: hundreds of names meet all patterns of the profile and of the grant.
 */
export const judge = async (
  { nextTurn }: Pick<DraftDeps, 'nextTurn'>,
  { profile, issuer, caller, grants, csr, input, now, keyStanding }: Case,
): Promise<Judged> => {
  const { names, validity, keyUsage, extendedKeyUsage, origin } = input
  const ask: Ask = {
    csr,
    ...(names && { names }),
    ...(validity !== undefined && { validity }),
    ...(keyUsage && { keyUsage }),
    ...(extendedKeyUsage && { extendedKeyUsage }),
    ...(origin && { origin }),
  }
  const isShared = sharesKey({ caller, grants, csr })
  let first: Judged | undefined
  for (const grant of grants) {
    if (first) await nextTurn()
    const context: Context = {
      now,
      principal: caller.principal,
      issuer: issuer.bounds,
      ...(grant.names && { grantRules: grant.names }),
      ...(grant.onBehalfOf && { grantOrigin: grant.onBehalfOf }),
      ...(keyStanding !== undefined && { keyStanding }),
      ...(isShared && { sharesKey: true }),
    }
    const judged = { ...decide(profile, ask, context), profile, ask, context }
    if (judged.allowed || judged.violations.every(isOfIssuer)) return judged
    first ??= judged
    if (!hangsOnGrant(judged.violations)) break
  }
  if (!first) throw new Problem('auth.forbidden', 'No grant covers this request.')
  return first
}

/**
 * By a wrong clock every issuer has ended, or is still to come: that is no word about the request. Nor is that the issuer has
 * indeed: no shorter validity helps, and another issuer does. Throws `clock.skewed` and `issuer.expired`.
 */
export const assertTimely = ({ assertClock }: Pick<DraftDeps, 'assertClock'>, decision: Judged): void => {
  if (decision.allowed) return
  const { violations, context } = decision
  const untimely = violations.filter(isOfIssuer)
  if (untimely.length > 0) assertClock()
  const { name, notAfter } = context.issuer
  if (untimely.length < violations.length || !hasEnded(notAfter, context.now)) return
  throw new Problem('issuer.expired', `The issuer ${name} has expired, at ${formatTime(notAfter)}.`, { retryAfter: 30 })
}

/** One that has become active a moment ago has its key opened first. */
export const issuerFor = async (...asked: Parameters<typeof findIssuer>): Promise<Issuer> => {
  const issuer = findIssuer(...asked)
  if (issuer.opening) await issuer.opening
  return issuer
}

/** The active one of the authority, of several one that has not expired, but for what answers for one issuer of it. */
const findIssuer = (
  { issuers, clock, assertClock }: DraftDeps,
  { authority }: Profile,
  { issuer: name }: IssueInput,
  { key }: CertificationRequest,
): Issuer => {
  if (name === undefined) {
    const [first, now] = [issuers.active(authority, key.algorithm.id), clock()]
    if (!hasEnded(first.bounds.notAfter, now)) return first
    assertClock()
    return issuers.active(authority, key.algorithm.id, now)
  }
  const issuer = issuers.byName(name)
  if (issuer.authority === authority) return issuer
  throw new Error(`the issuer ${name} is not one of the authority ${authority}`)
}

interface Preparation {
  readonly issuer: Issuer
  readonly decision: Judged & { readonly allowed: true }
  readonly input: IssueInput
  readonly request: RequestRow
  readonly attempt: number
  /** What it is to take the place of. */
  readonly held?: Held | undefined
}

export const prepare = (deps: DraftDeps, { issuer, decision, input, request, attempt, held }: Preparation): Intent => {
  const { plan, profile, context } = decision
  const serial = newSerial(deps.random)
  const shard = shardOf(serial, issuer.shards)
  const { subject, names, key, notBefore, notAfter } = plan
  const tbs = encodeTbs(issuer.template(plan), { serial, notBefore, notAfter, subject, key, names, shard })
  const facts = telling(decision, () => lint(tbs, { plan, serial, shard, issuer }))
  const { origin } = plan
  const violations = recheck(profile, origin ? { ...facts, origin } : facts, context)
  if (violations.length > 0)
    throw new Problem('san.forbidden', 'The certificate that would result breaks the profile.', {
      violations,
      extra: toldOf(decision, violations),
    })
  return {
    request,
    attempt,
    serial,
    issuer: issuer.name,
    states: input.issuer === undefined ? signing : answering,
    shard,
    profile: { name: profile.name, version: profile.version },
    tbs,
    plan: planDigest(planDocument(plan, issuer.name)),
    keySha256: key.sha256,
    names: names.length,
    notAfter,
    ...(context.sharesKey && { sharesKey: true }),
    ...(held && { replaces: Buffer.from(held.serial, 'hex') }),
    ...(origin && { origin }),
  }
}

/** What was decided is told also of what is turned down after it, as by a name constraint above the issuer. */
const telling = <T>(decision: Decision, look: () => T): T => {
  try {
    return look()
  } catch (error) {
    throw isProblem(error)
      ? new Problem(error.code, error.detail, {
          ...error.options,
          extra: { ...error.options.extra, ...toldOf(decision, error.options.violations) },
        })
      : error
  }
}

/**
 * With the validity as a span and without the serial, so that a plan approved today is the plan issued tomorrow: whatever
 * else differs makes another plan.
 */
export const planDocument = (plan: Plan, issuer: string): PlanDocument => ({
  authority: plan.authority,
  extendedKeyUsage: plan.extendedKeyUsage,
  issuer,
  key: plan.key.sha256.toString('hex'),
  keyType: plan.key.algorithm.id,
  keyUsage: plan.keyUsage,
  names: plan.names,
  ...(plan.origin && { origin: plan.origin }),
  profile: plan.profile,
  revocation: plan.revocation,
  subject: plan.subject,
  validity: lengthOf(plan.notBefore.getTime(), plan.notAfter.getTime()),
})

const planDigest = (document: PlanDocument): Buffer => sha256(canonicalJson(document))

const signing = ['active'] as const
/** What answers for an issuer is certified as long as anybody asks. */
const answering = ['staged', 'active', 'retiring', 'crl-only'] as const

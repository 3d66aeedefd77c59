/**
 * One issuance, from the question to the answer. The order of effects is the product (docs/issuance-cycle.md): every
 * signature is recorded before it is made, and every answer is given after its commit. A crash between any two steps
 * leaves records that say so; `reconcile.ts` ends what stays open.
 */

import { isProblem, Problem } from '../../errors.ts'
import { LateSignature, type SigningFault } from '../../keys/signing-key.ts'
import { canonicalJson, type Unset } from '../../lib/canonical-json.ts'
import { sha256 } from '../../lib/sha256.ts'
import type { KeyStanding } from '../../policy/check.ts'
import { decide, refusal, toldOf } from '../../policy/decide.ts'
import { assembleCertificate } from '../../x509/assemble.ts'
import { type CheckSignature, verifyPossession } from '../../x509/csr.ts'
import { formatSubject } from '../../x509/subject.ts'
import { encodeCertificate } from '../../x509/tbs.ts'
import { type Caller, type Grant, grantsToAsk } from '../access/access.ts'
import { assertNamesFit, countedGrants } from '../access/limits.ts'
import type { ApprovalDesk } from '../approvals/approvals.ts'
import {
  assertApproved,
  assertFree,
  findWaiting,
  mustWait,
  proposalOf,
  reused,
  waitingFor,
} from '../approvals/waiting.ts'
import type { Issuer } from '../issuers/issuer.ts'
import type { Checkpoints } from '../log/checkpoints.ts'
import type { Meter } from '../meter.ts'
import {
  assertTimely,
  currentProfile,
  type Draft,
  type DraftDeps,
  draft,
  issuerFor,
  type Judged,
  judge,
  prepare,
  readRequest,
} from './draft.ts'
import { heldBy } from './holders.ts'
import type { ApprovedPlan, Explanation, Issuance, Issued, IssueInput, Waiting } from './issuance.ts'
import type { Intent, IntentEnd, IssuedRow, PriorRequest, Recorder, RequestRow } from './recorder.ts'
import { refusalOf } from './rejection.ts'
import { grantsToRenew, isHeldObstacle, turnedDown } from './renew.ts'

export interface IssuanceDeps extends DraftDeps {
  readonly recorder: Recorder
  readonly approvals: ApprovalDesk
  readonly meter: Meter
  /** Checks a signature, of a request or of ours. */
  readonly verify: CheckSignature
  /** Resolves after so many milliseconds; injected so that tests need not wait. */
  readonly sleep: (milliseconds: number) => Promise<void>
  readonly checkpoints: Pick<Checkpoints, 'assertAvailable' | 'proofOf' | 'proofAt'>
  readonly limits: {
    readonly queue: number
    readonly requestDeadlineMs: number
  }
}

export const openIssuance = (deps: IssuanceDeps): Issuance => {
  let pending = 0
  const queued = async <T>(work: () => Promise<T>): Promise<T> => {
    if (pending >= deps.limits.queue)
      throw new Problem('overload.queue', `${pending} requests are waiting.`, { retryAfter: 1 })
    pending += 1
    try {
      return await work()
    } finally {
      pending -= 1
    }
  }
  const recorded = <T>(caller: Caller, input: IssueInput, work: () => Promise<T>): Promise<T> =>
    queued(async () => {
      try {
        return await work()
      } catch (error) {
        await recordRefused(deps, caller, input, error)
        throw error
      }
    })
  return {
    get pending() {
      return pending
    },
    request: (caller, input) => recorded(caller, input, () => ask(deps, caller, input)),
    issue: (caller, input) =>
      recorded(caller, input, async () => {
        const ended = await cycle(deps, caller, input)
        if ('serial' in ended) return ended
        throw new Problem(
          'approval.required',
          'What this profile yields must be approved first, and here nobody can wait.',
        )
      }),
    issueApproved: (caller, input, approved) =>
      queued(async () => {
        const ended = await cycle(deps, caller, input, approved)
        if ('serial' in ended) return ended
        throw new Error('what was approved was to be approved again')
      }),
    explain: (caller, input) => queued(() => explain(deps, caller, input)),
  }
}

/** Where people must approve what comes of it, the request waits for them, and is found again under its key. */
const ask = async (deps: IssuanceDeps, caller: Caller, input: IssueInput): Promise<Issued | Waiting> => {
  const ended = await cycle(deps, caller, input)
  if (!('intent' in ended)) return ended
  // What the intent would be turned down for is not put before people.
  const keyStanding = await deps.recorder.keyStanding(ended.intent.keySha256, caller.principal, input.origin)
  if (keyStanding === 'compromised' || (keyStanding === 'held' && !ended.intent.sharesKey))
    throw refuseKey(ended.decision, keyStanding)
  const asked = requestOf(caller, input)
  return waitingFor(await deps.approvals.propose(proposalOf(asked, { caller, input }, ended)), asked, deps.assertClock)
}

/** Resolves to a draft where that must be approved, and was not; to what waits where people were asked before. */
const cycle = async (
  deps: IssuanceDeps,
  caller: Caller,
  input: IssueInput,
  approved?: ApprovedPlan,
): Promise<Issued | Waiting | Draft> => {
  const lap = deps.meter.laps()
  // 1. The caller was authenticated; without a grant for this profile, or a certificate to be renewed by it, nothing of the
  // request is looked at.
  const grants = authorise(deps, caller, input)

  // 2. A request known under its key is answered from the records, whatever the policy says today.
  const request = requestOf(caller, input)
  const prior = await findPrior(deps, request, approved)
  if (prior?.certificate) return await replay(deps, prior.certificate)
  // What people were asked is not issued without their word, also where the profile wants it no more.
  if (prior?.isAsked && !approved) return await standingOf(deps, request)
  lap('replay')

  // 3. Bytes to values, strictly. Whether the asker holds the key is found out on another thread, while steps 4 and 5 are
  // worked out here: pure, and worth nothing until it is proved.
  const csr = readRequest(deps, input)
  lap('read')
  const possession = verifyPossession(csr, deps.verify)
  const asked = { caller, grants, csr, input, request, attempt: (prior?.attempts ?? 0) + 1 }
  const drafting = async (): Promise<Draft> => assertApproved(await draft(deps, asked, lap), approved)
  const drafted = await expected(deps, asked, () => inOrder(possession, drafting()))
  lap('possession')
  // Nothing goes further that waits for somebody's approval.
  if (mustWait(drafted, approved)) return drafted

  // 6. Durable before the key is touched. While the key is known to be gone, or the clock is wrong, not even this.
  const { recorded, decision, intent } = await recordDraft(deps, drafted, async () =>
    assertFree(await drafting(), approved),
  )
  if (recorded === 'taken') return await whoeverCameFirst(deps, request, approved)
  if (isHeldObstacle(recorded)) throw turnedDown(recorded)
  if (recorded === 'held' || recorded === 'compromised') throw refuseKey(decision, recorded)
  await assertStill(deps, { caller, grants, input }, intent)
  const issuer = deps.issuers.byName(intent.issuer)
  lap('intent')

  // 7. Once. An unknown outcome means a new serial under the same request, never a second try of this one.
  const signature = await sign(deps, issuer, intent)
  lap('sign')

  // 8. A fault in the signer must not reach a relying party.
  await checkSignature(deps, issuer, intent.tbs, signature)
  lap('check')

  // 9. Outcome, certificate, entry and head in one transaction.
  const { plan } = decision
  const certificate = encodeCertificate(intent.tbs, issuer.key.algorithm, signature)
  const enrolled = await deps.recorder.recordCertificate({
    intent,
    signature,
    event: {
      approval: approved?.id ?? null,
      certificate: certificate.toString('base64'),
      issuer: issuer.name,
      origin: intent.origin ? { ...intent.origin } : null,
      plan: intent.plan.toString('hex'),
      principal: caller.principal,
      profile: intent.profile,
      replaces: intent.replaces?.toString('hex') ?? null,
      request: request.digest.toString('hex'),
      serial: intent.serial.toString('hex'),
      type: 'certificate.issued',
    },
    subject: formatSubject(plan.subject),
    names: plan.names,
    keySha256: plan.key.sha256,
    notBefore: plan.notBefore,
    notAfter: plan.notAfter,
  })
  lap('record')

  // 10. A checkpoint over what was committed is signed, and kept elsewhere; only now does anyone learn of it.
  const proof = await deps.checkpoints.proofOf(enrolled)
  lap('prove')
  deps.meter.issued(input.profile)
  return {
    serial: intent.serial.toString('hex'),
    certificate,
    chain: issuer.chain,
    profile: intent.profile,
    issuer: issuer.name,
    notBefore: plan.notBefore,
    notAfter: plan.notAfter,
    index: enrolled.index,
    leafHash: enrolled.leafHash,
    proof,
    notes: decision.notes,
    replayed: false,
  }
}

const explain = async (deps: IssuanceDeps, caller: Caller, input: IssueInput): Promise<Explanation> => {
  const grants = authorise(deps, caller, input)
  const csr = readRequest(deps, input)
  await verifyPossession(csr, deps.verify)
  const keyStanding = await deps.recorder.keyStanding(csr.key.sha256, caller.principal, input.origin)
  const profile = currentProfile(deps, input.profile)
  const issuer = await issuerFor(deps, profile, input, csr)
  const decision = await judge(deps, { profile, issuer, caller, grants, csr, input, keyStanding, now: deps.clock() })
  assertTimely(deps, decision)
  const { notes } = decision
  const { approvals, authority } = profile
  const about = { checks: decision.checks(), notes, approvals, authority }
  if (!decision.allowed) return { ...about, allowed: false, violations: decision.violations }
  await deps.nextTurn()
  try {
    const { tbs } = prepare(deps, { issuer, decision, input, request: requestOf(caller, input), attempt: 1 })
    assertNamesFit(caller, profile.name, decision.plan)
    return { ...about, allowed: true, violations: [], tbs }
  } catch (error) {
    // What is seen in the octets alone, as a name constraint above the issuer, is a refusal like any other.
    if (!isProblem(error, 'san.forbidden') && !isProblem(error, 'limit.names')) throw error
    const { violations = [] } = error.options
    return { ...about, ...toldOf(decision, violations), allowed: false, violations }
  }
}

// Step 1 ------------------------------------------------------------------------------------------------------------

const authorise = (deps: IssuanceDeps, caller: Caller, { profile, origin }: IssueInput): readonly Grant[] => {
  const held = heldBy(caller)
  if (held?.profile === profile) return grantsToRenew(deps, currentProfile(deps, profile), caller, held)
  if (held) throw new Problem('auth.forbidden', 'A certificate is renewed by its own profile.')
  return grantsToAsk(caller, profile, origin !== undefined)
}

// Step 2 ------------------------------------------------------------------------------------------------------------

const requestOf = (caller: Caller, input: IssueInput): RequestRow => {
  const { idempotencyKey: key } = input
  const replaces = heldBy(caller)?.serial
  return {
    principal: caller.principal,
    key: key === undefined ? null : replaces === undefined ? key : ownKey(replaces, key),
    digest: requestDigest(input, replaces),
  }
}

/**
 * Each certificate has keys of its own, or whoever holds one could take those of its principal's pipelines, or find out which
 * there are. No key that anybody sends has a space.
 */
const ownKey = (serial: string, key: string): string => `${serial} ${sha256(key).toString('hex')}`

/** SHA-256 over the CSR's DER, which says where it ends, and the profile and the options: what makes two requests the same. */
const requestDigest = (
  { csr, profile, validity = null, names = null, keyUsage = null, extendedKeyUsage = null, origin }: Unset<IssueInput>,
  replaces?: string,
): Buffer => {
  const options = { extendedKeyUsage, keyUsage, names, profile, validity }
  const more = { ...(origin && { origin }), ...(replaces !== undefined && { replaces }) }
  return sha256(Buffer.concat([csr, Buffer.from(canonicalJson({ ...options, ...more }))]))
}

/**
 * The earlier request under this key, when its intents have all ended. Waits, within the deadline, while one is open; but not
 * for what people have approved, where that waits in any case.
 */
const findPrior = async (
  deps: IssuanceDeps,
  request: RequestRow,
  approved: ApprovedPlan | undefined,
): Promise<PriorRequest | undefined> => {
  if (request.key === null) return undefined
  for (let waited = 0, pause = firstPauseMs; ; waited += pause, pause = Math.min(pause * 2, longestPauseMs)) {
    const prior = await deps.recorder.findRequest(request.principal, request.key)
    if (prior && !prior.digest.equals(request.digest)) throw reused()
    // Whom the records allowed to ask so long ago they may not allow it any more.
    if (waited > trustedMs && prior && !prior.open && !prior.certificate) throw endedInNothing()
    if (!prior?.open || (prior.isAsked && !approved)) return prior
    if (waited + pause > deps.limits.requestDeadlineMs) {
      throw new Problem('request.in_progress', 'An earlier call under this Idempotency-Key has no outcome yet.', {
        retryAfter: 5,
      })
    }
    await deps.sleep(pause)
  }
}

/**
 * Another call under the same key got its intent in first: its certificate is ours, and so is its failure. Or people were
 * asked.
 */
const whoeverCameFirst = async (
  deps: IssuanceDeps,
  request: RequestRow,
  approved?: ApprovedPlan,
): Promise<Issued | Waiting> => {
  const prior = await findPrior(deps, request, approved)
  if (prior?.certificate) return replay(deps, prior.certificate)
  const waiting = prior?.isAsked && !approved ? await findWaiting(deps, request) : undefined
  if (waiting) return waiting
  throw endedInNothing()
}

/** Of what people were asked. Throws `approval.*` where it has ended; a certificate that is there meanwhile is the answer. */
const standingOf = async (deps: IssuanceDeps, request: RequestRow): Promise<Issued | Waiting> =>
  (await findWaiting(deps, request)) ?? whoeverCameFirst(deps, request)

const endedInNothing = (): Problem =>
  new Problem(
    'request.in_progress',
    'Another call under this Idempotency-Key came first and did not end in a certificate.',
    { retryAfter: 1 },
  )

// Steps 3 to 5: draft.ts -----------------------------------------------------------------------------------------------

/** Other intents wait for that of this draft: not where limits make it wait for others of its principal. */
const expected = async <T>(
  { recorder }: IssuanceDeps,
  { caller, input }: { readonly caller: Caller; readonly input: IssueInput },
  drafting: () => Promise<T>,
): Promise<T> => {
  const isOver = countedGrants(caller, input.profile).length > 0 ? ignore : recorder.expectIntent()
  try {
    return await drafting()
  } finally {
    isOver()
  }
}

/** What the second yields, once both are over. Where both fail, the first one's reason is told, whoever was faster. */
const inOrder = async <T>(first: Promise<void>, second: Promise<T>): Promise<T> => {
  // It may fail while the first one is waited for.
  const over = second.catch(ignore)
  try {
    await first
  } catch (error) {
    await over
    throw error
  }
  return await second
}

const ignore = (): void => {}

// Step 6 ------------------------------------------------------------------------------------------------------------

interface Recorded extends Draft {
  readonly recorded: Exclude<IntentEnd, 'moved'>
}

/**
 * An issuer may have moved without our having followed: then the records turn its intent down, and the request is decided
 * again, for the issuer that signs now. Throws `issuer.none_active` where there is none.
 */
const recordDraft = async (deps: IssuanceDeps, first: Draft, again: () => Promise<Draft>): Promise<Recorded> => {
  let drafted = first
  for (let tries = 3; tries > 0; tries -= 1) {
    const { intent } = drafted
    deps.issuers.byName(intent.issuer).assertAvailable()
    deps.assertClock()
    deps.checkpoints.assertAvailable()
    const recorded = await deps.recorder.recordIntent(intent)
    if (recorded !== 'moved') return { ...drafted, recorded }
    await deps.issuers.refresh()
    drafted = await again()
  }
  throw new Problem('issuer.none_active', 'The issuers of this authority are being moved.', { retryAfter: 1 })
}

interface Asking {
  readonly caller: Caller
  /** By which it was decided. */
  readonly grants: readonly Grant[]
  readonly input: IssueInput
}

/**
 * An intent may wait for the records for longer than anybody is believed. Nothing is signed by what was taken away or replaced
 * until it was there: who asked is turned down, or told to ask again where that may end otherwise. Nor is anything that was dated
 * by a clock that has been set meanwhile: the records have told what theirs says.
 */
const assertStill = async (deps: IssuanceDeps, { caller, grants, input }: Asking, intent: Intent): Promise<void> => {
  try {
    deps.assertClock()
    const known = await caller.again?.()
    if (known === undefined) return
    const held = authorise(deps, known, input)
    const isSame =
      currentProfile(deps, input.profile).version === intent.profile.version &&
      grants.every(({ id }) => held.some((grant) => grant.id === id))
    if (isSame) return
    throw new Problem('request.in_progress', 'The profile or your grants have changed meanwhile; ask again.', {
      retryAfter: 1,
    })
  } catch (error) {
    await deps.recorder.recordUnsigned(intent)
    throw error
  }
}

/** One owner for each key: a copy of another's CSR is not enough. And none for a key that was reported as compromised. */
const refuseKey = ({ profile, ask, context }: Judged, keyStanding: KeyStanding): Problem => {
  const decision = decide(profile, ask, { ...context, keyStanding })
  if (decision.allowed) throw new Error('a key that is not to be certified was allowed')
  return refusal(decision)
}

// Steps 7 and 8 -----------------------------------------------------------------------------------------------------

const sign = async (deps: IssuanceDeps, issuer: Issuer, intent: Intent): Promise<Buffer> => {
  const signature = await issuer.sign(intent.tbs)
  if (Buffer.isBuffer(signature)) return signature
  // A late signature's outcome follows in a moment: what only waited in the key's queue was never signed.
  if (signature instanceof LateSignature) void signature.outcome.then((outcome) => endUnsigned(deps, outcome, intent))
  else await endUnsigned(deps, signature, intent)
  const detail = signature.when === 'late' ? 'The signing key took too long.' : 'The signing key did not sign.'
  throw new Problem('key.unavailable', detail, { retryAfter: 5, cause: signature })
}

const endUnsigned = async (
  { recorder }: IssuanceDeps,
  outcome: Buffer | SigningFault,
  intent: Intent,
): Promise<void> => {
  if (!Buffer.isBuffer(outcome) && outcome.when === 'before') await recorder.recordUnsigned(intent)
}

const checkSignature = async (
  deps: IssuanceDeps,
  issuer: Issuer,
  message: Buffer,
  signature: Buffer,
): Promise<void> => {
  const { spki, algorithm } = issuer.key
  if (await deps.verify({ spki, message, signature, algorithm, keep: true })) return
  // Whatever comes next is turned down before its intent: each would stay open, as this one does.
  issuer.distrust()
  throw new Problem('key.bad_signature', 'Our own signature did not verify; it was not handed out.', {
    retryAfter: 5,
    cause: new Error(`the key of the issuer ${issuer.name} signs what its certificate does not verify`),
  })
}

// Step 10 -----------------------------------------------------------------------------------------------------------

/** What an earlier call under the same key has come to, perhaps at another instance, by an issuer that is new here. */
const replay = async (deps: IssuanceDeps, row: IssuedRow): Promise<Issued> => {
  const issuer = await deps.issuers.find(row.issuer)
  return {
    serial: row.serial.toString('hex'),
    certificate: assembleCertificate(row.tbs, row.signature),
    chain: issuer.chain,
    profile: row.profile,
    issuer: row.issuer,
    notBefore: row.notBefore,
    notAfter: row.notAfter,
    index: row.index,
    leafHash: row.leafHash,
    proof: await deps.checkpoints.proofAt(row.index),
    notes: [],
    replayed: true,
  }
}

/** What policy or parsing turned down is kept, so that nobody has to guess why a client gets nothing. */
const recordRefused = async (deps: IssuanceDeps, caller: Caller, input: IssueInput, error: unknown): Promise<void> => {
  if (!isProblem(error) || error.kind.retryable || error.kind.status >= 500) return
  const { profile, csr: sent, origin } = input
  deps.meter.refused(profile, error.code)
  await deps.recorder.recordRefusal(refusalOf(error, { principal: caller.principal, profile, sent, origin }))
}

/** Milliseconds, as long as whoever asks over HTTP is believed without asking again. */
const trustedMs = 1_000
const firstPauseMs = 20
const longestPauseMs = 500

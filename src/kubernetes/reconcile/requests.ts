/** CertificateRequests of cert-manager: look, decide, ask Chancery, write. What is decided is in decide-request.ts. */

import { type CertificateRequest, conditionOf, type Issuer, isTrue, keepMetadata } from '../api/objects.ts'
import type { Recorder } from '../api/recorder.ts'
import { resources } from '../api/resources.ts'
import type { Watch } from '../api/watch.ts'
import { decodePem, type ReadRequest } from '../decide/asking.ts'
import { isOfAllowance } from '../decide/outcome.ts'
import {
  decideAnswer,
  decideFull,
  decideRequest,
  decideRest,
  hasEnded,
  type Look,
  type Wait,
  type Write,
} from '../decide/request.ts'
import type { Meter } from '../metrics.ts'
import { type Applied, applyOrTell, type applyStatus } from './apply.ts'
import type { Asker } from './asker.ts'
import { type Issuers, isOfItsOwnToken, issuerNameOf } from './issuers.ts'
import { isRecent, type Looked, leftForGood, leftOnce, type Reported, retryOf, type Turn } from './queue.ts'
import type { Circles } from './renewal-backoff.ts'

export interface RequestsDeps {
  readonly api: Parameters<typeof applyStatus>[0]
  readonly watch: Watch<CertificateRequest>
  readonly issuers: Issuers
  readonly asker: Asker
  readonly recorder: Recorder
  readonly meter: Meter
  readonly readRequest: ReadRequest
  readonly clock: () => Date
  readonly retryFor: number | undefined
  readonly circles: Circles
}

export const lookAtRequest = async (deps: RequestsDeps, { key, waited, reported, signal }: Turn): Promise<Looked> => {
  const request = deps.watch.get(key)
  if (request === undefined) return { kind: 'end' }
  const name = issuerNameOf(request)
  const issuer = name && deps.issuers.find(name)
  const look: Look = { request, issuer, waited, now: deps.clock(), retryFor: deps.retryFor }
  const step = decideRequest(look)
  if (step.kind === 'ignore') return { kind: 'end' }
  // There is no condition for it.
  if (step.kind === 'tell') return leftOnce(deps.recorder.record(request, step.event))
  if (step.kind !== 'ask' || issuer === undefined) {
    const looked = await follow(deps, look, { step: step as Write | Wait, signal })
    // Whoever has named an issuer that does not exist mends that or does not.
    const isLeft = issuer === undefined || (name !== undefined && deps.issuers.isLeft(name))
    return isLeft ? left(looked) : looked
  }
  const rest = deps.circles.restOf(request)
  // So it is with a Certificate that is renewed in a circle.
  if (rest > 0) return left(await follow(deps, look, { step: decideRest(look, rest), signal }))
  const { outcome, roots } = await deps.asker.ask(issuer, step.ask, signal)
  deps.issuers.hear(issuer, outcome)
  const now = deps.clock()
  const wasJustTold = isRecent(reported, now)
  const answered = { ...look, now, outcome, roots, requestKey: keyOf(deps, request), wasJustTold }
  const looked = await follow(deps, look, { step: decideAnswer(answered), asked: { issuer, reported }, signal })
  // What a team has used up is not for whoever is on duty, but what all share may be.
  const isLeft = isOfAllowance(outcome) && isOfItsOwnToken(issuer)
  return isLeft ? left(looked) : looked
}

const left = (looked: Looked): Looked => (looked.kind === 'retry' ? { ...looked, isLeft: true } : looked)

const keyOf = ({ readRequest }: RequestsDeps, { spec }: CertificateRequest): Buffer | undefined => {
  const pem = decodePem(spec.request)
  const facts = pem === undefined ? undefined : readRequest(pem)
  return facts && 'spki' in facts ? facts.spki : undefined
}

interface Following {
  readonly step: Write | Wait
  /** Where it was asked. */
  readonly asked?: { readonly issuer: Issuer; readonly reported: Reported }
  readonly signal: AbortSignal
}

const follow = async (deps: RequestsDeps, { request }: Look, { step, asked, signal }: Following): Promise<Looked> => {
  if (step.kind === 'write') return end(deps, request, { step, signal })
  if (step.ofIssuer && asked) deps.issuers.suspect(asked.issuer, step.ofIssuer)
  if (step.write) {
    await write(deps, request, { step: step.write, signal })
    if (asked) asked.reported.at = deps.clock().getTime()
  }
  return retryOf(step)
}

const end = async (deps: RequestsDeps, request: CertificateRequest, { step, signal }: Writing): Promise<Looked> => {
  const applied = await write(deps, request, { step, signal })
  // That it has failed takes less.
  if (applied.kind === 'full')
    return step.status.certificate === undefined
      ? leftForGood
      : end(deps, request, { step: decideFull(request, deps.clock()), signal })
  if (applied.kind === 'written') {
    if (step.until) deps.circles.note(request, step.until.getTime() - deps.clock().getTime())
    const outcome = endOf(step)
    deps.meter.count('chancery_controller_ended_total', { resource: resources.certificateRequests.plural, outcome })
  }
  return { kind: 'end' }
}

interface Writing {
  readonly step: Write
  readonly signal: AbortSignal
}

const write = async (
  deps: RequestsDeps,
  request: CertificateRequest,
  { step, signal }: Writing,
): Promise<Applied<CertificateRequest>> => {
  const { status, event } = step
  const resource = resources.certificateRequests
  const denied = isTrue(request, 'Denied')
  const { generation } = request.metadata
  // What was approved stays so, but the object may have ended by somebody else's hand, be held by a finalizer alone, or ask for
  // something else than what was signed: cert-manager's webhook forbids that, where it is asked.
  const holds = (fresh: CertificateRequest): boolean =>
    fresh.metadata.deletionTimestamp === undefined &&
    fresh.metadata.generation === generation &&
    !hasEnded(fresh) &&
    isTrue(fresh, 'Denied') === denied
  const applied = await applyOrTell(deps, 'Issue', { resource, object: request, status, holds, signal })
  if (applied.kind === 'written') deps.recorder.record(request, event)
  return applied
}

const endOf = ({ status }: Write): string => {
  const { reason = '' } = conditionOf({ status }, 'Ready') ?? {}
  return reason.toLowerCase()
}

/** What makes a request worth another look; our own Pending does not. */
export const stateOfRequest = (request: CertificateRequest): string =>
  [
    ...[request.metadata.uid, request.metadata.generation],
    ...[isTrue(request, 'Approved'), isTrue(request, 'Denied'), hasEnded(request)],
  ].join(' ')

/** Of one that has ended, no more is held than that; of another's, whose it is. */
export const keepRequest = (request: CertificateRequest): CertificateRequest => {
  const { apiVersion, kind, metadata, spec, status } = request
  const isOver = hasEnded(request) || issuerNameOf(request) === undefined
  return {
    ...{ apiVersion, kind, metadata: keepMetadata(metadata) },
    spec: isOver ? { request: '', issuerRef: spec.issuerRef } : spec,
    status: { conditions: status?.conditions ?? [] },
  }
}

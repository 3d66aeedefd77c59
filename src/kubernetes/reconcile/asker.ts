/** Asking Chancery for an object through an issuer of the cluster, and what every kind of object does with the answer. */

import type { Issuer } from '../api/objects.ts'
import { type Ask, behalfOf } from '../decide/asking.ts'
import { textOf } from '../decide/issuer.ts'
import { type Fault, needsPeople, type Outcome, setbackOf } from '../decide/outcome.ts'
import type { Meter } from '../metrics.ts'
import { type Chancery, otherAuthority } from './chancery.ts'
import type { Places } from './endpoints.ts'

export interface Asker {
  /** Never issues twice for the same key. `roots` where the issuer wants them. Rejects only with the reason of the signal. */
  ask(issuer: Issuer, ask: Ask, signal: AbortSignal): Promise<Asked>
  probe(issuer: Issuer, signal: AbortSignal): Promise<Fault | undefined>
}

export interface Asked {
  readonly outcome: Outcome
  /** PEM. */
  readonly roots?: string
}

export interface AskerDeps {
  readonly places: Places
  readonly meter: Meter
  readonly now: () => number
}

export const openAsker = ({ places, meter, now }: AskerDeps): Asker => {
  const reach = async (issuer: Issuer, signal: AbortSignal): Promise<Chancery | Fault> => {
    const place = await places.of(issuer, signal)
    signal.throwIfAborted()
    return place
  }
  /** A token that is not taken may have been changed since. */
  const noted = (issuer: Issuer, fault: Fault): Fault => {
    if (fault.kind !== 'problem' || fault.problem.code.startsWith('auth.')) places.forget(issuer)
    return fault
  }
  return {
    ask: async (issuer, ask, signal) => {
      const place = await reach(issuer, signal)
      if ('kind' in place) return { outcome: { kind: 'fault', fault: place } }
      const begun = now()
      const outcome = await place.issue(ask, signal)
      signal.throwIfAborted()
      meter.time('chancery_controller_asks_seconds', { outcome: labelOf(outcome) }, (now() - begun) / 1_000)
      if (outcome.kind === 'fault') return { outcome: { kind: 'fault', fault: noted(issuer, outcome.fault) } }
      if (outcome.kind !== 'issued') return { outcome }
      return finish(place, issuer, { outcome, signal })
    },
    probe: async (issuer, signal) => {
      const place = await reach(issuer, signal)
      if ('kind' in place) return place
      const { profile, authority, onBehalfOf } = issuer.spec
      // It says whether the grant is for requests on behalf of others at all; whether for this one does not matter.
      const behalf = onBehalfOf === false ? undefined : behalfOf(issuer, { username: 'chancery.dev:check' })
      const fault = await place.probe({ profile, authority, onBehalfOf: behalf }, signal)
      signal.throwIfAborted()
      return fault && noted(issuer, fault)
    },
  }
}

interface Finishing {
  readonly outcome: Outcome & { readonly kind: 'issued' }
  readonly signal: AbortSignal
}

/**
 * What is left to ask once there is a certificate. A fault here costs another try, which gets the same certificate: whatever
 * it is, it is not the request's.
 */
const finish = async (place: Chancery, issuer: Issuer, { outcome, signal }: Finishing): Promise<Asked> => {
  const { authority, includeCA } = issuer.spec
  const fault = (told: Fault): Asked => {
    const mended: Fault =
      told.kind === 'problem' && needsPeople(told) ? { kind: 'foreign', message: textOf(told) } : told
    return { outcome: { kind: 'fault', fault: mended } }
  }
  if (authority !== undefined) {
    const names = await place.issuersOf(authority, signal)
    signal.throwIfAborted()
    if ('kind' in names) return fault(names)
    if (!names.includes(outcome.issued.issuer)) return fault(otherAuthority(issuer.spec.profile, authority))
  }
  if (!includeCA) return { outcome }
  const roots = await place.rootsOf(outcome.issued.serial, signal)
  signal.throwIfAborted()
  return typeof roots === 'string' ? { outcome, roots } : fault(roots)
}

const labelOf = (outcome: Outcome): string => (outcome.kind === 'fault' ? setbackOf(outcome.fault).kind : outcome.kind)

/** What the limits of grants mean for one request. Pure; who counts is in `store/` (exactly) and in `admission.ts` (of seconds). */
import { Problem, type ProblemCode } from '../errors.ts'
import type { Plan } from '../policy/decide.ts'
import type { LimitName, Limits } from '../policy/limits.ts'
import type { Caller, Grant } from './access.ts'

/** Of addresses, where nobody is known yet, beside those of grants. */
export type AnyLimitName = LimitName | 'addressRequests' | 'addressConcurrent' | 'failedAuthentication'

interface LimitKind {
  readonly code: ProblemCode
  /** After "There are as many". */
  readonly of: string
}

export const limitTable = {
  certificatesPerDay: { code: 'limit.certificates_per_day', of: 'certificates today as the grant allows' },
  namesPerDay: { code: 'limit.names_per_day', of: 'names in certificates of today as the grant allows' },
  certificatesAlive: { code: 'limit.certificates_alive', of: 'valid certificates as the grant allows' },
  requestsPerSecond: { code: 'limit.requests', of: 'requests in this second as your grants allow' },
  concurrent: { code: 'limit.concurrent', of: 'requests under way as your grants allow' },
  addressRequests: { code: 'limit.address_requests', of: 'requests in this second as one address may send' },
  addressConcurrent: { code: 'limit.address_concurrent', of: 'requests under way as one address may have' },
  failedAuthentication: { code: 'limit.failed_authentication', of: 'failed authentications as one address may have' },
} as const satisfies Readonly<Record<AnyLimitName, LimitKind>>

export interface Reached {
  /** What the limit says. */
  readonly value: number
  /** Milliseconds until there may be room. */
  readonly waitMs: number
  readonly now: Date
}

/** 429, with the limit's name, its value, and when it frees. */
export const limitReached = (name: AnyLimitName, { value, waitMs, now }: Reached): Problem => {
  const { code, of } = limitTable[name]
  const freesAt = new Date(now.getTime() + waitMs).toISOString()
  return new Problem(code, `There are as many ${of}: ${value}.`, {
    retryAfter: Math.max(1, Math.ceil(waitMs / 1000)),
    extra: { limit: { name, value, freesAt } },
    reason: name,
  })
}

export type CountedLimits = Pick<Limits, 'certificatesPerDay' | 'namesPerDay' | 'certificatesAlive'>

/** What one certificate takes of the limits of its grants that are counted in the records. */
export interface Booking {
  readonly grants: readonly CountedGrant[]
  readonly names: number
  readonly notAfter: Date
}

export interface CountedGrant {
  readonly id: string
  /** Certificates of these count. */
  readonly profiles: readonly string[]
  readonly limits: CountedLimits
}

/**
 * Under every grant of the caller that covers its profile, whichever of them allows it, or holding a certificate does;
 * undefined where none limits it.
 */
export const bookingOf = ({ grants }: Caller, profile: string, { names, notAfter }: Plan): Booking | undefined => {
  const counted = grants.flatMap(({ id, profiles, limits }) =>
    limits && isCounted(limits) && profiles?.includes(profile) ? [{ id, profiles, limits }] : [],
  )
  return counted.length === 0 ? undefined : { grants: counted, names: names.length, notAfter }
}

const isCounted = ({ certificatesPerDay, namesPerDay, certificatesAlive }: Limits): boolean =>
  (certificatesPerDay ?? namesPerDay ?? certificatesAlive) !== undefined

/** The limits of requests are the principal's: the smallest that any of its grants sets. */
export const requestLimits = (
  grants: readonly Grant[],
): Pick<Limits, 'requestsPerSecond' | 'concurrent'> | undefined => {
  let rate = Number.POSITIVE_INFINITY
  let concurrent = Number.POSITIVE_INFINITY
  for (const { limits } of grants) {
    if (limits === undefined) continue
    rate = Math.min(rate, limits.requestsPerSecond ?? rate)
    concurrent = Math.min(concurrent, limits.concurrent ?? concurrent)
  }
  if (rate === Number.POSITIVE_INFINITY && concurrent === Number.POSITIVE_INFINITY) return undefined
  return {
    ...(rate !== Number.POSITIVE_INFINITY && { requestsPerSecond: rate }),
    ...(concurrent !== Number.POSITIVE_INFINITY && { concurrent }),
  }
}

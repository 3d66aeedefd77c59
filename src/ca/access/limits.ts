/** What the limits of grants mean for one request. Pure; who counts is in `store/` (exactly) and in `admission.ts` (of seconds). */

import type { Plan } from '../../policy/decide.ts'
import type { Limits } from '../../policy/limits.ts'
import type { Caller } from './access.ts'
import { tooWide } from './limit-problems.ts'

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
 * undefined where none limits it. Throws `limit.names` for what would never have room: nobody waits for it, and no people are
 * asked.
 */
export const bookingOf = (caller: Caller, profile: string, { names, notAfter }: Plan): Booking | undefined => {
  const counted = countedGrants(caller, profile)
  const most = Math.min(...counted.map(({ limits }) => limits.namesPerDay ?? Number.POSITIVE_INFINITY))
  if (names.length > most) throw tooWide(names.length, most)
  return counted.length === 0 ? undefined : { grants: counted, names: names.length, notAfter }
}

/** Those of the caller that cover the profile, and have limits that are counted in the records. */
export const countedGrants = ({ grants }: Caller, profile: string): readonly CountedGrant[] =>
  grants.flatMap(({ id, profiles, limits }) =>
    limits && isCounted(limits) && profiles?.includes(profile) ? [{ id, profiles, limits }] : [],
  )

const isCounted = ({ certificatesPerDay, namesPerDay, certificatesAlive }: Limits): boolean =>
  (certificatesPerDay ?? namesPerDay ?? certificatesAlive) !== undefined

/** The limits of requests are the principal's: the smallest that any of its grants sets. */
export const requestLimits = ({
  grants,
  limiting = grants,
}: Pick<Caller, 'grants' | 'limiting'>): Pick<Limits, 'requestsPerSecond' | 'concurrent'> | undefined => {
  let rate = Number.POSITIVE_INFINITY
  let concurrent = Number.POSITIVE_INFINITY
  for (const { limits } of limiting) {
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

/** What the limits of grants mean for one request. `db/quotas.ts` counts certificates and names, `request-limits.ts` requests. */
import type { Plan } from '../../policy/decide.ts'
import type { Limits } from '../../policy/limits.ts'
import type { Caller } from './access.ts'
import { tooWide } from './limit-problems.ts'

export type CountedLimits = Pick<Limits, 'certificatesPerDay' | 'namesPerDay' | 'certificatesAlive'>

export interface CountedGrant {
  /** Certificates of these count. */
  readonly profiles: readonly string[]
  readonly limits: CountedLimits
}

/** Throws `limit.names` for a plan with more names than a grant of the caller allows a day. */
export const assertNamesFit = (caller: Caller, profile: string, { names }: Pick<Plan, 'names'>): void => {
  const limits = countedGrants(caller, profile).map(({ limits }) => limits.namesPerDay ?? Number.POSITIVE_INFINITY)
  const most = Math.min(...limits)
  if (names.length > most) throw tooWide(names.length, most)
}

/** Those of the caller that cover the profile, and have limits that are counted in the records. */
export const countedGrants = ({ grants }: Caller, profile: string): readonly CountedGrant[] =>
  grants.flatMap(({ profiles, limits }) =>
    limits && isCounted(limits) && profiles?.includes(profile) ? [{ profiles, limits }] : [],
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

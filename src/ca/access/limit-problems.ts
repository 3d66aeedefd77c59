/** The limits there are, and what is said when one is reached. */
import { Problem, type ProblemCode } from '../../errors.ts'
import type { LimitName } from '../../policy/limits.ts'

/** Of addresses, where nobody is known yet, beside those of grants. */
export type AnyLimitName = LimitName | 'addressRequests' | 'addressConcurrent' | 'failedAuthentication'

interface LimitKind {
  readonly code: ProblemCode
  /** After "There are as many". */
  readonly of: string
}

const limitTable = {
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

/** A request that has more names than a whole day of its grant never fits. */
export const tooWide = (names: number, most: number): Problem =>
  new Problem('limit.names', `The request has ${names} names, and the grant allows ${most} a day.`, {
    extra: { limit: { name: 'namesPerDay', value: most } },
    reason: 'namesPerDay',
    violations: [
      {
        check: 'limit.names',
        field: '/names',
        value: String(names),
        reason: `is more than the grant allows a day: ${most}`,
      },
    ],
  })

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

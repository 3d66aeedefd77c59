/**
 * Limits of requests of a principal, kept in memory: each instance allows its share of them, a limit divided by the number of
 * instances.
 */
import type { Caller } from './access.ts'
import { type AnyLimitName, limitReached } from './limit-problems.ts'
import { requestLimits } from './limits.ts'

export interface PrincipalLimitsDeps {
  /** How many instances share the limits. */
  readonly replicas: () => number
  /** Milliseconds, monotonic. */
  readonly now: () => number
  readonly clock: () => Date
  readonly limited: (name: AnyLimitName) => void
}

/** Gives back what was taken; to be called once. */
export type Leave = () => void

export interface PrincipalLimits {
  /** One request begins. Undefined without limits. Throws `limit.requests` or `limit.concurrent`. */
  enter(caller: Caller): Leave | undefined
  /** Counts one more item of a batch that has entered. Throws `limit.requests`. */
  count(caller: Caller): void
  /** As many more requests in progress as the caller may have, with what gives them back. */
  widen(caller: Caller, wanted: number): Widened
}

export interface Widened {
  readonly slots: number
  readonly leave: Leave
}

interface Use {
  tokens: number
  /** When `tokens` was counted. */
  at: number
  inProgress: number
}

export const openPrincipalLimits = ({ replicas, now, clock, limited }: PrincipalLimitsDeps): PrincipalLimits => {
  const uses = new Map<string, Use>()
  const share = (limit: number): number => limit / Math.max(1, replicas())

  const useOf = ({ principal }: Caller): Use => {
    if (uses.size >= mostUses) forgetIdle(uses, now() - secondMs)
    const use = uses.get(principal) ?? { tokens: Number.POSITIVE_INFINITY, at: now(), inProgress: 0 }
    uses.set(principal, use)
    return use
  }

  const reject = (name: 'requestsPerSecond' | 'concurrent', value: number, waitMs: number) => {
    limited(name)
    return limitReached(name, { value, waitMs, now: clock() })
  }

  const take = (use: Use, limit: number): void => {
    const rate = share(limit)
    const present = now()
    use.tokens = Math.min(Math.max(1, rate), use.tokens + ((present - use.at) / secondMs) * rate)
    use.at = present
    if (use.tokens < 1) throw reject('requestsPerSecond', limit, ((1 - use.tokens) / rate) * secondMs)
    use.tokens -= 1
  }

  const free = (use: Use, limit: number): number => Math.max(1, Math.floor(share(limit))) - use.inProgress

  const hold = (use: Use, count: number): Leave => {
    use.inProgress += count
    return () => {
      use.inProgress -= count
    }
  }

  return {
    enter: (caller) => {
      const limits = requestLimits(caller)
      if (!limits) return undefined
      const { requestsPerSecond, concurrent } = limits
      const use = useOf(caller)
      if (concurrent !== undefined && free(use, concurrent) < 1) throw reject('concurrent', concurrent, secondMs)
      if (requestsPerSecond !== undefined) take(use, requestsPerSecond)
      return hold(use, 1)
    },
    count: (caller) => {
      const rate = requestLimits(caller)?.requestsPerSecond
      if (rate !== undefined) take(useOf(caller), rate)
    },
    widen: (caller, wanted) => {
      const limit = requestLimits(caller)?.concurrent
      if (limit === undefined) return { slots: wanted, leave: () => {} }
      const use = useOf(caller)
      const slots = Math.max(0, Math.min(wanted, free(use, limit)))
      return { slots, leave: hold(use, slots) }
    },
  }
}

/** Drops principals with a full bucket and nothing in progress. */
const forgetIdle = (uses: Map<string, Use>, before: number): void => {
  for (const [principal, { at, inProgress }] of uses) if (inProgress === 0 && at < before) uses.delete(principal)
}

const secondMs = 1_000
const mostUses = 10_000

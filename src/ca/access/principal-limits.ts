/**
 * Limits of requests of a principal, held by all instances together. Each takes slices of what is left from the database:
 * some requests of the next second, and some that it may have under way. Who has no such limit costs nothing here.
 */
import { isProblem, Problem } from '../../errors.ts'
import type { Caller } from './access.ts'
import { type AnyLimitName, limitReached } from './limit-problems.ts'
import { requestLimits } from './limits.ts'

/** What all instances share. The store implements it. */
export interface Shares {
  /** Up to `most` requests of one who may have `rate` a second, and in how many milliseconds there is another one. */
  takeRate(principal: string, rate: number, most: number): Promise<{ readonly taken: number; readonly waitMs: number }>
  /**
   * How many requests of a principal this instance may have under way for ten seconds, in place of what it had: up to what is
   * wanted, of `bound` for all instances together.
   */
  takeSlots(principal: string, bound: number, wanted: number): Promise<number>
}

export interface PrincipalLimitsDeps {
  readonly shares: Shares
  /** Milliseconds, of a clock that only goes on. */
  readonly now: () => number
  readonly clock: () => Date
  readonly sleep: (milliseconds: number) => Promise<void>
  readonly limited: (name: AnyLimitName) => void
}

/** To be called once, when it is over. */
export type Leave = () => void

export interface PrincipalLimits {
  /**
   * One request begins. Undefined at once for whoever has no limits. Rejects with `limit.requests`, `limit.concurrent`, or
   * `limit.unavailable` where nobody knows.
   */
  enter(caller: Caller): Promise<Leave> | undefined
  /** One more item of a batch: counts as a request, but the call is under way already. */
  count(caller: Caller): Promise<void> | undefined
  /** As many more of these as the caller may have under way at a time, with what gives them back. */
  widen(caller: Caller, wanted: number): Promise<Widened>
  /** Every few seconds: says that what is under way still is, and forgets who is away. */
  renew(): Promise<void>
}

export interface Widened {
  readonly slots: number
  readonly leave: Leave
}

export const openPrincipalLimits = (deps: PrincipalLimitsDeps): PrincipalLimits => {
  const rates = new Map<string, Rate>()
  const places = new Map<string, Places>()
  const rateOf = (principal: string): Rate => known(rates, principal, () => openRate(deps, principal))
  const placesOf = (principal: string): Places => known(places, principal, () => openPlaces(deps, principal))

  const enter = async (principal: string, rate: number | undefined, bound: number | undefined): Promise<Leave> => {
    const leave = bound === undefined ? () => {} : await placesOf(principal).enter(bound)
    try {
      if (rate !== undefined) await rateOf(principal).take(rate)
      return leave
    } catch (error) {
      leave()
      throw error
    }
  }

  return {
    enter: (caller) => {
      const limits = requestLimits(caller)
      return limits && enter(caller.principal, limits.requestsPerSecond, limits.concurrent)
    },
    count: (caller) => {
      const rate = requestLimits(caller)?.requestsPerSecond
      return rate === undefined ? undefined : rateOf(caller.principal).take(rate)
    },
    widen: async (caller, wanted) => {
      const bound = requestLimits(caller)?.concurrent
      return bound === undefined ? { slots: wanted, leave: () => {} } : placesOf(caller.principal).widen(bound, wanted)
    },
    renew: async () => {
      for (const [principal, rate] of rates) if (rate.isIdle()) rates.delete(principal)
      for (const [principal, place] of places) if (place.isIdle()) places.delete(principal)
      await Promise.all([...places.values()].map((place) => place.renew()))
    },
  }
}

const known = <V>(map: Map<string, V>, key: string, open: () => V): V => {
  const found = map.get(key)
  if (found !== undefined) return found
  const made = open()
  map.set(key, made)
  return made
}

// Requests a second ---------------------------------------------------------------------------------------------------

interface Rate {
  /** Takes one of `rate` a second, here or from the others. */
  take(rate: number): Promise<void>
  isIdle(): boolean
}

const openRate = ({ shares, now, clock, limited }: PrincipalLimitsDeps, principal: string): Rate => {
  let left = 0
  let until = 0
  let refusedUntil = 0
  let waiting = 0
  let taking: Promise<void> | undefined

  const takeSlice = async (rate: number): Promise<void> => {
    const most = Math.min(rate, Math.max(Math.ceil(rate / slicesPerSecond), waiting))
    // By what was certainly before the database gave it: it is over here no later than there.
    const asked = now()
    const { taken, waitMs } = await orUnavailable(shares.takeRate(principal, rate, most))
    // What was left of the slice before is not carried on.
    left = taken
    until = asked + sliceMs
    if (taken === 0) refusedUntil = now() + Math.max(1, waitMs)
  }

  const refuse = (rate: number): Problem => {
    limited('requestsPerSecond')
    return limitReached('requestsPerSecond', { value: rate, waitMs: Math.max(1, refusedUntil - now()), now: clock() })
  }

  return {
    take: async (rate) => {
      waiting += 1
      try {
        for (let tries = 0; tries < mostTries; tries += 1) {
          if (left >= 1 && now() < until) {
            left -= 1
            return
          }
          if (now() < refusedUntil) break
          taking ??= takeSlice(rate).finally(() => {
            taking = undefined
          })
          await taking
        }
        throw refuse(rate)
      } finally {
        waiting -= 1
      }
    },
    isIdle: () => waiting === 0 && now() > Math.max(until, refusedUntil) + sliceMs,
  }
}

// Requests under way --------------------------------------------------------------------------------------------------

interface Places {
  enter(bound: number): Promise<Leave>
  widen(bound: number, wanted: number): Promise<Widened>
  renew(): Promise<void>
  isIdle(): boolean
}

const openPlaces = (deps: PrincipalLimitsDeps, principal: string): Places => {
  const { shares, now, clock, sleep, limited } = deps
  let underWay = 0
  let waiting = 0
  let slots = 0
  let until = 0
  let bound = 1
  let refusedUntil = 0
  let asking: Promise<void> | undefined
  let givingBack = false

  /** What others may need is not kept, but for a little where there is much. */
  const spare = (): number => Math.floor(bound / spareShare)
  const free = (): number => (now() < until ? slots - underWay : 0)

  /** One question at a time, so that what was answered last is what holds: each says all that this instance wants. */
  const ask = (more = 0): Promise<void> => {
    if (asking) return asking
    const busy = underWay + waiting + more
    const asked = now()
    const wanted = busy === 0 ? 0 : Math.min(bound, busy + spare())
    // What is given back may be another's before the answer is here, and also where there never is one.
    slots = Math.min(slots, wanted)
    asking = orUnavailable(shares.takeSlots(principal, bound, wanted))
      .then((given) => {
        slots = given
        until = asked + leaseMs
      })
      .finally(() => {
        asking = undefined
      })
    return asking
  }

  const tryToClaim = (): boolean => {
    if (free() < 1) return false
    underWay += 1
    return true
  }

  const claim = async (): Promise<boolean> => {
    if (tryToClaim()) return true
    if (now() < refusedUntil) return false
    waiting += 1
    try {
      // The first question may be that of others, who knew nothing of this one; and another instance may be about to give
      // one back: it does so after half a pause, and on a busy machine later than a whole one.
      for (const pause of [0, 0, pauseMs, pauseMs]) {
        if (pause > 0) await sleep(pause)
        await ask()
        if (tryToClaim()) return true
      }
      refusedUntil = now() + pauseMs
      return false
    } finally {
      waiting -= 1
    }
  }

  const giveBack = async (): Promise<void> => {
    givingBack = true
    await sleep(pauseMs / 2)
    givingBack = false
    if (asking || slots <= underWay + waiting + spare()) return
    // Where this fails the lease ends by itself.
    await ask().catch(() => {})
  }

  const leaving = (count: number): Leave => {
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      underWay -= count
      if (!givingBack && slots > underWay + waiting + spare()) void giveBack()
    }
  }

  return {
    enter: async (limit) => {
      bound = limit
      if (await claim()) return leaving(1)
      limited('concurrent')
      throw limitReached('concurrent', { value: bound, waitMs: secondMs, now: clock() })
    },
    widen: async (limit, wanted) => {
      bound = limit
      if (free() < wanted) await ask(wanted)
      const more = Math.max(0, Math.min(wanted, free()))
      underWay += more
      return { slots: more, leave: leaving(more) }
    },
    renew: async () => {
      if (slots > 0 || underWay > 0) await ask()
    },
    isIdle: () => underWay === 0 && waiting === 0 && now() > until,
  }
}

/** Where nobody knows how many there are, there are too many. */
const orUnavailable = async <T>(answer: Promise<T>): Promise<T> => {
  try {
    return await answer
  } catch (cause) {
    const retryAfter = (isProblem(cause) && cause.options.retryAfter) || 1
    throw new Problem('limit.unavailable', 'How much of the limits is left cannot be looked up.', { retryAfter, cause })
  }
}

const secondMs = 1_000
/** A slice is an eighth of a second's requests, or what is waiting, and is good for a second. */
const slicesPerSecond = 8
const sliceMs = 1_000
const mostTries = 5
/** Shorter than the lease in the database. */
const leaseMs = 9_000
const spareShare = 8
const pauseMs = 100

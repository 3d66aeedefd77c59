/**
 * Keys that wait to be looked at: each once, however often it is named; a bounded number at a time; after a setback later
 * and later. What is named while it is looked at is looked at again.
 */

import { openFairQueue, type Taken } from './fair-queue.ts'

export interface QueueDeps<Key> {
  /** Rejects as for `retry`. */
  readonly look: (key: Key, row: Row) => Promise<Looked>
  readonly concurrency: number
  /** Whose places they are; they take turns. */
  readonly laneOf?: (key: Key) => string
  /** Who shares a lane; within it, they take turns. */
  readonly sharerOf?: ((key: Key) => string) | undefined
  readonly random: () => number
  /** Milliseconds that only go forward. */
  readonly now: () => number
  /** Of a look that rejected: seconds until the next, where the error says so. */
  readonly failed: (key: Key, error: unknown) => number | undefined
  readonly firstMs?: number
  readonly mostMs?: number
}

/** The looks at a key in a row without an end. */
export interface Row {
  /** Seconds since the first of them. */
  readonly waited: number
  /** What these looks have reported, so that it is not reported at each. */
  readonly reported: Reported
}

export interface Reported {
  /** When something was, in milliseconds of the clock. */
  at?: number
  /** The last words of those that are reported once. */
  words?: string
}

/** Whether something was reported within the last minute. */
export const isRecent = ({ at }: Reported, now: Date): boolean => at !== undefined && now.getTime() - at < quietMs

/** One look at a key of an object. */
export interface Turn extends Row {
  readonly key: string
  readonly signal: AbortSignal
}

/** `end`: until it is named again. */
export type Looked = { readonly kind: 'end' } | Retry

export interface Retry {
  readonly kind: 'retry'
  /** Seconds that somebody has asked for, and no sooner. */
  readonly after?: number
  /** Nothing is wrong, and nobody would tell us when there is more. */
  readonly isPoll?: boolean
  /** Somebody of the cluster must mend what is theirs, or will not: perhaps for ever. */
  readonly isLeft?: boolean
  /** What it waits for may come before `after` is over, and is told then. */
  readonly yields?: boolean
}

/** Nothing changes that nobody changes: tried again each day, since it may. */
export const leftForGood: Retry = { kind: 'retry', after: 86_400, isLeft: true }

/** Where nothing but an event says so: what could not be told must be told another time. */
export const leftOnce = (isTold: boolean): Retry => (isTold ? leftForGood : { ...leftForGood, after: untoldSeconds })

/** Of a step that waits. */
export const retryOf = ({ after, isPoll = false, ofIssuer }: Waiting): Retry => ({
  kind: 'retry',
  isPoll,
  yields: ofIssuer !== undefined,
  ...(after !== undefined && { after }),
})

interface Waiting {
  readonly after?: number
  readonly isPoll?: boolean
  readonly ofIssuer?: object
}

/**
 * Why a key is named: it has changed, and is looked at at once; what it waits for has, which does not shorten what somebody has
 * asked for; or all are named, which is nothing to those that have a time.
 */
export type Why = 'changed' | 'awaited' | 'resync'

export interface Queue<Key> {
  add(key: Key, why?: Why): void
  /** No sooner than that, unless it is named before. */
  addAfter(key: Key, ms: number): void
  /** Whether nothing waits for its turn, and nothing is looked at; what is put off does not count. */
  readonly idle: boolean
  /** What waits for its turn. */
  readonly depth: number
  /**
   * What waits for a later try after a setback: no rechecks and no polls, which come of nothing that is wrong, and not what is
   * left to people, which would hide the others.
   */
  readonly putOff: number
  readonly left: number
  /** Takes nothing more; resolves when what is looked at has been looked at. */
  close(): Promise<void>
}

export const openQueue = <Key extends string>(deps: QueueDeps<Key>): Queue<Key> => {
  const { firstMs = 500, mostMs = 120_000 } = deps
  const ready = openFairQueue<Key>(deps.concurrency, deps)
  const looking = new Map<Key, Promise<void>>()
  const again = new Map<Key, Why>()
  const putOff = new Map<Key, PutOff>()
  const rows = new Map<Key, { readonly since: number; looks: number; readonly reported: Reported }>()
  let closed = false

  const add = (key: Key, why: Why = 'changed'): void => {
    if (closed || isLeftAlone(key, why)) return
    forget(key)
    if (!looking.has(key)) ready.add(key)
    else if (why === 'changed' || !again.has(key)) again.set(key, why)
    fill()
  }

  const isLeftAlone = (key: Key, why: Why): boolean =>
    why === 'resync' ? putOff.has(key) || looking.has(key) : why === 'awaited' && putOff.get(key)?.isHeld === true

  const addAfter = (key: Key, ms: number, about: Omit<PutOff, 'timer'> = recheck): void => {
    if (closed || ready.has(key)) return
    forget(key)
    putOff.set(key, { ...about, timer: setTimeout(() => add(key), Math.min(ms, longestMs)) })
  }

  const forget = (key: Key): void => {
    clearTimeout(putOff.get(key)?.timer)
    putOff.delete(key)
  }

  const fill = (): void => {
    while (looking.size < deps.concurrency) {
      const taken = ready.take()
      if (taken === undefined) return
      looking.set(taken.key, look(taken))
    }
  }

  const look = async ({ key, lane }: Taken<Key>): Promise<void> => {
    const now = deps.now()
    const row = rows.get(key) ?? { since: now, looks: 0, reported: {} }
    rows.set(key, row)
    // The turn of whoever has named it ends first.
    const looked = await Promise.resolve()
      .then(() => deps.look(key, { waited: (now - row.since) / 1_000, reported: row.reported }))
      .catch((error: unknown): Looked => {
        const after = deps.failed(key, error)
        return { kind: 'retry', ...(after !== undefined && { after }) }
      })
    looking.delete(key)
    ready.leave(lane, deps.now() - now)
    if (looked.kind === 'end') rows.delete(key)
    else addAfter(key, delayOf(row.looks++, looked.after), putOffBy(looked))
    const why = again.get(key)
    again.delete(key)
    if (why !== undefined) add(key, why)
    fill()
  }

  /** Exponential, and spread by half, so that those who failed together do not come again together. */
  const delayOf = (looks: number, after: number | undefined): number => {
    const grown = Math.min(mostMs, firstMs * 2 ** looks) * (0.5 + deps.random() / 2)
    if (after === undefined) return grown
    const asked = Math.min(after, mostAfter) * 1_000
    return Math.max(grown, asked + deps.random() * Math.min(asked / 10, mostSpreadMs))
  }

  return {
    add,
    addAfter: (key, ms) => addAfter(key, ms),
    get idle() {
      return ready.size === 0 && looking.size === 0
    },
    get depth() {
      return ready.size
    },
    get putOff() {
      return [...putOff.values()].filter(({ of }) => of === 'setback').length
    },
    get left() {
      return [...putOff.values()].filter(({ of }) => of === 'left').length
    },
    close: async () => {
      closed = true
      ready.clear()
      for (const { timer } of putOff.values()) clearTimeout(timer)
      putOff.clear()
      await Promise.all(looking.values())
    },
  }
}

interface PutOff {
  readonly timer: NodeJS.Timeout
  /** Somebody has asked for the time. */
  readonly isHeld: boolean
  readonly of: 'setback' | 'left' | 'recheck'
}

const recheck = { isHeld: false, of: 'recheck' } as const

const putOffBy = ({ after, isPoll, isLeft, yields }: Retry): Omit<PutOff, 'timer'> => ({
  isHeld: after !== undefined && !yields,
  of: isPoll ? 'recheck' : isLeft ? 'left' : 'setback',
})

/** Seconds. */
const untoldSeconds = 60
/** What timers take: one that is longer ends at once. */
const longestMs = 2 ** 31 - 1
/** Seconds. Limits of a day free when the day is over. */
const mostAfter = 86_400
const mostSpreadMs = 60_000
const quietMs = 60_000

/**
 * Keys that wait to be looked at: each once, however often it is named; a bounded number at a time; after a setback later
 * and later. What is named while it is looked at is looked at again.
 */

import { openLanes, type Taken } from './lanes.ts'

export interface QueueDeps<Key> {
  /** Looks at a key, `waited` seconds after the first look in a row without an end. Rejects as for `retry`. */
  readonly look: (key: Key, waited: number) => Promise<Looked>
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

/** One look at a key of an object. */
export interface Turn {
  readonly key: string
  /** Seconds since the first look in a row without an end. */
  readonly waited: number
  readonly signal: AbortSignal
}

/**
 * `end`: until it is named again. `after`: seconds that somebody has asked for, and no sooner. `isPoll`: nothing is wrong, and
 * nobody would tell us when there is more.
 */
export type Looked =
  | { readonly kind: 'end' }
  | { readonly kind: 'retry'; readonly after?: number; readonly isPoll?: boolean }

/** Of a step that waits. */
export const retryOf = ({ after, isPoll = false }: { readonly after?: number; readonly isPoll?: boolean }): Looked => ({
  kind: 'retry',
  isPoll,
  ...(after !== undefined && { after }),
})

export interface Queue<Key> {
  add(key: Key): void
  /** No sooner than that, unless it is named before. */
  addAfter(key: Key, ms: number): void
  /** Whether nothing waits for its turn, and nothing is looked at; what is put off does not count. */
  readonly idle: boolean
  /** What waits for its turn. */
  readonly depth: number
  /** What waits for a later try after a setback: no rechecks and no polls, which come of nothing that is wrong. */
  readonly putOff: number
  /** Takes nothing more; resolves when what is looked at has been looked at. */
  close(): Promise<void>
}

export const openQueue = <Key extends string>(deps: QueueDeps<Key>): Queue<Key> => {
  const { firstMs = 500, mostMs = 120_000 } = deps
  const ready = openLanes<Key>(deps.concurrency, deps)
  const looking = new Map<Key, Promise<void>>()
  const again = new Set<Key>()
  const timers = new Map<Key, NodeJS.Timeout>()
  const setbacks = new Set<Key>()
  const rows = new Map<Key, { readonly since: number; readonly looks: number }>()
  let closed = false

  const add = (key: Key): void => {
    if (closed) return
    forget(key)
    if (looking.has(key)) again.add(key)
    else ready.add(key)
    fill()
  }

  const addAfter = (key: Key, ms: number): void => {
    if (closed || ready.has(key)) return
    forget(key)
    timers.set(
      key,
      setTimeout(() => add(key), ms),
    )
  }

  const forget = (key: Key): void => {
    clearTimeout(timers.get(key))
    timers.delete(key)
    setbacks.delete(key)
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
    const { since, looks } = rows.get(key) ?? { since: now, looks: 0 }
    rows.set(key, { since, looks: looks + 1 })
    // The turn of whoever has named it ends first.
    const looked = await Promise.resolve()
      .then(() => deps.look(key, (now - since) / 1_000))
      .catch((error: unknown): Looked => {
        const after = deps.failed(key, error)
        return { kind: 'retry', ...(after !== undefined && { after }) }
      })
    looking.delete(key)
    ready.leave(lane, deps.now() - now)
    if (looked.kind === 'end') rows.delete(key)
    if (again.delete(key)) add(key)
    else if (looked.kind === 'retry') {
      addAfter(key, delayOf(looks, looked.after))
      if (!looked.isPoll && timers.has(key)) setbacks.add(key)
    }
    fill()
  }

  /** Exponential, and spread by half, so that those who failed together do not come again together. */
  const delayOf = (looks: number, after: number | undefined): number => {
    const grown = Math.min(mostMs, firstMs * 2 ** Math.min(looks, 20)) * (0.5 + deps.random() / 2)
    return after === undefined ? grown : Math.max(grown, Math.min(after, mostAfter) * 1_000 * (1 + deps.random() / 10))
  }

  return {
    add,
    addAfter,
    get idle() {
      return ready.size === 0 && looking.size === 0
    },
    get depth() {
      return ready.size
    },
    get putOff() {
      return setbacks.size
    },
    close: async () => {
      closed = true
      ready.clear()
      for (const timer of timers.values()) clearTimeout(timer)
      timers.clear()
      setbacks.clear()
      await Promise.all(looking.values())
    },
  }
}

/** Seconds. Limits of a day free when the day is over. */
const mostAfter = 86_400

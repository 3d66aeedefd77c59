/**
 * Keys that wait for their turn, in lanes that take turns: a lane whose looks take long, because a server hangs, must not have
 * all the places. It begins with a quarter of them, gets one more for each look that was short, and never the last quarter.
 */

export interface Lanes<Key> {
  add(key: Key): void
  has(key: Key): boolean
  readonly size: number
  /** The next key whose lane has a place; its place is taken until `leave`. */
  take(): Taken<Key> | undefined
  leave(lane: string, tookMs: number): void
  clear(): void
}

export interface Taken<Key> {
  readonly key: Key
  readonly lane: string
}

interface Lane<Key> {
  readonly keys: Set<Key>
  busy: number
  limit: number
}

/** Without `laneOf`, there is one, and it has all the places. */
export const openLanes = <Key>(concurrency: number, laneOf?: (key: Key) => string): Lanes<Key> => {
  /** Whose turn it is first; all whose keys wait or are looked at. */
  const lanes = new Map<string, Lane<Key>>()
  const waiting = new Set<Key>()
  const least = laneOf ? Math.max(1, Math.floor(concurrency / 4)) : concurrency
  const most = laneOf ? Math.max(least, concurrency - least) : concurrency
  return {
    add: (key) => {
      if (waiting.has(key)) return
      waiting.add(key)
      const name = laneOf?.(key) ?? ''
      const lane = lanes.get(name) ?? { keys: new Set<Key>(), busy: 0, limit: least }
      lanes.set(name, lane)
      lane.keys.add(key)
    },
    has: (key) => waiting.has(key),
    get size() {
      return waiting.size
    },
    take: () => {
      for (const [name, lane] of lanes) {
        const [key] = lane.keys
        if (key === undefined || lane.busy >= lane.limit) continue
        lane.keys.delete(key)
        waiting.delete(key)
        lane.busy += 1
        // The next turn is another's.
        lanes.delete(name)
        lanes.set(name, lane)
        return { key, lane: name }
      }
      return undefined
    },
    leave: (name, tookMs) => {
      const lane = lanes.get(name)
      if (lane === undefined) return
      lane.busy -= 1
      lane.limit = tookMs < longMs ? Math.min(most, lane.limit + 1) : least
      if (lane.busy === 0 && lane.keys.size === 0) lanes.delete(name)
    },
    clear: () => {
      waiting.clear()
      for (const lane of lanes.values()) lane.keys.clear()
    },
  }
}

const longMs = 5_000

/**
 * Keys that wait for their turn, in lanes that take turns: lanes whose looks take long, because a server hangs, must not have
 * all the places. A lane begins with a quarter of them, gets one more for each look that was short, and never the last quarter;
 * nor do all those together whose last look took long. Within a lane, those who share it take turns: whoever asks for much
 * keeps nobody waiting but himself.
 */

export interface FairQueue<Key> {
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
  /** By who shares it; whose turn it is first. */
  readonly keys: Map<string, Set<Key>>
  busy: number
  limit: number
  isSlow: boolean
}

export interface Fairness<Key> {
  /** Whose places they are; without it there is one lane, and it has all of them. */
  readonly laneOf?: ((key: Key) => string) | undefined
  readonly sharerOf?: ((key: Key) => string) | undefined
}

export const openFairQueue = <Key>(concurrency: number, { laneOf, sharerOf }: Fairness<Key>): FairQueue<Key> => {
  /** Whose turn it is first; all whose keys wait or are looked at. */
  const lanes = new Map<string, Lane<Key>>()
  const waiting = new Set<Key>()
  const least = laneOf ? Math.max(1, Math.floor(concurrency / 4)) : concurrency
  const most = laneOf ? Math.max(least, concurrency - least) : concurrency
  const slow = new Set<string>()
  return {
    add: (key) => {
      if (waiting.has(key)) return
      waiting.add(key)
      const name = laneOf?.(key) ?? ''
      const isSlow = slow.has(name)
      const lane = lanes.get(name) ?? { keys: new Map<string, Set<Key>>(), busy: 0, limit: least, isSlow }
      lanes.set(name, lane)
      const sharer = sharerOf?.(key) ?? ''
      const keys = lane.keys.get(sharer) ?? new Set<Key>()
      lane.keys.set(sharer, keys.add(key))
    },
    has: (key) => waiting.has(key),
    get size() {
      return waiting.size
    },
    take: () => {
      const leavesRoom = busyWithSlow(lanes) < most
      for (const [name, lane] of lanes) {
        if (lane.busy >= lane.limit || (lane.isSlow && !leavesRoom)) continue
        const key = nextOf(lane)
        if (key === undefined) continue
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
      lane.isSlow = laneOf !== undefined && tookMs >= longMs
      lane.limit = lane.isSlow ? least : Math.min(most, lane.limit + 1)
      note(slow, name, lane.isSlow)
      if (lane.busy === 0 && lane.keys.size === 0) lanes.delete(name)
    },
    clear: () => {
      waiting.clear()
      for (const lane of lanes.values()) lane.keys.clear()
    },
  }
}

/** Names of slow lanes, the oldest first: a lane is forgotten whenever nothing waits in it, as between two tries. */
const note = (slow: Set<string>, name: string, isSlow: boolean): void => {
  slow.delete(name)
  if (isSlow) slow.add(name)
  const [oldest = ''] = slow
  if (slow.size > mostSlow) slow.delete(oldest)
}

const busyWithSlow = (lanes: ReadonlyMap<string, Pick<Lane<never>, 'isSlow' | 'busy'>>): number =>
  [...lanes.values()].reduce((sum, { isSlow, busy }) => (isSlow ? sum + busy : sum), 0)

const nextOf = <Key>({ keys }: Lane<Key>): Key | undefined => {
  const [first] = keys
  if (first === undefined) return undefined
  const [sharer, own] = first
  const [key] = own
  if (key !== undefined) own.delete(key)
  keys.delete(sharer)
  if (own.size > 0) keys.set(sharer, own)
  return key
}

const longMs = 5_000
const mostSlow = 1_024

/**
 * Who was let in last to what must be told while the database is away. It alone says who asks; so whoever was let in by the same
 * credentials within the last day is let in until it says otherwise.
 */

import { isProblem } from '../errors.ts'
import { withDeadline } from '../lib/timeout.ts'

export interface LastKnown<V> {
  /** What `look` resolves to; where the database is away, or silent for two seconds, what it was last. Rejects like `look`. */
  of(id: string, look: () => Promise<V>): Promise<Looked<V>>
}

export interface Looked<V> {
  readonly value: V
  readonly isOld: boolean
}

/** `now`: milliseconds that only go forward. */
export const openLastKnown = <V>(now: () => number, patienceMs = 2_000): LastKnown<V> => {
  /** The oldest first. */
  const known = new Map<string, { readonly value: V; readonly until: number }>()
  const put = (id: string, value: V): void => {
    known.delete(id)
    known.set(id, { value, until: now() + keptMs })
    const [oldest] = known.keys()
    if (known.size > mostKnown && oldest !== undefined) known.delete(oldest)
  }
  const lookNow = async (id: string, look: () => Promise<V>): Promise<V> => {
    try {
      const value = await look()
      put(id, value)
      return value
    } catch (error) {
      if (isTurnedDown(error)) known.delete(id)
      throw error
    }
  }
  return {
    of: async (id, look) => {
      const looking = lookNow(id, look)
      const found = known.get(id)
      if (found === undefined || found.until <= now()) return { value: await looking, isOld: false }
      const old = { value: found.value, isOld: true }
      // It goes on after the patience is over, and nobody waits for its end.
      const looked = looking.then(
        (value): Looked<V> => ({ value, isOld: false }),
        (error: unknown) => {
          if (isProblem(error, 'db.unavailable')) return old
          throw error
        },
      )
      const answer = await withDeadline(looked, patienceMs)
      return answer === 'late' ? old : answer
    },
  }
}

/** Whoever asks too often, or whose identity provider is away, has not been turned down. */
const isTurnedDown = (error: unknown): boolean => isProblem(error) && [401, 403].includes(error.kind.status)

const keptMs = 86_400_000
const mostKnown = 64

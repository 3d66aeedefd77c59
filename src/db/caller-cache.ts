/** What was found out about a caller, remembered for a moment, so that a crowd of its requests is one look. */
import { isProblem, type Problem } from '../errors.ts'

export interface Found<V> {
  readonly value: V
  /** How long it holds at most; the memory may be shorter. */
  readonly livesMs: number
}

export interface Memory<V> {
  /** What is remembered under this id. Throws the problem of one that was refused a moment ago. */
  find(id: string): V | undefined
  /**
   * Looks, and remembers what was found, or that it was refused (401). Whoever asks for the same id meanwhile waits for the
   * same look. Other errors are nobody's fault, and are not remembered.
   */
  look(id: string, find: () => Promise<Found<V>>): Promise<V>
  forget(): void
}

export const openMemory = <V>(): Memory<V> => {
  const known = new Map<string, Until<V>>()
  const refused = new Map<string, Until<Problem>>()
  const looks = new Map<string, Promise<V>>()

  const lookNow = async (id: string, find: () => Promise<Found<V>>, isWanted: () => boolean): Promise<V> => {
    try {
      const { value, livesMs } = await find()
      if (isWanted()) {
        known.delete(id)
        put(known, most, [id, { what: value, until: performance.now() + Math.min(rememberMs, livesMs) }])
      }
      return value
    } catch (error) {
      if (isWanted()) {
        known.delete(id)
        if (isProblem(error) && error.kind.status === 401)
          put(refused, mostRefused, [id, { what: error, until: performance.now() + rememberMs }])
      }
      throw error
    }
  }

  return {
    find: (id) => {
      const found = valid(known.get(id))
      if (found !== undefined) return found
      const problem = valid(refused.get(id))
      if (problem) throw problem
      return undefined
    },
    look: (id, find) => {
      const underWay = looks.get(id)
      if (underWay) return underWay
      // What was to be forgotten meanwhile is not remembered.
      const looking: Promise<V> = lookNow(id, find, () => looks.get(id) === looking).finally(() => {
        if (looks.get(id) === looking) looks.delete(id)
      })
      looks.set(id, looking)
      return looking
    },
    forget: () => {
      known.clear()
      refused.clear()
      looks.clear()
    },
  }
}

/** By `performance.now()`. */
interface Until<V> {
  readonly what: V
  readonly until: number
}

const valid = <V>(found: Until<V> | undefined): V | undefined =>
  found && found.until > performance.now() ? found.what : undefined

/** A full map starts anew: all that is lost is a look. */
const put = <V>(map: Map<string, V>, most: number, [key, value]: readonly [string, V]): void => {
  if (map.size >= most && !map.has(key)) map.clear()
  map.set(key, value)
}

const rememberMs = 2_000
const most = 10_000
/** Apart, so that a flood of what is refused throws no caller out. */
const mostRefused = 1_000

/** About which objects something was written within the last minute: what changes at every try is not written at each. */

export interface Sayings {
  /** Whether something was written about this uid a moment ago. */
  isRecent(uid: string): boolean
  note(uid: string): void
}

/** `now`: milliseconds that only go forward. */
export const openSayings = (now: () => number): Sayings => {
  /** When, oldest first. */
  const times = new Map<string, number>()
  return {
    isRecent: (uid) => now() - (times.get(uid) ?? Number.NEGATIVE_INFINITY) < quietMs,
    note: (uid) => {
      times.delete(uid)
      times.set(uid, now())
      for (const [oldest, at] of times) {
        if (now() - at < quietMs) return
        times.delete(oldest)
      }
    },
  }
}

const quietMs = 60_000

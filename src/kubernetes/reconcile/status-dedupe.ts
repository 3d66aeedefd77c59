/** What was written about which objects: what changes at every try is not written at each, and what does not, only once. */

export interface Sayings {
  /** Whether something was written about this uid a moment ago. */
  isRecent(uid: string): boolean
  note(uid: string): void
  /** Whether these are other words than the last of this object, by its key. */
  isNews(key: string, words: string): boolean
  /** They are the last ones now. */
  say(key: string, words: string): void
  /** Nobody waits for it any more. */
  forget(key: string): void
}

/** `now`: milliseconds that only go forward. */
export const openSayings = (now: () => number): Sayings => {
  /** When, oldest first. */
  const times = new Map<string, number>()
  const last = new Map<string, string>()
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
    isNews: (key, words) => last.get(key) !== words,
    say: (key, words) => void last.set(key, words),
    forget: (key) => void last.delete(key),
  }
}

const quietMs = 60_000

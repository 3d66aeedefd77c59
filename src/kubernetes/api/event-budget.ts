/**
 * How many new events there may be: tokens for each object, as client-go's EventSourceObjectSpamFilter has them, and for all
 * together, which client-go has not. An event is an object in etcd for an hour; whatever goes round must not become a storm of them.
 */
export interface EventBudget {
  /** Takes a token of the object and one of all, or none. `now` in milliseconds. */
  take(uid: string, now: number): boolean
}

interface Bucket {
  readonly tokens: number
  readonly at: number
}

interface Rate {
  readonly most: number
  readonly everyMs: number
}

export const openEventBudget = (): EventBudget => {
  const buckets = new Map<string, Bucket>()
  let all: Bucket | undefined
  return {
    take: (uid, now) => {
      const ofObject = refilled(buckets.get(uid), perObject, now)
      const ofAll = refilled(all, overall, now)
      all = ofAll
      if (ofObject.tokens < 1 || ofAll.tokens < 1) return false
      all = spent(ofAll)
      // Whose turn was last at the end. Who goes here has all its tokens again: that is what those of all are for.
      buckets.delete(uid)
      buckets.set(uid, spent(ofObject))
      for (const oldest of buckets.keys()) {
        if (buckets.size <= mostObjects) break
        buckets.delete(oldest)
      }
      return true
    },
  }
}

/** A clock that is set back costs no tokens. */
const refilled = (bucket: Bucket | undefined, { most, everyMs }: Rate, now: number): Bucket => {
  if (bucket === undefined) return { tokens: most, at: now }
  return { tokens: Math.min(most, bucket.tokens + Math.max(0, now - bucket.at) / everyMs), at: now }
}

const spent = ({ tokens, at }: Bucket): Bucket => ({ tokens: tokens - 1, at })

/** client-go's: 25 at once, then one in five minutes. */
const perObject: Rate = { most: 25, everyMs: 300_000 }
/**
 * As many at once as requests become due together in a large cluster, then 300 a minute: what etcd does not notice. What
 * is dropped is told another time where nothing but an event tells it.
 */
const overall: Rate = { most: 2_048, everyMs: 200 }
const mostObjects = 4_096

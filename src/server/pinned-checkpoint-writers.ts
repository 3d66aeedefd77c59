/** Who else writes the file of an anchor, which is of one instance and no other. */

/**
 * An upgrade may start the successor of an instance on its folder before that one has ended: both write for a while then, and no
 * longer. An instance has one before it and one after it, so whoever writes beside us is told once a spell has lasted, or is the third.
 */
export const openOthers = (tell: () => void, elapsedMs: () => number): { seen(): void } => {
  /** When each spell began. */
  let spells: readonly number[] = []
  let last = Number.NEGATIVE_INFINITY
  let isTold = false
  return {
    seen: () => {
      const now = elapsedMs()
      if (now - last > overlapMs) spells = [...spells.filter((since) => now - since < forgottenMs), now]
      last = now
      if (isTold || (spells.length < 3 && now - (spells.at(-1) ?? now) < overlapMs)) return
      isTold = true
      tell()
    },
  }
}

/** Longer than a successor takes to be ready, and the one before it to stop. */
const overlapMs = 300_000
/** A successor that failed is tried again, and each try is a spell. */
const forgottenMs = 86_400_000

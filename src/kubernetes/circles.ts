/**
 * Who is given certificates in a circle. cert-manager renews at `renewBefore` ahead of the end, and its CSI drivers at a third of
 * the life: both count from notBefore, which profiles put before now. Where that leaves no time, each certificate is renewed as
 * soon as it is there, several times a second, and every one of them is on record for ever. After some in a row, the next ones
 * come later: never so late that the one before could end meanwhile, as it would if they were refused.
 */
import type { KubernetesObject } from './objects.ts'

export interface Circles {
  /** Seconds until it may be asked for, which it is now; 0 where it may be. */
  restOf(object: KubernetesObject): number
  /** It has a certificate now, for so many milliseconds from now on. */
  note(object: KubernetesObject, leftMs: number): void
  readonly size: number
}

interface Row {
  /** Certificates in a row, each asked for as early. */
  readonly early: number
  /** When there was the last one. */
  readonly at: number
  /** What is asked for before that is early: for long, a tenth of what the one before still had. */
  readonly until: number
  /** The next one was asked for by then. */
  isEarly: boolean
}

/** `now`: milliseconds that only go forward. */
export const openCircles = (now: () => number): Circles => {
  /** By owner, the one that waits longest first. */
  const rows = new Map<string, Row>()
  const rowOf = (object: KubernetesObject): Row | undefined => {
    const owner = ownerOf(object)
    const row = owner === undefined ? undefined : rows.get(owner)
    return row && now() - row.at < memoryMs ? row : undefined
  }
  return {
    restOf: (object) => {
      const row = rowOf(object)
      if (row === undefined || now() >= row.until) return 0
      row.isEarly = true
      return row.early < mostEarly ? 0 : (row.until - now()) / 1_000
    },
    note: (object, leftMs) => {
      const owner = ownerOf(object)
      if (owner === undefined) return
      const last = rowOf(object)
      rows.delete(owner)
      const until = now() + Math.min(leftMs / 10, mostMs)
      rows.set(owner, { early: last?.isEarly ? last.early + 1 : 0, at: now(), until, isEarly: false })
      for (const [oldest, { at }] of rows) {
        if (now() - at < memoryMs) return
        rows.delete(oldest)
      }
    },
    get size() {
      return rows.size
    },
  }
}

/** The Certificate for which cert-manager asks, or the pod for which a CSI driver does: that outlives each request. */
const ownerOf = ({ metadata }: KubernetesObject): string | undefined => {
  const [owner] = metadata.ownerReferences ?? []
  return owner && `${metadata.namespace ?? ''}/${owner.uid}`
}

/** More than people change a Certificate in a row, and than a pod has volumes of one. */
export const mostEarly = 20
/** Whoever does change it waits no longer. */
const mostMs = 300_000
const memoryMs = 3_600_000

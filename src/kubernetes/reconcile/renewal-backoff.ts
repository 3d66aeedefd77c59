/**
 * Who is given certificates in a circle. cert-manager renews at `renewBefore` ahead of the end, and its CSI drivers at a third of
 * the life: both count from notBefore, which profiles put before now. Where that leaves no time, each certificate is renewed as
 * soon as it is there, several times a second, and every one of them is on record for ever. After some in a row, the next ones
 * come later: never so late that the one before could end meanwhile, as it would if they were refused.
 */
import type { CertificateRequest } from '../api/objects.ts'

export interface Circles {
  /** Seconds until it may be asked for, which it is now; 0 where it may be. */
  restOf(request: CertificateRequest): number
  /** It has a certificate now, for so many milliseconds from now on. */
  note(request: CertificateRequest, leftMs: number): void
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
  /** By who is served, the one that waits longest first. */
  const rows = new Map<string, Row>()
  const rowOf = (request: CertificateRequest): Row | undefined => {
    const served = servedBy(request)
    const row = served === undefined ? undefined : rows.get(served)
    return row && now() - row.at < memoryMs ? row : undefined
  }
  return {
    restOf: (request) => {
      const row = rowOf(request)
      if (row === undefined || now() >= row.until) return 0
      row.isEarly = true
      return row.early < mostEarly ? 0 : (row.until - now()) / 1_000
    },
    note: (request, leftMs) => {
      const served = servedBy(request)
      if (served === undefined) return
      const last = rowOf(request)
      rows.delete(served)
      const until = now() + Math.min(leftMs / 10, mostMs)
      rows.set(served, { early: last?.isEarly ? last.early + 1 : 0, at: now(), until, isEarly: false })
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

/**
 * The Certificate for which cert-manager asks, or the volume of a pod for which a CSI driver does: these have one after the other.
 * Any other owner, as an object of an operator, may have hundreds at once. Whoever else writes the same owner is not served by it.
 */
const servedBy = ({ metadata, spec }: CertificateRequest): string | undefined => {
  const [owner] = metadata.ownerReferences ?? []
  if (owner === undefined) return undefined
  const volume = metadata.labels?.[volumeLabel]
  const isCertificate = owner.kind === 'Certificate' && owner.apiVersion.startsWith('cert-manager.io/')
  const isVolume = owner.kind === 'Pod' && owner.apiVersion === 'v1' && volume !== undefined
  const of = isCertificate ? owner.uid : isVolume ? `${owner.uid}/${volume}` : undefined
  return of && `${metadata.namespace ?? ''}/${of}/${spec.username ?? ''}`
}

/** Of all CSI drivers that are made with cert-manager's library for them: a pod may have dozens of volumes. */
const volumeLabel = 'csi.cert-manager.io/volume-id-hash'
/** More than people change a Certificate in a row. */
export const mostEarly = 20
/** Whoever does change it waits no longer. */
const mostMs = 300_000
const memoryMs = 3_600_000

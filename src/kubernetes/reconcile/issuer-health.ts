/** What speaks against issuers that look well: what those have met who asked through them. */
import type { Issuer } from '../api/objects.ts'
import type { Fault } from '../decide/outcome.ts'

export interface Doubt {
  /** What was met, as long as its status does not say so. */
  readonly fault: Fault | undefined
  /** How often in a row it was not ready again within a minute, without a certificate in between. */
  readonly times: number
  /** Since when it has been ready, in milliseconds that only go forward; undefined while it is not, or nobody knows. */
  readonly readySince?: number | undefined
  readonly rows: DoubtRows
}

/** What was met by those who asked for a certificate, counted until something speaks against it. */
export interface DoubtRows {
  /** How often in a row nobody answered. */
  readonly silences: number
  /** How often there was a fault that passes by itself and that a probe need not show, since a certificate was issued. */
  readonly unsigned: number
}

export interface Doubts {
  of(name: string, issuer: Issuer): Doubt
  put(name: string, issuer: Issuer, doubt: Doubt): void
  /** It has issued, or is gone. */
  end(name: string): void
  readonly size: number
}

/** By name, so that those of issuers that are gone can be ended; of another one that has taken the name, there are none. */
export const openDoubts = (): Doubts => {
  const known = new Map<string, Doubt & { readonly uid: string }>()
  return {
    of: (name, { metadata: { uid } }) => {
      const found = known.get(name)
      return found?.uid === uid ? found : none
    },
    put: (name, { metadata: { uid } }, { fault, times, readySince, rows }) => {
      if (fault === undefined && times === 0 && rows.silences === 0 && rows.unsigned === 0) known.delete(name)
      else known.set(name, { uid, fault, times, readySince, rows })
    },
    end: (name) => void known.delete(name),
    get size() {
      return known.size
    },
  }
}

export const noRows: DoubtRows = { silences: 0, unsigned: 0 }
const none: Doubt = { fault: undefined, times: 0, rows: noRows }

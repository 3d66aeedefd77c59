/**
 * Tries keys that are out of use until they sign. Those of active issuers at each call, since requests wait for them; others
 * every thirty seconds, since a token that was put away for good costs a new process each time.
 */
import type { Issuers } from './issuers.ts'

/** Tries those that are due; resolves when each has answered. */
export type Recovery = () => Promise<unknown>

export const openRecovery = (issuers: Pick<Issuers, 'all'>, now: () => number = () => performance.now()): Recovery => {
  let othersAt = Number.NEGATIVE_INFINITY
  return async () => {
    const withOthers = now() >= othersAt
    const due = issuers
      .all()
      .filter(({ issuer, state }) => issuer.fault !== undefined && (state === 'active' || withOthers))
    await Promise.all(due.map(({ issuer }) => issuer.probe()))
    if (withOthers) othersAt = now() + othersPauseMs
  }
}

const othersPauseMs = 30_000

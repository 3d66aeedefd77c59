/**
 * Keys that are out of use are tried again until they sign: nobody else asks. Those of active issuers each time, since
 * requests wait for them; others ever more rarely, since a token that was put away for good costs a new process each time.
 */
import type { Issuers, Placed } from './issuers.ts'

/** Tries those that are due; resolves when each has answered. */
export type Recovery = () => Promise<unknown>

export const openRecovery = (issuers: Pick<Issuers, 'all'>, now: () => number = () => performance.now()): Recovery => {
  const pauses = new Map<string, Pause>()

  const isDue = ({ issuer: { name, fault }, state }: Placed): boolean => {
    if (fault === undefined) pauses.delete(name)
    return fault !== undefined && (state === 'active' || now() >= (pauses.get(name)?.until ?? 0))
  }
  const tryOut = async ({ issuer }: Placed): Promise<void> => {
    await issuer.probe()
    const ms = Math.min((pauses.get(issuer.name)?.ms ?? firstPauseMs / 2) * 2, longestPauseMs)
    pauses.set(issuer.name, { ms, until: now() + ms })
  }
  return () => Promise.all(issuers.all().filter(isDue).map(tryOut))
}

interface Pause {
  readonly ms: number
  readonly until: number
}

const firstPauseMs = 1_000
const longestPauseMs = 30_000

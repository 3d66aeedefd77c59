/** Whether lists are there and fresh: what readiness says before one of them ends. */
import type { CrlShelf } from './crl-shelf.ts'
import type { Issuers } from './issuers.ts'

export interface CrlWatchDeps {
  readonly shelf: Pick<CrlShelf, 'find'>
  readonly issuers: Pick<Issuers, 'all'>
  readonly clock: () => Date
  /** How long before its end a list is too old. */
  readonly marginMs: number
  readonly elapsedMs?: () => number
}

/** Undefined, or which lists are missing for longer than a minute, or near their end. */
export const openCrlWatch = ({
  shelf,
  issuers,
  clock,
  marginMs,
  elapsedMs = () => performance.now(),
}: CrlWatchDeps): (() => string | undefined) => {
  const missingSince = new Map<string, number>()
  return () => {
    const now = elapsedMs()
    const old = clock().getTime() + marginMs
    const faults: string[] = []
    for (const { issuer, state } of issuers.all()) {
      if (state === 'staged' || state === 'retired') continue
      const lists = Array.from({ length: issuer.shards }, (_, shard) => shelf.find(issuer.name, shard))
      const ending = lists.filter((list) => list !== undefined && list.nextUpdate.getTime() < old)
      if (ending.length > 0) faults.push(`${ending.length} of ${issuer.name} end at ${iso(ending)} or later`)
      if (lists.every((list) => list !== undefined)) missingSince.delete(issuer.name)
      else if (!missingSince.has(issuer.name)) missingSince.set(issuer.name, now)
      else if (now - (missingSince.get(issuer.name) ?? now) > patienceMs)
        faults.push(`${lists.filter((list) => !list).length} of ${issuer.name} are missing`)
    }
    return faults.length === 0 ? undefined : `lists of what is revoked: ${faults.join('; ')}`
  }
}

const iso = (lists: readonly ({ readonly nextUpdate: Date } | undefined)[]): string =>
  new Date(Math.min(...lists.map((list) => list?.nextUpdate.getTime() ?? Infinity))).toISOString()

/** A new issuer's lists are made within seconds. */
const patienceMs = 60_000

/** Whether lists are there, fresh, and know what has happened: what readiness says before relying parties feel it. */

import type { Issuers, Placed } from '../issuers/issuers.ts'
import type { Unlisted } from './crl.ts'
import type { CrlShelf, ShelfStore } from './crl-cache.ts'

export interface CrlWatchDeps {
  readonly shelf: Pick<CrlShelf, 'find'>
  readonly store: Pick<ShelfStore, 'unlisted'>
  readonly issuers: Pick<Issuers, 'all'>
  readonly clock: () => Date
  /** How long before its end a list is too old. */
  readonly marginMs: number
  readonly elapsedMs?: () => number
}

export interface CrlWatch {
  /** Undefined, or what is wrong with the lists of active issuers: missing, near their end, or late. */
  fault(): string | undefined
  /** The same of those that sign no certificates any more: one dead issuer does not take every instance out of service. */
  warning(): string | undefined
  /** What is on no list yet, as of the last look. */
  unlisted(): readonly Unlisted[]
  /** Looks at the records. */
  look(): Promise<void>
}

export const openCrlWatch = (deps: CrlWatchDeps): CrlWatch => {
  const { store, issuers, elapsedMs = () => performance.now() } = deps
  const missingSince = new Map<string, number>()
  let late: readonly Unlisted[] = []

  const faultsOf = ({ issuer }: Placed): readonly string[] => {
    const old = deps.clock().getTime() + deps.marginMs
    const lists = Array.from({ length: issuer.shards }, (_, shard) => deps.shelf.find(issuer.name, shard))
    const ending = lists.filter((list) => list !== undefined && list.nextUpdate.getTime() < old)
    const missing = lists.filter((list) => list === undefined).length
    if (missing === 0) missingSince.delete(issuer.name)
    else if (!missingSince.has(issuer.name)) missingSince.set(issuer.name, elapsedMs())
    const missingMs = elapsedMs() - (missingSince.get(issuer.name) ?? elapsedMs())
    const behind = late.find((one) => one.issuer === issuer.name && one.seconds > lateSeconds)
    return [
      ...(ending.length > 0 ? [`${ending.length} of ${issuer.name} end at ${firstEnd(ending)} or later`] : []),
      ...(missingMs > patienceMs ? [`${missing} of ${issuer.name} are missing`] : []),
      ...(behind
        ? [`${behind.shards} of ${issuer.name} do not know what has happened ${Math.round(behind.seconds)} s ago`]
        : []),
    ]
  }

  const tell = (isMeant: (state: Placed['state']) => boolean): string | undefined => {
    const faults = issuers
      .all()
      .filter(({ state }) => isMeant(state))
      .flatMap(faultsOf)
    return faults.length === 0 ? undefined : `lists of what is revoked: ${faults.join('; ')}`
  }

  return {
    fault: () => tell((state) => state === 'active'),
    warning: () => tell((state) => state === 'retiring' || state === 'crl-only'),
    unlisted: () => late,
    look: async () => {
      late = await store.unlisted(issuers.all().map(({ issuer }) => issuer.name))
    },
  }
}

const firstEnd = (lists: readonly ({ readonly nextUpdate: Date } | undefined)[]): string =>
  new Date(Math.min(...lists.map((list) => list?.nextUpdate.getTime() ?? Infinity))).toISOString()

/** A new issuer's lists are made within seconds. */
const patienceMs = 60_000
/** By then a change is on a list, or something is wrong. */
const lateSeconds = 60

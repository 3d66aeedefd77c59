/**
 * The lists that an instance serves: in memory, so that neither a crowd nor an outage of the database is felt by those
 * who fetch them. It follows what any instance publishes, and never takes an older list for a newer one.
 */
import { hash } from 'node:crypto'

import { alone } from '../../lib/slabs.ts'
import { readCrlDates } from '../../x509/crl.ts'
import type { SignedCrl, Unlisted } from './crl.ts'

export interface ShelvedCrl extends SignedCrl {
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  /** SHA-256 of the list, hex. */
  readonly sha256: string
}

export interface ShelfStore {
  /** Where lists were put within that time, by the database's clock; some perhaps before. */
  changedWithin(milliseconds: number): Promise<readonly Pick<SignedCrl, 'issuer' | 'shard' | 'number'>[]>
  /** Of these issuers, what no list that is served knows. */
  unlisted(issuers: readonly string[]): Promise<readonly Unlisted[]>
  files(places: readonly { readonly issuer: string; readonly shard: number }[]): Promise<readonly SignedCrl[]>
}

export interface CrlShelf {
  find(issuer: string, shard: number): ShelvedCrl | undefined
  all(): IterableIterator<ShelvedCrl>
  put(lists: readonly SignedCrl[]): void
  /** Reads what other instances have published since the last time. */
  refresh(): Promise<void>
}

export interface ShelfOptions {
  readonly elapsedMs?: () => number
  /** Called for a stored list that cannot be parsed; the list that is served in its place stays, if there is one. */
  readonly damaged?: (issuer: string, error: unknown) => void
}

export const openCrlShelf = (
  store: ShelfStore,
  { elapsedMs = () => performance.now(), damaged = () => {} }: ShelfOptions = {},
): CrlShelf => {
  const lists = new Map<string, ShelvedCrl>()
  let readAt = Number.NEGATIVE_INFINITY
  /** Clocks stop in machines that sleep, and jump: now and then all are compared. */
  let wholeAt = Number.NEGATIVE_INFINITY

  const datesOf = (list: SignedCrl): ReturnType<typeof readCrlDates> | undefined => {
    try {
      return readCrlDates(list.der)
    } catch (error) {
      const { issuer, shard, number } = list
      damaged(issuer, new Error(`list ${number} of shard ${shard} cannot be read`, { cause: error }))
      return undefined
    }
  }
  const put = (added: readonly SignedCrl[]): void => {
    for (const list of added) {
      const place = placeOf(list)
      if ((lists.get(place)?.number ?? 0) >= list.number) continue
      const dates = datesOf(list)
      if (!dates) continue
      const sha256 = hash('sha256', list.der)
      lists.set(place, { ...list, ...dates, sha256, der: alone(list.der) })
    }
  }

  return {
    find: (issuer, shard) => lists.get(placeOf({ issuer, shard })),
    all: () => lists.values(),
    put,
    refresh: async () => {
      const start = elapsedMs()
      // A row is seen when its transaction has ended, however long before that it was dated.
      const isWhole = start - wholeAt > wholeEveryMs
      const changed = await store.changedWithin(isWhole ? wholeMs : start - readAt + marginMs)
      const newer = changed.filter((list) => (lists.get(placeOf(list))?.number ?? 0) < list.number)
      for (let i = 0; i < newer.length; i += sliceSize) put(await store.files(newer.slice(i, i + sliceSize)))
      readAt = start
      if (isWhole) wholeAt = start
    },
  }
}

const placeOf = ({ issuer, shard }: { readonly issuer: string; readonly shard: number }): string => `${issuer}/${shard}`

const marginMs = 60_000
const wholeEveryMs = 60_000
/** Longer than any list is of use. */
const wholeMs = 10 * 365 * 86_400_000
const sliceSize = 64

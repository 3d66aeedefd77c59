/**
 * Many revocations at once. A search becomes a plan: exactly which certificates, with a digest over them. The plan becomes
 * an order when it is called by its digest, and the order is carried out slice by slice, each in one transaction, by
 * whichever instance comes to it. Nothing outside of the plan is ever revoked; what has changed since is passed by and counted.
 *
 * The set is a function of records that never change: what the search finds on a roll of some size, unexpired at some
 * time, as it stood on that roll. So a plan may be approved while certificates are issued and expire, if the order names
 * the plan's bounds; without them the order is for what there is now, and any change since makes it another plan.
 */
import { hash } from 'node:crypto'

import { isProblem, Problem, type ProblemCode } from '../../errors.ts'
import { canonicalJson } from '../../lib/canonical-json.ts'
import type { CertificateRevoked, RevocationsDone, RevocationsOrdered } from '../../tlog/entries.ts'
import { encodeRevoked } from '../../x509/crl.ts'
import { formatTime } from '../../x509/time.ts'
import type { CertificateFilter, Page, PageRequest } from '../records.ts'
import { assertPast, decideRevocation, type Now, type RevocationAsk, replaceableBy, type Standing } from './revoke.ts'

/** Its name is that very name: a wildcard certificate is for others as well. */
export type MassSearch = Pick<
  CertificateFilter,
  | 'profile'
  | 'name'
  | 'principal'
  | 'issuer'
  | 'row'
  | 'key'
  | 'issuedAfter'
  | 'issuedBefore'
  | 'expiresAfter'
  | 'expiresBefore'
  | 'originNamespace'
  | 'originUser'
  | 'originObject'
>

export interface MassAsk extends RevocationAsk {
  /** At least one field. */
  readonly search: MassSearch
}

/** Bounds of a set: entries before `size`, as they stood on a roll of that size; unexpired at `time`. */
export interface AsOf {
  readonly size: number
  readonly time: Date
}

/** How many there are of each, the largest first; beyond the bound, only how many names and certificates. */
export interface Shares {
  readonly items: readonly { readonly name: string; readonly count: number }[]
  readonly others: { readonly names: number; readonly count: number }
}

/** What the records say of a set. */
export interface Survey {
  readonly count: number
  /** As in `RevocationsOrdered.certificates`. */
  readonly certificates: string
  readonly byProfile: Shares
  readonly byPrincipal: Shares
  readonly byIssuer: Shares
  /** Those that are on no list yet, by issuer. */
  readonly unlisted: readonly { readonly issuer: string; readonly entries: number; readonly shards: number }[]
  readonly skipped: Skipped
  /** A few serials. */
  readonly sample: readonly string[]
}

/** Found by the search and left alone: expired; revoked in a way that the reason does not replace. */
export interface Skipped {
  readonly expired: number
  readonly revoked: number
}

export interface MassPlan extends Omit<Survey, 'certificates' | 'unlisted'>, MassAsk {
  /** SHA-256 (hex) of what would be done, and to which certificates. */
  readonly digest: string
  readonly asOf: AsOf
  readonly crlGrowth: readonly CrlGrowth[]
}

export interface CrlGrowth {
  readonly issuer: string
  readonly entries: number
  readonly octets: number
  /** How many of its lists grow. */
  readonly shards: number
}

export interface MassOrder extends RevocationAsk {
  readonly digest: string
  /** As it stands on the roll. */
  readonly search: Readonly<Record<string, string>>
  readonly by: string
  /** Of its event on the roll. */
  readonly index: number
  readonly orderedAt: Date
  readonly total: number
  readonly revoked: number
  /** Passed by, since they had changed when their turn came. */
  readonly skipped: Skipped
  /** Of the first slice; null before. */
  readonly startedAt: Date | null
  /** Of the last one; null before. */
  readonly finishedAt: Date | null
}

export interface MassRevocations {
  /** Records nothing. Throws `request.malformed`, `revocation.too_many`. */
  plan(ask: MassAsk, asOf?: AsOf): Promise<MassPlan>
  /**
   * Durable when it resolves, and carried out from then on whatever happens to this instance. Idempotent. Throws
   * `revocation.plan` where the digest is not that of the plan as it is.
   */
  order(ask: MassAsk, plan: { readonly digest: string; readonly asOf?: AsOf }, by: string): Promise<MassOrder>
  /** Throws `revocation.not_found`. */
  read(digest: string): Promise<MassOrder>
  /** Newest first. */
  list(page: PageRequest): Promise<Page<MassOrder>>
  /** The digest of the oldest order that is not done; undefined where all are. */
  open(): Promise<string | undefined>
  /** Carries out the next slice of an order, in one transaction; undefined when there is none left. */
  advance(digest: string): Promise<SliceEnd | undefined>
}

export interface SliceEnd {
  readonly revoked: number
  readonly skipped: Skipped
  /** It was the last. */
  readonly done: boolean
}

/** Which certificates. */
export interface PlannedSet {
  readonly search: MassSearch
  readonly asOf: AsOf
  /** What may be on record for them, beside nothing. */
  readonly replaceable: readonly string[]
  /**
   * Where the search finds more, whatever is on record for it, counts are not true, but for `count`: it is more as well.
   * Without it all are found.
   */
  readonly most?: number
}

/** What the store does for it. */
export interface MassRevocationStore {
  /** Now, or what is wanted as far as it has come to be. */
  asOf(wanted: AsOf | undefined): Promise<AsOf>
  now(): Promise<Now>
  survey(set: PlannedSet): Promise<Survey>
  /**
   * Writes the set down under the digest and lets `decide` say what is ordered of it, with its event, in one transaction.
   * What `decide` throws leaves nothing. Where the order is there already, that is all.
   */
  order(set: PlannedSet, digest: string, decide: DecideOrder): Promise<void>
  find(digest: string): Promise<MassOrder | undefined>
  list(page: PageRequest): Promise<Page<MassOrder>>
  open(): Promise<string | undefined>
  /** Ends the next slice by what is decided of its certificates, while nobody else can change anything. */
  advance(digest: string, decide: SliceRules): Promise<AdvancedSlice | undefined>
}

export type DecideOrder = (found: Pick<Survey, 'count' | 'certificates'>) => RevocationsOrdered
export type DecideSlice = (order: OrderedAsk, standings: readonly Standing[], now: Date) => SliceDecision
export interface SliceRules {
  readonly slice: DecideSlice
  /** The last event of an order whose every slice has ended. */
  readonly done: (order: MassOrder) => RevocationsDone
}
export type OrderedAsk = RevocationAsk & Pick<MassOrder, 'digest' | 'by'>

export interface SliceDecision {
  readonly changes: readonly { readonly standing: Standing; readonly change: CertificateRevoked }[]
  readonly skipped: Skipped
}

export interface AdvancedSlice extends SliceEnd {
  readonly changed: readonly { readonly serial: string; readonly index: number }[]
}

export interface MassRevocationsDeps {
  readonly store: MassRevocationStore
  /** As in `RevocationsDeps`. */
  readonly changed: (serial: string, index: number) => void
  /** Certificates in one plan. */
  readonly most?: number
}

export const openMassRevocations = ({ store, changed, most = mostAtOnce }: MassRevocationsDeps): MassRevocations => {
  const setOf = ({ search, reason }: MassAsk, asOf: AsOf): PlannedSet => ({
    search,
    asOf,
    replaceable: replaceableBy(reason),
    most,
  })
  const assertBounded = (count: number): void => {
    if (count > most)
      throw new Problem('revocation.too_many', `The search finds more than ${most} certificates that are not expired.`)
  }
  /** By the time that revocations of one are judged by, and not as of the set. */
  const assertPastNow = async ({ invalidSince }: MassAsk): Promise<void> => {
    if (invalidSince !== null) assertPast(invalidSince, await store.now())
  }
  const read = async (digest: string): Promise<MassOrder> => {
    const order = await store.find(digest)
    if (!order) throw new Problem('revocation.not_found', `There is no order with the digest ${digest}.`)
    return order
  }
  return {
    plan: async (ask, wanted) => {
      const asOf = await store.asOf(wanted)
      await assertPastNow(ask)
      const { certificates, unlisted, ...survey } = await store.survey(setOf(ask, asOf))
      assertBounded(survey.count)
      const crlGrowth = unlisted.map((lists) => ({ ...lists, octets: lists.entries * octetsOfEntry(ask) }))
      return { ...ask, ...survey, asOf, crlGrowth, digest: digestOf(ask, { count: survey.count, certificates }) }
    },
    order: async (ask, { digest, asOf: wanted }, by) => {
      const before = await store.find(digest)
      if (before) return assertSameAsk(before, ask)
      const asOf = await store.asOf(wanted)
      await assertPastNow(ask)
      await store.order(setOf(ask, asOf), digest, (found) => {
        assertBounded(found.count)
        if (found.count === 0) throw new Problem('revocation.plan', 'There is nothing to revoke.')
        if (digestOf(ask, found) !== digest) throw changedPlan()
        return {
          type: 'revocations.ordered',
          plan: digest,
          ...wordsOf(ask),
          asOf: { size: asOf.size, time: asOf.time.toISOString() },
          ...found,
          by,
        }
      })
      // Perhaps somebody else's of a moment ago.
      return assertSameAsk(await read(digest), ask)
    },
    read,
    list: store.list,
    open: store.open,
    advance: async (digest) => {
      const slice = await store.advance(digest, { slice: decideSlice, done: doneEvent })
      if (!slice) return undefined
      const { changed: all, ...end } = slice
      for (const { serial, index } of all) changed(serial, index)
      return end
    },
  }
}

/** The changes of a slice as they would be made one by one, by the same rules; what they forbid by now is passed by. */
const decideSlice: DecideSlice = (order, standings, now) => {
  const changes: { standing: Standing; change: CertificateRevoked }[] = []
  const skipped = { expired: 0, revoked: 0 }
  for (const standing of standings) {
    const change = decided(order, standing, now)
    if (typeof change === 'string') skipped[change] += 1
    else changes.push({ standing, change })
  }
  return { changes, skipped }
}

const decided = (order: OrderedAsk, standing: Standing, now: Date): CertificateRevoked | keyof Skipped => {
  try {
    return decideRevocation(standing, order, { now: () => now, by: order.by, plan: order.digest }) ?? 'revoked'
  } catch (error) {
    const why = isProblem(error) ? passedBy[error.code] : undefined
    if (why === undefined) throw error
    return why
  }
}

const passedBy: { readonly [C in ProblemCode]?: keyof Skipped } = {
  'revocation.expired': 'expired',
  'revocation.state': 'revoked',
}

const doneEvent = ({ digest, revoked, skipped }: MassOrder): RevocationsDone => ({
  type: 'revocations.done',
  plan: digest,
  revoked,
  skipped,
})

/** That a certificate stands as it did is part of it: one that was released is revoked again only by a new plan. */
const digestOf = (ask: MassAsk, { count, certificates }: Pick<Survey, 'count' | 'certificates'>): string =>
  hash('sha256', canonicalJson({ ...wordsOf(ask), count, certificates }))

const wordsOf = ({ search, reason, invalidSince }: MassAsk) => ({
  search: searchWords(search),
  reason,
  invalidityDate: invalidSince && formatTime(invalidSince),
})

/** As it is written on the roll: times in full. */
export const searchWords = (search: MassSearch): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(search)
      .filter(([, value]) => value !== undefined)
      .map(([field, value]) => [field, value instanceof Date ? value.toISOString() : value]),
  )

/** A digest names what was asked, so whoever asks for something else under it has mixed things up. */
const assertSameAsk = (order: MassOrder, ask: MassAsk): MassOrder => {
  const { search, reason, invalidSince } = order
  const words = { search, reason, invalidityDate: invalidSince && formatTime(invalidSince) }
  if (canonicalJson(words) === canonicalJson(wordsOf(ask))) return order
  throw new Problem('revocation.plan', 'This is the digest of another search.')
}

const changedPlan = (): Problem =>
  new Problem('revocation.plan', 'The plan is not the one with this digest: certificates, search or reason differ.')

/** All serials of ours are of one length. */
const octetsOfEntry = ({ reason, invalidSince }: MassAsk): number =>
  encodeRevoked([
    { serial: Buffer.alloc(16, 0x40), revokedAt: new Date(0), reason, ...(invalidSince && { invalidSince }) },
  ]).length

/** As many as a statement gets through in its time, on two cores beside others. */
const mostAtOnce = 500_000

/**
 * Publishing lists of what is revoked: one for each shard of each issuer. A list is due when its shard has changed, when
 * its time has come, or when there is none. What it says is computed from the records at that moment, recorded, signed,
 * checked, and only then put in place of the one before, which is served until then. That numbers follow each other and
 * that no list knows less than the one before it is the database's to hold (migrations/0007), whoever publishes.
 */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'

import { longestMessage } from '../../keys/signing-key.ts'
import type { CrlsIntended } from '../../tlog/entries.ts'
import { type CrlInput, encodeCrl, encodeCrlTbs, encodeRevoked, type RevokedCertificate } from '../../x509/crl.ts'
import type { Issuer } from '../issuers/issuer.ts'
import type { Issuers } from '../issuers/issuers.ts'

export interface CrlTimes {
  /** How often a list is published that nothing has changed. */
  readonly periodMs: number
  /** How long a list may be used: it bounds an outage, and nothing else. More than twice the period. */
  readonly validityMs: number
}

/** The last list of a shard that was recorded. */
export interface CrlHead {
  readonly shard: number
  readonly number: number
  /** Entries of the roll that it knew. */
  readonly covers: number
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  readonly revoked: number
  /** Whether it, and no other, is what is served. */
  readonly published: boolean
  /** The thisUpdate of what is served; null: nothing is. */
  readonly publishedUpdate: Date | null
}

/** A list on its way, as it is recorded before it is signed. */
export interface IntendedCrl extends Omit<CrlHead, 'published' | 'publishedUpdate'> {
  readonly issuer: string
  readonly tbsSha256: Buffer
}

/** What is revoked in a shard, in the order of the serials; read row by row, since there may be very many. */
export interface RevokedOfShard {
  readonly shard: number
  readonly count: number
  at(index: number): RevokedCertificate
}

export interface CrlStore {
  /** How many entries the roll has: those of transactions that are seen by whatever is read later. */
  rollSize(): Promise<number>
  /** Of each shard that has one. */
  heads(issuer: string): Promise<readonly CrlHead[]>
  /** The last of these entries of the roll that changed something in a shard, of each in which one did. */
  changed(issuer: string, span: { readonly from: number; readonly below: number }): Promise<ReadonlyMap<number, number>>
  /**
   * What lists of these shards say that know the entries below `covers`: certificates, and what may be one, that are
   * revoked and have not expired before `since`. Shards where there are none may be left out.
   */
  revoked(
    issuer: string,
    shards: readonly { readonly shard: number; readonly since: Date }[],
    covers: number,
  ): Promise<readonly RevokedOfShard[]>
  /** Records lists with their event; false, and nothing, when another instance was first. Durable. */
  record(event: CrlsIntended, lists: readonly IntendedCrl[]): Promise<boolean>
  /** Puts signed lists in place of older ones. */
  publish(lists: readonly SignedCrl[]): Promise<void>
}

/** Changes that are on no list yet. */
export interface Unlisted {
  readonly issuer: string
  readonly shards: number
  /** Since the oldest of them. */
  readonly seconds: number
}

export interface SignedCrl {
  readonly issuer: string
  readonly shard: number
  readonly number: number
  /** How many are on it. */
  readonly revoked: number
  readonly der: Buffer
  /** The list before it is of the same second: its date does not tell them apart. */
  readonly sharesDate: boolean
}

export interface CrlPublisherDeps {
  readonly store: CrlStore
  readonly issuers: Pick<Issuers, 'all'>
  readonly times: CrlTimes
  /** How often entries of the roll were given up for good, and with them perhaps lists that somebody has seen. */
  readonly successions: number
  readonly clock: () => Date
  /** Throws `clock.skewed`. */
  readonly assertClock: () => void
  /** In [0, 1). */
  readonly chance: () => number
  readonly sha256: (octets: Buffer) => Buffer
  /** Given back the event loop between pieces of work. */
  readonly nextTurn: () => Promise<void>
  /** Asked before each piece of work of an issuer; false: another instance is at it, or this one is stopping. */
  readonly mayGoOn: (issuer: string) => Promise<boolean>
  readonly elapsedMs: () => number
  /** Told of each list that is in its place. */
  readonly published: (lists: readonly SignedCrl[], issuer: string, milliseconds: number) => void
  /** Told why an issuer's lists were not published. */
  readonly failed: (issuer: string, error: unknown) => void
}

export interface CrlPublisher {
  /** Publishes all that is due. One issuer that cannot sign keeps no other from it. */
  run(): Promise<void>
  /** The part of it that is of issuers whose lists did not fail the last time. One call after the other. */
  due(): Promise<void>
  /**
   * The rest, when it has waited. One call after the other, beside those of `due`: a list that takes half a minute to
   * fail, such as one that is too long, is waited for by no other issuer's.
   */
  again(): Promise<void>
}

export const openCrlPublisher = (deps: CrlPublisherDeps): CrlPublisher => {
  /** Up to where the changes of each issuer are known to be on its lists. */
  const followed = new Map<string, number>()
  const failures = new Map<string, Failure>()
  const publish = async (issuer: Issuer): Promise<void> => {
    const last = failures.get(issuer.name)
    try {
      deps.assertClock()
      // Whoever cannot sign leaves it to another instance, which perhaps can.
      issuer.assertAvailable()
      if (await deps.mayGoOn(issuer.name)) {
        // Of what another instance goes on with nobody knows here whether it went well.
        if (await publishIssuer(deps, issuer, followed)) failures.delete(issuer.name)
      }
    } catch (error) {
      // What was recorded in vain is on the roll for good, so not every few seconds.
      const waitMs = Math.min((last?.waitMs ?? firstWaitMs / 2) * 2, longestWaitMs)
      failures.set(issuer.name, { waitMs, until: deps.elapsedMs() + waitMs })
      deps.failed(issuer.name, error)
    }
  }
  /** Chosen at once: what changes meanwhile is for the next call, so that no issuer is in both at a time. */
  const each = (isTurn: (last: Failure | undefined) => boolean) => async (): Promise<void> => {
    const chosen = deps.issuers
      .all()
      .filter(({ issuer, state }) => state !== 'retired' && isTurn(failures.get(issuer.name)))
    for (const { issuer } of chosen) await publish(issuer)
  }
  const due = inTurn(each((last) => last === undefined))
  const again = inTurn(each((last) => last !== undefined && last.until <= deps.elapsedMs()))
  return {
    run: async () => {
      // In this order: what fails now is not tried again at once.
      await Promise.all([again(), due()])
    },
    due,
    again,
  }
}

const inTurn = (work: () => Promise<void>): (() => Promise<void>) => {
  let last = Promise.resolve()
  return () => {
    last = last.then(work, work)
    return last
  }
}

interface Failure {
  readonly waitMs: number
  /** Nothing is tried before. */
  readonly until: number
}

/** Resolves to whether it came to its end: another instance may have gone on with it, or this one is stopping. */
const publishIssuer = async (
  deps: CrlPublisherDeps,
  issuer: Issuer,
  followed: Map<string, number>,
): Promise<boolean> => {
  const covers = await deps.store.rollSize()
  // The database's clock was just read.
  deps.assertClock()
  const heads = new Map((await deps.store.heads(issuer.name)).map((head) => [head.shard, head]))
  const from = followed.get(issuer.name) ?? Math.min(covers, ...[...heads.values()].map((head) => head.covers))
  const changed = await deps.store.changed(issuer.name, { from, below: covers })
  const due = Array.from({ length: issuer.shards }, (_, shard) => ({ shard, head: heads.get(shard) })).filter(
    ({ shard, head }) => !head || isDue(deps, head, changed.get(shard)),
  )
  let [unmade, isWhole]: [Error | undefined, boolean] = [undefined, true]
  for (const slice of slicesOf(due)) {
    isWhole = await deps.mayGoOn(issuer.name)
    if (!isWhole) break
    unmade = (await publishSlice(deps, issuer, slice, covers)) ?? unmade
  }
  // Also where it was handed on: to find out may take longer than a lease lasts.
  if (unmade) throw unmade
  if (isWhole) followed.set(issuer.name, covers)
  return isWhole
}

/** Something has happened that it does not know; nothing is served; or some time in the last quarter of its period. */
const isDue = ({ times, clock, chance }: CrlPublisherDeps, head: CrlHead, changedBy: number | undefined): boolean => {
  if (!head.published || (changedBy !== undefined && changedBy >= head.covers)) return true
  const age = clock().getTime() - head.thisUpdate.getTime() - backdateOf(times)
  // Asked every few seconds, so that few of those that were made together are drawn together.
  return age >= times.periodMs || (age >= times.periodMs * 0.75 && chance() < drawChance)
}

interface Due {
  readonly shard: number
  readonly head: CrlHead | undefined
}

/** What is in memory, and in one event, at a time. */
const slicesOf = (due: readonly Due[]): readonly (readonly Due[])[] => {
  const slices: Due[][] = []
  let room = 0
  for (const one of due) {
    const takes = 1 + (one.head?.revoked ?? 0) / rowsForAList
    room -= takes
    if (room < 0) {
      slices.push([])
      room = maxSlice - takes
    }
    slices.at(-1)?.push(one)
  }
  return slices
}

/** Resolves to why one of them was not made, where the others were. */
const publishSlice = async (
  deps: CrlPublisherDeps,
  issuer: Issuer,
  due: readonly Due[],
  covers: number,
): Promise<Error | undefined> => {
  const start = performance.now()
  const { drafts, unmade } = await draft(deps, issuer, due, covers)
  if (drafts.length === 0) return unmade
  const lists = drafts.map(({ list }) => list)
  if (!(await deps.store.record(eventOf(issuer.name, lists), lists)))
    throw new Error('another instance has recorded lists of these shards meanwhile')
  const publicKey = createPublicKey({ key: issuer.facts.spki, format: 'der', type: 'spki' })
  const { signed, fault } = await signSome(drafts, (one) => sign(issuer, one, publicKey, deps.nextTurn))
  if (signed.length > 0) {
    await deps.store.publish(signed)
    deps.published(signed, issuer.name, performance.now() - start)
  }
  if (fault !== undefined) throw fault
  return unmade
}

/**
 * A few at a time: a token that takes its time has to answer each within its deadline, and signs certificates as well. The
 * first that fails ends it; what was signed is not lost.
 */
const signSome = async (
  drafts: readonly Draft[],
  signOne: (one: Draft) => Promise<SignedCrl>,
): Promise<{ readonly signed: readonly SignedCrl[]; readonly fault: unknown }> => {
  const waiting = [...drafts]
  const signed: SignedCrl[] = []
  let fault: unknown
  const lane = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined && fault === undefined; one = waiting.shift())
      await signOne(one).then(
        (list) => void signed.push(list),
        (error: unknown) => {
          fault ??= error
        },
      )
  }
  await Promise.all(Array.from({ length: signingLanes }, lane))
  return { signed, fault }
}

interface Draft {
  readonly list: IntendedCrl
  readonly sharesDate: boolean
  readonly tbs: Buffer
}

const draft = async (
  deps: CrlPublisherDeps,
  issuer: Issuer,
  due: readonly Due[],
  covers: number,
): Promise<{ readonly drafts: readonly Draft[]; readonly unmade: Error | undefined }> => {
  const now = deps.clock()
  // By how long before it was dated itself: the setting may have changed since.
  const ahead = due.find(
    ({ head }) =>
      head && head.thisUpdate > datedAt(now, { validityMs: head.nextUpdate.getTime() - head.thisUpdate.getTime() }),
  )
  if (ahead) throw new Error(`the clock has gone back behind the last list of shard ${ahead.shard}`)
  // What has expired is on one more list, of those that were seen, than it need be (RFC 5280 3.3).
  const shards = due.map(({ shard, head }) => ({ shard, since: head?.publishedUpdate ?? new Date(0) }))
  const entries = await encodeEntries(deps, await deps.store.revoked(issuer.name, shards, covers))
  const drafts: Draft[] = []
  let unmade: Error | undefined
  for (const { shard, head } of due) {
    const { pieces, count } = entries.get(shard) ?? { pieces: [], count: 0 }
    const number = (head?.number ?? 0) + 1
    const thisUpdate = new Date(Math.max(datedAt(now, deps.times).getTime(), head?.thisUpdate.getTime() ?? 0))
    const nextUpdate = new Date(thisUpdate.getTime() + deps.times.validityMs)
    const tbs = encodeCrlTbs({
      issuer: issuer.subject,
      signature: issuer.key.algorithm,
      thisUpdate,
      nextUpdate,
      revoked: pieces,
      authorityKeyIdentifier: issuer.facts.keyIdentifier as Buffer,
      number: numberIn(number, deps),
      ...partOf(issuer, shard),
    })
    // Nor is it recorded: each try would be on the roll for good, and its key counts as gone when it does not sign.
    if (tbs.length > longestMessage) {
      unmade = tooLong(shard, tbs.length)
      continue
    }
    const tbsSha256 = deps.sha256(tbs)
    drafts.push({
      tbs,
      sharesDate: thisUpdate.getTime() === head?.thisUpdate.getTime(),
      list: { issuer: issuer.name, shard, number, covers, thisUpdate, nextUpdate, revoked: count, tbsSha256 },
    })
    await deps.nextTurn()
  }
  return { drafts, unmade }
}

const tooLong = (shard: number, octets: number): Error =>
  new Error(
    `the list of shard ${shard} would have ${octets} octets, and ${longestMessage} are the most that is signed: have another issuer, with more lists, sign for its authority`,
  )

/**
 * Numbers on record have no gap, and those of lists that are lost are used again; but what relying parties see grows all the same
 * (RFC 5280 5.2.3).
 */
const numberIn = (number: number, { successions }: CrlPublisherDeps): bigint =>
  (BigInt(successions) << numberBits) + BigInt(number)

/** In whole seconds, as DER has them; a little in the past, for those whose clocks are behind ours. */
const datedAt = (now: Date, times: Pick<CrlTimes, 'validityMs'>): Date =>
  new Date(Math.floor((now.getTime() - backdateOf(times)) / 1000) * 1000)

/** Of a list for a short time most is left. */
const backdateOf = ({ validityMs }: Pick<CrlTimes, 'validityMs'>): number => Math.min(backdateMs, validityMs / 8)

interface Entries {
  readonly pieces: readonly Buffer[]
  readonly count: number
}

/** In pieces that hold the event loop for a few milliseconds each. */
const encodeEntries = async (
  { nextTurn }: CrlPublisherDeps,
  shards: readonly RevokedOfShard[],
): Promise<ReadonlyMap<number, Entries>> => {
  const entries = new Map<number, Entries>()
  for (const { shard, count, at } of shards) {
    const pieces: Buffer[] = []
    for (let start = 0; start < count; start += rowsForAPiece) {
      const rows = Array.from({ length: Math.min(rowsForAPiece, count - start) }, (_, i) => at(start + i))
      pieces.push(encodeRevoked(rows))
      await nextTurn()
    }
    entries.set(shard, { pieces, count })
  }
  return entries
}

/**
 * A list of a part says so, in an extension that is critical (RFC 5280 5.2.5); without it a list is of all that its issuer has
 * issued, and who does not know the extension can use it.
 */
const partOf = (issuer: Issuer, shard: number): Pick<CrlInput, 'distributionPoint'> =>
  issuer.shards === 1 ? {} : { distributionPoint: { url: crlUrl(issuer, shard), only: 'user' } }

/** The URL in each certificate of the shard, and in its list. */
const crlUrl = ({ publicUrl, name }: { publicUrl: string; name: string }, shard: number): string =>
  `${publicUrl.replace(/\/+$/, '')}/crl/${name}/${shard}.crl`

/** Signs, and checks it as certificates are checked. Throws what keeps the list from being published. */
const sign = async (
  issuer: Issuer,
  { list, tbs, sharesDate }: Draft,
  publicKey: KeyObject,
  nextTurn: () => Promise<void>,
): Promise<SignedCrl> => {
  const signature = await issuer.sign(tbs)
  if (!Buffer.isBuffer(signature)) throw signature
  await nextTurn()
  const { algorithm } = issuer.key
  if (!verify(algorithm.hash, tbs, { key: publicKey, ...algorithm.signOptions }, signature)) {
    issuer.distrust()
    throw new Error(`the signature of list ${list.number} of ${list.issuer}/${list.shard} does not verify`)
  }
  const { issuer: name, shard, number, revoked } = list
  return { issuer: name, shard, number, revoked, sharesDate, der: encodeCrl(tbs, algorithm, signature) }
}

const eventOf = (issuer: string, lists: readonly IntendedCrl[]): CrlsIntended => ({
  type: 'crls.intended',
  issuer,
  lists: lists.map(({ shard, number, covers, thisUpdate, nextUpdate, revoked, tbsSha256 }) => ({
    shard,
    number,
    covers,
    thisUpdate: thisUpdate.toISOString(),
    nextUpdate: nextUpdate.toISOString(),
    revoked,
    tbs: tbsSha256.toString('hex'),
  })),
})

/** Lists at once: each is some 240 octets of an event, and so many rows count like one more. */
const maxSlice = 32
const rowsForAList = 2_000
const rowsForAPiece = 2_000
/** One list a second for each shard would take nine million years to use them up. */
const numberBits = 48n
const backdateMs = 60_000
/** Signatures of lists under way at once. */
const signingLanes = 4
const firstWaitMs = 5_000
const longestWaitMs = 60_000
const drawChance = 0.002

/**
 * Answering what relying parties ask of one certificate (RFC 6960, RFC 5019). An answer is signed once and told again
 * until half of its time is over, by a key that can do nothing else. It says what the records say: never `good` of what
 * is not on record, nothing final of what is still open. A revocation that this instance makes is in its answers before
 * whoever revoked is answered; those of others are followed along the roll, and whoever cannot follow asks the records.
 */
import { hash } from 'node:crypto'

import { isProblem } from '../../errors.ts'
import { alone } from '../../lib/slabs.ts'
import type { CrlReason } from '../../x509/crl.ts'
import { keyBits } from '../../x509/keys.ts'
import {
  type CertId,
  type CertStatus,
  encodeBasicResponse,
  encodeOcspResponse,
  encodeResponseData,
  encodeSingleResponse,
  type IssuerHash,
  issuerHashes,
  type OcspRequest,
  ocspErrors,
} from '../../x509/ocsp.ts'
import { parseOcspRequest } from '../../x509/ocsp-reading.ts'
import type { Issuer } from '../issuers/issuer.ts'
import type { Responder, Responders } from './responders.ts'

/** What is on record of a serial. */
export type SerialStanding =
  | { readonly kind: 'unknown' | 'open' | 'good' }
  | { readonly kind: 'revoked'; readonly at: Date; readonly reason: CrlReason | null }

export interface OcspStore {
  /**
   * Of each serial, as far as it is of this issuer, and how many entries of the roll were seen: every revocation among
   * them is in the answer.
   */
  standings(
    issuer: string,
    serials: readonly Buffer[],
  ): Promise<{ readonly standings: readonly SerialStanding[]; readonly seen: number }>
  /** The serials (hex) that entries from there on revoked or released, and how many entries there are. */
  changedSince(index: number): Promise<{ readonly serials: readonly string[]; readonly seen: number }>
}

export type OcspKind = 'good' | 'revoked' | 'several' | 'malformedRequest' | 'unauthorized' | 'tryLater'

export interface OcspAnswer {
  readonly der: Buffer
  readonly kind: OcspKind
  /** Where a cache may keep it; not where a nonce is in it, nor with an error. */
  readonly cacheable?: { readonly thisUpdate: Date; readonly nextUpdate: Date; readonly tag: string }
}

export interface OcspDeps {
  readonly store: OcspStore
  /** Undefined: there is none, or it has retired. */
  readonly issuer: (name: string) => Issuer | undefined
  readonly responders: Responders
  readonly clock: () => Date
  /** Throws `clock.skewed`. */
  readonly assertClock: () => void
  readonly elapsedMs: () => number
  readonly validityMs: number
  /** Whether nonces are repeated (RFC 9654), at the price of a signature each. */
  readonly echoNonces: boolean
  /** Told why an answer was put off. */
  readonly failed: (issuer: string, error: unknown) => void
  /** Octets of answers that are kept. */
  readonly cacheOctets: number
}

export interface Ocsp {
  /** Never rejects: what fails is `tryLater`. `issuer.not_found` is for the caller to find out. */
  answer(issuer: string, request: Buffer): Promise<OcspAnswer> | OcspAnswer
  knows(issuer: string): boolean
  /** What is kept of this serial is wrong since this entry of the roll. */
  forget(serial: string, index: number): void
  /** Reads what others have revoked since the last time. */
  follow(): Promise<void>
}

export const openOcsp = (deps: OcspDeps): Ocsp => {
  const { store, clock, elapsedMs, responders } = deps
  const cache = openCache(deps.cacheOctets)
  const hashes = new WeakMap<Issuer, ReturnType<typeof issuerHashes>>()
  /** Entries of the roll that were followed; -1 before the first look, when nothing is kept yet. */
  let followed = -1
  /** Entries of ours, perhaps ahead of it. */
  let ownEntries = 0
  let followedAt = Number.NEGATIVE_INFINITY

  const hashesOf = (issuer: Issuer): ReturnType<typeof issuerHashes> => {
    const known = hashes.get(issuer) ?? issuerHashes(issuer.subject, keyBits(issuer.facts.spki))
    hashes.set(issuer, known)
    return known
  }

  const isFollowing = (): boolean => elapsedMs() - followedAt < patienceMs

  const isGood = (kept: Kept, issuer: Issuer): boolean =>
    isOfNow(kept, clock()) && responders.isCurrent(issuer, kept.by)

  const answerSigned = async (issuer: Issuer, asked: OcspRequest, isAgain = false): Promise<OcspAnswer> => {
    const ids = asked.requests.map(({ certId }) => certId)
    const { standings, seen } = await store.standings(
      issuer.name,
      ids.map(({ serial }) => serial),
    )
    if (standings.some(({ kind }) => kind === 'unknown')) return unauthorized
    if (standings.some(({ kind }) => kind === 'open')) return tryLater
    const responder = await responders.of(issuer)
    // Making one takes its time, and somebody may have been told of a revocation meanwhile.
    if (seen < Math.max(followed, ownEntries) && !isAgain) return answerSigned(issuer, asked, true)
    deps.assertClock()
    const now = clock()
    const nonce = deps.echoNonces ? asked.nonce : undefined
    const span = spanOf(now, deps.validityMs, responder)
    const signed = sign(responder, { ids, standings, now, span, ...(nonce && { nonce }) })
    const [only] = standings
    const kind = ids.length > 1 || !only ? 'several' : only.kind === 'good' ? 'good' : 'revoked'
    if (nonce) return { der: signed, kind }
    const der = alone(signed)
    const answer = { der, kind, cacheable: { ...span, tag: tagOf(der) } } as const
    // What was read before a revocation that we know of is told, but not kept.
    if (ids.length === 1 && seen >= Math.max(followed, ownEntries))
      cache.put(ids[0] as CertId, { answer, by: responder, until: halfOf(span) })
    return answer
  }

  return {
    knows: (name) => deps.issuer(name) !== undefined,
    answer: (name, der) => {
      const issuer = deps.issuer(name)
      if (!issuer) return unauthorized
      let asked: OcspRequest
      try {
        asked = parseOcspRequest(der)
      } catch (error) {
        if (isProblem(error)) return malformedRequest
        throw error
      }
      const known = hashesOf(issuer)
      if (!asked.requests.every(({ certId }) => isOf(certId, known))) return unauthorized
      if (asked.requests.length === 1 && !(asked.nonce && deps.echoNonces) && isFollowing()) {
        const kept = cache.get(asked.requests[0]?.certId as CertId)
        if (kept && isGood(kept, issuer)) return kept.answer
      }
      return answerSigned(issuer, asked).catch((error: unknown) => {
        deps.failed(name, error)
        return tryLater
      })
    },
    forget: (serial, index) => {
      ownEntries = Math.max(ownEntries, index + 1)
      cache.drop(serial)
    },
    follow: async () => {
      const start = elapsedMs()
      // Before the first look nothing is kept, so there is nothing to be forgotten.
      const { serials, seen } = await store.changedSince(followed < 0 ? Number.MAX_SAFE_INTEGER : followed)
      for (const serial of serials) cache.drop(serial)
      followed = Math.max(followed, seen)
      followedAt = start
    },
  }
}

/** Neither old nor, after a clock that was wrong, of tomorrow. */
const isOfNow = ({ until, answer: { cacheable } }: Kept, now: Date): boolean =>
  until > now.getTime() && cacheable !== undefined && cacheable.thisUpdate <= now

const isOf = ({ hash, nameHash, keyHash }: CertId, issuer: Readonly<Record<'sha1' | 'sha256', IssuerHash>>): boolean =>
  hash !== undefined && issuer[hash].nameHash.equals(nameHash) && issuer[hash].keyHash.equals(keyHash)

interface Draft {
  readonly ids: readonly CertId[]
  readonly standings: readonly SerialStanding[]
  readonly now: Date
  readonly span: Span
  readonly nonce?: Buffer
}

const sign = (responder: Responder, { ids, standings, now, span, nonce }: Draft): Buffer => {
  const tbs = encodeResponseData({
    responderKeyHash: responder.keyHash,
    producedAt: now,
    responses: ids.map((id, i) =>
      encodeSingleResponse({ certId: id.der, status: statusOf(standings[i] as SerialStanding), ...span }),
    ),
    ...(nonce && { nonce }),
  })
  const signature = responder.sign(tbs)
  return encodeOcspResponse(encodeBasicResponse(tbs, responder.algorithm, signature, [responder.certificate]))
}

const statusOf = (standing: SerialStanding): CertStatus => {
  if (standing.kind === 'good') return { kind: 'good' }
  if (standing.kind !== 'revoked') throw new Error('what is not on record has no status')
  return { kind: 'revoked', at: standing.at, ...(standing.reason && { reason: standing.reason }) }
}

interface Span {
  readonly thisUpdate: Date
  readonly nextUpdate: Date
}

/**
 * A little in the past, for those whose clocks are behind ours; and no longer than the responder's certificate holds, without
 * which nobody believes what is stapled or kept (RFC 6960 4.2.2.2).
 */
const spanOf = (now: Date, validityMs: number, { notAfter }: Responder): Span => {
  const start = Math.floor(now.getTime() / 1000) * 1000 - backdateMs
  return { thisUpdate: new Date(start), nextUpdate: new Date(Math.min(start + validityMs, notAfter)) }
}

/** Whoever staples it has half of its time left. */
const halfOf = ({ thisUpdate, nextUpdate }: Span): number => (thisUpdate.getTime() + nextUpdate.getTime()) / 2

const tagOf = (der: Buffer): string => `"${hash('sha256', der)}"`

export const malformedRequest: OcspAnswer = { der: ocspErrors.malformedRequest, kind: 'malformedRequest' }
const unauthorized: OcspAnswer = { der: ocspErrors.unauthorized, kind: 'unauthorized' }
export const tryLater: OcspAnswer = { der: ocspErrors.tryLater, kind: 'tryLater' }

// What is kept -----------------------------------------------------------------------------------------------------------

interface Kept {
  readonly answer: OcspAnswer
  readonly by: Responder
  /** Milliseconds since 1970. */
  readonly until: number
}

/** By serial, and by the form of the question, of which there are four: by SHA-1 or SHA-256, with parameters or without. */
type Forms = Map<string, Kept>

interface Cache {
  get(id: CertId): Kept | undefined
  put(id: CertId, kept: Kept): void
  drop(serial: string): void
}

/**
 * Two generations: what is asked for again moves into the young one, and when that is full the old one goes. So it costs
 * nothing to know what was asked for last.
 */
const openCache = (octets: number): Cache => {
  let young = new Map<string, Forms>()
  let old = new Map<string, Forms>()
  let size = 0

  const age = (): void => {
    old = young
    young = new Map()
    size = 0
  }
  const put = (serial: string, form: string, kept: Kept): void => {
    const forms: Forms = young.get(serial) ?? new Map()
    forms.set(form, kept)
    young.set(serial, forms)
    size += kept.answer.der.length + overhead
    if (size > octets / 2) age()
  }
  return {
    get: (id) => {
      const [serial, form] = placeOf(id)
      const found = young.get(serial)?.get(form)
      if (found) return found
      const aged = old.get(serial)?.get(form)
      if (aged) put(serial, form, aged)
      return aged
    },
    put: (id, kept) => put(...placeOf(id), kept),
    drop: (serial) => {
      young.delete(serial)
      old.delete(serial)
    },
  }
}

const placeOf = ({ serial, der }: CertId): readonly [serial: string, form: string] => [
  serial.toString('hex'),
  der.toString('latin1'),
]

/** Of an entry beside its answer, as measured. */
const overhead = 500
const backdateMs = 60_000
/** Without news for so long, nothing that is kept is told. */
const patienceMs = 2_000

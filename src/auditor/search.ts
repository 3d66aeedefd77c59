/**
 * `chancery roll search`: which certificates were issued for a name, from all entries up to a checkpoint. The tree over them
 * is computed anew and must be that of the checkpoint, so that none was left out: this is the proof of completeness.
 */
import { hash } from 'node:crypto'

import { isOneName, keysFor, type NameRange, nameRange, searchKey } from '../db/names.ts'
import { isProblem } from '../errors.ts'
import { Failure } from '../lib/failure.ts'
import { sha256 } from '../lib/sha256.ts'
import { hasEnded } from '../policy/validity.ts'
import { isRollFault } from '../tlog/fault.ts'
import { type EntryOf, parseEntry, type RollEntry } from '../tlog/forms.ts'
import { emptyEdge, extend } from '../tlog/frontier.ts'
import { openTreeHasher } from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import { parseCertificate, type TbsFacts } from '../x509/certificate.ts'
import { formatSubject } from '../x509/subject.ts'
import { openNote } from './checkpoints.ts'
import type { RollKeys } from './keys.ts'
import { type RollSource, readCheckpoint } from './source.ts'
import { seenOf } from './state.ts'
import { openTileReader, readEntries } from './tiles.ts'

export interface Search {
  readonly source: RollSource
  readonly keys: RollKeys
  /** As the search of the API takes it. */
  readonly name: string
  /** The signed note up to which, instead of the newest of the source. */
  readonly at: Buffer | undefined
  readonly now: Date
  readonly progress: (done: number, total: number) => void
}

export interface Found {
  readonly checkpoint: { readonly origin: string; readonly size: number; readonly root: string }
  /** As `GET /v1/certificates?name=` tells them, in its order, as they stand at the checkpoint. */
  readonly items: readonly FoundCertificate[]
  /** Issuances whose certificate may have been signed, and that nobody got: their entries have no names, so any may be meant. */
  readonly abandoned: number
}

export interface FoundCertificate {
  readonly serial: string
  readonly status: 'valid' | 'expired' | 'revoked'
  readonly names: readonly { readonly kind: string; readonly value: string }[]
  readonly profile: { readonly name: string; readonly version: number }
  readonly index: number
  readonly [more: string]: unknown
}

/** Throws a `Failure` for everything that would leave a doubt. */
export const searchRoll = async ({ source, keys, name, at, now, progress }: Search): Promise<Found> => {
  const newest = await readCheckpoint(source)
  const { origin, size, root } = await openNote(at ?? newest, keys, at === undefined ? source.name : '--at')
  const tiles = openTileReader(source, Math.max(size, seenOf(newest).size))
  const found = openFound(nameRange(name))
  let edge = emptyEdge(hasher)
  for await (const { entries } of readEntries(tiles, { from: 0, to: size }, unreadable)) {
    for (const [i, octets] of entries.entries()) found.see(parsed(octets, edge.size + i), edge.size + i)
    const leaves = entries.map((entry) => hasher.leaf(entry))
    edge = extend(edge, leaves, hasher).edge
    progress(edge.size, size)
  }
  if (!isEqual(edge.root, root))
    throw new Failure(
      'refused',
      `These are not the ${size} entries that the checkpoint was signed over: "chancery roll verify${at === undefined ? '" says which' : ' --checkpoint" compares them with it'}.`,
    )
  return { checkpoint: { origin, size, root: root.toBase64() }, items: found.items(now), abandoned: found.abandoned() }
}

const unreadable = (message: string): Failure => new Failure('refused', `${message}: what is in it cannot be known.`)

/** Whatever cannot be read might be what is searched for. */
const parsed = (octets: Uint8Array, index: number): RollEntry => {
  try {
    return parseEntry(octets)
  } catch (error) {
    if (!isRollFault(error)) throw error
    const newer = isRollFault(error, 'entry.type')
      ? ' If it is, search with the version of Chancery that wrote it.'
      : ''
    throw new Failure('refused', `Entry ${index} cannot be read: ${error.detail}${whose}${newer}`)
  }
}

interface Match {
  readonly entry: EntryOf<'certificate.issued'>
  readonly facts: TbsFacts
  readonly index: number
  /** The first of its names, as it is kept. */
  readonly key: string
}

type Change = EntryOf<'certificate.revoked'> & { readonly index: number }

/** Only what matches is held. */
const openFound = (range: NameRange) => {
  const matches = new Map<string, Match>()
  const changes = new Map<string, Change>()
  let abandoned = 0
  return {
    see: (entry: RollEntry, index: number): void => {
      if (entry.type === 'certificate.issued') {
        const facts = factsOf(entry, index)
        const key = firstKey(facts, range)
        if (key !== undefined) matches.set(entry.serial, { entry, facts, index, key })
      } else if (entry.type === 'certificate.revoked' && matches.has(entry.serial))
        changes.set(entry.serial, { ...entry, index })
      else if (entry.type === 'certificate.released') changes.delete(entry.serial)
      else if (entry.type === 'issuance.abandoned') abandoned += 1
    },
    abandoned: (): number => abandoned,
    items: (now: Date): readonly FoundCertificate[] =>
      [...matches.values()]
        .sort((a, b) => (a.key === b.key ? b.index - a.index : a.key < b.key ? -1 : 1))
        .map((match) => rowOf(match, changes.get(match.entry.serial), now)),
  }
}

const factsOf = ({ certificate }: EntryOf<'certificate.issued'>, index: number): TbsFacts => {
  try {
    return parseCertificate(Buffer.from(certificate, 'base64')).facts
  } catch (error) {
    const why = isProblem(error) ? error.detail : (error as Error).message
    throw new Failure('refused', `The certificate of entry ${index} cannot be read: ${why}${whose}`)
  }
}

/** Below a suffix there are DNS names only. All that one name finds is found by it, in the order of the roll. */
const firstKey = ({ names }: TbsFacts, range: NameRange): string | undefined => {
  if (isOneName(range)) {
    const keys = keysFor(range)
    return names.some((name) => keys.includes(searchKey(name))) ? range.low : undefined
  }
  return names
    .filter(({ kind }) => kind === 'dns')
    .map(searchKey)
    .filter((key) => key > range.low && key < range.high)
    .sort()[0]
}

const rowOf = ({ entry, facts, index }: Match, change: Change | undefined, now: Date): FoundCertificate => ({
  serial: entry.serial,
  status: change ? 'revoked' : hasEnded(facts.notAfter, now) ? 'expired' : 'valid',
  subject: formatSubject(facts.subject),
  names: facts.names.map(({ kind, value }) => ({ kind, value })),
  profile: entry.profile,
  principal: entry.principal,
  issuer: entry.issuer,
  keySha256: hash('sha256', facts.spki),
  notBefore: facts.notBefore.toISOString(),
  notAfter: facts.notAfter.toISOString(),
  issuedAt: entry.time,
  index,
  ...(change && { revocation: revocationOf(change) }),
})

const revocationOf = ({ reason, revokedAt, invalidityDate, by, index }: Change) => ({
  reason,
  revokedAt: new Date(revokedAt).toISOString(),
  ...(invalidityDate !== null && { invalidityDate: new Date(invalidityDate).toISOString() }),
  ...{ by, index },
})

/** Its tree is not computed to the end, so that nothing is known of it yet. */
const whose = '; "chancery roll verify" says whether it is the one that the checkpoint was signed over.'
const hasher = openTreeHasher(sha256)

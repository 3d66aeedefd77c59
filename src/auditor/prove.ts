/** `chancery roll prove`: that an entry is on the roll, from a proof, the entry and the key of the roll: nobody is asked. */

import { isProblem } from '../errors.ts'
import { verifyEd25519 } from '../keys/note-signatures.ts'
import { Failure } from '../lib/failure.ts'
import { readGiven, readGivenText } from '../lib/input-files.ts'
import { sha256 } from '../lib/sha256.ts'
import { isRollFault } from '../tlog/fault.ts'
import { parseEntry, type RollEntry } from '../tlog/forms.ts'
import { openTreeHasher } from '../tlog/merkle.ts'
import { verifyProof } from '../tlog/proof.ts'
import { parsePem } from '../x509/pem.ts'
import type { RollKeys } from './keys.ts'

/** A bare proof (c2sp.org/tlog-proof), or an answer of the service that has it, and perhaps the certificate with it. */
export interface GivenProof {
  readonly proof: string
  readonly serial?: string
  /** PEM. */
  readonly certificate?: string
  /** What it is about, as far as it came with it. */
  readonly entry?: string
}

export interface Proven {
  readonly index: number
  readonly checkpoint: { readonly origin: string; readonly size: number; readonly root: string }
  readonly entry: RollEntry
}

export const readProof = async (path: string): Promise<GivenProof> => {
  const text = await readGivenText(path)
  if (!text.trimStart().startsWith('{')) return { proof: text }
  const answer = parseJson(text, path)
  const isText = (name: string): boolean => typeof answer[name] === 'string'
  const beside = ['serial', 'certificate', 'entry'].filter((name) => answer[name] !== undefined)
  if (!isText('proof') || !beside.every(isText))
    throw new Failure('usage', `${path} is no proof, and no answer with one.`)
  return answer as unknown as GivenProof
}

/** Whether it is meant as one, of whatever version. */
export const isProof = ({ proof }: GivenProof): boolean => proof.startsWith('c2sp.org/tlog-proof@')

export interface GivenEntry {
  readonly octets: Buffer
  /** Where it lies alone, so that nobody but who put it there says that it is one. */
  readonly path?: string
}

/** An entry, alone or as `/v1/events` tells it, in its page or out of it. */
export const readEntry = async (path: string): Promise<GivenEntry> => {
  const octets = await readGiven(path)
  const value = parseJson(octets.toString(), path)
  const told = onlyOf(value, path)
  if (typeof told['entry'] === 'string') return { octets: Buffer.from(told['entry']) }
  if (told === value && typeof told['type'] === 'string') return { octets: withoutLineEnd(octets), path }
  throw new Failure('usage', `${path} is no entry, and no answer with one.`)
}

/** Shells and editors write one, which no entry has. */
const withoutLineEnd = (octets: Buffer): Buffer =>
  octets.subarray(0, octets.findLastIndex((octet) => octet !== 0x0a && octet !== 0x0d) + 1)

const onlyOf = (value: Parsed, path: string): Parsed => {
  const items = Array.isArray(value) ? value : value['items']
  if (!Array.isArray(items)) return value
  const [item, ...more] = items as readonly Parsed[]
  if (typeof item === 'object' && item !== null && more.length === 0) return item
  throw new Failure('usage', `${path} has ${items.length} entries: give the one that the proof is of.`)
}

/** Throws a `Failure` that says what does not hold. */
export const prove = async (given: GivenProof, { octets, path }: GivenEntry, keys: RollKeys): Promise<Proven> => {
  const trust = { ...keys, hasher: openTreeHasher(sha256), verify: verifyEd25519 }
  const verdict = await verifyProof(octets, given.proof, trust)
  if (!verdict.ok) {
    // Anything else leads to no root either, and would be an alarm about a roll that is whole.
    if (path !== undefined && verdict.reason === 'proof.inclusion') assertEntry(octets, path)
    throw new Failure('refused', `This proves nothing: ${verdict.detail} (${verdict.reason}).`)
  }
  const entry = parsed(octets)
  assertSame(given, entry)
  const { origin, size, root } = verdict.checkpoint
  return { index: verdict.index, checkpoint: { origin, size, root: root.toBase64() }, entry }
}

/** The certificate that came with the proof is the one in the entry. */
const assertSame = ({ serial, certificate }: GivenProof, entry: RollEntry): void => {
  const isOther =
    (serial !== undefined && (!('serial' in entry) || entry.serial !== serial)) ||
    (certificate !== undefined &&
      (entry.type !== 'certificate.issued' || entry.certificate !== certificateIn(certificate)))
  if (isOther)
    throw new Failure('refused', 'The entry is on the roll, but of another certificate than the one with the proof.')
}

/** Base64. */
const certificateIn = (pem: string): string => {
  try {
    return parsePem(Buffer.from(pem), 'CERTIFICATE').toString('base64')
  } catch (error) {
    if (!isProblem(error)) throw error
    throw new Failure('usage', `The certificate that came with the proof cannot be read: ${error.detail}.`)
  }
}

const assertEntry = (octets: Buffer, path: string): void => {
  try {
    parseEntry(octets)
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Failure('usage', `${path} is no entry, octet for octet as /v1/events tells it: ${error.detail}.`)
  }
}

const parsed = (octets: Buffer): RollEntry => {
  try {
    return parseEntry(octets)
  } catch (error) {
    if (!isRollFault(error)) throw error
    const newer = isRollFault(error, 'entry.type') ? ' The version of Chancery that wrote it knows it.' : ''
    throw new Failure('refused', `This is on the roll, but no entry that is known here: ${error.detail}.${newer}`)
  }
}

type Parsed = Readonly<Record<string, unknown>>

const parseJson = (text: string, path: string): Parsed => {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Parsed
  } catch {
    // Told below.
  }
  throw new Failure('usage', `${path} is no JSON object.`)
}

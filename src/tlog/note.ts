/**
 * Signed notes (c2sp.org/signed-note): a text, and lines with signatures of it. A signature names its key by name and id;
 * those of unknown keys are passed over, and one of a known key that does not hold spoils the whole note. Two kinds of keys
 * are known here: Ed25519, and Ed25519 with a time, as witnesses use it (c2sp.org/tlog-cosignature).
 */
import { RollFault } from './fault.ts'
import type { Sha256 } from './merkle.ts'
import { concatOctets, encodeText, readBase64, readText } from './text.ts'

export interface VerifierKey {
  readonly name: string
  /** A hint, and no fingerprint: the first 32 bits of SHA-256 over name, type and key. */
  readonly id: number
  readonly type: SignatureType
  /** 32 octets. */
  readonly publicKey: Uint8Array
}

export type SignatureType = keyof typeof signatureTypes

export interface NoteSignature {
  readonly name: string
  readonly id: number
  /** What follows the key's id: for a cosignature the time, and then the signature. */
  readonly octets: Uint8Array
}

export interface Note {
  /** With the newline that ends it; signatures are over this. */
  readonly text: string
  readonly signatures: readonly NoteSignature[]
}

/** A signature that holds. */
export interface Signed {
  readonly key: VerifierKey
  /** Of a cosignature: seconds since 1970, which a date can tell. */
  readonly time: number | undefined
}

/** Whether an Ed25519 signature (64 octets) over a message is of a key (32 octets). */
export type VerifyEd25519 = (
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
) => boolean | Promise<boolean>

export interface NoteSigner {
  readonly key: VerifierKey
  /** An Ed25519 signature. */
  readonly sign: (message: Uint8Array) => Uint8Array | Promise<Uint8Array>
  /** For a cosignature: seconds since 1970. */
  readonly time?: number
}

export const encodeNote = ({ text, signatures }: Note): string => {
  assertText(text)
  return `${text}\n${encodeSignatures(signatures)}`
}

/** Lines of signatures, as in a note and as a witness answers with them. */
export const encodeSignatures = (signatures: readonly NoteSignature[]): string =>
  signatures.map(({ name, id, octets }) => `${dash}${name} ${concatOctets(encodeId(id), octets).toBase64()}\n`).join('')

/** Reads a note of at most a million octets and a hundred signatures. Says nothing of whether they hold. Throws `note.text`. */
export const parseNote = (input: string | Uint8Array): Note => {
  const note = readText(input, 'note.text', maxNoteOctets)
  const blank = note.lastIndexOf('\n\n')
  if (blank < 0) throw new RollFault('note.text', 'there is no empty line before the signatures')
  const text = note.slice(0, blank + 1)
  assertText(text)
  return { text, signatures: parseSignatures(note.slice(blank + 2)) }
}

/** Reads lines of signatures: at least one, at most a hundred. Throws `note.text`. */
export const parseSignatures = (input: string | Uint8Array): readonly NoteSignature[] => {
  const text = readText(input, 'note.text', maxNoteOctets)
  const lines = text.split('\n', maxSignatures + 1)
  if (lines.pop() !== '' || lines.length === 0)
    throw new RollFault('note.text', `there are no signatures, more than ${maxSignatures}, or a line without an end`)
  return lines.map(readSignature)
}

/** The signatures of known keys, in their order. Throws `note.signature` if one of them does not hold, `note.unsigned` without any. */
export const verifyNote = async (
  { text, signatures }: Note,
  keys: readonly VerifierKey[],
  verify: VerifyEd25519,
): Promise<readonly Signed[]> => {
  const signed: Signed[] = []
  for (const signature of signatures) {
    const key = keys.find(({ name, id }) => name === signature.name && id === signature.id)
    // A second signature of a key says nothing new.
    if (key === undefined || signed.some((before) => before.key === key)) continue
    const time = await verifySignature(text, signature.octets, key, verify)
    signed.push({ key, time })
  }
  if (signed.length === 0) throw new RollFault('note.unsigned', 'none of its signatures is by a known key')
  return signed
}

/** A signature of a text, to be put under it. */
export const signText = async (text: string, { key, sign, time }: NoteSigner): Promise<NoteSignature> => {
  assertText(text)
  const { isTimed } = signatureTypes[key.type]
  if (isTimed !== (time !== undefined))
    throw new TypeError(`a key of type ${key.type} signs ${isTimed ? 'a' : 'no'} time`)
  const signature = await sign(signedOctets(text, time))
  const octets = time === undefined ? signature : concatOctets(encodeTime(time), signature)
  return { name: key.name, id: key.id, octets }
}

/** A key by its name and its 32 octets; its id follows from them. Throws `key.text` for a name that no signature could bear. */
export const makeVerifierKey = (key: Omit<VerifierKey, 'id'>, sha256: Sha256): VerifierKey => {
  const { name, type, publicKey } = key
  if (!isName(name)) throw new RollFault('key.text', 'the name is empty, or has spaces, a plus or a control character')
  if (publicKey.length !== keyOctets) throw new RollFault('key.text', `the key does not have ${keyOctets} octets`)
  const typed = concatOctets(Uint8Array.of(signatureTypes[type].octet), publicKey)
  const digest = sha256(concatOctets(encodeText(`${name}\n`), typed))
  return { name, type, publicKey, id: decodeId(digest) }
}

/** `name+id+base64`, as keys are handed to those who verify. */
export const encodeVerifierKey = ({ name, id, type, publicKey }: VerifierKey): string =>
  `${name}+${encodeId(id).toHex()}+${concatOctets(Uint8Array.of(signatureTypes[type].octet), publicKey).toBase64()}`

/** The other way. Throws `key.text`, also for an id that is not the key's, and for a type that is not known here. */
export const parseVerifierKey = (text: string, sha256: Sha256): VerifierKey => {
  const [name = '', id = '', ...rest] = readText(text, 'key.text', maxKeyOctets).split('+')
  // Base64 has pluses of its own.
  const typed = readBase64(rest.join('+'), 'key.text', 'the key')
  const type = typeNames.find((one) => signatureTypes[one].octet === typed[0])
  if (type === undefined) throw new RollFault('key.text', 'the type of the key is not known')
  const key = makeVerifierKey({ name, type, publicKey: typed.subarray(1) }, sha256)
  if (encodeId(key.id).toHex() !== id) throw new RollFault('key.text', 'the id is not that of the key')
  return key
}

/** The time of a cosignature. Throws `note.signature`. */
const verifySignature = async (
  text: string,
  octets: Uint8Array,
  key: VerifierKey,
  verify: VerifyEd25519,
): Promise<number | undefined> => {
  const { isTimed } = signatureTypes[key.type]
  const before = isTimed ? timeOctets : 0
  if (octets.length === before + signatureOctets) {
    const time = isTimed ? decodeTime(octets) : undefined
    const isTime = time === undefined || time <= lastTime
    if (isTime && (await verify(key.publicKey, signedOctets(text, time), octets.subarray(before)))) return time
  }
  throw new RollFault('note.signature', `the signature by ${key.name} does not hold`)
}

const signedOctets = (text: string, time: number | undefined): Uint8Array =>
  encodeText(time === undefined ? text : `cosignature/v1\ntime ${time}\n${text}`)

const readSignature = (line: string): NoteSignature => {
  const [name = '', encoded = '', ...rest] = line.slice(dash.length).split(' ')
  if (!line.startsWith(dash) || !isName(name) || rest.length > 0)
    throw new RollFault('note.text', 'a line of a signature is not a dash, a name and base64')
  const octets = readBase64(encoded, 'note.text', 'a signature')
  if (octets.length <= idOctets) throw new RollFault('note.text', 'a signature is no longer than the id of a key')
  return { name, id: decodeId(octets), octets: octets.subarray(idOctets) }
}

/** No control characters but the newlines, of which one ends it. */
const assertText = (text: string): void => {
  if (!text.endsWith('\n') || controls.test(text) || !text.isWellFormed())
    throw new RollFault('note.text', 'the text does not end its last line, or has control characters')
}

const isName = (name: string): boolean => name !== '' && !notInNames.test(name) && name.isWellFormed()

const encodeId = (id: number): Uint8Array => Uint8Array.of(id >>> 24, id >>> 16, id >>> 8, id)
const decodeId = (octets: Uint8Array): number => new DataView(octets.buffer, octets.byteOffset, idOctets).getUint32(0)

const encodeTime = (time: number): Uint8Array => {
  const octets = new Uint8Array(timeOctets)
  new DataView(octets.buffer).setBigUint64(0, BigInt(time))
  return octets
}
const decodeTime = (octets: Uint8Array): number =>
  Number(new DataView(octets.buffer, octets.byteOffset, timeOctets).getBigUint64(0))

const signatureTypes = {
  ed25519: { octet: 0x01, isTimed: false },
  cosignature: { octet: 0x04, isTimed: true },
} as const
const typeNames = Object.keys(signatureTypes) as readonly SignatureType[]

const dash = '\u2014 '
/** Those below U+0020 but the newline. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const controls = /[\0-\x09\x0b-\x1f]/
/** Control characters too: they would end a line, or be none of a note's. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const notInNames = /[\0-\x1f+\p{White_Space}]/u
/** The last second that a date can tell: whoever signs a later one has no clock. All up to it are told apart as numbers. */
const lastTime = 8_640_000_000_000
const idOctets = 4
const timeOctets = 8
const keyOctets = 32
const signatureOctets = 64
const maxSignatures = 100
const maxNoteOctets = 1_000_000
const maxKeyOctets = 4_096

/**
 * Every serial of a roll with how it stands, exactly: 24 octets in a hash table that is between three eighths and three
 * quarters full, so 32 to 64 octets a serial, and no objects. It grows in 64 parts, one at a time, so that growing neither
 * doubles the memory nor takes long.
 */

export type Standing = (typeof standings)[number]

export interface SerialRecord {
  /** The entry that told of it first. */
  readonly index: number
  /** The issuer's number, below `maxIssuers`. */
  readonly issuer: number
  readonly standing: Standing
}

export interface SerialTable {
  readonly size: number
  find(serial: string): SerialRecord | undefined
  /** Puts a record in, unless there is one: then it is told. */
  add(serial: string, record: SerialRecord): SerialRecord | undefined
  /** Puts a record in, or in place of the one that is there. */
  set(serial: string, record: SerialRecord): void
  /** Base64, 32 octets of it a serial, in pieces of at most a megabyte. */
  save(): string[]
}

/** Issuers from here on share one number. */
export const maxIssuers = 2 ** 20

/** `seed` is 32 bits that nobody knew who made the roll: with them, serials that were chosen to meet in one slot do not. */
export const openSerialTable = (saved: readonly string[] = [], seed = 0): SerialTable => {
  const parts = Array.from({ length: partCount }, () => newPart(firstCapacity))
  const partOf = (key: Key): Part => parts[key.hash >>> (32 - partBits)] as Part
  let size = 0
  const put = (part: Part, key: Key, low: number, high: number): void => {
    const at = slotOf(part, key)
    const { words } = part
    const isNew = words[at + standingWord] === 0
    words.set(key.words, at)
    words[at + 4] = low
    words[at + standingWord] = high
    if (!isNew) return
    part.used += 1
    size += 1
    if (part.used * 4 > part.capacity * 3) grow(part, seed)
  }
  const findBy = (key: Key): SerialRecord | undefined => {
    const { words } = partOf(key)
    const at = slotOf(partOf(key), key)
    const high = words[at + standingWord] as number
    if (high === 0) return undefined
    const index = (words[at + 4] as number) + (high >>> 24) * 2 ** 32
    return { index, issuer: (high >>> 3) % maxIssuers, standing: standings[high & 7] as Standing }
  }
  for (const piece of saved) {
    const octets = Uint8Array.fromBase64(piece)
    const words = new Uint32Array(octets.buffer, 0, octets.length / 4)
    for (let at = 0; at < words.length; at += slotWords) {
      const key = keyOf(words.slice(at, at + 4), seed)
      put(partOf(key), key, words[at + 4] as number, words[at + standingWord] as number)
    }
  }
  return {
    get size() {
      return size
    },
    find: (serial) => findBy(parseKey(serial, seed)),
    add: (serial, record) => {
      const key = parseKey(serial, seed)
      const before = findBy(key)
      if (before === undefined) put(partOf(key), key, record.index >>> 0, highOf(record))
      return before
    },
    set: (serial, record) => {
      const key = parseKey(serial, seed)
      put(partOf(key), key, record.index >>> 0, highOf(record))
    },
    save: () => parts.flatMap(piecesOf),
  }
}

interface Part {
  capacity: number
  used: number
  words: Uint32Array
}

interface Key {
  readonly words: Uint32Array
  readonly hash: number
}

const newPart = (capacity: number): Part => ({ capacity, used: 0, words: new Uint32Array(capacity * slotWords) })

/** Digit by digit: strings in between would take several times as long (measured). */
const parseKey = (serial: string, seed: number): Key => {
  const words = new Uint32Array(4)
  for (let i = 0; i < 4; i += 1) {
    let word = 0
    for (let at = 8 * i; at < 8 * i + 8; at += 1) word = (word << 4) | digitOf(serial.charCodeAt(at))
    words[i] = word
  }
  return keyOf(words, seed)
}

/** Of 0 to 9 and a to f, which is all that a serial has. */
const digitOf = (code: number): number => (code < 0x3a ? code - 0x30 : code - 0x57)

const highOf = ({ index, issuer, standing }: SerialRecord): number =>
  ((Math.floor(index / 2 ** 32) << 24) | (issuer << 3) | standings.indexOf(standing)) >>> 0

/** Serials are random, but nobody says so of those that a verifier is shown: all of their bits are stirred. */
const keyOf = (words: Uint32Array, seed: number): Key => {
  let hash = seed
  for (const word of words) {
    hash = Math.imul(hash ^ word, 0x9e3779b1)
    hash ^= hash >>> 15
    hash = Math.imul(hash, 0x85ebca6b)
    hash ^= hash >>> 13
  }
  return { words, hash }
}

/** Where the key is, or where it would be put. */
const slotOf = ({ words, capacity }: Part, { words: key, hash }: Key): number => {
  for (let slot = hash & (capacity - 1); ; slot = (slot + 1) & (capacity - 1)) {
    const at = slot * slotWords
    if (words[at + standingWord] === 0) return at
    if (words[at] === key[0] && words[at + 1] === key[1] && words[at + 2] === key[2] && words[at + 3] === key[3])
      return at
  }
}

const grow = (part: Part, seed: number): void => {
  const { words } = part
  const larger = newPart(part.capacity * 2)
  for (const at of occupied(words)) {
    const slot = words.subarray(at, at + slotWords)
    larger.words.set(slot, slotOf(larger, keyOf(slot.subarray(0, 4), seed)))
  }
  part.capacity = larger.capacity
  part.words = larger.words
}

function* occupied(words: Uint32Array): Generator<number> {
  for (let at = 0; at < words.length; at += slotWords) if (words[at + standingWord] !== 0) yield at
}

const piecesOf = ({ words, used }: Part): string[] => {
  const dense = new Uint32Array(used * slotWords)
  let to = 0
  for (const at of occupied(words)) {
    dense.set(words.subarray(at, at + slotWords), to)
    to += slotWords
  }
  const octets = new Uint8Array(dense.buffer)
  return Array.from({ length: Math.ceil(octets.length / pieceOctets) }, (_, i) =>
    octets.subarray(i * pieceOctets, (i + 1) * pieceOctets).toBase64(),
  )
}

/** The first is that of a slot that is free. */
const standings = ['free', 'issued', 'abandoned', 'held', 'revoked', 'compromised'] as const
/** Four of the serial; the low half of the index; its high octet, so that indexes are exact below 2^40, the issuer and the standing. */
const slotWords = 6
const standingWord = 5
const partBits = 6
const partCount = 2 ** partBits
const firstCapacity = 64
const pieceOctets = 24 * 32_768

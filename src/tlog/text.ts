/** The small pieces that the text formats share; each has one spelling, and everything else is a fault. */
import { type FaultCode, RollFault } from './fault.ts'

/** Text from octets, which must be UTF-8. A string passes if it could have come so. The bound is in octets, or UTF-16 units. */
export const readText = (input: string | Uint8Array, code: FaultCode, max: number): string => {
  if (input.length > max) throw new RollFault(code, `it is longer than ${max} octets`)
  if (typeof input === 'string') {
    if (!input.isWellFormed()) throw new RollFault(code, 'it has a lone surrogate')
    return input
  }
  try {
    return utf8Strict.decode(input)
  } catch {
    throw new RollFault(code, 'it is not UTF-8')
  }
}

/** A size or an index: decimal, without leading zeros, and exact as a number (up to 2^53 - 1). */
export const readDecimal = (text: string, code: FaultCode, what: string): number => {
  const value = /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value))
    throw new RollFault(code, `${what} is not a decimal below 2^53 without leading zeros`)
  return value
}

/** RFC 4648 4, with padding, and with zeros in the bits that carry nothing: one text for one value. */
export const readBase64 = (text: string, code: FaultCode, what: string): Uint8Array => {
  try {
    const octets = Uint8Array.fromBase64(text, { lastChunkHandling: 'strict' })
    // What decodes to fewer octets than its length says has white space in it.
    if (text.length === Math.ceil(octets.length / 3) * 4) return octets
  } catch {}
  throw new RollFault(code, `${what} is not base64`)
}

/** Whether `readBase64` would read it, and how many octets, of text that has room in an entry; undefined where it would not. Nothing is kept of them. */
export const base64Length = (text: string): number | undefined => {
  try {
    const { written } = scratch.setFromBase64(text, { lastChunkHandling: 'strict' })
    return text.length === Math.ceil(written / 3) * 4 ? written : undefined
  } catch {
    return undefined
  }
}

export const readHash = (text: string, code: FaultCode, what: string): Uint8Array => {
  const hash = readBase64(text, code, what)
  if (hash.length !== 32) throw new RollFault(code, `${what} is not 32 octets`)
  return hash
}

export const encodeText = (text: string): Uint8Array => utf8.encode(text)

export const concatOctets = (...parts: readonly Uint8Array[]): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

export const isEqual = (a: Uint8Array, b: Uint8Array): boolean => {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return false
  return true
}

/** More than an entry has room for; it says nothing from one call to the next. */
const scratch = new Uint8Array(49_152)
const utf8 = new TextEncoder()
const utf8Strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Answers in ASCII, put together as octets. As a string, an answer is copied whole for its length, again with the header in
 * front, and by Node into three times the room; and what is put together of small strings is as many objects.
 */
import { openSlabs } from '../lib/slabs.ts'

/** Takes the parts of an answer in their order. */
export interface AnswerWriter {
  /** ASCII, as it is. */
  text(text: string): void
  /** RFC 4648 4. With a line end, lines of 64 characters as PEM has them, each of them ended. */
  base64(octets: Uint8Array, lineEnd?: string): void
}

/** What `write` puts together, which is done when it returns. */
export const asciiAnswer = (write: (answer: AnswerWriter) => void): Buffer => {
  used = 0
  write(writer)
  const answer = answers(used)
  answer.set(scratch.subarray(0, used))
  return answer
}

/** Makes room for so many octets more, and tells where. */
const reserve = (octets: number): number => {
  const at = used
  used += octets
  if (used > scratch.length) {
    const larger = Buffer.allocUnsafeSlow(2 * used)
    larger.set(scratch.subarray(0, at))
    scratch = larger
  }
  return at
}

const writer: AnswerWriter = {
  text: (text) => void scratch.write(text, reserve(text.length), 'latin1'),
  base64: (octets, lineEnd = '') => {
    const lines = Math.ceil(octets.length / octetsPerLine)
    let at = reserve(4 * Math.ceil(octets.length / 3) + lines * lineEnd.length)
    for (let start = 0; start < octets.length; start += octetsPerLine) {
      at = writeBase64(octets, start, { at, end: Math.min(start + octetsPerLine, octets.length) })
      for (let i = 0; i < lineEnd.length; i += 1) scratch[at++] = lineEnd.charCodeAt(i)
    }
  },
}

/** Two characters at a time; returns where they end. */
const writeBase64 = (
  octets: Uint8Array,
  start: number,
  place: { readonly at: number; readonly end: number },
): number => {
  const { end } = place
  let { at } = place
  for (let i = start; i < end; i += 3) {
    const [second, third] = [i + 1 < end ? octets[i + 1] : 0, i + 2 < end ? octets[i + 2] : 0] as [number, number]
    const word = ((octets[i] as number) << 16) | (second << 8) | third
    const [high, low] = [pairs[word >> 12], pairs[word & 0xfff]] as [number, number]
    scratch[at] = high >> 8
    scratch[at + 1] = high & 0xff
    scratch[at + 2] = i + 1 < end ? low >> 8 : padding
    scratch[at + 3] = i + 2 < end ? low & 0xff : padding
    at += 4
  }
  return at
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const padding = 0x3d
/** Of twelve bits, both characters in one number. */
const pairs = Uint16Array.from(
  { length: 4_096 },
  (_, bits) => (alphabet.charCodeAt(bits >> 6) << 8) | alphabet.charCodeAt(bits & 63),
)
const octetsPerLine = 48

/** Where every answer is put together; larger when one was. */
let scratch = Buffer.allocUnsafeSlow(32_768)
let used = 0
const answers = openSlabs(32_768)

/**
 * What the service and its signer say to each other: records on one private socket, a length in front of each. What is
 * said in one turn of the event loop goes out in one write, so that many signatures cost one waking of the other side.
 */
import type { Socket } from 'node:net'

import { longestMessage } from '../signing-key.ts'

/** A question and its answer have the same id; what nobody asked for has 0. */
export interface SignerRecord {
  readonly id: number
  /** What it is: one of `verbs` going up, one of `answers` coming down. */
  readonly kind: number
  readonly body: Buffer
}

/** The body may come in parts. */
export interface SaidRecord extends Omit<SignerRecord, 'body'> {
  readonly body: Buffer | readonly Buffer[]
}

export interface SignerStream {
  say(record: SaidRecord): void
  /** After what was said so far; resolves when that has left. */
  end(): Promise<void>
}

export const verbs = { open: 1, create: 2, sign: 3, close: 4, logIn: 5 } as const
export const answers = {
  done: 0,
  /** Signing faults, by when they came. */
  before: 1,
  late: 2,
  unknown: 3,
  /** Why it was not done, as `faults.ts` writes it. */
  failed: 4,
  /** Unasked: the signer cannot begin, and ends. */
  unfit: 5,
  /** Unasked: how busy the provider is. */
  load: 6,
  /** Unasked: why it answers what it was asked until now, and then ends. */
  leaving: 7,
} as const

/** `heard` is called for each record, in order. A record beyond the bound ends the socket with an error. */
export const openSignerStream = (socket: Socket, heard: (record: SignerRecord) => void): SignerStream => {
  /** What was said lies here from `from` to `to`; what was sent stays as it is, since the socket may still need it. */
  let slab: Buffer = nothing
  let from = 0
  let to = 0
  /**
   * What was heard of a record that is not whole, and how much of it there must be before it is looked at: put together each
   * time that a little comes, a list of many revocations would cost its size squared (60 MiB: a minute).
   */
  let parts: Buffer[] = []
  let held = 0
  let wanted = headOctets
  const flush = (): void => {
    const octets = slab.subarray(from, to)
    from = to
    if (octets.length > 0 && socket.writable) socket.write(octets)
    // One that was made for a large record would stay for long; the socket keeps what it still needs.
    if (slab.length > slabOctets) {
      slab = nothing
      from = 0
      to = 0
    }
  }
  const reserve = (octets: number): void => {
    if (to + octets <= slab.length) return
    const unsent = to - from
    const next = Buffer.allocUnsafeSlow(Math.max(slabOctets, 2 * unsent, unsent + octets))
    to = slab.copy(next, 0, from, to)
    from = 0
    slab = next
  }
  socket.on('data', (chunk: Buffer) => {
    parts.push(chunk)
    held += chunk.length
    if (held < wanted) return
    const octets = parts.length === 1 ? chunk : Buffer.concat(parts, held)
    let at = 0
    wanted = headOctets
    while (octets.length - at >= headOctets) {
      const length = octets.readUInt32BE(at)
      if (length > maxBodyOctets) return void socket.destroy(new RangeError(`a record of ${length} octets`))
      wanted = headOctets + length
      if (octets.length - at < wanted) break
      const body = octets.subarray(at + headOctets, at + wanted)
      heard({ id: octets.readUInt32BE(at + 4), kind: octets[at + 8] ?? 0, body })
      at += wanted
      wanted = headOctets
    }
    held = octets.length - at
    parts = held === 0 ? [] : [octets.subarray(at)]
  })
  return {
    say: ({ id, kind, body }) => {
      const parts = Buffer.isBuffer(body) ? [body] : body
      const length = parts.reduce((sum, part) => sum + part.length, 0)
      reserve(headOctets + length)
      // After every promise that this turn settles.
      if (from === to) process.nextTick(flush)
      slab.writeUInt32BE(length, to)
      slab.writeUInt32BE(id, to + 4)
      slab[to + 8] = kind
      to += headOctets
      for (const part of parts) to += part.copy(slab, to)
    },
    end: () => {
      flush()
      return new Promise((resolve) => socket.end(resolve))
    },
  }
}

export const encodeJson = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
export const decodeJson = (body: Buffer): unknown => JSON.parse(body.toString('utf8'))

/** Of the body of `sign`: the key's handle and the time it has, in ms; then comes the message. */
export const signHeadOctets = 8
const nothing = Buffer.alloc(0)
const slabOctets = 16_384
const headOctets = 9
const maxBodyOctets = longestMessage + signHeadOctets

/**
 * How connections to a listener with TLS begin. OpenSSL takes a ClientHello of 128 KiB, and looks for the group of each key share
 * among all that it names, on the one thread that answers everybody: 64 KiB of them take 70 ms, which is sixty handshakes
 * (measured), and whoever sends them needs to be nobody. So it sees none that is longer than any that a client sends.
 */
import type { Socket } from 'node:net'
import type { Server } from 'node:tls'

import { requestTimeout } from './bounds.ts'

export type Begin = (raw: Socket) => void

/** `greeted` has each connection once its ClientHello has begun, within `timeout` milliseconds; to hand it to TLS is `begin`. */
export const boundHellos = (
  server: Server,
  greeted: (raw: Socket, begin: Begin) => void = (raw, begin) => begin(raw),
  timeout: number = requestTimeout,
): void => {
  const [ofTls] = server.listeners('connection')
  const begin: Begin = (raw) => ofTls?.call(server, raw)
  server
    .removeListener('connection', ofTls as () => void)
    .prependListener('connection', (raw: Socket) => onceGreeting(raw, timeout, () => greeted(raw, begin)))
}

/** A connection that says nothing, as a probe's or one that a browser has in stock, is nobody's affair until it does. */
const onceGreeting = (raw: Socket, timeout: number, go: () => void): void => {
  // From the beginning: whoever sends an octet at a time has no more of it by each.
  const timer = setTimeout(() => raw.destroy(), timeout)
  let octets = nothing
  const look = (): void => {
    const more = raw.read()
    if (more === null) return void raw.destroy()
    octets = Buffer.concat([octets, more])
    if (!isTold(octets)) return void raw.once('readable', look)
    if (isTooLong(octets) || isHiding(octets)) return void raw.destroy()
    clearTimeout(timer)
    raw.unshift(octets)
    // What ends with the connection would else keep it as long.
    octets = nothing
    go()
  }
  // Of one that breaks off while it waits.
  raw.on('error', () => {})
  raw.once('close', () => clearTimeout(timer))
  raw.once('readable', look)
}

/** Whether the length is there, behind the header of a record (RFC 8446 5.1, 4); what is no handshake is for TLS to refuse. */
const isTold = (octets: Buffer): boolean => octets[0] !== handshakeRecord || octets.length >= headers

/** One whose length is in the next record was made to hide it. */
const isTooLong = (octets: Buffer): boolean =>
  octets[0] === handshakeRecord &&
  (octets.readUInt16BE(3) < headers - recordHeader || octets.readUIntBE(6, 3) > longest)

/** An empty one of these OpenSSL passes over, and reads what follows; before a ClientHello it is of nobody (RFC 8446 5). */
const isHiding = ([type]: Buffer): boolean => type === changeCipherSpec

const nothing = Buffer.alloc(0)
const changeCipherSpec = 20
const handshakeRecord = 22
const recordHeader = 5
const headers = recordHeader + 4
/** Octets: a session to resume has the certificate of its client in it, which with ML-DSA-87 is ten thousand. */
const longest = 16 * 1_024

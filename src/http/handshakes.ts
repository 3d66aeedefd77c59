/**
 * Certificates that clients show, by what they cost before anybody is known: OpenSSL takes a hundred kilobytes of them, and checks
 * each by the key of the next, on the one thread that answers everybody (measured: half a second for one connection, and 1.6 MB as
 * long as it is open). Node cannot tell it to take fewer. So what is more than usual has an allowance: whoever has used that up is
 * not asked for a certificate for a while, and is served as ever by whatever else he shows.
 */
import type { Socket } from 'node:net'
import { createServer, type Server, type TLSSocket, type TlsOptions } from 'node:tls'

import type { FastifyReply, FastifyRequest } from 'fastify'

import { isProblem, Problem } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import { boundHellos } from './hellos.ts'
import { openPeers, type ProxySettings } from './peers.ts'

export interface Handshakes {
  /** Milliseconds until it would be asked again; 0 where it was asked for a certificate. */
  unaskedFor(socket: Socket): number
}

export interface HandshakeBounds {
  /** Of the server. */
  readonly tls: TlsOptions
  readonly proxies: ProxySettings
  readonly now?: () => number
}

/** Of a listener that asks nobody. */
export const noHandshakes: Handshakes = { unaskedFor: () => 0 }

export const boundHandshakes = (
  server: Server,
  { tls, proxies, now = () => performance.now() }: HandshakeBounds,
): Handshakes => {
  const peerOf = openPeers(proxies)
  const allowances = openAllowances(now)
  const places = openPlaces((address) => allowances.waitMs(address) === 0)
  const underWay = new Map<string, Handshake>()
  const unasked = new WeakMap<Socket, string>()
  const unasking = unaskingBeside(server, tls)
  unasking.on('secureConnection', (socket: TLSSocket) => {
    unasked.set(socket, peerOf({ headers: {}, raw: { socket } }).address)
    server.emit('secureConnection', socket)
  })
  const charge = (handshake: Handshake, octets: number): void => {
    const more = octets - usual - handshake.charged
    if (more <= 0) return
    handshake.charged += more
    allowances.take(handshake.address, more)
  }
  // Also of those that never end: what was sent has cost what it costs.
  const timer = setInterval(() => {
    for (const handshake of underWay.values()) charge(handshake, handshake.raw.bytesRead)
    places.sweep()
  }, sweepMs).unref()
  server.once('close', () => clearInterval(timer))

  const ask = (raw: Socket, address: string, leave: Leave): void => {
    const key = keyOf(raw)
    const handshake: Handshake = { raw, address, leave, charged: 0 }
    underWay.set(key, handshake)
    raw.once('close', () => {
      leave()
      // The same port may have come again.
      if (underWay.get(key) !== handshake) return
      underWay.delete(key)
      charge(handshake, raw.bytesRead)
    })
  }
  boundHellos(server, (raw, begin) => {
    const { address, isProxy } = peerOf({ headers: {}, raw: { socket: raw } })
    // Whose own certificate is nobody's.
    if (isProxy) return unasking.emit('connection', raw)
    places.take({ raw, address }, (leave) => {
      if (!leave) return unasking.emit('connection', raw)
      ask(raw, address, leave)
      begin(raw)
    })
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    const key = keyOf(socket)
    const handshake = underWay.get(key)
    if (!handshake || unasked.has(socket)) return
    underWay.delete(key)
    // Here: of a connection that has ended there is none to ask for.
    const shown = octetsShown(socket)
    if (shown === 0) return handshake.leave()
    // A request may have come with its last octets, and is counted apart once it was taken out. Nobody is asked before.
    setImmediate(() => {
      charge(handshake, octetsOfHandshake(handshake.raw.bytesRead - socket.bytesRead, shown))
      handshake.leave()
    })
  })
  return {
    unaskedFor: (socket) => {
      const address = unasked.get(socket)
      return address === undefined ? 0 : Math.max(1, allowances.waitMs(address))
    },
  }
}

/**
 * Who is not asked has a server of his own, which listens nowhere: a session that was begun there is not resumed where certificates
 * are asked for, by somebody who could not show his then and is told that he has none.
 */
const unaskingBeside = (server: Server, tls: TlsOptions): Server => {
  const unasking = createServer({ ...tls, requestCert: false })
  unasking.on('tlsClientError', (error, socket) => server.emit('tlsClientError', error, socket))
  const renew = server.setSecureContext.bind(server)
  server.setSecureContext = (options) => {
    renew(options)
    unasking.setSecureContext(options)
  }
  return unasking
}

/** Octets of the certificates that were shown. Node has them as they came: also where one is not the issuer of that before it. */
const octetsShown = (socket: TLSSocket): number => {
  let octets = 0
  for (let next = socket.getPeerX509Certificate(); next; next = next.issuerCertificate) octets += next.raw.length
  return octets
}

/**
 * Octets of a handshake that has ended, by those that were read and not taken out: a record that came behind it may be among them in
 * part, and cannot be told from it.
 */
const octetsOfHandshake = (octets: number, shown: number): number =>
  Math.min(octets, Math.max(octets - longestRecord, shown + besides))

type Leave = () => void
type Begin = (leave: Leave | undefined) => void

interface Comer {
  readonly raw: Socket
  readonly address: string
}

interface Waiter extends Comer {
  /** Sweeps before it. */
  readonly since: number
  readonly begin: Begin
}

/**
 * How many at a time may be about to show one: all that send theirs at the same moment are checked before anything here runs again.
 * `begin` is called with a place, at once or when it is his turn, which addresses have one after the other; without one where that
 * takes too long, or he may not be asked.
 */
const openPlaces = (mayBeAsked: (address: string) => boolean) => {
  let sweeps = 0
  /** The oldest first. */
  const taken = new Map<Socket, number>()
  const waiting = new Map<string, Set<Waiter>>()
  const enter = ({ raw, address }: Comer, begin: Begin): void => {
    if (raw.destroyed) return
    if (!mayBeAsked(address)) return begin(undefined)
    taken.set(raw, sweeps)
    begin(() => {
      if (taken.delete(raw)) next()
    })
  }
  const remove = (waiter: Waiter): void => {
    const own = waiting.get(waiter.address)
    if (!own?.delete(waiter)) return
    // Behind the other addresses.
    waiting.delete(waiter.address)
    if (own.size > 0) waiting.set(waiter.address, own)
  }
  const next = (): void => {
    while (taken.size < mostAtOnce) {
      const [[waiter] = []] = waiting.values()
      if (!waiter) return
      remove(waiter)
      enter(waiter, waiter.begin)
    }
  }
  return {
    take: (comer: Comer, begin: Begin): void => {
      if (taken.size < mostAtOnce || !mayBeAsked(comer.address)) return enter(comer, begin)
      const waiter: Waiter = { ...comer, since: sweeps, begin }
      const own = waiting.get(comer.address) ?? new Set()
      waiting.set(comer.address, own.add(waiter))
      comer.raw.once('close', () => remove(waiter))
    },
    /** Whoever waits need not do so for those that go no further, nor for ever. No time counts in which nobody was heard. */
    sweep: (): void => {
      sweeps += 1
      if (waiting.size > 0) for (const [raw, since] of taken) if (sweeps - since > stalled) raw.destroy()
      for (const waiter of [...waiting.values()].flatMap((own) => [...own]))
        if (sweeps - waiter.since > patience) {
          remove(waiter)
          if (!waiter.raw.destroyed) waiter.begin(undefined)
        }
    },
  }
}

interface UnaskedDeps {
  readonly handshakes: Handshakes
  readonly metrics: Pick<Metrics, 'limited'>
}

interface Exchange {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
}

/** Whoever could not show a certificate, since this connection did not ask for one, is to come again on another. */
export const unaskedOr = (error: Error, { handshakes, metrics }: UnaskedDeps, { request, reply }: Exchange): Error => {
  if (!isProblem(error, 'auth.missing') || request.peer?.isProxy) return error
  const waitMs = handshakes.unaskedFor(request.raw.socket)
  if (waitMs === 0) return error
  metrics.limited('failedAuthentication')
  reply.header('connection', 'close')
  return new Problem(
    'limit.failed_authentication',
    'This connection was not asked for a client certificate: too many came with long chains.',
    { retryAfter: Math.ceil(waitMs / 1000), reason: 'handshakes' },
  )
}

interface Handshake {
  readonly raw: Socket
  readonly address: string
  readonly leave: Leave
  /** Octets. */
  charged: number
}

/** What is left, in octets: of each address that has used any, and of all together. */
const openAllowances = (now: () => number) => {
  const all = { left: ofAll.most, at: now() }
  const byAddress = new Map<string, Allowance>()
  const refilled = (allowance: Allowance, { most, perSecond }: Bound): Allowance => {
    const present = now()
    allowance.left = Math.min(most, allowance.left + ((present - allowance.at) / 1_000) * perSecond)
    allowance.at = present
    return allowance
  }
  const waitOf = (allowance: Allowance | undefined, bound: Bound): number =>
    allowance ? Math.max(0, -refilled(allowance, bound).left / bound.perSecond) * 1_000 : 0
  return {
    take: (address: string, octets: number): void => {
      const known = byAddress.get(address) ?? { left: ofOne.most, at: now() }
      refilled(known, ofOne).left -= octets
      refilled(all, ofAll).left -= octets
      // Behind those that have been away.
      byAddress.delete(address)
      byAddress.set(address, known)
      const [oldest] = byAddress.keys()
      if (byAddress.size > mostAddresses && oldest !== undefined) byAddress.delete(oldest)
    },
    waitMs: (address: string): number => Math.max(waitOf(byAddress.get(address), ofOne), waitOf(all, ofAll)),
  }
}

interface Allowance {
  left: number
  at: number
}

interface Bound {
  readonly most: number
  readonly perSecond: number
}

/** Also of where it came to: the same port may have come to another address of ours. */
const keyOf = ({ remoteAddress, remotePort, localAddress }: Socket): string =>
  `${remoteAddress} ${remotePort} ${localAddress}`

/** Octets of a handshake with a chain of three certificates with P-256 keys, and a key share of ML-KEM. */
const usual = 4 * 1_024
/** Octets of it that are not of the chain. */
const besides = 2 * 1_024
/** Octets, with its header (RFC 8446 5.2). */
const longestRecord = 5 + 16 * 1_024 + 256
/** Octets beyond that: one of the longest chains at once, and one of ML-DSA-87 keys each few seconds. */
const ofOne: Bound = { most: 128 * 1_024, perSecond: 4 * 1_024 }
const ofAll: Bound = { most: 1_024 * 1_024, perSecond: 16 * 1_024 }
const mostAddresses = 10_000
/** Handshakes that ask, from their first octets to their end: half a second each at the worst; two hundred honest ones a second. */
const mostAtOnce = 16
/** Milliseconds. */
const sweepMs = 100
/** Sweeps: two seconds, and five. */
const stalled = 20
const patience = 50

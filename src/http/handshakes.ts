/**
 * Certificates that clients show, by what they cost before anybody is known: OpenSSL takes a hundred kilobytes of them, and checks
 * each by the key of the next, on the one thread that answers everybody (measured: half a second for one connection, and 1.6 MB as
 * long as it is open). Node cannot tell it to take fewer. So what is more than usual has an allowance: whoever has used that up is
 * not asked for a certificate for a while, and is served as ever by whatever else he shows.
 */
import type { Socket } from 'node:net'
import type { Server, TLSSocket } from 'node:tls'

import type { FastifyReply, FastifyRequest } from 'fastify'

import { isProblem, Problem } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import { openPeers, type ProxySettings } from './peers.ts'

export interface Handshakes {
  /** Milliseconds until it would be asked again; 0 where it was asked for a certificate. */
  unaskedFor(socket: Socket): number
}

/** Of a listener that asks nobody. */
export const noHandshakes: Handshakes = { unaskedFor: () => 0 }

export const boundHandshakes = (server: Server, proxies: ProxySettings, now = () => performance.now()): Handshakes => {
  const peerOf = openPeers(proxies)
  const places = openPlaces()
  const allowances = openAllowances(now)
  const underWay = new Map<string, Handshake>()
  const unasked = new WeakMap<Socket, string>()
  const charge = (handshake: Handshake, octets: number): void => {
    const more = octets - usual - handshake.charged
    if (more <= 0) return
    handshake.charged += more
    allowances.take(handshake.address, more)
  }
  // Also of those that never end: what was sent has cost what it costs.
  const timer = setInterval(() => {
    for (const handshake of underWay.values()) charge(handshake, handshake.raw.bytesRead)
  }, sweepMs).unref()
  server.once('close', () => clearInterval(timer))

  // Node looks whom to ask when it begins.
  const [begin] = server.listeners('connection')
  server.removeListener('connection', begin as () => void).prependListener('connection', (raw: Socket) => {
    const { address } = peerOf({ headers: {}, raw: { socket: raw } })
    // Of one that breaks off while it waits.
    raw.on('error', () => {})
    places.take(address, (leave) => {
      if (raw.destroyed) return leave?.()
      const isAsked = leave !== undefined && allowances.waitMs(address) === 0
      const handshake: Handshake = {
        raw,
        address,
        place: placeOf(raw),
        isAsked,
        leave: leave ?? (() => {}),
        charged: 0,
      }
      underWay.set(handshake.place, handshake)
      raw.once('close', () => {
        if (underWay.delete(handshake.place)) charge(handshake, raw.bytesRead)
        handshake.leave()
      })
      Object.assign(server, { requestCert: isAsked })
      begin?.call(server, raw)
    })
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    const handshake = underWay.get(placeOf(socket))
    if (!handshake) return
    underWay.delete(handshake.place)
    if (!handshake.isAsked) unasked.set(socket, handshake.address)
    if (!socket.getPeerX509Certificate()) return handshake.leave()
    // A request may have come with its last octets, and is counted apart once it was taken out. Nobody is asked before.
    setImmediate(() => {
      charge(handshake, handshake.raw.bytesRead - socket.bytesRead)
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

type Leave = () => void

/**
 * How many at a time may be about to show one: all that come at once would else be asked before the first of them has cost anything.
 * `begin` is called with a place, at once or when another is given back; without one where that takes too long, or all are taken.
 */
const openPlaces = () => {
  const taken = new Map<string, number>()
  const waiting = new Map<string, Set<() => void>>()
  let all = 0
  const add = (address: string, n: number): void => {
    all += n
    const own = (taken.get(address) ?? 0) + n
    if (own > 0) taken.set(address, own)
    else taken.delete(address)
  }
  const enter = (address: string): Leave => {
    add(address, 1)
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      add(address, -1)
      const [next] = waiting.get(address) ?? []
      next?.()
    }
  }
  return {
    take: (address: string, begin: (leave: Leave | undefined) => void): void => {
      if (all >= mostAtOnce) return begin(undefined)
      if ((taken.get(address) ?? 0) < mostOfOne) return begin(enter(address))
      const queue = waiting.get(address) ?? new Set()
      waiting.set(address, queue)
      const go = (leave: () => Leave | undefined): void => {
        clearTimeout(timer)
        queue.delete(next)
        if (queue.size === 0) waiting.delete(address)
        begin(leave())
      }
      const next = (): void => go(() => enter(address))
      const timer = setTimeout(() => go(() => undefined), patienceMs)
      queue.add(next)
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
  readonly place: string
  readonly isAsked: boolean
  readonly leave: Leave
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

const placeOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`

/** Octets of a handshake with a chain of three certificates with P-256 keys, and a key share of ML-KEM. */
const usual = 4 * 1_024
/** Octets beyond that: one of the longest chains at once, and one of ML-DSA-87 keys each few seconds. */
const ofOne: Bound = { most: 128 * 1_024, perSecond: 4 * 1_024 }
const ofAll: Bound = { most: 1_024 * 1_024, perSecond: 16 * 1_024 }
const mostAddresses = 10_000
/** Handshakes that ask, until they end. */
const mostOfOne = 8
const mostAtOnce = 64
/** Milliseconds. */
const patienceMs = 500
const sweepMs = 100

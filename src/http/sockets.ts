/**
 * Sockets by where they come from. Beyond the bound of a listener they are closed unanswered, whoever asks, a probe as well: so one
 * address never has all of them, be it a flood or a client that forgets to close what it opened.
 */
import type { Server, Socket } from 'node:net'

import type { Metrics } from '../metrics.ts'
import { noProxies, openPeers, type Peer, type ProxySettings } from './peers.ts'

export interface SocketBounds {
  /** At once, of which one address leaves a quarter to others unless it is a listed proxy. */
  readonly most: number
  readonly proxies?: ProxySettings | undefined
  readonly refused: Metrics['socketRefused']
}

export const shareSockets = (server: Server, { most, proxies = noProxies, refused }: SocketBounds): void => {
  const peerOf = openPeers(proxies)
  const places = openPlaces(most)
  server.maxConnections = most
  server.on('drop', () => refused('listener'))
  server.on('connection', (socket) => {
    const leave = places.take(peerOf({ headers: {}, raw: { socket } }))
    if (leave) return socket.once('close', leave)
    refused('address')
    socket.destroy()
  })
}

/**
 * TLS handshakes under way, which cost the most before anyone is known: a quarter of the sockets (or 64) at once, shared among addresses in
 * the same way. What is beyond is closed unanswered.
 */
export const shareHandshakes = (server: Server, { most, proxies = noProxies, refused }: SocketBounds): void => {
  const peerOf = openPeers(proxies)
  const places = openPlaces(Math.min(most, Math.max(64, Math.ceil(most / 4))))
  const underWay = new Map<string, Leave>()
  server.on('connection', (socket) => {
    if (socket.destroyed) return
    const key = portsOf(socket)
    const taken = places.take(peerOf({ headers: {}, raw: { socket } }))
    if (!taken) {
      refused('address')
      return socket.destroy()
    }
    const leave = (): void => {
      taken()
      if (underWay.get(key) === leave) underWay.delete(key)
    }
    underWay.set(key, leave)
    socket.once('close', leave)
  })
  server.on('secureConnection', (socket: Socket) => underWay.get(portsOf(socket))?.())
}

/** The connection, on either side of TLS. */
const portsOf = ({ remoteAddress, remotePort, localAddress }: Socket): string =>
  `${remoteAddress} ${remotePort} ${localAddress}`

/** So many places, of which one address leaves a quarter to others unless it is a listed proxy. To leave twice is to leave once. */
const openPlaces = (most: number) => {
  const share = Math.ceil((most * 3) / 4)
  const taken = new Map<string, number>()
  let all = 0
  return {
    take: ({ address, isProxy }: Peer): Leave | undefined => {
      const own = taken.get(address) ?? 0
      if (all >= most || (own >= share && !isProxy)) return undefined
      all += 1
      taken.set(address, own + 1)
      let isTaken = true
      return () => {
        if (!isTaken) return
        isTaken = false
        all -= 1
        const left = (taken.get(address) ?? 1) - 1
        if (left > 0) taken.set(address, left)
        else taken.delete(address)
      }
    },
  }
}

type Leave = () => void

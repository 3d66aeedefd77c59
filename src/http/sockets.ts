/**
 * Sockets by where they come from. Beyond the bound of a listener they are closed unanswered, whoever asks, a probe as well: so one
 * address never has all of them, be it a flood or a client that forgets to close what it opened.
 */
import type { Server as HttpServer } from 'node:http'
import type { Server, Socket } from 'node:net'

import type { Metrics } from '../metrics.ts'
import { noProxies, openPeers, type ProxySettings } from './peers.ts'
import { dueOn } from './unread.ts'

export interface SocketBounds {
  /** At once, of which one address leaves a quarter to others unless it is a listed proxy. */
  readonly most: number
  readonly proxies?: ProxySettings | undefined
  readonly refused: Metrics['socketRefused']
}

export const shareSockets = (server: Server, { most, proxies = noProxies, refused }: SocketBounds): void => {
  const peerOf = openPeers(proxies)
  const share = Math.ceil((most * 3) / 4)
  const open = new Map<string, number>()
  server.maxConnections = most
  server.on('drop', () => refused('listener'))
  server.on('connection', (socket) => {
    const { address, isProxy } = peerOf({ headers: {}, raw: { socket } })
    const count = open.get(address) ?? 0
    if (count >= share && !isProxy) {
      refused('address')
      return socket.destroy()
    }
    open.set(address, count + 1)
    socket.once('close', () => {
      const left = (open.get(address) ?? 1) - 1
      if (left > 0) open.set(address, left)
      else open.delete(address)
    })
  })
}

/**
 * Ends the connections of a server that is closing, so many milliseconds from now: whoever takes an answer an octet at a time would
 * else keep it, and all that is closed after it, open for as long as he likes.
 */
export const endConnectionsIn = (server: HttpServer, milliseconds: number): void => {
  const end = (): void => {
    server.closeAllConnections()
    for (const socket of letGo.get(server) ?? []) socket.destroy()
  }
  setTimeout(end, milliseconds).unref()
}

/**
 * Of a connection that Node has let go of for CONNECT, while answers are still due on it: else nobody would hear of its errors, of
 * its time, of room for the rest of an answer, or that all are to end.
 */
export const lookAfter = (server: HttpServer, socket: Socket): void => {
  const all = letGo.get(server) ?? new Set()
  letGo.set(server, all.add(socket))
  socket.once('close', () => all.delete(socket))
  socket.on('error', () => {}).on('timeout', () => socket.destroy())
  socket.on('drain', () => dueOn(socket)?.emit('drain'))
}

const letGo = new WeakMap<HttpServer, Set<Socket>>()

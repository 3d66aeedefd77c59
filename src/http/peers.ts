/**
 * Where a request comes from: the other end of its socket, or what a listed proxy says there. Nobody else's header fields
 * are believed: anyone can write them.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { BlockList, type Socket } from 'node:net'

import { alone } from '../lib/slabs.ts'
import { parseIp } from '../x509/addresses.ts'

export interface ProxySettings {
  /** Addresses and CIDRs of proxies. */
  readonly networks: readonly string[]
  /** The one field that they write; what they let through of the other is the client's. */
  readonly header: 'forwarded' | 'x-forwarded-for'
}

export interface Peer {
  /** What is counted as one: an IPv4 address, or the /64 of an IPv6 address, of which whoever has one has them all. */
  readonly address: string
  /** The other end of the socket is a listed proxy. */
  readonly isProxy: boolean
}

/** Of a listener that believes nobody's fields. */
export const noProxies: ProxySettings = { networks: [], header: 'x-forwarded-for' }

type Asked = { readonly headers: IncomingHttpHeaders; readonly raw: { readonly socket: Socket } }

export const openPeers = ({ networks, header }: ProxySettings): ((request: Asked) => Peer) => {
  const proxies = networkList(networks)
  const isProxy = (octets: Buffer): boolean => networks.length > 0 && contains(proxies, octets)
  const known = new WeakMap<Socket, Peer>()

  const peerOf = (socket: Socket) => {
    const found = known.get(socket)
    if (found) return found
    const octets = addressOf(socket.remoteAddress ?? '')
    const peer = {
      address: octets ? keyOf(octets) : 'socket',
      isProxy: octets !== undefined && isProxy(octets),
    }
    known.set(socket, peer)
    return peer
  }

  return ({ headers, raw: { socket } }) => {
    const peer = peerOf(socket)
    if (!peer.isProxy) return peer
    // From the last hop back, as long as each is a proxy that was listed: what stands before is anybody's word.
    let { address } = peer
    for (const hop of hopsOf(headers, header).reverse().slice(0, mostHops)) {
      const octets = addressOf(hop)
      if (!octets) break
      address = keyOf(octets)
      if (!isProxy(octets)) break
    }
    return { address, isProxy: true }
  }
}

/** What a proxy has verified of its client (RFC 9440 2.1), as DER; empty where it is not one certificate in that form. */
export const forwardedCertificate = ({ 'client-cert': field }: IncomingHttpHeaders): Buffer | undefined => {
  if (field === undefined) return undefined
  const [, base64 = ''] = /^ *:([A-Za-z0-9+/]+={0,2}): *$/.exec(String(field)) ?? []
  // It is kept with whom it makes of its client.
  return alone(Buffer.from(base64, 'base64'))
}

/** Each address that a proxy has written down, the nearest one last. */
const hopsOf = (headers: IncomingHttpHeaders, header: ProxySettings['header']): string[] => {
  const text = String(headers[header] ?? '')
  return header === 'forwarded' ? forwardedHops(text) : text.split(',')
}

/**
 * RFC 7239 4: elements with commas, pairs with semicolons; a value may be quoted, and an IPv6 address is. None where it is
 * not that as a whole, to its end: what a client leaves open would else swallow what the proxy has written after it.
 */
const forwardedHops = (text: string): string[] => {
  const hops: string[] = []
  let element = new Map<string, string>()
  forwardedPart.lastIndex = 0
  for (let isOver = false; !isOver; ) {
    const [, name, value = '', end] = forwardedPart.exec(text) ?? []
    if (end === undefined) return []
    isOver = end === ''
    const key = name?.toLowerCase()
    if (key !== undefined && element.has(key)) return []
    if (key !== undefined) element.set(key, value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value)
    if (end === ';') continue
    hops.push(element.get('for') ?? '')
    element = new Map()
  }
  return hops
}

/** Octets of an address that may have brackets, a port or a zone; IPv4 in IPv6 is IPv4. Undefined for what is none. */
const addressOf = (text: string): Buffer | undefined => {
  const [, six, four] = /^\s*(?:\[([^\]]*)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+)(?::\d+)?)\s*$/.exec(text) ?? []
  const octets = parseIp((six ?? four ?? text.trim()).replace(/%.*$/, ''))
  return octets?.length === 16 && octets.subarray(0, 12).equals(mapped) ? octets.subarray(12) : octets
}

const keyOf = (octets: Buffer): string => (octets.length === 4 ? octets.join('.') : octets.toString('hex', 0, 8))

const networkList = (networks: readonly string[]): BlockList => {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits] = network.split('/')
    const family = address.includes(':') ? 'ipv6' : 'ipv4'
    list.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family)
  }
  return list
}

const contains = (list: BlockList, octets: Buffer): boolean =>
  octets.length === 4
    ? list.check(octets.join('.'), 'ipv4')
    : list.check((octets.toString('hex').match(/.{4}/g) ?? []).join(':'), 'ipv6')

/** One pair, or none, and what ends it: that is nothing only at the end of the text. */
const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const forwardedPart = new RegExp(`[ \\t]*(?:(${token})=(${token}|"(?:[^"\\\\]|\\\\.)*")[ \\t]*)?(;|,|$)`, 'y')
const mapped = Buffer.from('00000000000000000000ffff', 'hex')
const mostHops = 32

/** A CA of clients that shares no code with `src`, so that it can sign whatever it likes; and clients over real TLS. */
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Agent, request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { SecureVersion, TLSSocket } from 'node:tls'

import {
  bits,
  commonName,
  extension,
  integer,
  octets,
  oid,
  pem,
  san,
  seq,
  signerOf,
  tlv,
  uri,
  yes,
} from '../x509/build.ts'
import { sha256 } from './hash.ts'
import { type Answer, type RequestOptions, send, type TestService } from './service.ts'

export interface TestClient {
  readonly der: Buffer
  /** PEM. */
  readonly cert: string
  readonly key: string
  /** SHA-256 in hex. */
  readonly fingerprint: string
}

export interface LeafParts {
  /** Name DER. */
  readonly subject?: Buffer
  readonly issuer?: Buffer
  /** Seconds from now. */
  readonly from?: number
  readonly to?: number
  /** One that is given replaces the one of its type; undefined leaves it out. */
  readonly usage?: Buffer | undefined
  readonly keyUsage?: Buffer | undefined
  readonly names?: readonly Buffer[]
  readonly more?: readonly Buffer[]
  readonly isCa?: boolean
  /** Spoils the signature. */
  readonly forged?: boolean
  readonly authorityKey?: Buffer
  /** What it is for; new ones otherwise. */
  readonly keys?: { readonly publicKey: KeyObject; readonly privateKey: KeyObject }
  /** 32 hexadecimal digits; by chance otherwise. */
  readonly serial?: string
}

export interface TestClientCa {
  readonly pem: string
  readonly der: Buffer
  readonly subject: Buffer
  certify(parts?: LeafParts): TestClient
}

export const clientAuth = extension('2.5.29.37', seq(oid('1.3.6.1.5.5.7.3.2')))
export const serverAuth = extension('2.5.29.37', seq(oid('1.3.6.1.5.5.7.3.1')))
export const digitalSignature = extension('2.5.29.15', tlv(0x03, Buffer.from([7, 0x80])), yes)
export const keyEncipherment = extension('2.5.29.15', tlv(0x03, Buffer.from([5, 0x20])), yes)
const certSigning = extension('2.5.29.15', tlv(0x03, Buffer.from([2, 0x04])), yes)
const isCa = extension('2.5.29.19', seq(yes), yes)

export interface CaParts {
  /** Its own, where it is not to be a new CA. */
  readonly keys?: LeafParts['keys']
  readonly extensions?: readonly Buffer[]
  readonly from?: number
  readonly to?: number
}

export const newKeys = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })

export const openClientCa = (name = 'Clients', parts: CaParts = {}): TestClientCa => {
  const { privateKey, publicKey } = parts.keys ?? newKeys()
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const signer = signerOf(privateKey, spki)
  const subject = commonName(name)
  const own = sha256(spki).subarray(0, 20)
  const seal = (tbs: Buffer, forged = false): Buffer =>
    seq(tbs, signer.algorithm, bits(signer.sign(forged ? Buffer.concat([tbs, Buffer.from([0])]) : tbs)))
  const tbsOf = (
    of: Required<Pick<LeafParts, 'subject' | 'issuer' | 'from' | 'to'>>,
    key: Buffer,
    extensions: Buffer[],
    serial = `40${randomBytes(15).toString('hex')}`,
  ) =>
    seq(
      tlv(0xa0, integer(2)),
      integer(BigInt(`0x${serial}`)),
      signer.algorithm,
      of.issuer,
      seq(time(of.from), time(of.to)),
      of.subject,
      key,
      tlv(0xa3, seq(...extensions)),
    )
  const der = seal(
    tbsOf({ subject, issuer: subject, from: parts.from ?? -3600, to: parts.to ?? 86_400 }, spki, [
      ...(parts.extensions ?? [isCa, certSigning]),
      extension('2.5.29.14', octets(own)),
    ]),
  )
  return {
    der,
    pem: pem(der, 'CERTIFICATE'),
    subject,
    certify: (leaf = {}) => {
      const { keys = newKeys() } = leaf
      const key = keys.publicKey.export({ type: 'spki', format: 'der' })
      const given = { usage: clientAuth, keyUsage: digitalSignature, ...leaf }
      const extensions = [
        extension('2.5.29.35', seq(tlv(0x80, leaf.authorityKey ?? own))),
        ...(leaf.isCa ? [isCa] : []),
        ...(given.keyUsage ? [given.keyUsage] : []),
        ...(given.usage ? [given.usage] : []),
        ...(leaf.names ? [san(...leaf.names)] : []),
        ...(leaf.more ?? []),
      ]
      const of = { subject: commonName('client'), issuer: subject, from: -60, to: 3600, ...leaf }
      const made = seal(tbsOf(of, key, extensions, leaf.serial), leaf.forged)
      return {
        der: made,
        cert: pem(made, 'CERTIFICATE'),
        key: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
        fingerprint: sha256(made).toString('hex'),
      }
    },
  }
}

/** A certificate for a SPIFFE id. */
export const spiffe = (id: string): LeafParts => ({ subject: seq(), names: [uri(id)] })

/** GeneralizedTime is only for the years from 2050 on. */
const time = (fromNow: number): Buffer => {
  const at = new Date(Date.now() + fromNow * 1000).toISOString().replaceAll(/[-:T]/g, '')
  return at < '2050'
    ? tlv(0x17, Buffer.from(`${at.slice(2, 14)}Z`, 'latin1'))
    : tlv(0x18, Buffer.from(`${at.slice(0, 14)}Z`, 'latin1'))
}

export interface TestConnection {
  request(method: string, path: string, options?: RequestOptions): Promise<Answer>
  /** Ports of our ends, in the order in which connections were opened. */
  readonly ports: readonly number[]
  /** Of the newest connection. */
  readonly isResumed: boolean
  close(): void
}

export interface ConnectionOptions {
  /** null: it shows none. */
  readonly client: Pick<TestClient, 'cert' | 'key'> | null
  readonly keepAlive?: boolean
  readonly version?: SecureVersion
}

export interface Trickle {
  /** Sends the rest; resolves to the answer. */
  finish(): Promise<{ readonly status: number; readonly code: string | undefined }>
}

/** A POST of JSON, of which only five octets have been sent when this resolves, and it has been let in. */
export const trickle = async (
  { url, ca }: Pick<TestService, 'url' | 'ca'>,
  path: string,
  { client, token, body }: { client?: Pick<TestClient, 'cert' | 'key'>; token?: string; body: object },
): Promise<Trickle> => {
  const text = JSON.stringify(body)
  const agent = new Agent({ ca, ...(client && { cert: client.cert, key: client.key }) })
  const headers = {
    'content-type': 'application/json',
    'content-length': String(text.length),
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
  }
  const call = httpsRequest(new URL(path, url), { agent, method: 'POST', headers })
  const answered = once(call, 'response') as Promise<[IncomingMessage]>
  await new Promise<void>((resolve) => call.write(text.slice(0, 5), () => resolve()))
  await sleep(300)
  return {
    finish: async () => {
      call.end(text.slice(5))
      const [answer] = await answered
      const octets = await answer.toArray()
      agent.destroy()
      return { status: answer.statusCode ?? 0, code: JSON.parse(Buffer.concat(octets).toString()).code }
    },
  }
}

/** One connection at a time, kept alive unless told otherwise; then each next one resumes the session of the last. */
export const connect = (
  { url, ca }: Pick<TestService, 'url' | 'ca'>,
  { client, keepAlive = true, version }: ConnectionOptions,
): TestConnection => {
  const sockets = new Set<Socket>()
  let isResumed = false
  const ports: number[] = []
  const agent = new Agent({
    ca,
    keepAlive,
    maxSockets: 1,
    ...(client && { cert: client.cert, key: client.key }),
    ...(version && { minVersion: version, maxVersion: version }),
  })
  agent.on('keylog', (_line: Buffer, socket: Socket) => {
    if (sockets.has(socket)) return
    sockets.add(socket)
    socket.once('secureConnect', () => {
      ports.push(socket.localPort ?? 0)
      isResumed = (socket as TLSSocket).isSessionReused()
    })
  })
  return {
    ports,
    get isResumed() {
      return isResumed
    },
    request: (method, path, options = {}) => send({ url: new URL(path, url), agent, method }, options),
    close: () => agent.destroy(),
  }
}

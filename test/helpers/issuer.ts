/** An identity provider over real HTTPS: what it says of itself, its keys, and tokens of any kind. */
import { createHmac, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'

import { dns, ip } from '../x509/build.ts'
import { openClientCa, serverAuth } from './clients.ts'

export interface TestKey {
  readonly kid: string
  readonly privateKey: KeyObject
  readonly jwk: object
  readonly pem: string
}

/** What goes wrong, one at a time. */
export type Trouble =
  | 'none'
  | 'down'
  | 'slow'
  | 'huge'
  | 'garbage'
  | 'redirect'
  | 'upgrade'
  | 'other issuer'
  | 'error'
  | 'keyless'

export interface TestIssuer {
  readonly url: string
  /** PEM of the CA of its server. */
  readonly ca: string
  readonly key: TestKey
  /** How often its keys were fetched. */
  readonly fetches: () => number
  trouble: Trouble
  /** A new key signs from now on, and is the only one that is published. */
  rotate(): void
  /** Claims as a provider makes them, for ten minutes and with an id. */
  claims(more?: object): Record<string, unknown>
  /** A token by its key. */
  token(more?: object, header?: object): string
  close(): Promise<void>
}

export const audience = 'https://ca.example.com'

export const newRsaKey = (): TestKey => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const kid = randomUUID()
  return {
    kid,
    privateKey,
    jwk: { ...publicKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' },
    pem: publicKey.export({ type: 'spki', format: 'pem' }) as string,
  }
}

export const openTestIssuer = async (t: { teardown(close: () => Promise<void>): void }): Promise<TestIssuer> => {
  const ca = openClientCa('HTTPS of an identity provider')
  const { cert, key: tlsKey } = ca.certify({ usage: serverAuth, names: [ip('7f000001'), dns('localhost')] })
  let key = newRsaKey()
  let fetches = 0
  const server = createServer({ cert, key: tlsKey }, (request, response) => {
    const { trouble } = issuer
    if (trouble === 'down') return void request.socket.destroy()
    if (trouble === 'slow') return
    if (trouble === 'error') return void response.writeHead(500).end()
    if (trouble === 'redirect') return void response.writeHead(302, { location: `${issuer.url}/elsewhere` }).end()
    if (trouble === 'upgrade') return void response.writeHead(101, { connection: 'upgrade', upgrade: 'other' }).end()
    if (trouble === 'garbage') return void response.end('<html>')
    if (trouble === 'huge') return void response.end(`{"keys":[],"x":"${'x'.repeat(1_000_000)}"}`)
    const type = request.url === '/keys' ? 'application/jwk-set+json' : 'application/json'
    // As kube-apiserver does: each document has one type, and nobody is given another.
    if (!request.headers.accept?.split(', ').includes(type)) return void response.writeHead(406).end()
    response.setHeader('content-type', type)
    if (request.url === '/.well-known/openid-configuration') {
      const said = trouble === 'other issuer' ? 'https://other.example.com' : issuer.url
      return void response.end(JSON.stringify({ issuer: said, jwks_uri: `${issuer.url}/keys` }))
    }
    if (request.url !== '/keys') return void response.writeHead(404).end()
    fetches += 1
    response.end(JSON.stringify({ keys: trouble === 'keyless' ? [] : [key.jwk] }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const issuer: TestIssuer = {
    url: `https://127.0.0.1:${port}`,
    ca: ca.pem,
    get key() {
      return key
    },
    fetches: () => fetches,
    trouble: 'none',
    rotate: () => {
      key = newRsaKey()
    },
    claims: (more = {}) => {
      const now = Math.floor(Date.now() / 1000)
      return { iss: issuer.url, aud: audience, iat: now, exp: now + 600, jti: randomUUID(), sub: 'test', ...more }
    },
    token: (more, header) => signToken(issuer.claims(more), key, header),
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  t.teardown(() => issuer.close())
  return issuer
}

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** RS256, whatever the header says. */
export const signToken = (claims: unknown, { kid, privateKey }: TestKey, header: object = {}): string => {
  const input = `${encode({ alg: 'RS256', kid, typ: 'JWT', ...header })}.${encode(claims)}`
  return `${input}.${sign('sha256', Buffer.from(input), privateKey).toString('base64url')}`
}

/** With this text as a shared secret. */
export const hmacToken = (claims: unknown, secret: string, header: object = {}): string => {
  const input = `${encode({ alg: 'HS256', typ: 'JWT', ...header })}.${encode(claims)}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}

export const unsignedToken = (claims: unknown, header: object = {}): string =>
  `${encode({ alg: 'none', typ: 'JWT', ...header })}.${encode(claims)}.`

/** As kubelet projects it into a pod. */
export const serviceAccount = (namespace: string, name: string, more: object = {}): object => ({
  aud: [audience],
  sub: `system:serviceaccount:${namespace}:${name}`,
  'kubernetes.io': {
    namespace,
    node: { name: 'node-1', uid: randomUUID() },
    pod: { name: `${name}-0`, uid: randomUUID() },
    serviceaccount: { name, uid: randomUUID() },
  },
  ...more,
})

/** As a job of GitHub Actions gets it. */
export const githubJob = (repository: string, more: object = {}): object => ({
  sub: `repo:${repository}:environment:production`,
  repository,
  repository_owner: repository.split('/')[0],
  ref: 'refs/heads/main',
  ref_type: 'branch',
  environment: 'production',
  workflow_ref: `${repository}/.github/workflows/deploy.yml@refs/heads/main`,
  runner_environment: 'github-hosted',
  ...more,
})

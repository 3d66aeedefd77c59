/** An identity provider that people log in at by typing a code (RFC 8628), over real HTTPS; its tokens are made by jose. */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'

import { exportJWK, generateKeyPair, SignJWT } from 'jose'

import { dns, ip } from '../x509/build.ts'
import { openClientCa, serverAuth } from './clients.ts'

export interface Scripted {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: object
}

export type ScriptedAnswer = (tokens: DeviceIssuer['tokens']) => Promise<Scripted | undefined>

export interface DeviceIssuer {
  readonly url: string
  /** PEM of the CA of its server. */
  readonly ca: string
  /** What was asked of each endpoint, in order. */
  readonly asked: { readonly path: string; readonly form: URLSearchParams }[]
  /**
   * What the next questions for a token are answered with, in turn; then `pending`, or a token once the code was typed. A
   * function may take its time, and has the usual answer where it gives none.
   */
  readonly script: (object | 'destroy' | number | ScriptedAnswer)[]
  /** Changes what it says of itself, of a code, or of a login. */
  said: Record<string, unknown>
  code: Record<string, unknown>
  claims: Record<string, unknown>
  /** Seconds that an id token is good for. */
  life: number
  /** Somebody types the code in a browser. */
  type(userCode: string): void
  /** A login that is there, without anybody typing. */
  tokens(): Promise<{ readonly id_token: string; readonly refresh_token: string }>
  close(): Promise<void>
}

/** The document by which a service believes it, of the identity provider `people`. */
export const peopleDocument = ({ url, ca }: Pick<DeviceIssuer, 'url' | 'ca'>, mappings: readonly object[]) => ({
  name: 'people',
  issuer: url,
  keys: { discovery: true, ca },
  algorithms: ['ES256'],
  audience: 'cli',
  lifetime: '1h',
  mappings,
})

export const openDeviceIssuer = async (
  t: { teardown(close: () => Promise<void>): void },
  clientId = 'cli',
): Promise<DeviceIssuer> => {
  const ca = openClientCa('HTTPS of an identity provider for people')
  const { cert, key: tlsKey } = ca.certify({ usage: serverAuth, names: [ip('7f000001'), dns('localhost')] })
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  const jwk = { ...(await exportJWK(publicKey)), kid: 'one', use: 'sig', alg: 'ES256' }
  const codes = new Map<string, { readonly userCode: string; isTyped: boolean }>()
  const refreshTokens = new Set<string>()

  const makeTokens = async () => {
    const refreshToken = `refresh-${randomUUID()}`
    refreshTokens.add(refreshToken)
    const now = Math.floor(Date.now() / 1000)
    const claims = { iss: issuer.url, aud: clientId, sub: 'alice', iat: now, exp: now + issuer.life, jti: randomUUID() }
    const idToken = await new SignJWT({ ...claims, ...issuer.claims })
      .setProtectedHeader({ alg: 'ES256', kid: 'one', typ: 'JWT' })
      .sign(privateKey)
    return { token_type: 'Bearer', access_token: 'unused', id_token: idToken, refresh_token: refreshToken }
  }

  const answers: Readonly<Record<string, (form: URLSearchParams) => Promise<[number, object]>>> = {
    '/.well-known/openid-configuration': async () => [
      200,
      {
        issuer: issuer.url,
        jwks_uri: `${issuer.url}/keys`,
        token_endpoint: `${issuer.url}/token`,
        device_authorization_endpoint: `${issuer.url}/device`,
        ...issuer.said,
      },
    ],
    '/keys': async () => [200, { keys: [jwk] }],
    '/device': async (form) => {
      if (form.get('client_id') !== clientId) return [401, { error: 'invalid_client' }]
      const [deviceCode, userCode] = [randomUUID(), randomUUID().slice(0, 8).toUpperCase()]
      codes.set(deviceCode, { userCode, isTyped: false })
      const uri = `${issuer.url}/activate`
      return [
        200,
        {
          device_code: deviceCode,
          user_code: userCode,
          verification_uri: uri,
          expires_in: 600,
          interval: 1,
          ...issuer.code,
        },
      ]
    },
    '/token': async (form) => {
      if (form.get('grant_type') === 'refresh_token') {
        const isKnown = refreshTokens.delete(form.get('refresh_token') ?? '')
        return isKnown ? [200, await makeTokens()] : [400, { error: 'invalid_grant' }]
      }
      const code = codes.get(form.get('device_code') ?? '')
      if (!code) return [400, { error: 'invalid_grant' }]
      return code.isTyped ? [200, await makeTokens()] : [400, { error: 'authorization_pending' }]
    },
  }

  const server = createServer({ cert, key: tlsKey }, async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const form = new URLSearchParams(Buffer.concat(chunks).toString())
    const path = request.url ?? ''
    issuer.asked.push({ path, form })
    const scripted = path === '/token' ? issuer.script.shift() : undefined
    if (scripted === 'destroy') return void request.socket.destroy()
    if (typeof scripted === 'number') return void response.writeHead(scripted).end('<html>')
    const made = typeof scripted === 'function' ? await scripted(issuer.tokens) : undefined
    if (made) {
      response.writeHead(made.status, { 'content-type': 'application/json', ...made.headers })
      return void response.end(JSON.stringify(made.body ?? {}))
    }
    const isFault = typeof scripted === 'object'
    const [status, body] = isFault ? [400, scripted] : ((await answers[path]?.(form)) ?? [404, {}])
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer: DeviceIssuer = {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ca: ca.pem,
    asked: [],
    script: [],
    said: {},
    code: {},
    claims: {},
    life: 600,
    type: (userCode) => {
      for (const code of codes.values()) if (code.userCode === userCode) code.isTyped = true
    },
    tokens: makeTokens,
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  t.teardown(() => issuer.close())
  return issuer
}

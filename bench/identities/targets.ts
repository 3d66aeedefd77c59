/** One Chancery, and the administrator of it, who proves who that is in different ways. */
import { generateKeyPairSync, hash } from 'node:crypto'

import { parsePem } from '../../src/x509/pem.ts'
import { newRsaKey, signToken } from '../../test/helpers/issuer.ts'
import { pem, requestBy } from '../../test/x509/build.ts'
import type { Place } from '../place.ts'
import { call } from '../request.ts'
import { openChancery } from '../targets/chancery.ts'
import type { SampleRequest, Target } from '../targets/target.ts'

export interface Identities {
  readonly targets: readonly Target[]
  close(): Promise<void>
}

export const openIdentities = async (place: Place, sample: SampleRequest): Promise<Identities> => {
  const env = { CHANCERY_CLIENT_AUTHORITIES: 'default' }
  const server = await openChancery({ place, sample, title: 'token', env })
  const jwt = { ...server, name: 'jwt', title: 'JWT', headers: { ...server.headers, ...(await believe(server)) } }
  const { authorization: _, ...bare } = server.headers
  const shown = { ...server, title: 'client certificate', headers: bare, client: await certify(server) }
  const anew = { connections: 'new' } as const
  const targets: readonly Target[] = [
    { ...server, name: 'token' },
    jwt,
    { ...shown, name: 'certificate' },
    { ...server, ...anew, name: 'token-new', title: 'token, new connections' },
    { ...shown, ...anew, name: 'certificate-new', title: 'certificate, new connections' },
    { ...shown, connections: 'resumed', name: 'certificate-resumed', title: 'certificate, resumed sessions' },
  ]
  return { targets, close: server.close }
}

/** A provider whose keys are written down, and a token of it for a day. */
const believe = async (server: Target): Promise<{ readonly authorization: string }> => {
  const key = newRsaKey()
  const issuer = 'https://issuer.example.com'
  const audience = 'https://ca.example.com'
  const document = {
    name: 'bench',
    issuer,
    keys: { static: [key.jwk] },
    algorithms: ['RS256'],
    audience,
    lifetime: '24h',
    mappings: [{ id: 'admin', claims: { sub: 'bench' }, principal: 'admin' }],
  }
  await administer(server, 'PUT', 'identity-providers/bench', document)
  const iat = Math.floor(Date.now() / 1000)
  // As long as those of platforms are.
  const claims = { iss: issuer, aud: audience, sub: 'bench', iat, exp: iat + 86_000, filler: 'x'.repeat(800) }
  return { authorization: `Bearer ${signToken(claims, key)}` }
}

const certify = async (server: Target): Promise<{ readonly cert: string; readonly key: string }> => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = pem(requestBy(privateKey, 'bench.example.com'))
  const { certificate } = await administer(server, 'POST', 'certificates', { csr, profile: 'client' })
  const fingerprint = hash('sha256', parsePem(certificate, 'CERTIFICATE'))
  await administer(server, 'POST', 'credentials', { principal: 'admin', label: 'bench', fingerprint })
  return { cert: certificate, key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string }
}

const administer = async ({ url, ca, headers }: Target, method: string, path: string, body: object) => {
  const ifNew = method === 'PUT' ? { 'if-none-match': '*' } : {}
  const { status, text } = await call({
    url: url.replace('certificates', path),
    ca,
    method,
    headers: { ...headers, ...ifNew },
    body: JSON.stringify(body),
  })
  if (status >= 300) throw new Error(`Chancery answers ${status}: ${text}`)
  return JSON.parse(text)
}

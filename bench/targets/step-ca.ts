/**
 * step-ca with Badger, its default store, where CHANCERY_BENCH_STEP_CA names its binary (run as `step-ca <ca.json>`).
 * Every request carries a one-time token of its own (JWT, ES256), as step-ca asks of its clients; they are made before
 * the clock runs.
 */

import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
  sign,
  X509Certificate,
} from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { freePort } from '../../test/helpers/port.ts'
import type { Place } from '../place.ts'
import { outputOf, start, untilReady } from '../process.ts'
import { call } from '../request.ts'
import { assertCertificate, makeAuthority, makeSample } from '../sample.ts'
import type { Target } from './target.ts'

export const openStepCa = async (place: Place, binary: string): Promise<Target> => {
  const folder = await place.makeFolder('step-ca')
  const root = makeAuthority(folder)
  const intermediate = await makeIntermediate(folder, root)
  const sample = await makeSample(folder, { subject: '/CN=bench.example.com' })
  const port = await freePort()
  const audience = `https://localhost:${port}/1.0/sign`
  const provisioner = makeProvisioner()
  const config = join(folder, 'ca.json')
  await writeFile(
    config,
    JSON.stringify({
      root: root.cert,
      crt: intermediate.cert,
      key: intermediate.key,
      address: `127.0.0.1:${port}`,
      dnsNames: ['localhost'],
      logger: { format: 'json' },
      db: { type: 'badgerV2', dataSource: join(folder, 'db') },
      authority: { provisioners: [provisioner.public] },
    }),
  )
  const program = await start({ command: binary, args: [config], cwd: folder, log: join(place.folder, 'step-ca.log') })
  const ca = await readFile(root.cert, 'utf8')
  const url = `https://localhost:${port}`
  await untilReady(program, async () => (await call({ url: `${url}/health`, ca })).status === 200)
  const issuer = await readFile(intermediate.cert, 'utf8')
  const fingerprint = createHash('sha256').update(new X509Certificate(ca).raw).digest('hex')
  const bodyOf = (): string =>
    JSON.stringify({
      csr: sample.pem,
      ott: provisioner.token({ sub: sample.name, sans: [sample.name], aud: audience, sha: fingerprint }),
    })
  return {
    name: 'step-ca',
    title: 'step-ca with Badger',
    version: outputOf(binary, 'version')?.split('\n')[0] ?? 'unknown version',
    url: `${url}/1.0/sign`,
    ca,
    headers: { 'content-type': 'application/json' },
    body: '',
    bodies: async (count) => Array.from({ length: count }, bodyOf),
    pid: program.pid,
    assertIssued: (status, text) => {
      if (status !== 201) throw new Error(`step-ca answers ${status}: ${text}`)
      assertCertificate(JSON.parse(text).crt, sample.name, issuer)
    },
    close: () => program.stop(),
  }
}

const makeIntermediate = async (folder: string, root: { cert: string; key: string }) => {
  const path = (name: string): string => join(folder, `intermediate.${name}`)
  await writeFile(
    path('ext'),
    'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n',
  )
  const made =
    outputOf(
      'openssl',
      ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=Bench Issuer'],
      ...['-keyout', path('key'), '-out', path('csr')],
    ) !== undefined &&
    outputOf(
      'openssl',
      ...['x509', '-req', '-in', path('csr'), '-CA', root.cert, '-CAkey', root.key, '-days', '1000'],
      ...['-extfile', path('ext'), '-out', path('pem')],
    ) !== undefined
  if (!made) throw new Error('openssl made no intermediate')
  return { cert: path('pem'), key: path('key') }
}

interface Claims {
  readonly sub: string
  readonly sans: readonly string[]
  readonly aud: string
  readonly sha: string
}

const makeProvisioner = () => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'bench', use: 'sig', alg: 'ES256' }
  const claims = { maxTLSCertDuration: '2160h', defaultTLSCertDuration: '2160h' }
  const key: KeyObject = createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' }))
  return {
    public: { type: 'JWK', name: 'bench', key: jwk, claims },
    token: (asked: Claims): string => {
      const now = Math.floor(Date.now() / 1000)
      const payload = { ...asked, iss: 'bench', jti: randomUUID(), iat: now, nbf: now - 60, exp: now + 240 }
      const input = [{ alg: 'ES256', typ: 'JWT', kid: 'bench' }, payload].map(encode).join('.')
      const signature = sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
      return `${input}.${signature.toString('base64url')}`
    },
  }
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

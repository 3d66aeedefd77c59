/**
 * Certificates of every seeded profile and every kind of key that it takes, made from requests of the openssl command
 * over HTTPS, and read by people's tools: they say what the API said, and a linter for the public web finds nothing
 * but what only makes sense there.
 */
import { createHash, createPrivateKey } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { loadSeedDocuments } from '../../src/policy/seeds.ts'
import { parseTbs } from '../../src/x509/certificate.ts'
import { formatSubject } from '../../src/x509/subject.ts'
import { openTestService } from '../helpers/service.ts'
import { inverse, rsaFactors } from '../x509/keys.ts'
import { asks, type Made } from './asks.ts'
import { lintExceptions } from './lints.ts'
import { type Reading, readByCerttool, readByOpenssl, readByPeculiar } from './reads.ts'
import { assertTools, output } from './tools.ts'

await assertTools('openssl', 'zlint', 'certtool')
t.setTimeout(300_000)
const folder = await mkdtemp(join(tmpdir(), 'chancery-interop-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
// A name of the public web, so that the linter has nothing to say about it.
const service = await openTestService(t, { CHANCERY_PUBLIC_URL: 'http://pki.example.com' })
const rootFile = join(folder, 'root.pem')
await writeFile(rootFile, service.ca)

/** How `openssl genpkey` makes each kind of key; RSA 8192 takes it a minute, so that one is put together from known primes. */
const keyTypes: Readonly<Record<string, readonly string[]>> = {
  'RSA 2048': ['RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  'RSA 3072': ['RSA', '-pkeyopt', 'rsa_keygen_bits:3072'],
  'RSA 4096': ['RSA', '-pkeyopt', 'rsa_keygen_bits:4096'],
  'P-256': ['EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'P-384': ['EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'P-521': ['EC', '-pkeyopt', 'ec_paramgen_curve:P-521'],
  Ed25519: ['ED25519'],
  'ML-DSA-44': ['ML-DSA-44'],
  'ML-DSA-65': ['ML-DSA-65'],
  'ML-DSA-87': ['ML-DSA-87'],
}

/** Kinds of key that a tool cannot read; empty as long as all read all. An entry for one that is read fails. */
const unreadable: readonly { readonly tool: string; readonly keyType: string; readonly reason: string }[] = []

interface SeedDocument {
  readonly name: string
  readonly keys: readonly {
    readonly rsa?: { readonly min: number; readonly max: number }
    readonly ec?: readonly string[]
    readonly ed25519?: boolean
    readonly mlDsa?: readonly string[]
  }[]
  readonly keyUsage: readonly string[]
  readonly extendedKeyUsage: readonly string[]
}

/** As the document lists them. */
const keyTypesOf = ({ keys }: SeedDocument): readonly string[] =>
  keys.flatMap(({ rsa, ec = [], ed25519 = false, mlDsa = [] }) => [
    ...(rsa === undefined ? [] : [2048, 3072, 4096, 8192].filter((bits) => bits >= rsa.min && bits <= rsa.max)).map(
      (bits) => `RSA ${bits}`,
    ),
    ...ec,
    ...(ed25519 ? ['Ed25519'] : []),
    ...mlDsa,
  ])

/** Each key serves every profile, so what is asked of it is asked once. */
const once = (make: (keyType: string) => Promise<string>): ((keyType: string) => Promise<string>) => {
  const made = new Map<string, Promise<string>>()
  return (keyType) => {
    const known = made.get(keyType) ?? make(keyType)
    made.set(keyType, known)
    return known
  }
}

const makeKey = async (keyType: string): Promise<string> => {
  const file = join(folder, `${keyType}.key`)
  const how = keyTypes[keyType]
  if (how !== undefined) await output('openssl', ['genpkey', '-algorithm', ...how, '-out', file])
  else await writeFile(file, rsa8192().export({ type: 'pkcs8', format: 'pem' }))
  return file
}
const keyFileOf = once(makeKey)

const rsa8192 = () => {
  const [p, q] = rsaFactors('8192') as [bigint, bigint]
  const e = 65537n
  const d = inverse(e, (p - 1n) * (q - 1n))
  const parts = { n: p * q, e, d, p, q, dp: d % (p - 1n), dq: d % (q - 1n), qi: inverse(q, p) }
  const text = Object.fromEntries(Object.entries(parts).map(([name, value]) => [name, base64url(value)]))
  return createPrivateKey({ key: { kty: 'RSA', ...text }, format: 'jwk' })
}

const base64url = (value: bigint): string => {
  const hex = value.toString(16)
  return Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex').toString('base64url')
}

const sanOf = (names: readonly string[]): readonly string[] =>
  names.length === 0
    ? []
    : [
        '-addext',
        `subjectAltName=${names.map((name) => name.replace(/^(\w+):/, (_, kind: string) => `${kind.toUpperCase()}:`)).join(',')}`,
      ]

const requestFor = async ({ subj, names }: Made, keyType: string): Promise<string> =>
  output('openssl', ['req', '-new', '-key', await keyFileOf(keyType), '-subj', subj, ...sanOf(names)])

const publicKeyOf = once(async (keyType) => {
  const pem = await output('openssl', ['pkey', '-in', await keyFileOf(keyType), '-pubout'])
  return createHash('sha256').update(derOf(pem)).digest('base64')
})

const derOf = (pem: string): Buffer => Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')

const hit = new Set<string>()
const documents = loadSeedDocuments() as readonly SeedDocument[]

t.test('every seeded profile is asked for', async (t) => {
  t.same(documents.map(({ name }) => name).sort(), Object.keys(asks).sort())
})

for (const document of documents) {
  const ask = asks[document.name] as Made
  for (const keyType of keyTypesOf(document)) {
    t.test(`${document.name} on a key of ${keyType} is read alike by everyone`, async (t) => {
      const csr = await requestFor(ask, keyType)
      const headers = { 'content-type': 'application/x-pem-file' }
      const path = `/v1/certificates?profile=${document.name}`
      const dry = await service.request('POST', `${path}&dryRun=true`, { headers, body: csr })
      const answer = await service.request('POST', path, { headers, body: csr })
      t.equal(answer.status, 201, answer.text)
      const { serial, certificate, chain, notBefore, notAfter } = answer.json
      const file = join(folder, `${serial}.pem`)
      const chainFile = join(folder, `${serial}.chain.pem`)
      await Promise.all([writeFile(file, certificate), writeFile(chainFile, chain.join(''))])

      const expected: Reading = {
        serial,
        subject: ask.subject,
        names: [...ask.names].sort(),
        namesCritical: ask.subject.length === 0,
        keyUsage: document.keyUsage.filter((usage) => usage !== 'keyEncipherment' || keyType.startsWith('RSA')),
        extendedKeyUsage: document.extendedKeyUsage,
        ca: false,
        notBefore,
        notAfter,
        key: await publicKeyOf(keyType),
        keyType,
      }
      const readings = {
        openssl: await readByOpenssl(file),
        certtool: await readByCerttool(file),
        '@peculiar/x509': readByPeculiar(derOf(certificate)),
      }
      for (const [tool, reading] of Object.entries(readings)) {
        const known = unreadable.find((entry) => entry.tool === tool && entry.keyType === keyType)
        if (known === undefined) t.same(reading, expected, tool)
        else t.notSame(reading, expected, `${tool}: ${known.reason}`)
      }
      samePlan(t, Buffer.from(dry.json.tbs, 'base64'), expected)
      await verifies(t, { file, chainFile, usages: document.extendedKeyUsage })
      await lints(t, file, { profile: document.name, keyType })
    })
  }
}

t.test('every exception from the linter was needed, and is a rule of whom it says', async (t) => {
  const idle = lintExceptions.filter(({ lint }) => !hit.has(lint)).map(({ lint }) => lint)
  t.same(idle, [])
  const lines = (await output('zlint', ['-list-lints-json'])).split('\n').filter((line) => line !== '')
  const all = lines.map((line) => JSON.parse(line) as { readonly name: string; readonly source: string })
  for (const { lint, source, reason } of lintExceptions) {
    t.equal(all.find(({ name }) => name === lint)?.source, source, lint)
    t.comment(`${lint}: ${reason}`)
  }
})

/** The dry run plans the same certificate, but for its serial and a second or two. */
const samePlan = (t: Test, tbs: Buffer, expected: Reading): void => {
  const facts = parseTbs(tbs)
  t.same(facts.names.map(({ kind, value }) => `${kind}:${value}`).sort(), expected.names, 'the planned names')
  t.same(formatSubject(facts.subject).split(',').filter(Boolean).sort(), expected.subject, 'the planned subject')
  t.same(facts.keyUsage, expected.keyUsage, 'the planned usages')
  t.same(facts.extendedKeyUsage, expected.extendedKeyUsage, 'the planned purposes')
  const length = facts.notAfter.getTime() - facts.notBefore.getTime()
  t.equal(Date.parse(expected.notAfter) - Date.parse(expected.notBefore), length, 'the planned validity')
}

const verifies = async (
  t: Test,
  {
    file,
    chainFile,
    usages,
  }: { readonly file: string; readonly chainFile: string; readonly usages: readonly string[] },
): Promise<void> => {
  for (const usage of usages) {
    const args = ['verify', '-x509_strict', '-purpose', usage === 'serverAuth' ? 'sslserver' : 'sslclient']
    t.equal(await output('openssl', [...args, '-CAfile', rootFile, '-untrusted', chainFile, file]), `${file}: OK\n`)
  }
}

const lints = async (
  t: Test,
  file: string,
  of: { readonly profile: string; readonly keyType: string },
): Promise<void> => {
  const results = JSON.parse(await output('zlint', [file])) as Readonly<
    Record<string, { readonly result: string; readonly details?: string }>
  >
  const found = Object.entries(results).filter(([, { result }]) => ['warn', 'error', 'fatal'].includes(result))
  t.ok(Object.keys(results).length > 100, 'the linter linted')
  for (const [lint, { result, details = '' }] of found) {
    const exception = lintExceptions.find((entry) => entry.lint === lint)
    t.ok(exception?.only?.(of) ?? exception !== undefined, `${result} ${lint} ${details} ${JSON.stringify(of)}`)
    hit.add(lint)
  }
}

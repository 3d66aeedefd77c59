/** Rolls with real certificates: an issuer with a key of its own, entries at times that go on, checkpoints of any size. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'

import { shardOf } from '../../src/ca/issuance/serial.ts'
import { signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { defaultShards, encodeEntry, type RollEvent } from '../../src/tlog/entries.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { type Edge, emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { type FedEntry, openRollVerifier, type RollVerifierDeps, type VerifierState } from '../../src/tlog/verify.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { encodeCaTbs } from '../../src/x509/certificate.ts'
import { type PublicKey, parsePublicKey } from '../../src/x509/keys.ts'
import type { Name } from '../../src/x509/names.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { compileTemplate, encodeCertificate, encodeTbs } from '../../src/x509/tbs.ts'
import { hasher, newSigner, sha256, verifyEd25519 } from './hashing.ts'

export const roll = newSigner('roll.example/1')
export const digest = 'ab'.repeat(32)
const algorithm = signatureAlgorithm('ecdsa-sha256')
const notBefore = new Date('2026-11-01T00:00:00Z')
const webName: readonly Name[] = [{ kind: 'dns', value: 'web.example.com' }]

interface Key {
  readonly key: PublicKey
  readonly privateKey: KeyObject
}

const newKey = (): Key => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { privateKey, key: parsePublicKey(publicKey.export({ type: 'spki', format: 'der' })) }
}

interface Certified {
  readonly notAfter?: Date
  readonly by?: TestIssuer
  readonly names?: readonly Name[]
}

export interface TestIssuer {
  readonly name: string
  /** Base64 of the DER. */
  readonly certificate: string
  /** SHA-256 (hex) of the SubjectPublicKeyInfo. */
  readonly spki: string
  /** A certificate with this serial, 32 hexadecimal digits, in base64. */
  certify(serial: string, more?: Certified): string
  sign(tbs: Buffer): Buffer
}

/** Signs itself: who is above it does not matter here. */
export const newIssuer = (name: string): TestIssuer => {
  const { key, privateKey } = newKey()
  const subject = [{ type: 'commonName', value: name }] as const
  const seal = (tbs: Buffer, by: (tbs: Buffer) => Buffer): string =>
    encodeCertificate(tbs, algorithm, by(tbs)).toString('base64')
  const signTbs = (tbs: Buffer): Buffer => sign(algorithm.hash, tbs, privateKey)
  const tbs = encodeCaTbs({
    serial: Buffer.from([1]),
    issuer: encodeSubject(subject),
    subject,
    notBefore,
    notAfter: new Date('2036-11-01T00:00:00Z'),
    key,
    authorityKeyIdentifier: key.keyIdentifier,
    signature: algorithm,
  })
  const template = compileTemplate({
    issuer: {
      subject: encodeSubject(subject),
      keyIdentifier: key.keyIdentifier,
      signature: algorithm,
      publicUrl: 'http://x',
      name,
    },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: ['crl', 'ocsp'],
  })
  return {
    name,
    certificate: seal(tbs, signTbs),
    spki: Buffer.from(sha256(key.spki)).toString('hex'),
    sign: signTbs,
    certify: (serial, { notAfter = new Date('2026-12-01T00:00:00Z'), by, names = webName } = {}) => {
      const leaf = encodeTbs(template, {
        serial: Buffer.from(serial, 'hex'),
        notBefore,
        notAfter,
        subject: [{ type: 'commonName', value: 'web.example.com' }],
        key,
        names,
        shard: 0,
      })
      return seal(leaf, by?.sign ?? signTbs)
    },
  }
}

export const issuer = newIssuer('default')

export const serialOf = (n: number): string => `40${n.toString(16).padStart(30, '0')}`
const shardOfNth = (n: number): number => shardOf(Buffer.from(serialOf(n), 'hex'), defaultShards)

const by = 'admin'
const profile = { name: 'server', version: 1 }
const issuance = { issuer: issuer.name, principal: by, profile, request: digest, plan: digest }

/** Events with everything but what a test is about. */
export const event = {
  issued: (n: number, more: object = {}): RollEvent => {
    const serial = serialOf(n)
    const nothing = { approval: null, origin: null, replaces: null }
    return { type: 'certificate.issued', ...issuance, ...nothing, serial, certificate: issuer.certify(serial), ...more }
  },
  abandoned: (n: number, more: object = {}): RollEvent => ({
    type: 'issuance.abandoned',
    ...issuance,
    serial: serialOf(n),
    shard: shardOfNth(n),
    intended: '2026-11-24T00:00:00.000Z',
    notAfter: '2026-12-01T00:00:00.000Z',
    ...more,
  }),
  revoked: (n: number, reason = 'superseded', more: object = {}): RollEvent => ({
    type: 'certificate.revoked',
    serial: serialOf(n),
    issuer: issuer.name,
    shard: shardOfNth(n),
    reason,
    revokedAt: '2026-11-24T00:00:00Z',
    invalidityDate: null,
    plan: null,
    by,
    ...more,
  }),
  released: (n: number): RollEvent => ({
    type: 'certificate.released',
    serial: serialOf(n),
    issuer: issuer.name,
    shard: shardOfNth(n),
    by,
  }),
  lists: (...lists: readonly (readonly [shard: number, number: number, covers: number])[]): RollEvent => ({
    type: 'crls.intended',
    issuer: issuer.name,
    lists: lists.map(([shard, number, covers]) => ({
      shard,
      number,
      covers,
      thisUpdate: '2026-11-24T00:00:00.000Z',
      nextUpdate: '2026-11-25T00:00:00.000Z',
      revoked: 0,
      tbs: digest,
    })),
  }),
  moved: (move: string, from: string, more: object = {}): RollEvent =>
    ({
      type: `issuer.${move}`,
      issuer: issuer.name,
      authority: 'default',
      from,
      reason: null,
      by,
      ...more,
    }) as RollEvent,
  ordered: (plan: string, count: number): RollEvent => ({
    type: 'revocations.ordered',
    plan,
    search: { profile: 'server' },
    reason: 'superseded',
    invalidityDate: null,
    asOf: { size: 4, time: '2026-11-24T00:00:00.000Z' },
    count,
    certificates: digest,
    by,
  }),
  done: (plan: string, revoked: number, expired = 0): RollEvent => ({
    type: 'revocations.done',
    plan,
    revoked,
    skipped: { expired, revoked: 0 },
  }),
}

/** What every roll begins with: entries 0 to 3. */
export const beginning: readonly RollEvent[] = [
  { type: 'service.started', version: '0.1.0', mode: 'development' },
  { type: 'principal.created', principal: by, by: 'chancery' },
  {
    type: 'issuer.created',
    issuer: issuer.name,
    authority: 'default',
    certificate: issuer.certificate,
    state: 'active',
    shards: defaultShards,
    by,
  },
  { type: 'profile.changed', profile, sha256: digest, approvals: 0, by },
]

export interface Stored {
  readonly index: number
  readonly octets: Uint8Array
  readonly leaf: Uint8Array
}

const firstTime = Date.parse('2026-11-24T12:00:00.000Z')

/** A second apart. */
export const entriesOf = (events: readonly RollEvent[]): Stored[] =>
  events.map((one, index) => storedOf(index, encodeEntry(one, new Date(firstTime + 1000 * index))))

export const storedOf = (index: number, text: string): Stored => {
  const octets = Buffer.from(text)
  return { index, octets, leaf: hasher.leaf(octets) }
}

/** The signed checkpoint over the first entries. */
export const checkpointAt = (entries: readonly Stored[], size: number): Promise<string> => {
  const edge: Edge = extend(
    emptyEdge(hasher),
    entries.slice(0, size).map(({ leaf }) => leaf),
    hasher,
  ).edge
  return signCheckpoint({ origin: roll.key.name, size, root: edge.root }, roll)
}

export const depsOf = (
  certificates: Pick<RollVerifierDeps, 'readCertificate' | 'readContents' | 'verifyCertificates'>,
  found: Finding[],
  checkpoints: readonly string[] = [],
): RollVerifierDeps => ({
  ...certificates,
  sha256,
  verify: verifyEd25519,
  keys: { roll: [roll.key] },
  checkpoints: checkpoints.map((note) => ({ note })),
  tell: (finding) => found.push(finding),
})

export interface Verified {
  readonly findings: readonly Finding[]
  readonly state: VerifierState
  readonly root: Uint8Array | undefined
}

/** A whole roll in batches. */
export const verifyAll = async (
  entries: readonly FedEntry[],
  certificates: Pick<RollVerifierDeps, 'readCertificate' | 'readContents' | 'verifyCertificates'>,
  { checkpoints = [], batch = 7, from }: { checkpoints?: readonly string[]; batch?: number; from?: VerifierState } = {},
): Promise<Verified> => {
  const findings: Finding[] = []
  const verifier = await openRollVerifier(depsOf(certificates, findings, checkpoints), from)
  for (let at = 0; at < entries.length; at += batch) await verifier.add(entries.slice(at, at + batch))
  const { root } = await verifier.finish()
  const state: VerifierState = JSON.parse(JSON.stringify(await verifier.save()))
  return { findings: findings.toSorted((a, b) => a.index - b.index), state, root }
}

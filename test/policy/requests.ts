/** Requests as values, for tests of policy: what a strict reader would have made of real ones. */
import { createHash } from 'node:crypto'

import type { Ask, Context } from '../../src/policy/decide.ts'
import { type Profile, parseProfile } from '../../src/policy/profile.ts'
import { loadSeedDocuments } from '../../src/policy/seeds.ts'
import { type KeyAlgorithmId, keyAlgorithms, signatureAlgorithm } from '../../src/x509/algorithms.ts'
import type { CertificationRequest } from '../../src/x509/csr.ts'
import type { PublicKey } from '../../src/x509/keys.ts'
import type { Name, NameKind } from '../../src/x509/names.ts'
import type { Subject } from '../../src/x509/subject.ts'

export const keyOf = (id: KeyAlgorithmId, bits = keyAlgorithms[id].bits ?? 2048): PublicKey => {
  const spki = Buffer.from(`${id}-${bits}`)
  const sha256 = createHash('sha256').update(spki).digest()
  return { spki, algorithm: keyAlgorithms[id], bits, sha256, keyIdentifier: sha256.subarray(0, 20) }
}

/** Names as `dns:www.example.com`, `ip:10.0.0.1`, … */
export const namesOf = (...texts: readonly string[]): readonly Name[] =>
  texts.map((text) => {
    const colon = text.indexOf(':')
    return { kind: text.slice(0, colon) as NameKind, value: text.slice(colon + 1) }
  })

export const csrOf = (
  given: Partial<Pick<CertificationRequest, 'subject' | 'key' | 'names' | 'keyUsage' | 'extendedKeyUsage' | 'dropped'>>,
): CertificationRequest => ({
  der: nothing,
  subject: [],
  key: keyOf('ec-p256'),
  names: [],
  dropped: [],
  signatureAlgorithm: signatureAlgorithm('ecdsa-sha256'),
  tbs: nothing,
  signature: nothing,
  ...given,
})

export const commonName = (value: string): Subject => [{ type: 'commonName', value }]

export const ask = (given: Parameters<typeof csrOf>[0], options: Omit<Ask, 'csr'> = {}): Ask => ({
  csr: csrOf(given),
  ...options,
})

export const context: Context = {
  now: new Date('2030-06-01T12:00:00.250Z'),
  principal: 'tester',
  issuer: {
    name: 'default-1',
    notBefore: new Date('2030-01-01T00:00:00Z'),
    notAfter: new Date('2031-12-31T23:59:59Z'),
    keySha256: '00'.repeat(32),
  },
}

/** A small sound document; tests change what they are about. */
export const baseDocument = {
  name: 'test',
  authority: 'default',
  validity: { default: '24h', max: '30d' },
  keys: [{ ec: ['P-256'] }],
  subject: { commonName: { from: 'csr' }, others: 'refuse' },
  names: { dns: { allow: ['*.example.com'] } },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
} as const

export const profileOf = (changes: Readonly<Record<string, unknown>> = {}): Profile =>
  parseProfile({ ...baseDocument, ...changes }, { version: 1 })

export const seeds: ReadonlyMap<string, Profile> = new Map(
  loadSeedDocuments().map((document) => {
    const profile = parseProfile(document, { version: 1 })
    return [profile.name, profile]
  }),
)

export const seed = (name: string): Profile => {
  const profile = seeds.get(name)
  if (profile === undefined) throw new Error(`there is no seed ${name}`)
  return profile
}

const nothing = Buffer.alloc(0)

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import t from 'tap'

import { encodeEntry, leafInput, type RollEvent } from '../../src/tlog/entries.ts'

const time = new Date('2026-11-24T23:59:59.007Z')
const profile = { name: 'server', version: 3 }
const digest = 'ab'.repeat(32)
const plan = 'cd'.repeat(32)
const serial = '40'.padEnd(32, '0')
const request = '0193f2b4-7c02-7f11-8a2e-5d0b1c9e4f60'

const move = { issuer: 'default', authority: 'default', from: 'staged', reason: 'büro', by: 'admin' }

/** One of each type; a type that is missing here does not compile. */
const examples: { readonly [T in RollEvent['type']]: RollEvent & { readonly type: T } } = {
  'certificate.issued': {
    type: 'certificate.issued',
    serial,
    certificate: 'MIIB',
    issuer: 'default',
    principal: 'ci',
    profile,
    request: digest,
    plan,
    approval: request,
    origin: {
      user: 'system:serviceaccount:cert-manager:cert-manager',
      groups: ['system:serviceaccounts', 'system:authenticated'],
      namespace: 'shop',
      object: { apiVersion: 'cert-manager.io/v1', kind: 'CertificateRequest', name: 'web-1', uid: 'b\u00fcro' },
    },
    replaces: null,
  },
  'issuance.abandoned': {
    type: 'issuance.abandoned',
    serial,
    issuer: 'default',
    shard: 17,
    principal: 'ci',
    profile,
    request: digest,
    plan,
    intended: '2026-11-24T23:59:00.000Z',
    notAfter: '2026-12-24T23:59:00.000Z',
  },
  'certificate.revoked': {
    type: 'certificate.revoked',
    serial,
    issuer: 'default',
    shard: 17,
    reason: 'keyCompromise',
    revokedAt: '2026-11-24T23:59:59Z',
    invalidityDate: '2026-11-01T00:00:00Z',
    plan: null,
    by: null,
  },
  'certificate.released': { type: 'certificate.released', serial, issuer: 'default', shard: 17, by: 'ops' },
  'crls.intended': {
    type: 'crls.intended',
    issuer: 'default',
    lists: [
      {
        shard: 17,
        number: 2,
        covers: 1041,
        thisUpdate: '2026-11-24T23:58:59.000Z',
        nextUpdate: '2026-11-27T23:58:59.000Z',
        revoked: 3,
        tbs: digest,
      },
    ],
  },
  'crl.imported': {
    type: 'crl.imported',
    issuer: 'default',
    signer: digest,
    number: '7',
    thisUpdate: '2026-11-24T00:00:00.000Z',
    nextUpdate: '2027-05-24T00:00:00.000Z',
    revoked: 1,
    sha256: plan,
    by: 'ops',
  },
  'revocations.ordered': {
    type: 'revocations.ordered',
    plan,
    search: { profile: 'server', issuedBefore: '2026-11-24T00:00:00.000Z' },
    reason: 'keyCompromise',
    invalidityDate: '2026-11-01T00:00:00Z',
    asOf: { size: 812_345, time: '2026-11-24T23:59:00.000Z' },
    count: 100_000,
    certificates: digest,
    by: 'ops',
  },
  'revocations.done': { type: 'revocations.done', plan, revoked: 99_997, skipped: { expired: 2, revoked: 1 } },
  'request.created': {
    type: 'request.created',
    id: request,
    principal: 'ci',
    profile,
    request: digest,
    plan,
    decided: { names: [{ kind: 'dns', value: 'pay.example.com' }], validity: 86_400 },
    required: 2,
    expires: '2026-11-25T23:59:59.007Z',
  },
  'request.approved': { type: 'request.approved', id: request, plan, reason: 'as in change 4711', by: 'alice' },
  'request.rejected': { type: 'request.rejected', id: request, plan, reason: 'not before Monday', by: 'bob' },
  'request.withdrawn': { type: 'request.withdrawn', id: request, plan, reason: 'the wrong name', by: 'ci' },
  'request.expired': { type: 'request.expired', id: request, plan },
  'request.failed': { type: 'request.failed', id: request, plan, code: 'approval.plan', reason: 'it has changed' },
  'profile.changed': { type: 'profile.changed', profile, sha256: digest, approvals: 2, by: 'admin' },
  'provider.changed': {
    type: 'provider.changed',
    provider: { name: 'github', version: 2 },
    sha256: digest,
    by: 'admin',
  },
  'principal.created': { type: 'principal.created', principal: 'ci', by: 'admin' },
  'principal.disabled': { type: 'principal.disabled', principal: 'ci', by: 'admin' },
  'grant.changed': {
    type: 'grant.changed',
    change: 'created',
    grant: '0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a10',
    principal: 'ci',
    role: 'requester',
    profiles: ['server'],
    onBehalfOf: { required: true, namespaces: { allow: ['shop', 'team-*'], deny: ['team-root'] } },
    sharedKeys: true,
    names: { dns: { allow: ['*.ci.example.com'] } },
    revoke: true,
    limits: { certificatesPerDay: 100 },
    by: 'admin',
  },
  'token.created': {
    type: 'token.created',
    token: '0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a11',
    principal: 'ci',
    label: 'büro "1"',
    expires: null,
    by: 'admin',
  },
  'token.revoked': {
    type: 'token.revoked',
    token: '0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a11',
    principal: 'ci',
    label: 'büro "1"',
    expires: '2027-01-01T00:00:00.000Z',
    by: 'admin',
  },
  'credential.created': {
    type: 'credential.created',
    credential: '0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a12',
    principal: 'ci',
    label: 'büro "1"',
    fingerprint: null,
    spiffe: 'spiffe://example.com/ci',
    subject: null,
    by: 'admin',
  },
  'credential.revoked': {
    type: 'credential.revoked',
    credential: '0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a13',
    principal: 'ci',
    label: 'büro "1"',
    fingerprint: null,
    spiffe: null,
    subject: { name: 'MA0xCzAJBgNVBAMMAmNp', issuer: 'MA0xCzAJBgNVBAMMAmNh' },
    by: 'admin',
  },
  'issuer.created': {
    type: 'issuer.created',
    issuer: 'default',
    authority: 'default',
    certificate: 'MIIB',
    state: 'active',
    shards: 1,
    by: 'chancery',
  },
  'issuer.activated': { type: 'issuer.activated', ...move },
  'issuer.retiring': { type: 'issuer.retiring', ...move },
  'issuer.closed': { type: 'issuer.closed', ...move },
  'issuer.halted': { type: 'issuer.halted', ...move },
  'issuer.discarded': { type: 'issuer.discarded', ...move },
  'issuer.retired': { type: 'issuer.retired', ...move },
  'issuer.requested': {
    type: 'issuer.requested',
    issuer: 'default-2027',
    authority: 'default',
    key: 'pkcs11:token=ca;object=default-2027',
    spki: digest,
    by: 'admin',
  },
  'issuer.chained': {
    type: 'issuer.chained',
    issuer: 'default',
    authority: 'default',
    chains: [
      [digest, plan],
      [digest, plan, digest],
    ],
    by: 'admin',
  },
  'issuer.relocated': {
    type: 'issuer.relocated',
    issuer: 'default-2027',
    authority: 'default',
    key: 'pkcs11:token=ca-2;object=default-2027',
    before: 'pkcs11:token=ca;object=default-2027',
    spki: digest,
    reason: 'the token broke, and its backup was restored into another one',
    by: 'admin',
  },
  'key.opened': {
    type: 'key.opened',
    issuer: 'default',
    key: 'pkcs11:token=ca;object=default',
    spki: digest,
    attributes: { sensitive: true, extractable: false, alwaysSensitive: true, neverExtractable: true, local: null },
  },
  'key.probed': {
    type: 'key.probed',
    key: 'file:keys/default.pem',
    spki: digest,
    attributes: null,
    by: 'os:ops',
  },
  'roll.opened': {
    type: 'roll.opened',
    origin: 'ca.example.com/roll',
    key: 'ca.example.com/roll+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k',
    database: '7439812409182734098',
    succeeds: { origin: 'old.example.com/roll', size: 1043, root: '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' },
    by: 'chancery',
  },
  'database.adopted': {
    type: 'database.adopted',
    database: '7439812409182734099',
    before: null,
    reason: 'the old server has burnt down',
    by: 'os:büro',
  },
  'service.started': { type: 'service.started', version: '0.1.0', mode: 'development' },
}

/** One of each type. */
const golden = (): string[] =>
  readFileSync(new URL('entries.golden', import.meta.url), 'utf8')
    .trimEnd()
    .split('\n')

const leafOf = (entry: string): string => createHash('sha256').update(leafInput(entry)).digest('hex')

t.test('every type of entry keeps its exact octets for ever', async (t) => {
  const found = Object.values(examples).map((event) => {
    const entry = encodeEntry(event, time)
    return [event.type, leafOf(entry), entry].join('\t')
  })
  t.same(found, golden())
})

t.test('an entry is RFC 8785: members sorted, nothing between them, no newline', async (t) => {
  const entry = encodeEntry(examples['token.created'], time)
  t.equal(
    entry,
    '{"by":"admin","expires":null,"label":"büro \\"1\\"","principal":"ci","time":"2026-11-24T23:59:59.007Z","token":"0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a11","type":"token.created","v":1}',
  )
})

t.test('a leaf is one zero octet and the entry (RFC 6962 2.1)', async (t) => {
  const entry = encodeEntry(examples['service.started'], time)
  t.same(Buffer.from(leafInput(entry)), Buffer.concat([Buffer.from([0]), Buffer.from(entry)]))
})

t.test('each entry has the time that it is given', async (t) => {
  for (const at of ['2026-11-24T23:59:59.007Z', '2026-11-24T23:59:59.008Z', '2026-11-24T23:59:59.007Z'])
    t.equal(JSON.parse(encodeEntry(examples['service.started'], new Date(at))).time, at)
})

t.test('an entry has as many octets as a tile has room for, and one beyond is refused, not cut', async (t) => {
  const withPrincipal = (principal: string) => encodeEntry({ ...examples['principal.created'], principal }, time)
  const room = 65_535 - Buffer.byteLength(withPrincipal(''))
  for (const unit of ['a', 'ü', '€', '😀']) {
    const octets = Buffer.byteLength(unit)
    const principal = unit.repeat(room / octets) + 'a'.repeat(room % octets)
    t.equal(Buffer.byteLength(withPrincipal(principal)), 65_535, unit)
    t.throws(() => withPrincipal(`${principal}a`), RangeError, unit)
  }
})

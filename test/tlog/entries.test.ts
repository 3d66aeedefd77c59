import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import t from 'tap'

import {
  type CertificateIssued,
  cutInto,
  encodeEntry,
  issuedBy,
  leafInput,
  type RollEvent,
  shardsIn,
} from '../../src/tlog/entries.ts'

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
  'profile.changed': { type: 'profile.changed', v: 2, profile, sha256: digest, approvals: 2, by: 'admin' },
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
    v: 3,
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
    v: 2,
    database: '7439812409182734099',
    before: null,
    reason: 'the old server has burnt down',
    by: 'os:büro',
  },
  'service.started': { type: 'service.started', version: '0.1.0', mode: 'development' },
}

/** One of each type, and then what earlier versions of Chancery have written, for ever to be read. */
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
  t.same(found, golden().slice(0, found.length))
})

t.test('the entry of a renewal keeps its exact octets for ever, and names what it replaces', async (t) => {
  const event = { ...examples['certificate.issued'], ...issuedBy({ replaces: '5'.repeat(32) }) } as CertificateIssued
  const entry = encodeEntry(event, time)
  t.ok(golden().includes([event.type, leafOf(entry), entry].join('\t')), entry)
  t.match(JSON.parse(entry), { v: 2, replaces: '5'.repeat(32) })
  t.same(issuedBy({ replaces: null }), {}, 'what replaces nothing is written as ever')
})

t.test('what was approved names its request, and is of another version', async (t) => {
  const event = { ...examples['certificate.issued'], ...issuedBy({ approval: request }) } as RollEvent
  const entry = encodeEntry(event, time)
  t.ok(golden().includes([event.type, leafOf(entry), entry].join('\t')))
})

t.test(
  'what was asked for on behalf of another says of whom, approved or not, and is of another version',
  async (t) => {
    const origin = {
      user: 'system:serviceaccount:cert-manager:cert-manager',
      groups: ['system:serviceaccounts', 'system:authenticated'],
      namespace: 'shop',
      object: { apiVersion: 'cert-manager.io/v1', kind: 'CertificateRequest', name: 'web-1', uid: 'b\u00fcro' },
    }
    for (const approval of [null, request]) {
      const event = {
        ...examples['certificate.issued'],
        ...issuedBy({ origin, approval }),
      } as RollEvent
      const entry = encodeEntry(event, time)
      t.ok(golden().includes([event.type, leafOf(entry), entry].join('\t')), entry)
      t.match(JSON.parse(entry), approval === null ? { v: 4, origin } : { v: 5, approval, origin })
    }
  },
)

t.test('a grant that lets somebody ask on behalf of others is of another version', async (t) => {
  const rules = { required: true, namespaces: { allow: ['shop', 'team-*'], deny: ['team-root'] } }
  const event: RollEvent = { ...examples['grant.changed'], v: 4, onBehalfOf: rules }
  const entry = encodeEntry(event, time)
  t.ok(golden().includes([event.type, leafOf(entry), entry].join('\t')), entry)
})

t.test('a grant with sharedKeys is of another version', async (t) => {
  const event: RollEvent = { ...examples['grant.changed'], v: 5, onBehalfOf: null, sharedKeys: true }
  const entry = encodeEntry(event, time)
  t.ok(golden().includes([event.type, leafOf(entry), entry].join('\t')), entry)
})

t.test('an issuer with another number of lists says so, and is of another version', async (t) => {
  const { 'issuer.created': created } = examples
  const event: RollEvent = { ...created, ...cutInto(1) }
  const entry = encodeEntry(event, time)
  t.ok(golden().includes([event.type, leafOf(entry), entry].join('\t')), entry)
  t.match(JSON.parse(entry), { v: 2, shards: 1 })
  t.equal(shardsIn(JSON.parse(entry)), 1)
  t.same(cutInto(128), {}, 'most are written as ever')
  t.equal(shardsIn(created), 128)
})

t.test('entries of earlier versions keep their leaves', async (t) => {
  const older = golden().slice(Object.keys(examples).length)
  t.ok(older.length > 0)
  for (const line of older) {
    const [type, leaf, entry = ''] = line.split('\t')
    t.equal(JSON.parse(entry).type, type)
    t.equal(leafOf(entry), leaf)
  }
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

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import t from 'tap'

import { encodeEntry, leafInput, maxEntryOctets, type RollEvent } from '../../src/roll/entries.ts'

const time = new Date('2026-11-24T23:59:59.007Z')
const profile = { name: 'server', version: 3 }
const digest = 'ab'.repeat(32)
const plan = 'cd'.repeat(32)
const serial = '40'.padEnd(32, '0')

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
  'profile.changed': { type: 'profile.changed', profile, sha256: digest, by: 'admin' },
  'principal.created': { type: 'principal.created', principal: 'ci', by: 'admin' },
  'principal.disabled': { type: 'principal.disabled', principal: 'ci', by: 'admin' },
  'grant.changed': {
    type: 'grant.changed',
    change: 'created',
    grant: '0e9d0b5e-2f0a-4d0e-9a53-1c2f6f1f2a10',
    principal: 'ci',
    role: 'requester',
    profiles: ['server'],
    names: { dns: { allow: ['*.ci.example.com'] } },
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
  'key.opened': {
    type: 'key.opened',
    issuer: 'default',
    key: 'pkcs11:token=ca;object=default',
    spki: digest,
    attributes: { sensitive: true, extractable: false, alwaysSensitive: true, neverExtractable: true, local: null },
  },
  'service.started': { type: 'service.started', version: '0.1.0', mode: 'development' },
}

const golden = (): Map<string, { entry: string; leaf: string }> => {
  const lines = readFileSync(new URL('entries.golden', import.meta.url), 'utf8')
    .trimEnd()
    .split('\n')
  return new Map(
    lines.map((line) => {
      const [type = '', leaf = '', entry = ''] = line.split('\t')
      return [type, { leaf, entry }]
    }),
  )
}

t.test('every type of entry keeps its exact octets for ever', async (t) => {
  const found = Object.values(examples).map((event) => {
    const entry = encodeEntry(event, time)
    return [event.type, createHash('sha256').update(leafInput(entry)).digest('hex'), entry].join('\t')
  })
  const kept = [...golden()].map(([type, { leaf, entry }]) => [type, leaf, entry].join('\t'))
  t.same(found, kept)
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

t.test('an entry beyond the bound of a tile is refused, not cut', async (t) => {
  const event = { ...examples['certificate.issued'], certificate: 'A'.repeat(maxEntryOctets) }
  t.throws(() => encodeEntry(event, time), RangeError)
})

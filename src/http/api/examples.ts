/**
 * One story, told through the answers of the description (what is asked is in request-examples.ts): the principal `ci/deploy` is let in, and gets a certificate
 * for web.example.com. Held to the shapes of the answers by test/http/openapi.test.ts.
 */

const serial = '4f0c2e9a7b6d1583a2c4e6f8091b3d57'
const sha256 = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'
const leafHash = '2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae'
export const digest = 'fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9'
const at = '2026-11-25T08:00:00.000Z'
const profile = { name: 'server', version: 3 }

export const pem = '-----BEGIN CERTIFICATE-----\nMIIBtzCCAV2gAwIBAgIQTwwumntt…\n-----END CERTIFICATE-----\n'
export const issuerPem = '-----BEGIN CERTIFICATE-----\nMIIBzDCCAXKgAwIBAgIQRb1cKQ9f…\n-----END CERTIFICATE-----\n'
const requestPem =
  '-----BEGIN CERTIFICATE REQUEST-----\nMIIBDjCBtgIBADAaMRgwFgYDVQQK…\n-----END CERTIFICATE REQUEST-----\n'
export const rootPem = '-----BEGIN CERTIFICATE-----\nMIIBoTCCAUegAwIBAgIQYx0vT3Hs…\n-----END CERTIFICATE-----\n'

export const cursor = 'eyJ0IjoiNmI4NmIyNzMifQ.MTA0MA'

export const boundTo = { size: 1108, time: '2026-11-25T10:00:00.001Z' }

export const count = { rows: 1, exact: true }

export const origin = {
  user: 'system:serviceaccount:cert-manager:cert-manager',
  groups: ['system:serviceaccounts', 'system:authenticated'],
  namespace: 'shop',
  object: {
    apiVersion: 'cert-manager.io/v1',
    kind: 'CertificateRequest',
    name: 'web-1',
    uid: '0f8fad5b-d9cb-469f-a165-70867728950e',
  },
}

export const renewalInfo = {
  suggestedWindow: { start: '2026-11-25T19:55:00.000Z', end: '2026-11-25T23:54:59.000Z' },
  serial: '4f0c2e9a7b6d1583a2c4e6f8091b3d57',
  reason: 'age',
}

const validity = { notBefore: '2026-11-25T07:55:00.000Z', notAfter: '2026-11-26T07:54:59.000Z' }

export const revocation = {
  reason: 'keyCompromise',
  revokedAt: '2026-11-25T09:30:00.000Z',
  invalidityDate: '2026-11-20T00:00:00.000Z',
  by: 'ops',
  index: 1107,
}

/** Of a small roll. */
export const checkpoint = `ca.example.com/roll
1043
47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=

\u2014 ca.example.com/roll Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
`

const proof = `c2sp.org/tlog-proof@v1
index 1041
LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=
6UpoYlCwZ+bI4ywGoCx4jY6ic8+a1ghY/9FWlMUs+Ls=

${checkpoint}`

export const issued = {
  serial,
  certificate: pem,
  chain: [issuerPem],
  profile,
  issuer: 'default',
  ...validity,
  index: 1041,
  leafHash,
  proof,
  notes: [{ field: '/keyUsage', reason: 'is nothing that ec-p256 keys serve, and is dropped' }],
  replayed: false,
}

export const certificateProof = {
  serial,
  index: 1041,
  leafHash,
  entry:
    '{"certificate":"MIIBtzCCAV2gAwIBAgIQTwwumntt…","issuer":"default","plan":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","principal":"ci/deploy","profile":{"name":"server","version":3},"request":"fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9","serial":"4f0c2e9a7b6d1583a2c4e6f8091b3d57","time":"2026-11-25T08:00:00.000Z","type":"certificate.issued","v":1}',
  proof,
}

const violation = {
  check: 'names.dns.allow',
  field: '/names/0',
  value: 'web.example.org',
  reason: 'matches no pattern of the profile',
}

export const decision = {
  allowed: false,
  checks: [
    { ...violation, outcome: 'failed' },
    { check: 'key.type', outcome: 'passed', field: '/key', value: 'ec-p256', reason: 'is listed by the profile' },
  ],
  violations: [violation],
  notes: [],
  authority: 'default',
}

export const found = {
  serial,
  status: 'valid',
  subject: 'CN=web.example.com',
  names: [{ kind: 'dns', value: 'web.example.com' }],
  profile,
  principal: 'ci/deploy',
  issuer: 'default',
  keySha256: sha256,
  ...validity,
  issuedAt: at,
  index: 1041,
}

export const certificate = { ...found, certificate: pem, chain: [issuerPem] }

export const crl = {
  signer: sha256,
  number: '7',
  thisUpdate: '2026-11-24T00:00:00.000Z',
  nextUpdate: '2027-05-24T00:00:00.000Z',
  index: 1098,
}

export const revoked = { serial, status: 'revoked', keySha256: sha256, revocation, alsoWithKey: [] }

export const asOf = '812345@2026-11-25T08:00:00.000Z'

export const leaked = { profile: 'server', issuedBefore: '2026-11-25T08:00:00.000Z' }

export const revocationPlan = {
  digest,
  asOf,
  search: leaked,
  reason: 'keyCompromise',
  count: 100_000,
  byProfile: { items: [{ name: 'server', count: 100_000 }], others: { names: 0, count: 0 } },
  byPrincipal: { items: [{ name: 'ci/deploy', count: 99_210 }], others: { names: 12, count: 790 } },
  byIssuer: { items: [{ name: 'default', count: 100_000 }], others: { names: 0, count: 0 } },
  crlGrowth: [{ issuer: 'default', entries: 99_998, octets: 4_999_900, shards: 128 }],
  skipped: { expired: 4_105, revoked: 17 },
  sample: [serial],
}

export const revocationOrder = {
  digest,
  state: 'running',
  search: leaked,
  reason: 'keyCompromise',
  by: 'ops',
  index: 812_351,
  total: 100_000,
  revoked: 41_398,
  skipped: { expired: 2, revoked: 0 },
  orderedAt: '2026-11-25T08:04:00.000Z',
  startedAt: '2026-11-25T08:04:00.730Z',
  finishedAt: null,
}

const approvedPlan = {
  authority: 'default',
  extendedKeyUsage: ['serverAuth'],
  issuer: 'default',
  key: digest,
  keyType: 'ec-p256',
  keyUsage: ['digitalSignature'],
  names: [{ kind: 'dns', value: 'pay.example.com' }],
  profile: { name: 'payments', version: 3, sha256: digest },
  revocation: ['crl', 'ocsp'],
  subject: [],
  validity: 86_400,
}

const requestId = '0193f2b4-7c02-7f11-8a2e-5d0b1c9e4f60'

export const approvalRequest = {
  id: requestId,
  state: 'pending',
  principal: 'ci/deploy',
  profile: { name: 'payments', version: 3 },
  plan: approvedPlan,
  digest,
  required: 2,
  approvals: [{ principal: 'alice', at: '2026-11-25T08:02:00.000Z', reason: 'as in change 4711', index: 1_044 }],
  createdAt: '2026-11-25T08:00:00.000Z',
  expiresAt: '2026-11-26T08:00:00.000Z',
  index: 1_043,
  end: null,
  serial: null,
  obstacle: null,
}

export const issuedRequest = {
  ...approvalRequest,
  state: 'issued',
  approvals: [
    ...approvalRequest.approvals,
    { principal: 'bob', at: '2026-11-25T08:05:00.000Z', reason: 'looked at', index: 1_045 },
  ],
  end: { at: '2026-11-25T08:05:00.210Z', by: null, code: null, reason: null },
  serial,
  certificate: pem,
  chain: [pem],
}

const refused = {
  type: '/problems/san.forbidden',
  title: 'Name not allowed',
  status: 422,
  detail: 'The check names.dns.allow failed for "web.example.org" at /names/0: matches no pattern of the profile.',
  code: 'san.forbidden',
  retryable: false,
  violations: [violation],
  next: 'Ask for names that the profile and your grant allow.',
  requestId: '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e',
}

export const batch = {
  items: [
    { status: 201, certificate: issued },
    { status: 422, problem: refused },
  ],
}

export const profileVersion = {
  ...profile,
  sha256,
  authority: 'default',
  document: {
    name: 'server',
    authority: 'default',
    validity: { default: '24h', max: '30d', over: 'shorten', backdate: '5m' },
    keys: [{ ec: ['P-256', 'P-384'] }],
    subject: { commonName: { from: 'csr', match: '*', required: false }, others: 'refuse' },
    names: { dns: { allow: ['**.example.com'] } },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: ['crl', 'ocsp'],
  },
  createdAt: '2026-11-24T16:30:00.000Z',
  createdBy: 'admin',
}

const made = { createdAt: '2026-11-25T07:30:00.000Z', createdBy: 'admin' }

export const principal = { name: 'ci/deploy', ...made, disabledAt: null }

export const limits = { certificatesPerDay: 1000, requestsPerSecond: 20 }

export const grant = {
  id: '0193f2a1-04c8-7d12-8a3e-5b6c7d8e9f01',
  principal: 'ci/deploy',
  role: 'requester',
  profiles: ['server'],
  names: { dns: { allow: ['web.example.com'] } },
  revoke: true,
  limits,
  onBehalfOf: null,
  sharedKeys: false,
  ...made,
}

export const onBehalfOf = { required: true, namespaces: { allow: ['shop', 'team-*'] } }

export const token = {
  id: '0193f2a1-3be0-7f45-9c21-0d1e2f3a4b5c',
  principal: 'ci/deploy',
  label: 'deploy pipeline',
  ...made,
  expiresAt: '2027-11-25T00:00:00.000Z',
  revokedAt: null,
  lastUsedAt: '2026-11-25T08:00:00.000Z',
}

export const provider = {
  name: 'github',
  version: 2,
  sha256,
  issuer: 'https://token.actions.githubusercontent.com',
  document: {
    name: 'github',
    issuer: 'https://token.actions.githubusercontent.com',
    keys: { discovery: true },
    algorithms: ['RS256'],
    audience: 'https://ca.example.com',
    lifetime: '15m',
    mappings: [
      {
        id: 'deploy',
        claims: { repository: 'example/web', ref: 'refs/heads/main' },
        principal: 'ci/deploy',
      },
    ],
  },
  createdAt: at,
  createdBy: 'admin',
}
export const credential = {
  id: '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d72',
  principal: 'ci/deploy',
  label: 'the build machine',
  fingerprint: null,
  spiffeId: 'spiffe://example.com/ci/deploy',
  subject: null,
  issuer: null,
  createdAt: at,
  createdBy: 'admin',
  revokedAt: null,
}
export const newToken = { ...token, lastUsedAt: null, secret: 'chy_…' }

export const refusal = {
  id: '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e',
  at: '2026-11-25T07:59:12.408Z',
  principal: 'ci/deploy',
  profile: 'server',
  code: 'san.forbidden',
  detail: refused.detail,
  digest,
  offset: null,
  violations: [violation],
  checks: decision.checks,
  checksLeftOut: 0,
  origin: null,
}

export const event = {
  index: 1038,
  leafHash,
  entry: '{"by":"admin","principal":"ci/deploy","time":"2026-11-25T07:30:00.000Z","type":"principal.created","v":1}',
}

export const access = {
  id: '0193f2b4-7a01-7b3c-8d2e-4f5a6b7c8d9e',
  at: '2026-11-25T10:00:00.004Z',
  principal: 'audit/eve',
  act: 'completed',
  records: 'certificates',
  filter: { name: '*.example.com' },
  continues: false,
  format: 'ndjson',
  size: 1108,
  rows: 412,
  export: '0193f2b4-7a00-7c4d-9e5f-6a7b8c9d0e1f',
}

/** The last line of an export. */
export const statement = (records: string) => ({
  complete: true,
  records,
  filter: {},
  range: { from: 0, before: 1108 },
  boundTo,
  rows: 1,
  ...(['refusals', 'accesses'].includes(records) && { keptFrom: '2026-08-01T00:00:00.000Z' }),
  ...(records === 'refusals' && { counted: 0 }),
})

export const authority = { name: 'default', issuers: [{ name: 'default', state: 'active' }] }

export const issuer = {
  name: 'default',
  authority: 'default',
  state: 'active',
  since: '2026-11-25T07:00:00.000Z',
  certificate: issuerPem,
  chain: [rootPem],
  otherChains: [],
  shards: 128,
}

export const bundle = {
  items: [
    {
      certificate: issuerPem,
      sha256: 'b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9',
      issuers: ['default'],
      neededUntil: '2031-11-24T07:00:00.000Z',
    },
  ],
}

export const issuerRequest = {
  name: 'default-2027',
  authority: 'default',
  key: 'pkcs11:token=ca;object=default-2027',
  csr: requestPem,
  createdAt: '2026-11-25T07:30:00.000Z',
  createdBy: 'admin',
}

export const issuerKey = {
  issuer: 'default-2027',
  key: 'pkcs11:token=ca-2;object=default-2027',
  spki: 'b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9',
}
export const issuerKeyMoved = { ...issuerKey, before: 'pkcs11:token=ca;object=default-2027' }

export const readiness = { ready: true, checks: [{ name: 'database', ok: true, reason: 'takes records' }] }
export const unreadiness = { ready: false, checks: [{ name: 'key', ok: false, reason: 'default: key.unavailable' }] }

export const metrics = [
  '# HELP chancery_issuances_total Requests to issue, by how they ended.',
  '# TYPE chancery_issuances_total counter',
  'chancery_issuances_total{profile="server",outcome="issued"} 1041',
  '',
].join('\n')

export const problemKind = {
  type: '/problems/san.forbidden',
  code: 'san.forbidden',
  status: 422,
  title: 'Name not allowed',
  retryable: false,
  next: 'Ask for names that the profile and your grant allow.',
}

/**
 * Bodies of requests in the description, so that a caller who tries one need change nothing: all but what comes out of a ceremony,
 * and what names a request that waits, is accepted as it stands, in this order. Held to that by test/http/tried.test.ts.
 */

export const newPrincipal = { name: 'ci/deploy' }

export const newGrant = {
  principal: 'ci/deploy',
  role: 'requester',
  profiles: ['server'],
  names: { dns: { allow: ['web.example.com'] } },
  revoke: true,
}

export const newToken = { principal: 'ci/deploy', label: 'deploy pipeline' }

export const newCredential = {
  principal: 'ci/deploy',
  label: 'the build machine',
  spiffeId: 'spiffe://example.com/ci/deploy',
}

/** Nobody has its key any more. */
export const csr = `-----BEGIN CERTIFICATE REQUEST-----
MIIBAjCBqQIBADAaMRgwFgYDVQQDDA93ZWIuZXhhbXBsZS5jb20wWTATBgcqhkjO
PQIBBggqhkjOPQMBBwNCAARrw4QmfCFpGKhyrugyRp8q0KeldT2ebdO0HYhRhh8o
NgfROuYxIqjENHlsruk5KpY+iQTnxWl76vMyGd7Mf/jwoC0wKwYJKoZIhvcNAQkO
MR4wHDAaBgNVHREEEzARgg93ZWIuZXhhbXBsZS5jb20wCgYIKoZIzj0EAwIDSAAw
RQIgHgknfCnr8XWzj8oAvPEKUm3oKjD/GdjfRI5n4DK9gCoCIQCfzL+7XQIwbwFV
4Z4k5QMsZsTG2gIh2I6qq7BApilZCw==
-----END CERTIFICATE REQUEST-----
`

export const request = { csr, profile: 'server', validity: '24h' }

export const batch = {
  items: [
    { csr, profile: 'server', idempotencyKey: 'web-1' },
    { csr, profile: 'server', names: { dns: ['web.example.org'] }, idempotencyKey: 'web-2' },
  ],
}

export const renewal = { csr }

export const revocation = { reason: 'superseded' }

export const revocations = {
  search: { profile: 'server', issuedBefore: '2026-11-25T08:00:00.000Z' },
  reason: 'keyCompromise',
}

export const profile = {
  name: 'server',
  authority: 'default',
  validity: { default: '24h', max: '30d', over: 'shorten', backdate: '5m' },
  keys: [{ ec: ['P-256', 'P-384'] }],
  subject: { commonName: { from: 'csr', match: '*', required: false }, others: 'refuse' },
  names: { dns: { allow: ['**.example.com'] } },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
}

export const identityProvider = {
  name: 'github',
  issuer: 'https://token.actions.githubusercontent.com',
  keys: { discovery: true },
  algorithms: ['RS256'],
  audience: 'https://ca.example.com',
  lifetime: '15m',
  mappings: [{ id: 'deploy', claims: { repository: 'example/web', ref: 'refs/heads/main' }, principal: 'ci/deploy' }],
}

export const issuerRequest = {
  name: 'default-2027',
  authority: 'default',
  subject: [
    { type: 'organization', value: 'Example' },
    { type: 'commonName', value: 'Example Issuing CA 2027' },
  ],
}

const issuerPem = '-----BEGIN CERTIFICATE-----\nMIIBzDCCAXKgAwIBAgIQRb1cKQ9f…\n-----END CERTIFICATE-----\n'
const rootPem = '-----BEGIN CERTIFICATE-----\nMIIBoTCCAUegAwIBAgIQYx0vT3Hs…\n-----END CERTIFICATE-----\n'
export const issuer = { chain: issuerPem + rootPem }
export const chains = { chains: [issuerPem + rootPem] }
export const issuerKey = {
  key: 'pkcs11:token=ca-2;object=default-2027',
  reason: 'the token broke; its backup is in ca-2',
}
export const move = { move: 'activate', reason: 'it was staged for a day' }

export const crl = { crl: '-----BEGIN X509 CRL-----\nMIH8MIGkAgEBMAoGCCqGSM49BAMC…\n-----END X509 CRL-----\n' }

export const approvalDecision = {
  digest: 'fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9',
  reason: 'as in change 4711',
}
export const withdrawal = { reason: 'asked for the wrong name' }

/** Each fault of parameters that their shape does not show, told alone, and what lies just beside it, which is none. */
import t from 'tap'
import { stringify } from 'yaml'

import {
  lastMoment,
  parseParameters,
  serialOf,
  spanOf,
  subjectOf,
  updatesOf,
} from '../../src/cli/ceremony/parameters.ts'
import { Failure } from '../../src/lib/failure.ts'
import { crlParameters, fileKey, type Parameters, rootParameters, signParameters } from './ceremonies.ts'

/** Without the lines. */
const faultsOf = (parameters: Parameters): readonly string[] => {
  try {
    parseParameters(parameters['ceremony'] as 'root', stringify(parameters), 'p')
    return []
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return error.message.split('\n').map((line) => line.replace(/^p:\d+: /, ''))
  }
}

const root = (more: Parameters) => rootParameters('root', more)
const key = (more: Parameters, base: Parameters = fileKey('root')) =>
  root({ key: { algorithm: 'ec-p256', ...base, ...more } })
const token = (uri: string, more: Parameters) => root({ key: { uri, algorithm: 'ec-p256', ...more } })
const crl = (more: Parameters) => crlParameters('root', 1, more)
const revoked = (...entries: readonly Parameters[]) =>
  crl({ revoked: entries.map((one) => ({ serial: '01', at: '2026-01-01T00:00:00Z', reason: 'superseded', ...one })) })
const starName =
  '/nameConstraints/permitted/dns/1 ("*.b.example") is not a domain, as in example.com (without a dot before it).'
/** Of 16 octets. Before one with its first bit set others show an octet of zeros, as it is in the certificate. */
const long = 'ff'.repeat(16)
const inFull = { module: '/m.so', pinFile: '/pin' }

t.test('a fault is told alone', async (t) => {
  for (const [parameters, fault] of [
    [key({ bits: 3072 }), '/key/bits goes with rsa only.'],
    [key({ algorithm: 'rsa' }), '/key/bits is missing: 3072 or 4096.'],
    [key({ pinFile: '/pin' }), '/key/pinFile says nothing of a key at this URI.'],
    [key({ module: '/m.so' }), '/key/module says nothing of a key at this URI.'],
    [key({}, { uri: 'file:a' }), '/key/passphraseFile is missing for a key at this URI.'],
    [key({ uri: 'file:' }), '/key/uri (file:) names no file.'],
    [token('root.pem', {}), '/key/uri (root.pem) must begin with file: or pkcs11:.'],
    [
      token('pkcs11:token=a;object=b', { module: '/m.so' }),
      '/key/pinFile must be named once, here or in the URI (pin-source).',
    ],
    [
      token('pkcs11:token=a;object=b', { pinFile: '/pin' }),
      '/key/module must be named once, here or in the URI (module-path).',
    ],
    [
      token('pkcs11:token=a;object=b?module-path=/m.so', inFull),
      '/key/module must be named once, here or in the URI (module-path).',
    ],
    [
      token('pkcs11:token=a;object=b?pin-source=/pin', inFull),
      '/key/pinFile must be named once, here or in the URI (pin-source).',
    ],
    [
      token('pkcs11:token=a;object=b', { ...inFull, passphraseFile: 'p' }),
      '/key/passphraseFile says nothing of a key at this URI.',
    ],
    [
      token('pkcs11:token=a', inFull),
      '/key/uri is not usable: pkcs11:token=a does not say which key: add object=<label> or id=<%01%02…>.',
    ],
    [signParameters('root', 'a', { request: { algorithm: 'rsa' } }), '/request/bits is missing: 3072 or 4096.'],
    [
      signParameters('root', 'a', { request: { algorithm: 'ec-p256', bits: 4096 } }),
      '/request/bits goes with rsa only.',
    ],
    [root({ subject: { country: 'Germany' } }), '/subject/country (Germany) is not 2 characters long.'],
    [root({ nameConstraints: { permitted: { dns: ['a.example', '*.b.example'] } } }), starName],
    [root({ nameConstraints: { permitted: {} } }), '/nameConstraints holds no name; leave it out.'],
    [root({ validity: {} }), '/validity must have an end or days, and not both.'],
    [
      crl({ validity: { days: 1, nextUpdate: '2027-01-01T00:00:00Z' } }),
      '/validity must have an end or days, and not both.',
    ],
    [
      root({ validity: { notBefore: '2027-01-01T00:00:00Z', notAfter: '2027-01-01T00:00:00Z' } }),
      '/validity/notAfter (2027-01-01T00:00:00Z) does not lie after the beginning.',
    ],
    [
      crl({ validity: { thisUpdate: '2027-01-01T00:00:01Z', nextUpdate: '2027-01-01T00:00:00Z' } }),
      '/validity/nextUpdate (2027-01-01T00:00:00Z) does not lie after the beginning.',
    ],
    [
      root({ validity: { notBefore: '1949-12-31T23:59:59Z', days: 1 } }),
      '/validity/notBefore (1949-12-31T23:59:59Z) is not a moment that exists.',
    ],
    [
      root({ validity: { notAfter: '2027-02-29T00:00:00Z' } }),
      '/validity/notAfter (2027-02-29T00:00:00Z) is not a moment that exists.',
    ],
    [
      crl({ validity: { thisUpdate: '2026-06-31T00:00:00Z', days: 1 } }),
      '/validity/thisUpdate (2026-06-31T00:00:00Z) is not a moment that exists.',
    ],
    [revoked({ serial: long }, { serial: `00:00:${long}` }), `/revoked/1/serial (00:00:${long}) is listed twice.`],
    [revoked({}, { serial: '00:01' }), '/revoked/1/serial (00:01) is listed twice.'],
    [revoked({ serial: '00' }), '/revoked/0/serial (00) is no serial of a certificate.'],
    [
      revoked({ serial: `80${'00'.repeat(19)}` }),
      `/revoked/0/serial (80${'00'.repeat(19)}) is no serial of a certificate.`,
    ],
    [revoked({ at: '2026-02-29T00:00:00Z' }), '/revoked/0/at (2026-02-29T00:00:00Z) is not a moment that exists.'],
    [
      revoked({ invalidSince: '2026-01-01T24:00:00Z' }),
      '/revoked/0/invalidSince (2026-01-01T24:00:00Z) is not a moment that exists.',
    ],
    [
      root({ output: { certificate: 'a.pem', transcript: './b/../a.pem' } }),
      '/output/transcript (./b/../a.pem) is the file of another output.',
    ],
  ] as const)
    t.same(faultsOf(parameters), [fault])
})

t.test('what lies beside it is none', async (t) => {
  for (const parameters of [
    key({ algorithm: 'rsa', bits: 4096 }),
    token('pkcs11:token=a;object=b', inFull),
    token('pkcs11:token=a;object=b?module-path=/m.so&pin-source=/pin', {}),
    signParameters('root', 'a', { request: { algorithm: 'rsa', bits: 3072 } }),
    root({ nameConstraints: { excluded: { dns: [''] } } }),
    root({ validity: { notBefore: '1950-01-01T00:00:00Z', notAfter: '9999-12-31T23:59:59Z' } }),
    crl({ validity: { thisUpdate: '2027-01-01T00:00:00Z', nextUpdate: '2027-01-01T00:00:01Z' } }),
    revoked({}, { serial: '02' }, { serial: `7f${'ff'.repeat(19)}`, invalidSince: '2024-02-29T23:59:59Z' }),
    revoked({ serial: long }),
  ])
    t.same(faultsOf(parameters), [])
})

t.test('what parts of them mean', async (t) => {
  const now = new Date('2026-01-01T00:00:00.900Z')
  const [begun, later] = [new Date('2026-01-01T00:00:00Z'), '2027-01-01T00:00:00Z']
  t.same(spanOf({ days: 1 }, now), { notBefore: begun, notAfter: new Date('2026-01-01T23:59:59Z') })
  t.same(spanOf({ notAfter: later }, now), { notBefore: begun, notAfter: new Date(later) })
  t.same(spanOf({ notBefore: later, days: 1 }, now).notAfter, new Date('2027-01-01T23:59:59Z'))
  t.same(updatesOf({ days: 1 }, now), { thisUpdate: begun, nextUpdate: new Date('2026-01-02T00:00:00Z') })
  t.same(updatesOf({ thisUpdate: later, days: 1 }, now).thisUpdate, new Date(later))
  t.same(serialOf('0A:ff'), Buffer.from(`${'00'.repeat(14)}0aff`, 'hex'))
  t.same(serialOf(`00${long}`), Buffer.from(long, 'hex'), 'as it is read in a list')
  t.same(updatesOf({ nextUpdate: later }, now).nextUpdate, new Date(later))
  t.same(
    subjectOf({ organization: 'O', commonName: 'C' }).map(({ type }) => type),
    ['organization', 'commonName'],
  )
  t.equal(new Date(lastMoment).toISOString(), '9999-12-31T23:59:59.000Z')
})

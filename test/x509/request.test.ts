/** What is written here, octet for octet against what openssl writes with the same key. */
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'

import t from 'tap'

import { defaultSignatureAlgorithm, type KeyAlgorithmId } from '../../src/x509/algorithms.ts'
import { assembleCertificate } from '../../src/x509/assemble.ts'
import { parseRequest, verifyPossession } from '../../src/x509/csr.ts'
import { openDer, tags } from '../../src/x509/der.ts'
import type { Name } from '../../src/x509/names.ts'
import { encodeRequest } from '../../src/x509/request.ts'

interface KeyPair {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

const openssl = (
  t: { testdir(files: Record<string, string | Buffer>): string },
  { privateKey }: KeyPair,
  ...options: readonly string[]
): Buffer => {
  const folder = t.testdir({
    'key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }),
    'openssl.cnf': '[req]\ndistinguished_name = none\n[none]\n',
  })
  const [key, configuration] = [join(folder, 'key.pem'), join(folder, 'openssl.cnf')]
  return execFileSync('openssl', ['req', '-config', configuration, '-key', key, '-outform', 'DER', ...options])
}

const spkiOf = ({ publicKey }: KeyPair): Buffer => publicKey.export({ type: 'spki', format: 'der' })

t.test('a request is the one that openssl writes, with names and without', async (t) => {
  const pair = generateKeyPairSync('ed25519')
  const subject = [
    { type: 'organization', value: 'Müller & Co' },
    { type: 'commonName', value: 'web.example.com' },
  ] as const
  const subj = ['-utf8', '-subj', '/O=Müller & Co/CN=web.example.com']
  const names: readonly Name[] = [
    { kind: 'dns', value: 'web.example.com' },
    { kind: 'ip', value: '10.0.0.1' },
    { kind: 'uri', value: 'spiffe://example.org/web' },
  ]
  const san = 'subjectAltName=DNS:web.example.com,IP:10.0.0.1,URI:spiffe://example.org/web'
  const algorithm = defaultSignatureAlgorithm('ed25519')
  for (const [asked, extensions] of [
    [names, ['-addext', san]],
    [[], []],
  ] as const) {
    const der = encodeRequest({ subject, names: asked, spki: spkiOf(pair) }, pair.privateKey, algorithm)
    t.equal(der.toString('hex'), openssl(t, pair, '-new', ...subj, ...extensions).toString('hex'))
    const csr = parseRequest(der)
    t.same(csr.subject, subject)
    t.same(csr.names, asked)
    await t.resolves(verifyPossession(csr))
  }
})

const pairs: readonly (readonly [KeyAlgorithmId, KeyPair])[] = [
  ['rsa', generateKeyPairSync('rsa', { modulusLength: 2048 })],
  ['ec-p256', generateKeyPairSync('ec', { namedCurve: 'P-256' })],
  ['ec-p384', generateKeyPairSync('ec', { namedCurve: 'P-384' })],
  ['ec-p521', generateKeyPairSync('ec', { namedCurve: 'P-521' })],
  ['ed25519', generateKeyPairSync('ed25519')],
]

for (const [id, pair] of pairs) {
  t.test(`openssl verifies a request by ${id}`, async (t) => {
    const input = { subject: [], names: [{ kind: 'dns', value: 'web.example.com' }], spki: spkiOf(pair) } as const
    const der = encodeRequest(input, pair.privateKey, defaultSignatureAlgorithm(id))
    t.doesNotThrow(() =>
      execFileSync('openssl', ['req', '-verify', '-noout', '-inform', 'DER'], { input: der, stdio: 'pipe' }),
    )
  })

  t.test(`a certificate of openssl's by ${id}, taken apart, is put together again`, async (t) => {
    const der = openssl(t, pair, '-x509', '-subj', '/CN=root', '-days', '2')
    const certificate = openDer(der, 'internal').read(tags.sequence, 'the certificate')
    const tbs = certificate.element(tags.sequence, 'the TBS')
    certificate.skip()
    const signature = certificate.bits('the signature').octets
    t.ok(assembleCertificate(tbs, signature).equals(der))
  })
}

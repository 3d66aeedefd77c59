import { generateKeyPairSync, sign } from 'node:crypto'

import t from 'tap'

import { type KeyAlgorithmId, keyAlgorithms, signatureAlgorithms } from '../../src/x509/algorithms.ts'
import { encodeCaTbs, parseCertificate, type TbsFacts } from '../../src/x509/certificate.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { secondOpinion } from '../../src/x509/library.ts'
import { encodeSubject, type Subject } from '../../src/x509/subject.ts'
import { encodeCertificate } from '../../src/x509/tbs.ts'

const keysOf = (id: KeyAlgorithmId) => {
  const { type, options } = keyAlgorithms[id].generate
  const { publicKey, privateKey } = generateKeyPairSync(type as 'ec', options as { namedCurve: string })
  return { privateKey, spki: publicKey.export({ type: 'spki', format: 'der' }) }
}

const subject: Subject = [
  { type: 'country', value: 'CH' },
  { type: 'organization', value: 'Prüfstelle' },
  { type: 'commonName', value: 'Example Root' },
]

/** A root that says of itself all that one can. */
const makeRoot = (
  keyId: KeyAlgorithmId,
  algorithm = signatureAlgorithms[0] as (typeof signatureAlgorithms)[number],
) => {
  const { privateKey, spki } = keysOf(keyId)
  const key = parsePublicKey(spki)
  const tbs = encodeCaTbs({
    serial: Buffer.from('0091a2b3c4d5e6f708192a3b4c5d6e7f', 'hex'),
    issuer: encodeSubject(subject),
    subject,
    notBefore: new Date('2026-01-01T00:00:00Z'),
    notAfter: new Date('2056-01-01T00:00:00Z'),
    key,
    authorityKeyIdentifier: key.keyIdentifier,
    signature: algorithm,
    pathLength: 1,
    nameConstraints: { permitted: [{ kind: 'dns', value: 'example.com' }], excluded: [] },
    crlUrl: 'http://pki.example.com/root.crl',
    issuerUrl: 'http://pki.example.com/root.cer',
  })
  const signature = sign(algorithm.hash, tbs, { key: privateKey, ...algorithm.signOptions })
  const der = encodeCertificate(tbs, algorithm, signature)
  return { der, spki, facts: parseCertificate(der).facts }
}

t.test('the library reads what the strict reader does, and finds each kind of signature good', async (t) => {
  for (const algorithm of signatureAlgorithms)
    for (const keyId of algorithm.keys) {
      const { der, facts, spki } = makeRoot(keyId, algorithm)
      t.same(await secondOpinion(der, facts, spki), [], `${keyId}, ${algorithm.id}`)
    }
})

const root = makeRoot('ec-p256')
const { der, facts, spki } = root

const differences: readonly (readonly [what: string, Partial<TbsFacts>])[] = [
  ['serial', { serial: Buffer.alloc(16, 1) }],
  ['issuer', { issuer: encodeSubject([{ type: 'commonName', value: 'Example Root' }]) }],
  ['subject', { subjectDer: encodeSubject([{ type: 'commonName', value: 'Example Root' }]) }],
  ['validity', { notBefore: new Date('2026-01-01T00:00:01Z') }],
  ['validity', { notAfter: new Date('2055-01-01T00:00:00Z') }],
  ['public key', { spki: keysOf('ec-p256').spki }],
  ['authority', { ca: false }],
  ['authority', { pathLength: 0 }],
  ['key usage', { keyUsage: ['keyCertSign'] }],
  ['list of extensions', { extensions: facts.extensions.slice(1) }],
  ['list of extensions', { extensions: facts.extensions.map(({ oid }) => ({ oid, critical: true })) }],
]
for (const [what, change] of differences)
  t.test(`another ${what} is told: ${Object.keys(change)}`, async (t) => {
    const [found = '', ...more] = await secondOpinion(der, { ...facts, ...change }, spki)
    t.ok(found.startsWith(`reads another ${what}, `), found)
    t.same(more, [])
  })

t.test('a signature of another key, and what is no certificate, are told', async (t) => {
  t.same(await secondOpinion(der, facts, keysOf('ec-p256').spki), ['does not find the signature good'])
  const altered = Buffer.from(der)
  altered[altered.length - 1] = (altered.at(-1) as number) ^ 1
  t.same(await secondOpinion(altered, facts, spki), ['does not find the signature good'])
  t.match(await secondOpinion(der.subarray(0, 100), facts, spki), [/^cannot read it: ./])
})

/** Certificates as a verifier of the roll reads them, and their signatures on threads. */
import { generateKeyPairSync, sign } from 'node:crypto'

import t from 'tap'

import { openRollCertificates } from '../../src/auditor/certificates.ts'
import type { SignedBy } from '../../src/tlog/known.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { encodeCaTbs, parseCertificate } from '../../src/x509/certificate.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { encodeCertificate } from '../../src/x509/tbs.ts'
import { newIssuer, serialOf } from '../tlog/world.ts'

const certificates = openRollCertificates(2)
t.teardown(() => certificates.close())
const issuer = newIssuer('default')
const read = (base64: string) => certificates.readCertificate(Buffer.from(base64, 'base64'))
const own = read(issuer.certificate) as SignedBy['issuer']

t.test('what is read is what the strict reader reads', async (t) => {
  const der = Buffer.from(issuer.certify(serialOf(7)), 'base64')
  const { facts, tbs, signature, signatureAlgorithm } = parseCertificate(der)
  t.same(certificates.readCertificate(der), {
    serial: serialOf(7),
    issuer: facts.issuer,
    subject: facts.subjectDer,
    spki: facts.spki,
    notAfter: facts.notAfter,
    tbs,
    algorithm: signatureAlgorithm.id,
    signature,
  })
})

t.test('what is not a certificate is undefined, whatever it is', async (t) => {
  const der = Buffer.from(issuer.certify(serialOf(7)), 'base64')
  for (let length = 0; length < der.length; length += 1) {
    if (certificates.readCertificate(der.subarray(0, length)) !== undefined) t.fail(`the first ${length} octets`)
  }
  t.equal(certificates.readCertificate(Buffer.concat([der, Buffer.of(0)])), undefined)
  let refused = 0
  for (let at = 0; at < der.length; at += 1) {
    const altered = Buffer.from(der)
    altered[at] = (altered[at] ?? 0) ^ 0x20
    if (certificates.readCertificate(altered) === undefined) refused += 1
  }
  t.ok(refused > 20, `${refused} of ${der.length}`)
})

t.test('many at once: each is answered for itself, in order', async (t) => {
  const other = newIssuer('default')
  const signed = Array.from({ length: 700 }, (_, n): SignedBy => {
    const by = n % 5 === 0 ? { by: other } : {}
    return { certificate: read(issuer.certify(serialOf(n), by)) as SignedBy['certificate'], issuer: own }
  })
  t.same(
    await certificates.verifyCertificates(signed),
    signed.map((_, n) => n % 5 !== 0),
  )
  t.same(await certificates.verifyCertificates([]), [])
})

t.test('a signature is of an algorithm that goes with the key of the issuer', async (t) => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const key = parsePublicKey(publicKey.export({ type: 'spki', format: 'der' }))
  const subject = [{ type: 'commonName', value: 'rsa' }] as const
  const certify = (id: string): string => {
    const signature = signatureAlgorithm(id)
    const tbs = encodeCaTbs({
      serial: Buffer.alloc(16, 0x41),
      issuer: encodeSubject(subject),
      subject,
      notBefore: new Date('2026-01-01T00:00:00Z'),
      notAfter: new Date('2027-01-01T00:00:00Z'),
      key,
      authorityKeyIdentifier: key.keyIdentifier,
      signature,
    })
    const { hash, signOptions } = signature
    return encodeCertificate(tbs, signature, sign(hash, tbs, { key: privateKey, ...signOptions })).toString('base64')
  }
  const self = (id: string): SignedBy => {
    const one = read(certify(id)) as SignedBy['issuer']
    return { certificate: one, issuer: one }
  }
  const signed = [self('rsa-sha256'), self('ecdsa-sha256')]
  t.same(await certificates.verifyCertificates(signed), [true, false])
  const [good] = signed as [SignedBy]
  const broken = { ...good.issuer, spki: Buffer.concat([good.issuer.spki.subarray(0, -2), Buffer.of(0, 0)]) }
  t.same(await certificates.verifyCertificates([{ ...good, issuer: broken }]), [false], 'nor of a key that is none')
})

t.test('when its threads have ended nothing is answered', async (t) => {
  const closed = openRollCertificates(1)
  const one = { certificate: read(issuer.certify(serialOf(1))) as SignedBy['certificate'], issuer: own }
  const pending = closed.verifyCertificates(Array.from({ length: 1000 }, () => one))
  await Promise.all([t.rejects(pending, { message: /has ended/ }), closed.close()])
  await t.rejects(closed.verifyCertificates([one]), { message: /has ended/ })
})

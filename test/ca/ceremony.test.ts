import { generateKeyPairSync, sign } from 'node:crypto'

import t from 'tap'

import { encodeCrossTbs, encodeRootTbs, Misfit, seal, signIntermediate, signRoot } from '../../src/ca/ceremony.ts'
import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { encodeCaTbs, parseCertificate } from '../../src/x509/certificate.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { parseSubtree } from '../../src/x509/name-constraints.ts'
import { encodeSubject, type Subject } from '../../src/x509/subject.ts'
import { encodeCertificate } from '../../src/x509/tbs.ts'

interface Counting extends SigningKey {
  readonly signed: Buffer[]
}

const algorithm = signatureAlgorithm('ecdsa-sha256')
const keyOf = (answer?: (message: Buffer) => Buffer | SigningFault): Counting => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signed: Buffer[] = []
  return {
    id: 'test',
    algorithm,
    spki: publicKey.export({ type: 'spki', format: 'der' }),
    signed,
    sign: async (messages) => {
      signed.push(...messages)
      return messages.map(answer ?? ((message) => sign('sha256', message, privateKey)))
    },
    close: async () => {},
  }
}

const subject: Subject = [{ type: 'commonName', value: 'Root' }]
const span = { notBefore: new Date('2026-01-01T00:00:00Z'), notAfter: new Date('2046-01-01T00:00:00Z') }
const serial = Buffer.from('4f66712439e4988e6b32421afaca0ecf', 'hex')
const rootInput = { subject, serial, ...span }
const belowInput = (spki: Buffer) => ({
  subject: [{ type: 'commonName', value: 'Below' }] as const,
  serial,
  spki,
  notBefore: new Date('2026-02-01T00:00:00Z'),
  notAfter: new Date('2036-01-01T00:00:00Z'),
})

t.test('a root says about the paths below it what it was told', async (t) => {
  const key = keyOf()
  t.equal(parseCertificate(await signRoot(key, rootInput)).facts.pathLength, undefined)
  t.equal(parseCertificate(await signRoot(key, { ...rootInput, pathLength: 1 })).facts.pathLength, 1)
  const root = await signRoot(key, rootInput)
  const { facts } = parseCertificate(await signIntermediate(key, root, belowInput(keyOf().spki)))
  t.match(facts, { ca: true, pathLength: 0, keyUsage: ['keyCertSign', 'cRLSign'] })
  t.ok(facts.authorityKeyIdentifier?.equals(parsePublicKey(key.spki).keyIdentifier))
})

t.test('a key that does not sign, or signs something else, makes nothing', async (t) => {
  const silent = keyOf(() => new SigningFault('before', 'no'))
  await t.rejects(signRoot(silent, rootInput), { message: 'The key test did not sign.' })
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const swapped = keyOf((message) => sign('sha256', message, privateKey))
  await t.rejects(signRoot(swapped, rootInput), { message: /made a signature that does not verify/ })
  const torn = keyOf(() => Buffer.from('3006020101020101', 'hex'))
  await t.rejects(seal(torn, encodeRootTbs(torn, rootInput)), { message: /does not verify/ })
})

t.test('a world that does not fit is refused with every reason, and the key is not touched', async (t) => {
  const key = keyOf()
  const root = await signRoot(key, rootInput)
  const other = keyOf()
  const touched = key.signed.length
  await t.rejects(signIntermediate(other, root, belowInput(other.spki)), {
    message: 'The key is not the key of the root certificate.',
  })
  const error = await signIntermediate(key, root, {
    ...belowInput(key.spki),
    subject: [],
    notBefore: new Date('2025-01-01T00:00:00Z'),
    notAfter: new Date('2047-01-01T00:00:00Z'),
  }).catch((reason: unknown) => reason)
  t.ok(error instanceof Misfit)
  t.same((error as Misfit).reasons, [
    'The certificate would outlive the root, which ends at 2046-01-01T00:00:00Z.',
    'The certificate would be valid before the root, which begins at 2026-01-01T00:00:00Z.',
    "The key is the root's own.",
    'An authority has a subject (RFC 5280 4.1.2.6).',
  ])
  t.equal(key.signed.length, touched)
  t.same(other.signed, [])
})

t.test(
  'a mail address of an authority is one that its root permits, but for a successor of the same name',
  async (t) => {
    const key = keyOf()
    const permitted = [parseSubtree('email', 'example.com')].filter((subtree) => typeof subtree !== 'string')
    const mail = (value: string): Subject => [...subject, { type: 'emailAddress', value }]
    const named = { ...rootInput, subject: mail('root@example.org'), nameConstraints: { permitted, excluded: [] } }
    const root = await signRoot(key, named)
    const below = keyOf()
    const input = belowInput(below.spki)
    await t.rejects(signIntermediate(key, root, { ...input, subject: mail('ca@example.org') }), {
      message: "The root's name constraints refuse the mail address ca@example.org in the subject.",
    })
    t.ok(await signIntermediate(key, root, { ...input, subject: mail('ca@EXAMPLE.com') }))
    const other = await signRoot(below, { ...rootInput, subject: named.subject })
    t.ok(encodeCrossTbs(key, root, { ...input, other }))
  },
)

t.test('what is no root signs nothing', async (t) => {
  const key = keyOf()
  const root = await signRoot(key, { ...rootInput, pathLength: 0 })
  await t.rejects(signIntermediate(key, root, belowInput(keyOf().spki)), { message: /allows no authority below it/ })
  const child = keyOf()
  const free = await signRoot(key, rootInput)
  const intermediate = await signIntermediate(key, free, belowInput(child.spki))
  await t.rejects(signIntermediate(child, intermediate, belowInput(keyOf().spki)), {
    message: 'The certificate of the root is not signed by its own key.',
  })
  const issuer = encodeSubject(subject)
  const publicKey = parsePublicKey(key.spki)
  const common = { ...rootInput, issuer, key: publicKey, signature: algorithm }
  const tbs = encodeCaTbs({ ...common, authorityKeyIdentifier: publicKey.keyIdentifier })
  const forged = encodeCertificate(tbs, algorithm, (await child.sign([tbs]))[0] as Buffer)
  await t.rejects(signIntermediate(key, forged, belowInput(child.spki)), { message: /not signed by its own key/ })
})

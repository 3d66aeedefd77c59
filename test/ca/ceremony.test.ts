import { generateKeyPairSync, sign } from 'node:crypto'

import t from 'tap'

import {
  type CrossInput,
  encodeCrossTbs,
  encodeRootCrlTbs,
  encodeRootTbs,
  Misfit,
  type RootCrlInput,
  seal,
  signIntermediate,
  signRoot,
} from '../../src/ca/issuers/ceremony.ts'
import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { encodeCaTbs, parseCertificate, parseTbs } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
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

const reasonsOf = (work: () => unknown): readonly string[] => {
  try {
    work()
    return []
  } catch (error) {
    if (error instanceof Misfit) return error.reasons
    throw error
  }
}

/** A root whose key may do this only (RFC 5280 4.2.1.3): octets of the bit string. */
const rootFor = async (key: Counting, usage: string): Promise<Buffer> => {
  const hex = encodeRootTbs(key, rootInput).toString('hex')
  return seal(key, Buffer.from(hex.replace('03020106', usage), 'hex'))
}

t.test('a list of revocations fits its root, and the list before it', async (t) => {
  const key = keyOf()
  const root = await signRoot(key, rootInput)
  const at = (day: string): Date => new Date(`${day}T00:00:00Z`)
  const one = { serial: Buffer.alloc(16, 1), revokedAt: at('2026-03-01'), reason: 'superseded' } as const
  const two = { serial: Buffer.alloc(16, 2), revokedAt: at('2026-06-01'), reason: 'keyCompromise' } as const
  const first = { number: 5n, thisUpdate: at('2026-06-01'), nextUpdate: span.notAfter, revoked: [one] }
  const previous = await seal(key, encodeRootCrlTbs(key, root, first))
  const next = { ...first, number: 6n, revoked: [one, two], previous }
  const { number, revoked } = parseCrl(await seal(key, encodeRootCrlTbs(key, root, next)))
  t.same([number, revoked], [6n, [one, two]])
  const other = keyOf()
  const foreign = await seal(other, encodeRootCrlTbs(other, await signRoot(other, rootInput), first))
  const cases: readonly (readonly [Partial<RootCrlInput>, RegExp])[] = [
    [{ number: 5n }, /^The CRL number 5 is not higher than that of the previous one, 5\.$/],
    [{ thisUpdate: at('2026-05-31'), revoked: [one] }, /older than the previous one, of 2026-06-01T00:00:00Z/],
    [{ nextUpdate: first.thisUpdate }, /^The next update does not lie after this one\.$/],
    [{ nextUpdate: new Date('2046-01-01T00:00:01Z') }, /within the root's validity/],
    [{ revoked: [one, { ...two, revokedAt: at('2026-06-02') }] }, /revoked after the CRL says so/],
    [{ revoked: [one, two, { ...two, reason: 'superseded' }] }, /^The serial (02){16} is listed twice\.$/],
    [{ revoked: [one, { ...two, serial }] }, /^The root's own serial is listed/],
    [{ revoked: [two] }, /^The previous CRL lists (01){16}, with the same time, and this one does not/],
    [{ revoked: [{ ...one, revokedAt: at('2026-03-02') }] }, /what is revoked stays revoked/],
    [{ previous: foreign }, /^The previous CRL was not signed by this root\.$/],
  ]
  for (const [more, expected] of cases) {
    const reasons = reasonsOf(() => encodeRootCrlTbs(key, root, { ...next, ...more }))
    t.equal(reasons.length, 1, `${expected}`)
    t.match(reasons[0], expected)
  }
  t.ok(encodeRootCrlTbs(key, root, { ...first, thisUpdate: span.notBefore, revoked: [] }))
  const early = reasonsOf(() => encodeRootCrlTbs(key, root, { ...first, thisUpdate: at('2025-12-31'), revoked: [] }))
  t.equal(early.length, 1)
  t.match(early[0], /within the root's validity/)
  const noLists = await rootFor(key, '03020204')
  t.same(
    reasonsOf(() => encodeRootCrlTbs(key, noLists, first)),
    ["The root's key usage does not allow it to sign CRLs."],
  )
  const noCertificates = await rootFor(key, '03020102')
  t.same(
    reasonsOf(() => encodeRootCrlTbs(key, noCertificates, first)),
    ['The certificate of the root is not one of an authority that signs certificates.'],
  )
  const withoutUsage = encodeRootTbs(key, rootInput).toString('hex').replace('0603551d0f', '0603551d7f')
  const unsaid = await seal(key, Buffer.from(withoutUsage, 'hex'))
  t.same(
    reasonsOf(() => encodeRootCrlTbs(key, unsaid, first)),
    ['The certificate of the root has no key usage, which would say that it may sign certificates.'],
  )
})

t.test('another root is certified with what it says of itself, where chains of it would be accepted', async (t) => {
  const [key, other] = [keyOf(), keyOf()]
  const named = [{ type: 'commonName', value: 'Other' }] as const
  const permitted = [parseSubtree('dns', 'example.com')].filter((subtree) => typeof subtree !== 'string')
  const nameConstraints = { permitted, excluded: [] }
  const otherInput = { ...rootInput, subject: named, notAfter: new Date('2036-01-01T00:00:00Z') }
  const publicKey = parsePublicKey(other.spki)
  const { keyIdentifier } = parsePublicKey(key.spki)
  const itself = { issuer: encodeSubject(named), key: publicKey, signature: algorithm }
  const own = { ...itself, authorityKeyIdentifier: keyIdentifier, subjectKeyIdentifier: keyIdentifier }
  const constrained = await seal(other, encodeCaTbs({ ...otherInput, ...own, pathLength: 1, nameConstraints }))
  const plain = await signRoot(other, otherInput)
  const sameName = await signRoot(other, rootInput)
  const free = await signRoot(key, rootInput)
  const short = await signRoot(key, { ...rootInput, pathLength: 1 })
  const input: CrossInput = { serial, ...span, notAfter: otherInput.notAfter, other: plain }
  const cross = (root: Buffer, more: Partial<CrossInput>) => encodeCrossTbs(key, root, { ...input, ...more })

  const whole = parseTbs(cross(free, { other: constrained }))
  t.match(whole, { ca: true, pathLength: 1, keyIdentifier })
  t.same(whole.nameConstraints, nameConstraints)
  const { pathLength, nameConstraints: none } = parseTbs(cross(free, {}))
  t.same([pathLength, none], [undefined, undefined])
  t.same(parseTbs(cross(free, { nameConstraints })).nameConstraints, nameConstraints, 'or what the parameters say')
  t.ok(cross(short, { other: sameName, notAfter: span.notAfter }), 'RFC 5280 6.1.4 (l)')
  for (const [root, more, expected] of [
    [short, {}, /^The root allows one authority below it/],
    [free, { notAfter: new Date('2036-01-01T00:00:01Z') }, /^The certificate would outlive the other root/],
    [free, { other: constrained, nameConstraints }, /^The other root has name constraints, which are repeated/],
    [free, { notBefore: new Date('2036-01-01T00:00:01Z') }, /^The validity ends before it begins\.$/],
  ] as const) {
    const reasons = reasonsOf(() => cross(root, more))
    t.equal(reasons.length, 1, `${expected}`)
    t.match(reasons[0], expected)
  }
})

/** Client certificates below TLS: which of many ways to be wrong goes to the log, and what octets can do. */
import { generateKeyPairSync, hash } from 'node:crypto'

import t from 'tap'

import type { ClientCertificate } from '../../src/ca/access/access.ts'
import { type CertificateStanding, openClientCertificates } from '../../src/ca/access/client-certificates.ts'
import { openClientAnchors, openClientTrust, type TrustedIssuer } from '../../src/ca/access/client-trust.ts'
import { isProblem } from '../../src/errors.ts'
import { openVerifier } from '../../src/keys/verifier.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import {
  digitalSignature,
  keyEncipherment,
  newKeys,
  openClientCa,
  serverAuth,
  spiffe,
  type TestClientCa,
} from '../helpers/clients.ts'
import { quiet } from '../helpers/log.ts'
import { dns, extension, nil, seq, tlv, yes } from '../x509/build.ts'

const { verify, close } = openVerifier(1, quiet)
t.teardown(close)

const trustedOf = (...cas: readonly TestClientCa[]): readonly TrustedIssuer[] =>
  cas.map(({ der }) => ({ facts: parseCertificate(der).facts, own: null }))

const isCa = extension('2.5.29.19', seq(yes), yes)
const certSigning = extension('2.5.29.15', tlv(0x03, Buffer.from([2, 0x04])), yes)
const only = extension('2.5.29.30', seq(tlv(0xa0, seq(dns('example.com')))), yes)
const shortKeys = generateKeyPairSync('rsa', { modulusLength: 1024 })

interface World {
  readonly trusted: readonly TrustedIssuer[]
  readonly standing?: CertificateStanding
  readonly clock?: () => Date
}

/** What the certificate is recognised by, or the code and the reason of why not. */
const judge = async (der: Buffer, { trusted, standing, clock = () => new Date() }: World) => {
  const judged = openClientCertificates({
    trusted: () => trusted,
    verify,
    standing: async () => standing ?? 'unknown',
    clock,
  })
  try {
    return await judged(der)
  } catch (error) {
    if (!isProblem(error)) throw error
    return `${error.code} ${error.options.reason}`
  }
}

t.test('each way to be wrong has a reason of its own for the log', async (t) => {
  const ca = openClientCa()
  const trusted = trustedOf(ca)
  const signsCertificates = extension('2.5.29.15', tlv(0x03, Buffer.from([2, 0x84])), yes)
  const constrained = openClientCa('Constrained', { extensions: [isCa, certSigning, only] })
  const ended = openClientCa('Ended', { from: -100, to: -10 })
  const coming = openClientCa('Coming', { from: 100 })
  const otherKeys = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
  const cases: readonly (readonly [what: string, der: Buffer, found: string])[] = [
    ['no certificate', Buffer.from('nonsense'), 'auth.invalid certificate.malformed'],
    ['octets behind it', Buffer.concat([ca.certify().der, nil]), 'auth.invalid certificate.malformed'],
    [
      'a name that is none today',
      ca.certify({ names: [dns('xn--23f.example')] }).der,
      'auth.invalid certificate.malformed',
    ],
    ['a key that is too short', ca.certify({ keys: shortKeys }).der, 'auth.invalid certificate.malformed'],
    ['a key of another curve', ca.certify({ keys: otherKeys }).der, 'auth.invalid certificate.malformed'],
    ['a CA that nobody trusts', openClientCa('Others').certify().der, 'auth.invalid certificate.untrusted'],
    ['another key id', ca.certify({ authorityKey: Buffer.alloc(20, 7) }).der, 'auth.invalid certificate.untrusted'],
    ['a broken signature', ca.certify({ forged: true }).der, 'auth.invalid certificate.signature'],
    ['a CA of the past', ended.certify().der, 'auth.invalid certificate.issuer_expired'],
    ['a CA of the future', coming.certify().der, 'auth.invalid certificate.issuer_expired'],
    [
      'a name that its CA may not certify',
      constrained.certify({ names: [dns('example.org')] }).der,
      'auth.invalid certificate.name_constraints',
    ],
    ['a CA', ca.certify({ isCa: true }).der, 'auth.usage certificate.ca'],
    ['for certificates as well', ca.certify({ keyUsage: signsCertificates }).der, 'auth.usage certificate.ca'],
    ['for servers', ca.certify({ usage: serverAuth }).der, 'auth.usage certificate.extended_key_usage'],
    ['for encipherment', ca.certify({ keyUsage: keyEncipherment }).der, 'auth.usage certificate.key_usage'],
    [
      'a critical riddle',
      ca.certify({ more: [extension('1.2.3.4', nil, yes)] }).der,
      'auth.usage certificate.critical',
    ],
    ['early', ca.certify({ from: 100 }).der, 'auth.early certificate.early'],
    ['late', ca.certify({ to: -5 }).der, 'auth.expired certificate.expired'],
  ]
  for (const [what, der, found] of cases)
    t.equal(await judge(der, { trusted: [...trusted, ...trustedOf(constrained, ended, coming)] }), found, what)
  t.match(
    await judge(constrained.certify({ names: [dns('a.example.com')] }).der, { trusted: trustedOf(constrained) }),
    {
      spiffeId: null,
    },
  )
  t.match(await judge(ca.certify({ keyUsage: undefined }).der, { trusted }), { serial: null }, 'for whatever it is for')
})

t.test('both ends of its validity are within (RFC 5280 4.1.2.5)', async (t) => {
  const ca = openClientCa()
  const { der } = ca.certify()
  const { notBefore, notAfter } = parseCertificate(der).facts
  const at = (from: Date, ms: number) =>
    judge(der, { trusted: trustedOf(ca), clock: () => new Date(from.getTime() + ms) })
  t.equal(await at(notBefore, -1), 'auth.early certificate.early')
  t.match(await at(notBefore, 0), { serial: null })
  t.match(await at(notAfter, 999), { serial: null })
  t.equal(await at(notAfter, 1000), 'auth.expired certificate.expired')
})

t.test('and both ends of that of its CA', async (t) => {
  const ca = openClientCa('Short', { from: -60, to: 60 })
  const { der } = ca.certify({ from: -3600, to: 3600 })
  const { notBefore, notAfter } = parseCertificate(ca.der).facts
  const at = (from: Date, ms: number) =>
    judge(der, { trusted: trustedOf(ca), clock: () => new Date(from.getTime() + ms) })
  t.equal(await at(notBefore, -1), 'auth.invalid certificate.issuer_expired')
  t.match(await at(notBefore, 0), { serial: null })
  t.match(await at(notAfter, 999), { serial: null })
  t.equal(await at(notAfter, 1000), 'auth.invalid certificate.issuer_expired')
})

t.test('what an issuer of ours has signed is held to the records', async (t) => {
  const ca = openClientCa()
  const [theirs] = trustedOf(ca)
  const trusted = [{ ...(theirs as TrustedIssuer), own: 'default' }]
  const { der } = ca.certify(spiffe('spiffe://example.com/x'))
  t.equal(await judge(der, { trusted, standing: 'unknown' }), 'auth.invalid certificate.unrecorded')
  t.equal(await judge(der, { trusted, standing: 'revoked' }), 'auth.revoked certificate.revoked')
  const good = (await judge(der, { trusted, standing: 'good' })) as ClientCertificate
  t.equal(good.serial, parseCertificate(der).facts.serial.toString('hex'))
  t.equal(good.spiffeId, 'spiffe://example.com/x')
})

t.test('of two CAs with one name the one that signed it is found', async (t) => {
  const [one, other] = [openClientCa('Twin'), openClientCa('Twin')]
  const trusted = trustedOf(one, other)
  for (const ca of [one, other]) t.match(await judge(ca.certify().der, { trusted }), { serial: null })
  t.equal(await judge(one.certify().der, { trusted: trustedOf(other) }), 'auth.invalid certificate.untrusted')
})

t.test(
  'of a CA that was renewed with its key, whichever certificate holds vouches, in whatever order they are',
  async (t) => {
    const keys = newKeys()
    const [old, now] = [openClientCa('Renewed', { keys, from: -100, to: -10 }), openClientCa('Renewed', { keys })]
    const { der } = now.certify()
    for (const cas of [
      [old, now],
      [now, old],
    ])
      t.match(await judge(der, { trusted: trustedOf(...cas) }), { serial: null })
    t.equal(await judge(der, { trusted: trustedOf(old) }), 'auth.invalid certificate.issuer_expired')
  },
)

t.test('what an issuer of ours has certified holds, whatever is a name today', async (t) => {
  const ca = openClientCa()
  const trusted = [{ facts: parseCertificate(ca.der).facts, own: 'default' }]
  const { der } = ca.certify({ names: [dns('xn--23f.example')], serial: '40'.repeat(16) })
  t.match(await judge(der, { trusted, standing: 'good' }), { serial: '40'.repeat(16) })
})

t.test('no octet of a certificate can be changed so that it still holds', async (t) => {
  const ca = openClientCa()
  const trusted = trustedOf(ca)
  const { der } = ca.certify({ names: [dns('client.example.com')] })
  const found = new Map<string, number>()
  for (let at = 0; at < der.length; at++) {
    const changed = Buffer.from(der)
    changed[at] = (changed[at] as number) ^ (1 << (at % 8))
    const judged = await judge(changed, { trusted })
    const text = typeof judged === 'string' ? judged : 'holds'
    found.set(text, (found.get(text) ?? 0) + 1)
  }
  t.notOk(found.has('holds'), JSON.stringify([...found]))
  t.ok((found.get('auth.invalid certificate.signature') ?? 0) > 100)
  for (const text of found.keys()) t.match(text, /^auth\.invalid /, 'nothing is told of what nobody vouches for')
})

t.test(
  'trusted are the issuers of the authorities that are named, while they are there, and the CAs of the file',
  async (t) => {
    const cas = ['one', 'two', 'three', 'retired'].map((name) => openClientCa(name))
    const [one, two, three, retired] = cas as [TestClientCa, TestClientCa, TestClientCa, TestClientCa]
    const digest = ({ der }: TestClientCa) => hash('sha256', parseCertificate(der).facts.spki)
    const placed = (ca: TestClientCa, authority: string, name: string) => ({
      issuer: { name, authority, facts: parseCertificate(ca.der).facts },
      state: 'active',
    })
    let all = [placed(one, 'a', 'one'), placed(two, 'b', 'two')]
    let revoked: readonly string[] = []
    const first = [two, three, retired].map(({ pem }) => pem).join('')
    let text = first
    const anchors = await openClientAnchors(async () => text)
    const trusted = openClientTrust({
      authorities: ['a'],
      anchors: anchors.all,
      issuers: {
        all: () => all as never,
        isIssuerKey: (sha256) => [one, two, retired].map(digest).includes(sha256),
      },
      revoked: () => revoked,
    })
    const names = () => trusted().map(({ facts, own }) => `${own} ${facts.subjectDer.subarray(-3).toString()}`)
    t.same(names(), ['one one', 'two two', 'null ree'], 'one of ours stays ours in a file; not one that has retired')
    revoked = ['one', 'two']
    t.same(names(), ['null ree'], 'a CA above has revoked them')
    revoked = []
    all = []
    text = three.pem
    await anchors.refresh()
    t.same(names(), ['null ree'])
    for (const [bad, reason] of [
      ['', /is empty/],
      [one.certify().cert, /certificate 1 is not that of a CA/],
      [three.pem + openClientCa('x', { extensions: [isCa] }).pem, /certificate 2 has no key usage/],
      [openClientCa('x', { extensions: [isCa, digitalSignature] }).pem, /certificate 1 may not sign/],
      [
        openClientCa('x', { extensions: [isCa, certSigning, extension('1.2.3.4', nil, yes)] }).pem,
        /certificate 1 has a critical extension/,
      ],
      [openClientCa('x', { keys: shortKeys, extensions: [isCa, certSigning] }).pem, /cannot be read: .*RSA/],
      ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', /cannot be read/],
    ] as const) {
      text = bad
      await t.rejects(anchors.refresh(), { message: reason })
    }
    t.same(names(), ['null ree'], 'what is not good changes nothing')
    text = openClientCa('four', { extensions: [isCa, certSigning, only, extension('1.2.3.4', nil)] }).pem
    await anchors.refresh()
    t.same(names(), ['null our'], 'what is critical and judged here, or is not critical, keeps none out')
    text = first
    await anchors.refresh()
    t.same(names(), ['null ree'], 'what was taken back is as it was')
  },
)

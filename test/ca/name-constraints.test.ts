/**
 * What our reading of an issuer's name constraints lets pass, OpenSSL's lets pass too: each case is also a chain that
 * `openssl verify` judges. The other way round we may be stricter, and say where.
 */
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { assertNameConstraints } from '../../src/ca/issuance/name-constraints.ts'
import { isProblem } from '../../src/errors.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { assertTools, run } from '../interop/tools.ts'
import {
  bits,
  commonName,
  dns,
  ecdsaSha256,
  extension,
  hex,
  ia5,
  integer,
  ip,
  mail,
  octets,
  p256,
  pem,
  rdn,
  seq,
  tlv,
  uri,
  utf8,
  yes,
} from '../x509/build.ts'

await assertTools('openssl')
const folder = await mkdtemp(join(tmpdir(), 'chancery-constraints-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

interface Constraints {
  readonly permitted?: readonly Buffer[]
  readonly excluded?: readonly Buffer[]
}

const subtrees = (tag: number, bases: readonly Buffer[] | undefined): readonly Buffer[] =>
  bases === undefined ? [] : [tlv(tag, ...bases.map((base) => seq(base)))]

const key = p256()
const keyIdentifier = createHash('sha1').update(key.spki).digest()
const time = (year: number): Buffer => tlv(0x17, Buffer.from(`${String(year % 100).padStart(2, '0')}0101000000Z`))
const validity = seq(time(2020), time(2049))

const certificate = (serial: number, issuer: string, subject: Buffer, extensions: readonly Buffer[]): Buffer => {
  const tbs = seq(
    tlv(0xa0, integer(2)),
    integer((1n << 120n) + BigInt(serial)),
    ecdsaSha256,
    commonName(issuer),
    validity,
    subject,
    key.spki,
    tlv(0xa3, seq(...extensions)),
  )
  return seq(tbs, ecdsaSha256, bits(key.sign(tbs)))
}

const authority = ({ permitted, excluded }: Constraints): Buffer =>
  certificate(1, 'CA', commonName('CA'), [
    extension('2.5.29.19', seq(yes), yes),
    extension('2.5.29.15', hex('03020106'), yes),
    extension('2.5.29.14', octets(keyIdentifier)),
    extension('2.5.29.30', seq(...subtrees(0xa0, permitted), ...subtrees(0xa1, excluded)), yes),
  ])

const leaf = (names: readonly Buffer[], subject = seq()): Buffer =>
  certificate(2, 'CA', subject, [
    ...(names.length === 0 ? [] : [extension('2.5.29.17', seq(...names), yes)]),
    extension('2.5.29.35', seq(tlv(0x80, keyIdentifier))),
  ])

const ours = (ca: Buffer, end: Buffer): string => {
  try {
    assertNameConstraints(parseCertificate(end).facts, [parseCertificate(ca).facts])
    return 'passes'
  } catch (error) {
    if (!isProblem(error, 'san.forbidden')) throw error
    return 'refused'
  }
}

const openssls = async (ca: Buffer, end: Buffer): Promise<string> => {
  const [caFile, endFile] = [join(folder, 'ca.pem'), join(folder, 'end.pem')]
  await Promise.all([writeFile(caFile, pem(ca, 'CERTIFICATE')), writeFile(endFile, pem(end, 'CERTIFICATE'))])
  const { code, stderr } = await run('openssl', ['verify', '-CAfile', caFile, endFile])
  if (code !== 0 && !/subtree violation|unsupported (name constraint|or invalid name)|excluded|permitted/.test(stderr))
    throw new Error(stderr)
  return code === 0 ? 'passes' : 'refused'
}

const range = (octetsOf: string): Buffer => tlv(0x87, hex(octetsOf))
const directory = tlv(0xa4, commonName('any'))
const registeredId = tlv(0x88, hex('2a03'))
type Case = readonly [
  what: string,
  names: readonly Buffer[],
  constraints: Constraints,
  verdict: 'passes' | 'refused',
  stricter?: string,
]

type SubjectCase = readonly [
  what: string,
  subject: Buffer,
  names: readonly Buffer[],
  constraints: Constraints,
  verdict: 'passes' | 'refused',
  stricter?: string,
]
const mailbox = (text: string): Buffer => seq(rdn('1.2.840.113549.1.9.1', ia5(text)))

const cases: readonly Case[] = [
  ['no constraint of its kind', [dns('a.test')], { permitted: [ip('0a000000ff000000')] }, 'passes'],
  ['the permitted name', [dns('example.com')], { permitted: [dns('example.com')] }, 'passes'],
  ['a name below', [dns('a.b.example.com')], { permitted: [dns('example.com')] }, 'passes'],
  ['a constraint in upper case', [dns('a.example.com')], { permitted: [dns('EXAMPLE.com')] }, 'passes'],
  ['another name', [dns('example.org')], { permitted: [dns('example.com')] }, 'refused'],
  ['the end of another label', [dns('badexample.com')], { permitted: [dns('example.com')] }, 'refused'],
  ['a name that goes on', [dns('example.com.evil.test')], { permitted: [dns('example.com')] }, 'refused'],
  ['one of two permitted', [dns('a.example.org')], { permitted: [dns('example.com'), dns('example.org')] }, 'passes'],
  ['one good name and one bad', [dns('example.com'), dns('evil.test')], { permitted: [dns('example.com')] }, 'refused'],
  ['below a leading dot', [dns('a.example.com')], { permitted: [dns('.example.com')] }, 'passes'],
  ['the apex of a leading dot', [dns('example.com')], { permitted: [dns('.example.com')] }, 'refused'],
  ['everything permitted', [dns('any.test')], { permitted: [dns('')] }, 'passes'],
  ['everything excluded', [dns('any.test')], { excluded: [dns('')] }, 'refused'],
  ['the excluded name', [dns('example.com')], { excluded: [dns('example.com')] }, 'refused'],
  ['a name below an excluded one', [dns('a.example.com')], { excluded: [dns('example.com')] }, 'refused'],
  ['an excluded name in upper case', [dns('a.example.com')], { excluded: [dns('EXAMPLE.COM')] }, 'refused'],
  ['beside an excluded name', [dns('a.example.com')], { excluded: [dns('b.example.com')] }, 'passes'],
  [
    'excluded wins',
    [dns('x.a.example.com')],
    { permitted: [dns('example.com')], excluded: [dns('a.example.com')] },
    'refused',
  ],
  [
    'the apex of an excluded leading dot',
    [dns('example.com')],
    { excluded: [dns('.example.com')] },
    'refused',
    'a dot there is no RFC 5280',
  ],
  ['a wildcard below what is permitted', [dns('*.example.com')], { permitted: [dns('example.com')] }, 'passes'],
  ['a wildcard above what is permitted', [dns('*.example.com')], { permitted: [dns('a.example.com')] }, 'refused'],
  [
    'a wildcard that covers an excluded name',
    [dns('*.example.com')],
    { excluded: [dns('a.example.com')] },
    'refused',
    'OpenSSL compares the star as a letter',
  ],
  ['a wildcard beside an excluded name', [dns('*.b.example.com')], { excluded: [dns('a.example.com')] }, 'passes'],
  ['an address within', [ip('0a010203')], { permitted: [range('0a000000ff000000')] }, 'passes'],
  ['an address outside', [ip('0b010203')], { permitted: [range('0a000000ff000000')] }, 'refused'],
  ['the first of a range', [ip('0a000000')], { permitted: [range('0a000000fffffffe')] }, 'passes'],
  ['one beyond a range', [ip('0a000002')], { permitted: [range('0a000000fffffffe')] }, 'refused'],
  ['an excluded address', [ip('0a010203')], { excluded: [range('0a000000ff000000')] }, 'refused'],
  [
    'IPv6 within',
    [ip('fd000000000000000000000000000001')],
    { permitted: [range(`fd${'00'.repeat(15)}ff${'00'.repeat(15)}`)] },
    'passes',
  ],
  [
    'IPv6 outside',
    [ip('fe800000000000000000000000000001')],
    { permitted: [range(`fd${'00'.repeat(15)}ff${'00'.repeat(15)}`)] },
    'refused',
  ],
  [
    'IPv6 where IPv4 is permitted',
    [ip('fd000000000000000000000000000001')],
    { permitted: [range('0a000000ff000000')] },
    'refused',
  ],
  ['IPv4 where all IPv6 is excluded', [ip('0a010203')], { excluded: [range('00'.repeat(32))] }, 'passes'],
  ['no IPv4 at all', [ip('0a010203')], { excluded: [range('0000000000000000')] }, 'refused'],
  ['a mailbox of a host', [mail('a@example.com')], { permitted: [mail('example.com')] }, 'passes'],
  ['a mailbox below that host', [mail('a@b.example.com')], { permitted: [mail('example.com')] }, 'refused'],
  ['a mailbox below a dot', [mail('a@b.example.com')], { permitted: [mail('.example.com')] }, 'passes'],
  ['a mailbox at the apex of a dot', [mail('a@example.com')], { permitted: [mail('.example.com')] }, 'refused'],
  ['exactly that mailbox', [mail('a@example.com')], { permitted: [mail('a@example.com')] }, 'passes'],
  ['another mailbox', [mail('b@example.com')], { permitted: [mail('a@example.com')] }, 'refused'],
  ['that mailbox, with capitals', [mail('Ann@example.com')], { permitted: [mail('Ann@Example.com')] }, 'passes'],
  ['one that differs by capitals', [mail('ann@example.com')], { permitted: [mail('Ann@example.com')] }, 'refused'],
  ['an excluded mailbox with capitals', [mail('Ann@example.com')], { excluded: [mail('Ann@example.com')] }, 'refused'],
  [
    'one that differs by capitals from an excluded one',
    [mail('ann@example.com')],
    { excluded: [mail('Ann@example.com')] },
    'refused',
    'OpenSSL takes them for two mailboxes',
  ],
  ['an excluded mailbox', [mail('a@example.com')], { excluded: [mail('example.com')] }, 'refused'],
  [
    'a mailbox below an excluded host',
    [mail('a@b.example.com')],
    { excluded: [mail('example.com')] },
    'refused',
    'Go takes a host for all that is below it',
  ],
  [
    'the end of another label of an excluded host',
    [mail('a@badexample.com')],
    { excluded: [mail('example.com')] },
    'passes',
  ],
  ['a mailbox at the apex of an excluded dot', [mail('a@example.com')], { excluded: [mail('.example.com')] }, 'passes'],
  ['a URI of a host', [uri('spiffe://example.com/a')], { permitted: [uri('example.com')] }, 'passes'],
  ['a URI below that host', [uri('spiffe://b.example.com/a')], { permitted: [uri('example.com')] }, 'refused'],
  ['a URI below a dot', [uri('spiffe://b.example.com/a')], { permitted: [uri('.example.com')] }, 'passes'],
  ['a URI of another host', [uri('spiffe://example.org/a')], { permitted: [uri('example.com')] }, 'refused'],
  ['an excluded URI', [uri('spiffe://example.com/a')], { excluded: [uri('example.com')] }, 'refused'],
  [
    'a URI below an excluded host',
    [uri('spiffe://b.example.com/a')],
    { excluded: [uri('example.com')] },
    'refused',
    'Go takes a host for all that is below it',
  ],
  [
    'a URI at the apex of an excluded dot',
    [uri('spiffe://example.com/a')],
    { excluded: [uri('.example.com')] },
    'passes',
  ],
  ['a URI without a host', [uri('urn:a:b')], { permitted: [uri('example.com')] }, 'refused'],
  ['a URI without a host, where any is permitted', [uri('urn:a:b')], { permitted: [uri('')] }, 'refused'],
  [
    'a URI without a host, where only names of other kinds are',
    [uri('urn:a:b')],
    { permitted: [dns('a.test')] },
    'passes',
  ],
  ['a URI without a host, where one is excluded', [uri('urn:a:b')], { excluded: [uri('example.com')] }, 'refused'],
  [
    'a URI without a host, where one is excluded beside names of other kinds',
    [uri('urn:a:b')],
    { permitted: [dns('example.com')], excluded: [uri('example.com')] },
    'refused',
  ],
  ['a host that is excluded for mail', [dns('example.com')], { excluded: [mail('example.com')] }, 'passes'],
  ['a constraint on directory names, and no subject', [dns('a.test')], { permitted: [directory] }, 'passes'],
]

/** What stands in the subject, which relying parties compare as well. */
const subjects: readonly SubjectCase[] = [
  ['a mail address in the subject', mailbox('a@Example.com'), [], { permitted: [mail('example.com')] }, 'passes'],
  ['another in the subject', mailbox('a@evil.test'), [], { permitted: [mail('example.com')] }, 'refused'],
  [
    'another in the subject, beside a good name',
    mailbox('a@evil.test'),
    [mail('a@example.com')],
    { permitted: [mail('example.com')] },
    'refused',
  ],
  ['an excluded one in the subject', mailbox('a@evil.test'), [], { excluded: [mail('evil.test')] }, 'refused'],
  ['no mail address in its place', mailbox('evil.test'), [], { excluded: [mail('example.com')] }, 'refused'],
  ['a common name that is a host', commonName('Web.Example.com'), [], { permitted: [dns('example.com')] }, 'passes'],
  ['a common name of another host', commonName('web.evil.test'), [], { permitted: [dns('example.com')] }, 'refused'],
  ['a common name of an excluded host', commonName('web.evil.test'), [], { excluded: [dns('evil.test')] }, 'refused'],
  [
    'a common name of another host, beside an address',
    commonName('web.evil.test'),
    [ip('0a000001')],
    { permitted: [dns('example.com')] },
    'refused',
  ],
  [
    'a common name of another host, beside a DNS name',
    commonName('web.evil.test'),
    [dns('a.example.com')],
    { permitted: [dns('example.com')] },
    'passes',
  ],
  [
    'a wildcard as common name',
    commonName('*.evil.test'),
    [],
    { permitted: [dns('example.com')] },
    'refused',
    'it takes a common name with a star for no host',
  ],
  [
    'a host in another attribute',
    seq(rdn('2.5.4.10', utf8('web.evil.test'))),
    [],
    { permitted: [dns('example.com')] },
    'passes',
  ],
  ['a constraint of a kind that has no name here', commonName('any'), [], { permitted: [registeredId] }, 'passes'],
  [
    'a host that is called as directories are marked',
    commonName('any'),
    [dns('a4')],
    { permitted: [dns('a4')] },
    'passes',
  ],
  ['a common name of one label', commonName('kube-proxy'), [], { permitted: [dns('example.com')] }, 'passes'],
  ['a user as common name', commonName('system:node:a.b'), [], { permitted: [dns('example.com')] }, 'passes'],
]

const compare = (what: string, [ca, end]: readonly [Buffer, Buffer], verdict: string, stricter?: string): void => {
  t.test(`${what} ${verdict === 'passes' ? 'passes' : 'is refused'}`, async (t) => {
    t.equal(ours(ca, end), verdict)
    const theirs = await openssls(ca, end)
    if (stricter === undefined) t.equal(theirs, verdict, 'openssl says the same')
    else t.equal(theirs, 'passes', `openssl lets it pass: ${stricter}`)
  })
}
for (const [what, names, constraints, verdict, stricter] of cases)
  compare(what, [authority(constraints), leaf(names)], verdict, stricter)
for (const [what, subject, names, constraints, verdict, stricter] of subjects)
  compare(what, [authority(constraints), leaf(names, subject)], verdict, stricter)

t.test('a subject under a constraint on directory names is refused, rather than compared', async (t) => {
  const end = leaf([dns('a.test')], commonName('any'))
  for (const constraints of [{ permitted: [directory, dns('test')] }, { excluded: [directory] }])
    t.equal(ours(authority(constraints), end), 'refused')
})

t.test('a refusal of what stands in the subject says where', async (t) => {
  const { facts } = parseCertificate(leaf([], commonName('Web.evil.test')))
  t.throws(() => assertNameConstraints(facts, [parseCertificate(authority({ permitted: [dns('com')] })).facts]), {
    code: 'san.forbidden',
    options: { violations: [{ field: '/subject/commonName', value: 'web.evil.test' }] },
  })
})

t.test('every authority of the chain is asked, and the refusal names the name and the constraint', async (t) => {
  const { facts } = parseCertificate(leaf([dns('good.example.com'), dns('bad.example.com')]))
  const open = parseCertificate(authority({ permitted: [dns('com')] })).facts
  const narrow = parseCertificate(authority({ excluded: [dns('bad.example.com')] })).facts
  t.doesNotThrow(() => assertNameConstraints(facts, [open]))
  t.doesNotThrow(() => assertNameConstraints(facts, []))
  for (const chain of [
    [open, narrow],
    [narrow, open],
  ]) {
    t.throws(() => assertNameConstraints(facts, chain), {
      code: 'san.forbidden',
      options: {
        violations: [{ check: 'issuer.nameConstraints', value: 'bad.example.com', reason: /bad\.example\.com/ }],
      },
    })
  }
})

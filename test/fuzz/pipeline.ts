/** What a request goes through before anything is recorded, one case at a time, and the makers of cases. */
import fc from 'fast-check'

import { isProblem } from '../../src/errors.ts'
import { readAsk } from '../../src/http/api/ask.ts'
import { checkOne } from '../../src/keys/verifier-batch.ts'
import { decide, recheck } from '../../src/policy/decide.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { parseTbs } from '../../src/x509/certificate.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { compileTemplate, encodeTbs } from '../../src/x509/tbs.ts'
import { anyString } from '../helpers/strings.ts'
import { context, seed as profileOf } from '../policy/requests.ts'
import {
  attribute,
  bits,
  commonName,
  dns,
  extension,
  extensionRequest,
  hex,
  ia5,
  integer,
  ip,
  mail,
  nil,
  no,
  oid,
  type Parts,
  printable,
  rdn,
  request,
  san,
  seq,
  set,
  tlv,
  uri,
  utf8,
  yes,
} from '../x509/build.ts'
import { nodeSigner } from '../x509/keys.ts'

export interface FuzzCase {
  readonly contentType: 'application/x-pem-file' | 'application/pkcs10'
  readonly body: Buffer
}

/** Body to decision, and where it is allowed to the octets that would be signed. Resolves to the code, or `allowed`. */
export const runCase = ({ contentType, body }: FuzzCase): string => {
  try {
    const ask = { csr: body.toString('latin1'), profile: 'server' }
    const csr = parseRequest(readAsk(ask, contentType === 'application/pkcs10', undefined).csr)
    const { key, tbs: message, signature, signatureAlgorithm: algorithm } = csr
    if (!checkOne({ spki: key.spki, message, signature, algorithm })) return 'csr.pop'
    const profile = profileOf('server')
    const decision = decide(profile, { csr }, context)
    if (!decision.allowed) return decision.code
    const { plan } = decision
    const tbs = encodeTbs(templateOf(plan.keyUsage), { ...plan, serial, shard: 1 })
    const violations = recheck(profile, { ...parseTbs(tbs), key: plan.key }, context)
    if (violations.length > 0) throw new Error(`what would be signed breaks the profile: ${JSON.stringify(violations)}`)
    return 'allowed'
  } catch (error) {
    if (isProblem(error) && error.kind.status >= 400 && error.kind.status < 500 && !error.kind.retryable)
      return error.code
    throw error
  }
}

const serial = hex('4f0c2e9a7b6d1583a2c4e6f8091b3d57')
const issuer = {
  subject: encodeSubject([{ type: 'commonName', value: 'Fuzz' }]),
  keyIdentifier: Buffer.alloc(20, 1),
  signature: signatureAlgorithm('ecdsa-sha256'),
  publicUrl: 'http://pki.test',
  name: 'fuzz',
}
const templateOf = (keyUsage: Parameters<typeof compileTemplate>[0]['keyUsage']) =>
  compileTemplate({ issuer, keyUsage, extendedKeyUsage: ['serverAuth'], revocation: ['crl', 'ocsp'] })

// Octets --------------------------------------------------------------------------------------------------------------

/** Numbers below 2^32 that a seed decides (mulberry32). */
export const openRandom = (seed: number): ((below: number) => number) => {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

type Random = ReturnType<typeof openRandom>
type Mutation = (input: Buffer, random: Random, corpus: readonly Buffer[]) => Buffer

const replaceAt = (input: Buffer, at: number, octet: number): Buffer => {
  const output = Buffer.from(input)
  output[at] = octet
  return output
}

const mutations: readonly Mutation[] = [
  (input, random) => {
    const at = random(input.length)
    return replaceAt(input, at, (input[at] ?? 0) ^ (1 << random(8)))
  },
  (input, random) => replaceAt(input, random(input.length), random(256)),
  (input, random) => replaceAt(input, random(input.length), telling[random(telling.length)] ?? 0),
  // One octet more or less: most of all, lengths.
  (input, random) => {
    const at = random(input.length)
    return replaceAt(input, at, (input[at] ?? 0) + (random(2) ? 1 : 255))
  },
  (input, random) => {
    const at = random(input.length)
    const added = Buffer.from(Array.from({ length: 1 + random(6) }, () => telling[random(telling.length)] ?? 0))
    return Buffer.concat([input.subarray(0, at), added, input.subarray(at)])
  },
  (input, random) => {
    const at = random(input.length)
    return Buffer.concat([input.subarray(0, at), input.subarray(at + 1 + random(8))])
  },
  (input, random) => {
    const at = random(input.length)
    const piece = input.subarray(at, at + 1 + random(64))
    return Buffer.concat([input.subarray(0, at), piece, input.subarray(at)])
  },
  (input, random) => input.subarray(0, random(input.length)),
  (input, random) => Buffer.concat([input, Buffer.alloc(1 + random(40), telling[random(telling.length)])]),
  (input, random, corpus) => {
    const other = corpus[random(corpus.length)] ?? input
    return Buffer.concat([input.subarray(0, random(input.length)), other.subarray(random(other.length))])
  },
  (input, random, corpus) => {
    const other = corpus[random(corpus.length)] ?? input
    const [at, from] = [random(input.length), random(other.length)]
    const piece = other.subarray(from, from + 1 + random(200))
    return Buffer.concat([input.subarray(0, at), piece, input.subarray(at + piece.length)])
  },
]
/** Tags, lengths and values that parsers stumble over. */
const telling = [
  0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x13, 0x16, 0x17, 0x1e, 0x24, 0x30, 0x31, 0x7f, 0x80, 0x81, 0x82,
  0x84, 0x86, 0x87, 0x88, 0xa0, 0xa3, 0xbf, 0xfe, 0xff, 0x0a, 0x0d, 0x20, 0x2a, 0x2d, 0x2e, 0x3d, 0x5f,
] as const

/** A real request with one to six changes; one in four as PEM, changed before or after it became text. */
export const mutated = (random: Random, corpus: readonly Buffer[]): FuzzCase => {
  const change = (input: Buffer, times: number): Buffer => {
    let output = input
    for (let i = 0; i < times && output.length > 0; i++)
      output = mutations[random(mutations.length)]?.(output, random, corpus) ?? output
    return output.subarray(0, maxBody)
  }
  const times = 1 + random(random(4) ? 1 : 6)
  const der = corpus[random(corpus.length)] ?? Buffer.alloc(0)
  const kind = random(8)
  if (kind > 1) return { contentType: 'application/pkcs10', body: change(der, times) }
  const body = kind === 0 ? Buffer.from(pemOf(change(der, times))) : change(Buffer.from(pemOf(der)), times)
  return { contentType: 'application/x-pem-file', body: body.subarray(0, maxBody) }
}

const pemOf = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE REQUEST-----\n`
const maxBody = 64 * 1024

// Structure -----------------------------------------------------------------------------------------------------------

const octetText = fc.oneof(
  fc.string({ maxLength: 40 }),
  anyString({ maxLength: 20 }),
  fc.constantFrom(
    'host.example.com',
    '*.example.com',
    'a..b',
    'xn--bcher-kva.example.com',
    '10.0.0.1',
    'localhost',
    '%',
    '\0',
    'x'.repeat(300),
  ),
  fc
    .array(fc.constantFrom('a', 'b1', 'xn--a', '*', '_', '-', '', 'EXAMPLE'), { maxLength: 40 })
    .map((labels) => labels.join('.')),
)
const anyOctets = fc.uint8Array({ maxLength: 40 }).map((octets) => Buffer.from(octets))
const anyOid = fc.oneof(
  fc.constantFrom(
    '2.5.29.15',
    '2.5.29.17',
    '2.5.29.19',
    '2.5.29.30',
    '2.5.29.37',
    '1.3.6.1.5.5.7.1.1',
    '1.2.840.113549.1.9.14',
    '1.2.840.113549.1.9.7',
    '2.5.4.3',
    '2.5.4.6',
    '2.5.4.10',
  ),
  fc.array(fc.nat(1 << 20), { maxLength: 6 }).map((arcs) => ['1.3', ...arcs].join('.')),
)
const value: fc.Arbitrary<Buffer> = fc.letrec<{ value: Buffer }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    octetText.map(utf8),
    octetText.map(printable),
    octetText.map(ia5),
    anyOid.map(oid),
    fc
      .bigInt(-(2n ** 70n), 2n ** 70n)
      .map((number) => (number < 0n ? tlv(0x02, Buffer.from([0x80])) : integer(number))),
    fc.constantFrom(nil, yes, no, seq(), set(), hex('03020780'), hex('0303078000')),
    fc.tuple(fc.nat(255), anyOctets).map(([tag, octets]) => tlv(tag, octets)),
    fc.array(tie('value'), { maxLength: 4 }).map((parts) => seq(...parts)),
    fc.array(tie('value'), { maxLength: 3 }).map((parts) => set(...parts)),
    tie('value').map((inner) => tlv(0x04, inner)),
  ),
})).value
const generalName = fc.oneof(
  octetText.map(dns),
  octetText.map(uri),
  octetText.map(mail),
  anyOctets.map((octets) => tlv(0x87, octets)),
  fc.ipV4().map((text) => ip(Buffer.from(text.split('.').map(Number)).toString('hex'))),
  value,
)
const anyExtension = fc.oneof(
  fc
    .tuple(fc.constantFrom('*.example.com', 'host.example.com', 'localhost'), generalName)
    .map(([host, other]) => san(dns(host), other)),
  fc.array(generalName, { maxLength: 120 }).map((names) => san(...names)),
  fc
    .array(fc.domain(), { minLength: 1, maxLength: 5 })
    .map((hosts) => san(...hosts.map((host) => dns(`${host}.example.com`)))),
  fc
    .tuple(anyOid, value, fc.constantFrom(undefined, yes, no))
    .map(([id, inner, critical]) => extension(id, inner, critical)),
)
const anySubject = fc.oneof(
  { weight: 6, arbitrary: fc.constant(seq()) },
  fc
    .array(
      fc.tuple(anyOid, value).map(([id, inner]) => rdn(id, inner)),
      { maxLength: 6 },
    )
    .map((rdns) => seq(...rdns)),
  octetText.map(commonName),
  value,
)

/** A request of any shape with a signature that is right: only what it says can refuse it. */
export const structured: fc.Arbitrary<Buffer> = fc
  .record(
    {
      signer: fc.constantFrom('p256', 'ed25519', 'p384'),
      version: fc.oneof({ weight: 9, arbitrary: fc.constant(integer(0)) }, { weight: 1, arbitrary: value }),
      subject: anySubject,
      extensions: fc.oneof(
        { weight: 4, arbitrary: fc.array(anyExtension, { maxLength: 1 }) },
        fc.array(anyExtension, { maxLength: 6 }),
      ),
      attributes: fc.array(
        fc.tuple(anyOid, fc.array(value, { maxLength: 3 })).map(([id, values]) => attribute(id, ...values)),
        { maxLength: 3 },
      ),
      spki: fc.oneof({ weight: 19, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value }),
      algorithm: fc.oneof({ weight: 19, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value }),
      signature: fc.oneof(
        { weight: 19, arbitrary: fc.constant(undefined) },
        { weight: 1, arbitrary: value.map((inner) => bits(inner)) },
      ),
    },
    { requiredKeys: ['signer', 'version', 'subject', 'extensions', 'attributes'] },
  )
  .map(({ signer, extensions, attributes, spki, algorithm, signature, ...parts }) =>
    request({
      ...parts,
      ...(spki && { spki }),
      ...(algorithm && { algorithm }),
      ...(signature && { signature }),
      ...(signer === 'p256' ? {} : { signer: signers[signer as keyof typeof signers]() }),
      attributes: tlv(0xa0, ...(extensions.length > 0 ? [extensionRequest(...extensions)] : []), ...attributes),
    } satisfies Parts),
  )

const signers = {
  ed25519: () => nodeSigner('ed25519', {}, seq(oid('1.3.101.112')), null),
  p384: () => nodeSigner('ec', { namedCurve: 'P-384' }),
} as const

/**
 * Whatever comes in, a `Problem` comes out, and soon. Seeded: a failure can be played again. `CHANCERY_FUZZ_CASES`
 * makes it longer.
 */
import fc from 'fast-check'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { parseCertificate, parseTbs } from '../../src/x509/certificate.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { type NameKind, parseGeneralNames, parseName } from '../../src/x509/names.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { parseSubject } from '../../src/x509/subject.ts'
import { cpu } from '../helpers/cpu.ts'
import { hostileCases } from '../helpers/hostile.ts'
import { anyString } from '../helpers/strings.ts'
import { dns, extension, hex, mail, oid, pem, request, san, seq, uri } from './build.ts'
import { nodeSigner, rsaSigner } from './keys.ts'

const cases = Number(process.env['CHANCERY_FUZZ_CASES'] ?? 20_000)
const seed = 20261124

let slowest = 0
/** Runs a parser on what is hostile; anything but a value or a problem fails the test. */
const survives = (parse: () => unknown): boolean => {
  const start = cpu()
  try {
    parse()
  } catch (error) {
    if (!isProblem(error)) throw error
  }
  slowest = Math.max(slowest, cpu() - start)
  return true
}

const mlDsa = nodeSigner('ml-dsa-44', {}, seq(oid('2.16.840.1.101.3.4.3.17')), null)
const rich = [
  san(dns('host.example.com'), dns('xn--bcher-kva.example.com'), uri('spiffe://example.com/a'), mail('a@example.com')),
  extension('2.5.29.15', hex('030205a0'), hex('0101ff')),
  extension('2.5.29.37', seq(oid('1.3.6.1.5.5.7.3.1'))),
]
const corpus: readonly Buffer[] = [
  request(),
  request({ extensions: rich, subject: seq(hex('310b300906035504061302 4445'), seq()) }),
  request({ extensions: rich, signer: rsaSigner('2048') }),
  request({ extensions: rich, signer: nodeSigner('ed25519', {}, seq(oid('1.3.101.112')), null) }),
  request({ extensions: rich, signer: mlDsa }),
  ...hostileCases
    .filter(({ contentType, row }) => contentType === 'application/pkcs10' && !/16 KiB/.test(row))
    .map(({ body }) => body() as Buffer),
]

type Mutation = readonly [kind: number, at: number, value: number, length: number]

/** One of: change an octet, insert, delete, repeat a stretch, cut off, splice in another input, grow a length. */
const mutate = (input: Buffer, [kind, at, value, length]: Mutation): Buffer => {
  const position = input.length === 0 ? 0 : at % input.length
  const [head, tail] = [input.subarray(0, position), input.subarray(position)]
  const stretch = tail.subarray(0, 1 + (length % 64))
  const other = corpus[value % corpus.length] as Buffer
  const results = [
    () => Buffer.concat([head, Buffer.from([value & 0xff]), tail.subarray(1)]),
    () => Buffer.concat([head, Buffer.from([(tail[0] ?? 0) ^ (1 << (value & 7))]), tail.subarray(1)]),
    () => Buffer.concat([head, Buffer.from([value & 0xff]), tail]),
    () => Buffer.concat([head, tail.subarray(stretch.length)]),
    () => Buffer.concat([head, stretch, tail]),
    () => head,
    () => Buffer.concat([head, other.subarray(value % (other.length + 1))]),
    () => Buffer.concat([head, Buffer.alloc(stretch.length, value), tail.subarray(stretch.length)]),
  ]
  return (results[kind % results.length] as () => Buffer)()
}

const mutation = fc.tuple(fc.nat(7), fc.nat(20_000), fc.nat(65_535), fc.nat(255))
const mutated = fc
  .tuple(fc.nat(corpus.length - 1), fc.array(mutation, { minLength: 1, maxLength: 4 }))
  .map(([index, mutations]) => mutations.reduce(mutate, corpus[index] as Buffer))

const share = (part: number): { seed: number; numRuns: number } => ({ seed, numRuns: Math.ceil(cases * part) })

t.test('requests that were real before they were mutated', async () => {
  fc.assert(
    fc.property(mutated, (der) => survives(() => parseRequest(der))),
    share(0.5),
  )
})

t.test('the same octets as certificates, keys, names and subjects', async () => {
  fc.assert(
    fc.property(mutated, fc.nat(200), (der, from) => {
      const part = der.subarray(from)
      return [parseCertificate, parseTbs, parsePublicKey, parseGeneralNames, parseSubject].every((parse) =>
        survives(() => parse(part as Buffer)),
      )
    }),
    share(0.1),
  )
})

t.test('octets that never were anything', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 512 }), (octets) => survives(() => parseRequest(Buffer.from(octets)))),
    share(0.1),
  )
})

t.test('lengths and tags that almost fit', async () => {
  const tree = fc.letrec<{ node: Buffer }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 6 },
      fc
        .tuple(fc.constantFrom(1, 2, 3, 4, 5, 6, 12, 19, 22, 23, 24, 0x80, 0x82), fc.uint8Array({ maxLength: 12 }))
        .map(([tag, value]) => Buffer.concat([Buffer.from([tag, value.length]), value])),
      fc.tuple(fc.constantFrom(0x30, 0x31, 0xa0, 0xa3), fc.array(tie('node'), { maxLength: 5 })).map(([tag, parts]) => {
        const contents = Buffer.concat(parts)
        return contents.length < 128 ? Buffer.concat([Buffer.from([tag, contents.length]), contents]) : seq(contents)
      }),
    ),
  })).node
  fc.assert(
    fc.property(tree, (der) => survives(() => parseRequest(der)) && survives(() => parseTbs(der))),
    share(0.1),
  )
})

t.test('PEM that was real before it was mutated', async () => {
  const text = Buffer.from(pem(request()))
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) =>
      survives(() => parseRequest(parsePem(mutations.reduce(mutate, text), 'CERTIFICATE REQUEST'))),
    ),
    share(0.1),
  )
})

t.test('texts as names', async () => {
  const pieces = fc
    .array(
      fc.constantFrom(
        'a',
        'xn--',
        '-',
        '.',
        '*',
        '_',
        ':',
        '/',
        '//',
        '@',
        '%',
        '%41',
        '[',
        ']',
        '0',
        '127',
        '0x7f',
        'é',
        '\0',
        'spiffe:',
        'https:',
        '?',
        '#',
        '\n',
        'com',
      ),
      { maxLength: 20 },
    )
    .map((parts) => parts.join(''))
  fc.assert(
    fc.property(
      fc.constantFrom<NameKind>('dns', 'ip', 'uri', 'email'),
      fc.oneof(pieces, anyString({ maxLength: 300 })),
      (kind, text) => survives(() => parseName(kind, text)),
    ),
    share(0.1),
  )
})

t.test('what was accepted as a name is accepted again, and is the same', async (t) => {
  const labels = fc
    .array(fc.stringMatching(/^[a-zA-Z0-9-]{1,20}$/), { minLength: 1, maxLength: 5 })
    .map((parts) => parts.join('.'))
  fc.assert(
    fc.property(labels, (text) => {
      try {
        const name = parseName('dns', text)
        return parseName('dns', name.value).value === name.value && name.value === text.toLowerCase()
      } catch (error) {
        return isProblem(error)
      }
    }),
    { seed, numRuns: 2_000 },
  )
  t.pass('idempotent')
})

t.test('none took longer than 50 ms', async (t) => {
  t.ok(slowest < 50, `the slowest took ${slowest.toFixed(2)} ms`)
  t.comment(`the slowest took ${slowest.toFixed(2)} ms`)
})

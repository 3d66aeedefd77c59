/** The contents of extensions, each as it stands in a certificate or a request: one element that was walked. */
import t from 'tap'

import { DerReader, walk } from '../../src/x509/der.ts'
import {
  encodeExtendedKeyUsage,
  encodeKeyUsage,
  extendedKeyUsageName,
  isDottedOid,
  keyUsages,
  readBasicConstraints,
  readExtendedKeyUsage,
  readKeyUsage,
} from '../../src/x509/extensions.ts'
import { hex, integer, oid, seq, yes } from './build.ts'

/** In the midst of other octets, of which none may count. */
const reading = <T>(read: (value: DerReader) => T, der: Buffer): T => {
  const value = new DerReader(Buffer.concat([hex('ff'), der, hex('ffff')]), 'policy.lint', 1, 1 + der.length)
  walk(value)
  return read(value)
}

t.test('key usages are read as they are written, each alone and all of them', async (t) => {
  for (const usages of [...keyUsages.map((usage) => [usage]), [...keyUsages]])
    t.same(reading(readKeyUsage, encodeKeyUsage(usages)), usages)
  t.same(encodeKeyUsage(['decipherOnly']), hex('0303070080'))
  t.throws(() => encodeKeyUsage([]), RangeError)
})

const badKeyUsages: readonly (readonly [what: string, der: Buffer, said: RegExp])[] = [
  ['none', hex('030100'), /names no usage/],
  ['a bit of which nobody knows', hex('0303060040'), /unknown usages/],
  ['known ones and one of which nobody knows', hex('03030600c0'), /unknown usages/],
  ['a third octet', hex('030407000080'), /unknown ones/],
  ['a bit that says nothing at the end', hex('03020680'), /trailing zero bits/],
  ['an octet that says nothing at the end', hex('0303008000'), /trailing zero bits/],
]

for (const [what, der, said] of badKeyUsages)
  t.test(`no key usage: ${what}`, async (t) => {
    t.throws(() => reading(readKeyUsage, der), { code: 'policy.lint', message: said })
  })

t.test('there are at most 32 purposes, each once', async (t) => {
  const many = (count: number): readonly string[] => Array.from({ length: count }, (_, i) => `1.2.3.${i}`)
  t.same(reading(readExtendedKeyUsage, encodeExtendedKeyUsage(many(32))), many(32))
  t.throws(() => reading(readExtendedKeyUsage, encodeExtendedKeyUsage(many(33))), { message: /more than 32/ })
  const twice = encodeExtendedKeyUsage(['serverAuth', '1.3.6.1.5.5.7.3.1'])
  t.throws(() => reading(readExtendedKeyUsage, twice), { message: /a purpose twice/ })
  t.throws(() => reading(readExtendedKeyUsage, seq()), { message: /is empty/ })
})

const hundred = `1.3${'.1234567890'.repeat(11)}`
const oids = ['0.0', '0.39', '1.39', '2.40', '2.999.1', '2.2147483391', '1.2.2147483391', `1${'.1'.repeat(30)}`]

t.test('what is a dotted OID is written, and read again as it was', async (t) => {
  for (const usage of [...oids, '1.2.10.0', `${hundred}.123`]) {
    t.ok(isDottedOid(usage), usage)
    t.same(reading(readExtendedKeyUsage, encodeExtendedKeyUsage([usage])), [usage])
    t.equal(extendedKeyUsageName(usage), usage)
  }
  for (const usage of ['serverAuth', '1.3.6.1.5.5.7.3.1']) t.equal(extendedKeyUsageName(usage), 'serverAuth')
})

t.test('what is none is not', async (t) => {
  const edges = ['3.1', '0.40', '1.40', '2.2147483392', '1.2.2147483392', `1${'.1'.repeat(31)}`, `${hundred}.1234`]
  for (const usage of [
    ...edges,
    '',
    '1',
    '1.',
    '.1',
    '1..2',
    '1.02',
    '1.2.12345678901',
    '1.2 ',
    '1.a',
    'constructor',
  ]) {
    t.notOk(isDottedOid(usage), usage)
    t.throws(() => encodeExtendedKeyUsage([usage]), RangeError)
    t.equal(extendedKeyUsageName(usage), usage)
  }
})

t.test('basic constraints are two at most', async (t) => {
  const read = (...parts: readonly Buffer[]) => reading(readBasicConstraints, seq(...parts))
  t.strictSame(read(), { ca: false })
  t.strictSame(read(yes), { ca: true })
  t.strictSame(read(yes, integer(0)), { ca: true, pathLength: 0 })
  for (const parts of [[yes, integer(0), integer(0)], [yes, yes], [oid('1.2.3')], [integer(0), yes]])
    t.throws(() => read(...parts), { code: 'policy.lint' })
})

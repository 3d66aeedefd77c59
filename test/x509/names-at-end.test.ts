import { generateKeyPairSync } from 'node:crypto'

import t from 'tap'

import { defaultSignatureAlgorithm } from '../../src/x509/algorithms.ts'
import { parseTbs } from '../../src/x509/certificate.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { type Name, parseName } from '../../src/x509/names.ts'
import { namesIdentifier, readNamesAtEnd } from '../../src/x509/names-at-end.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { compileTemplate, encodeTbs, type TemplateInput } from '../../src/x509/tbs.ts'
import { dns, extension, oid, san, seq, tlv } from './build.ts'

const key = parsePublicKey(
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }),
)

const templateInput: TemplateInput = {
  issuer: {
    subject: encodeSubject([{ type: 'commonName', value: 'Example CA 1' }]),
    keyIdentifier: key.keyIdentifier,
    signature: defaultSignatureAlgorithm('ec-p256'),
    publicUrl: 'http://ca.example.com/',
    name: 'default-1',
  },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth', '2.5.29.17'],
  revocation: ['crl', 'ocsp'],
}

const tbsOf = (names: readonly Name[], { spki = key.spki, ...more }: Partial<TemplateInput> & { spki?: Buffer } = {}) =>
  encodeTbs(compileTemplate({ ...templateInput, ...more }), {
    // With the octets that are looked for.
    serial: Buffer.from('400603551d1104030603550000000001', 'hex'),
    notBefore: new Date('2026-11-24T10:00:00Z'),
    notAfter: new Date('2026-12-24T09:59:59Z'),
    subject: [],
    key: { ...key, spki },
    names,
    shard: 7,
  })

/** As PostgreSQL cuts it: from the first place on, or all where there is none. */
const endOf = (tbs: Buffer): Buffer => tbs.subarray(Math.max(0, tbs.indexOf(namesIdentifier)))

const lists: readonly (readonly Name[])[] = [
  [],
  [parseName('dns', 'a.example.com')],
  [parseName('dns', 'b.example.com'), parseName('ip', '10.0.0.1'), parseName('dns', 'a.example.com')],
  [parseName('uri', 'spiffe://example.com/a'), parseName('email', 'a@example.com')],
  // An address of the octets that are looked for, with a name behind them.
  [parseName('ip', '603:551d:1104:930:7820:5612:e62:6364'), parseName('dns', 'real.example.com')],
  Array.from({ length: 100 }, (_, i) => parseName('dns', `n${i}.example.com`)),
]

t.test('the end of what is issued says the names that all of it says', async (t) => {
  for (const revocation of [['crl', 'ocsp'], ['crl'], ['ocsp'], [], 'none'] as const)
    for (const extendedKeyUsage of [['serverAuth'], ['serverAuth', '2.5.29.17'], ['OCSPSigning'], []])
      for (const names of lists) {
        const tbs = tbsOf(names, { revocation, extendedKeyUsage })
        t.same(readNamesAtEnd(endOf(tbs)), parseTbs(tbs).names)
        t.same(readNamesAtEnd(tbs), parseTbs(tbs).names)
      }
})

const forged = san(dns('forged.example.com')).subarray(2)
const point = oid('2.5.29.31')
const toUrl = [0x30, point, 0x04, 0x30, 0x30, 0xa0, 0xa0]
const url = Buffer.from('http://forged.example/1.crl')
/** The header of an element that reaches over `length` octets. */
const header = (tag: number, length: number): Buffer => Buffer.from([tag, 0x82, length >> 8, length & 0xff])
/** Elements within each other, each to the end of `length` octets. */
const within = (length: number, ...tags: readonly (number | Buffer)[]): Buffer => {
  const parts: Buffer[] = []
  let left = length
  for (const tag of tags) {
    const part = typeof tag === 'number' ? header(tag, left - 4) : tag
    parts.push(part)
    left -= part.length
  }
  return Buffer.concat(parts)
}

const forgeries: Readonly<Record<string, (length: number) => Buffer>> = {
  'names, and then what there is': () => forged,
  'an extension over all that follows': (length) => Buffer.concat([forged, within(length - forged.length, 0x30)]),
  'a distribution point over all that follows': (length) =>
    Buffer.concat([forged, within(length - forged.length, 0x30, point, 0x04)]),
  'a URL over all that follows': (length) =>
    Buffer.concat([forged, within(length - forged.length, ...toUrl, 0x86), url]),
  'a URL, and something behind it over all that follows': (length) =>
    Buffer.concat([forged, within(length - forged.length, ...toUrl), tlv(0x86, url)]),
  'a distribution point, and then what there is': () =>
    Buffer.concat([forged, extension('2.5.29.31', seq(seq(tlv(0xa0, tlv(0xa0, tlv(0x86, url))))))]),
  'a name over all that follows': (length) => within(length, namesIdentifier, 0x04, 0x30, 0x86),
  'addresses over all that follows': (length) =>
    Buffer.concat([
      within(length, namesIdentifier, 0x04, 0x30),
      ...Array.from({ length: 8 }, () => tlv(0x87, Buffer.alloc(16))),
    ]),
  'names, and something behind them in their extension': (length) =>
    Buffer.concat([within(length, namesIdentifier, 0x04), seq(dns('forged.example.com'))]),
  'the octets alone, again and again': () => Buffer.concat(Array.from({ length: 20 }, () => namesIdentifier)),
}

t.test('whatever a key holds is no name', async (t) => {
  const size = 400
  for (const [title, forge] of Object.entries(forgeries))
    for (const names of lists)
      for (const revocation of [['crl', 'ocsp'], ['ocsp']] as const) {
        const spkiOf = (octets: Buffer): Buffer => seq(Buffer.concat([octets, Buffer.alloc(size - octets.length)]))
        const blank = tbsOf(names, { revocation, spki: spkiOf(Buffer.alloc(0)) })
        const from = blank.indexOf(Buffer.alloc(size))
        const tbs = tbsOf(names, { revocation, spki: spkiOf(forge(blank.length - from)) })
        t.equal(tbs.length, blank.length)
        t.same(readNamesAtEnd(endOf(tbs)), names, title)
      }
})

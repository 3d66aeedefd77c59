import t from 'tap'

import { Problem } from '../../src/errors.ts'
import {
  DerReader,
  DerWriter,
  encodeDer,
  encodeOid,
  encodeSequence,
  encodeUnsigned,
  formatOid,
  oidKey,
  openDer,
  tags,
  walk,
} from '../../src/x509/der.ts'
import { hex, nil, seq } from './build.ts'

const refused: readonly (readonly [string, string, number])[] = [
  ['nothing at all', '', 0],
  ['one octet', '30', 0],
  ['indefinite length', '30 80 02 01 00 00 00', 1],
  ['a long form below 128', '30 81 05 02 01 00 05 00', 1],
  ['a long form with leading zeros', '30 84 00 00 00 05 02 01 00 05 00', 1],
  ['a length of 128 with a zero before it', `04 82 00 80 ${'00'.repeat(128)}`, 1],
  ['a length that is cut', '30 82 01', 1],
  ['a length that is cut by what holds it', '30 02 04 82 01 00', 3],
  ['a length that is cut inside, at the end of the input', '30 03 04 84 01', 3],
  ['a header that is cut inside, at the end of the input', '30 03 05 00 05', 4],
  ['a length of five octets', `04 85 01 ${'00'.repeat(8)}`, 1],
  ['a length of 127 in the long form', `04 81 7f ${'00'.repeat(127)}`, 1],
  ['a long child that ends an octet outside of its parent', `30 81 82 04 81 80 ${'00'.repeat(127)}`, 4],
  ['a length that ends outside', '30 05 02 01 00', 0],
  ['a length of 2^31', '04 84 80 00 00 00', 1],
  ['a length of 2^32 − 1', '04 84 ff ff ff ff', 1],
  ['a length of 2^53 + 1', '04 87 20 00 00 00 00 00 01', 1],
  ['a length of 127 octets', `04 ff ${'ff '.repeat(127)}`, 1],
  ['the reserved length ff', '04 ff', 1],
  ['a child that ends outside of its parent', '30 03 04 02 00 00', 2],
  ['BOOLEAN 01', '01 01 01', 2],
  ['an empty BOOLEAN', '01 00', 2],
  ['a BOOLEAN of two octets', '01 02 ff ff', 2],
  ['INTEGER 0001', '02 02 00 01', 2],
  ['INTEGER ffff', '02 02 ff ff', 2],
  ['an empty INTEGER', '02 00', 2],
  ['INTEGER 0080… that is minimal, truncated', '02 09 00 80', 0],
  ['ENUMERATED 0001', '0a 02 00 01', 2],
  ['an OID that begins with 80', '06 01 80', 2],
  ['an OID with 80 at the start of an arc', '06 02 80 01', 2],
  ['an OID that ends inside an arc', '06 02 2a 81', 3],
  ['an empty OID', '06 00', 2],
  ['an OID with an arc of 2^31', '06 06 2a 88 80 80 80 00', 7],
  ['an OID with an arc of 2^35', '06 07 2a 81 80 80 80 80 00', 8],
  ['an OID that begins with 2^31', '06 05 88 80 80 80 00', 6],
  ['an empty BIT STRING', '03 00', 2],
  ['8 unused bits', '03 02 08 00', 2],
  ['8 unused bits without data', '03 01 08', 2],
  ['an unused bit without data', '03 01 01', 2],
  ['unused bits that are set', '03 02 03 07', 3],
  ['an unused bit that is set', '03 02 01 ff', 3],
  ['a NULL with contents', '05 01 00', 2],
  ['a constructed OCTET STRING', '24 03 04 01 00', 0],
  ['a constructed BIT STRING', '23 04 03 02 00 01', 0],
  ['a constructed UTF8String', '2c 03 0c 01 41', 0],
  ['a constructed INTEGER', '22 03 02 01 00', 0],
  ['a high tag', '1f 81 01 00', 0],
  ['a high tag of a context class', 'bf 81 01 00', 0],
  ['a primitive SEQUENCE', '10 00', 0],
  ['a primitive SET', '11 00', 0],
  ['an end-of-contents mark', '00 00', 0],
  ['an end-of-contents mark inside a definite length', '30 04 05 00 00 00', 4],
  ['an EXTERNAL', '08 00', 0],
  ['an octet after the end', '05 00 00', 2],
  ['two elements', '05 00 05 00', 2],
]

for (const [name, octets, offset] of refused) {
  t.test(`${name} is refused, with the octet where it happens`, async (t) => {
    try {
      openDer(hex(octets), 'csr.der')
      t.fail('it was accepted')
    } catch (error) {
      t.type(error, Problem)
      t.match(error, { code: 'csr.der', options: { offset } })
    }
  })
}

t.test('more unused bits than bits are told as that', async (t) => {
  for (const octets of ['03 02 08 00', '03 01 08', '03 01 01', '03 01 07'])
    t.throws(() => openDer(hex(octets), 'csr.der'), { code: 'csr.der', detail: /more unused bits than bits/ }, octets)
})

const accepted: readonly (readonly [string, string])[] = [
  ['BOOLEAN ff', '01 01 ff'],
  ['BOOLEAN 00', '01 01 00'],
  ['INTEGER 0', '02 01 00'],
  ['INTEGER 128', '02 02 00 80'],
  ['INTEGER −128', '02 01 80'],
  ['INTEGER −129', '02 02 ff 7f'],
  ['INTEGER 2^63', '02 09 00 80 00 00 00 00 00 00 00'],
  ['an OID with an arc of 2^31 − 1', '06 06 2a 87 ff ff ff 7f'],
  ['an OID that begins with 2^31 − 1', '06 05 87 ff ff ff 7f'],
  ['an empty BIT STRING of no unused bits', '03 01 00'],
  ['7 unused bits', '03 02 07 80'],
  ['a context-specific element of either form', 'a0 02 80 00'],
  ['an empty SEQUENCE', '30 00'],
  ['a length of 128', `04 81 80 ${'00'.repeat(128)}`],
  ['a length of 256', `04 82 01 00 ${'00'.repeat(256)}`],
  ['a SET that is not sorted', '31 06 02 01 02 02 01 01'],
]

for (const [name, octets] of accepted) {
  t.test(`${name} is accepted`, async (t) => {
    t.doesNotThrow(() => openDer(hex(octets), 'csr.der'))
  })
}

t.test('of the universal types those are read that certificates are made of', async (t) => {
  /** The others take any contents, these some. */
  const contents = new Map([
    [0x01, 'ff'],
    [0x02, '00'],
    [0x03, '00'],
    [0x05, ''],
    [0x06, '2a'],
    [0x0a, '00'],
  ])
  const strings = [0x04, 0x0c, 0x12, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1a, 0x1b, 0x1c, 0x1e]
  for (let tag = 0; tag < 0x1f; tag++) {
    const [name, octets] = [tag.toString(16).padStart(2, '0'), hex(contents.get(tag) ?? '78')]
    const read = () => openDer(encodeDer(tag, octets), 'csr.der')
    if (contents.has(tag) || strings.includes(tag)) t.doesNotThrow(read, name)
    else t.throws(read, { code: 'csr.der', detail: new RegExp(`^tag ${name} is not a type`) }, name)
    const constructed = (tag | 0x20).toString(16)
    if (tag === 0x10 || tag === 0x11) continue
    const held = () => openDer(encodeDer(tag | 0x20, nil), 'csr.der')
    t.throws(held, { code: 'csr.der', detail: new RegExp(`^tag ${constructed} may not be constructed`) }, constructed)
  }
})

t.test('24 levels are accepted, 25 are not, and neither takes the stack', async (t) => {
  const nested = (depth: number): Buffer => {
    let inner = seq()
    for (let i = 1; i < depth; i++) inner = seq(inner)
    return inner
  }
  t.doesNotThrow(() => openDer(nested(24), 'csr.der'))
  t.throws(() => openDer(nested(25), 'csr.der'), { code: 'csr.der' })
  t.throws(() => openDer(nested(5_000), 'csr.der'), { code: 'csr.der' })
})

t.test('20,000 elements are accepted, 20,001 are not, also when they are spread over nested encodings', async (t) => {
  const flat = (count: number): Buffer => seq(...Array<Buffer>(count - 1).fill(nil))
  t.doesNotThrow(() => openDer(flat(20_000), 'csr.der'))
  t.throws(() => openDer(flat(20_001), 'csr.der'), { code: 'csr.der' })
  const budget = { nodes: 20_000 }
  walk(new DerReader(flat(15_000), 'csr.der'), budget)
  t.throws(() => walk(new DerReader(flat(15_000), 'ext.syntax'), budget), { code: 'ext.syntax' })
})

t.test('offsets count from the start of the whole input, inside windows too', async (t) => {
  const input = hex('30 06 04 04 30 02 05 01')
  const outer = openDer(input, 'csr.der').read(tags.sequence, 'outer')
  const inner = outer.read(tags.octetString, 'inner')
  t.throws(() => walk(inner.as('ext.syntax')), { code: 'ext.syntax', options: { offset: 6 } })
})

t.test('a reader never sees what lies after its window', async (t) => {
  const list = openDer(hex('30 06 30 02 05 00 05 00'), 'csr.der').read(tags.sequence, 'list')
  const first = list.read(tags.sequence, 'first')
  first.read(tags.null, 'null')
  t.ok(first.done)
  t.equal(first.tag, -1)
  t.throws(() => first.read(tags.null, 'another'), { code: 'csr.der' })
  t.throws(() => list.finish('list'), { code: 'csr.der' })
})

t.test('what is written is DER, whatever its length', async (t) => {
  for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536, 200_000]) {
    const der = encodeSequence(encodeDer(tags.octetString, Buffer.alloc(length, 7)))
    const contents = openDer(der, 'csr.der').read(tags.sequence, 'list').read(tags.octetString, 'octets')
    t.equal(contents.length, length)
    t.ok(contents.octets.equals(Buffer.alloc(length, 7)))
  }
})

t.test('the writer grows, and keeps what it holds', async (t) => {
  const writer = new DerWriter(4)
  const parts = Array.from({ length: 100 }, (_, i) => Buffer.alloc(i, i))
  for (const part of parts.toReversed()) writer.bytes(part)
  writer.ascii('head')
  writer.octet(1)
  writer.header(tags.octetString, 0)
  const contents = openDer(writer.finish(), 'csr.der').read(tags.octetString, 'all').octets
  t.ok(contents.equals(Buffer.concat([Buffer.from('\u0001head'), ...parts])))
})

t.test('a writer of any capacity writes the same, up to lengths that take four octets', async (t) => {
  const parts = [Buffer.alloc(120, 7), Buffer.from([1]), Buffer.from('ab')]
  const wanted = encodeSequence(encodeDer(tags.octetString, Buffer.concat(parts.toReversed())))
  for (let capacity = 0; capacity < 140; capacity++) {
    const writer = new DerWriter(capacity)
    writer.bytes(parts[0] as Buffer)
    writer.octet(1)
    writer.ascii('ab')
    writer.header(tags.octetString, 0)
    writer.header(tags.sequence, 0)
    t.ok(writer.finish().equals(wanted), String(capacity))
  }
  for (const [length, header] of [
    [0x7f, 2],
    [0x80, 3],
    [0xff, 3],
    [0x100, 4],
    [0xffff, 4],
    [0x10000, 5],
    [0xffffff, 5],
    [0x1000000, 6],
  ] as const) {
    // An octet less than there is to write.
    const writer = new DerWriter(length + header - 1)
    writer.bytes(Buffer.alloc(length))
    writer.header(tags.octetString, 0)
    const der = writer.finish()
    t.equal(der.length, length + header)
    t.equal(openDer(der, 'csr.der').read(tags.octetString, 'octets').length, length)
  }
})

t.test('a small number is not negative, and of four octets at most', async (t) => {
  const read = (octets: string): number => openDer(hex(octets), 'csr.der').smallInteger('it')
  for (const [octets, value] of [
    ['02 01 00', 0],
    ['02 01 7f', 127],
    ['02 02 00 80', 128],
    ['02 04 7f ff ff ff', 0x7fffffff],
  ] as const)
    t.equal(read(octets), value)
  for (const octets of ['02 01 80', '02 04 ff 7f ff ff', '02 05 00 80 00 00 00', '02 05 7f ff ff ff ff'])
    t.throws(() => read(octets), { code: 'csr.der', options: { offset: 2 } }, octets)
})

t.test('bits that are read are whole octets, although a BIT STRING need not be', async (t) => {
  const read = (octets: string): string => openDer(hex(octets), 'csr.der').bits('it').octets.toString('hex')
  t.equal(read('03 02 00 80'), '80')
  t.throws(() => read('03 02 01 80'), { code: 'csr.der', detail: /it has unused bits/, options: { offset: 2 } })
})

t.test('unsigned numbers are minimal and positive', async (t) => {
  const encoded = (octets: string): string => encodeUnsigned(hex(octets)).toString('hex')
  t.equal(encoded(''), '020100')
  t.equal(encoded('00'), '020100')
  t.equal(encoded('0000'), '020100')
  t.equal(encoded('7f'), '02017f')
  t.equal(encoded('80'), '02020080')
  t.equal(encoded('000080'), '02020080')
  t.equal(encoded('0102'), '02020102')
  t.equal(encoded('00010200'), '0203010200')
})

t.test('OIDs go both ways', async (t) => {
  for (const dotted of [
    '1.2.840.113549.1.1.1',
    // Of the families that are kept, what is in them, above and below.
    ...[
      '2.5.29.17',
      '2.5.29.17',
      '2.5.29',
      '2.5.29.17.1',
      '2.5.29.17.2',
      '2.5.29.1000',
      '2.5.4.17',
      '2.5.4.17.1',
      '2.5.17',
      '1.2.29.17',
    ],
    '0.9.2342.19200300.100.1.25',
    '2.16.840.1.101.3.4.3.17',
    '1.3.6.1.4.1.311.20.2.3',
    '2.999.1',
    '1.2.128.255',
    '1.2.16384',
    '0.0',
    '0.39',
    '1.0.10118.3.0.55',
    '1.39',
    '2.0',
    '1.2.2147483647',
  ]) {
    t.equal(formatOid(oidKey(dotted)), dotted)
    t.equal(openDer(encodeOid(dotted), 'csr.der').oid('it'), oidKey(dotted))
    t.doesNotThrow(() => openDer(encodeOid(dotted), 'csr.der'))
  }
})

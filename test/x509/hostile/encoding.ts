/** The encoding itself: what BER allows and DER does not, and what is made to exhaust a parser. */
import { attribute, dns, extension, extensionRequest, hex, host, nil, no, request, seq, tlv } from '../build.ts'
import { bad, extensions, type HostileCase, inside, oids, row } from './case.ts'

const nested = (depth: number): Buffer => {
  let inner = seq()
  for (let i = 1; i < depth; i++) inner = seq(inner)
  return inner
}
const contents = (der: Buffer): Buffer => der.subarray((der[1] as number) < 0x80 ? 2 : 2 + ((der[1] as number) & 0x7f))
const length32 = (octets: Buffer): Buffer => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(octets.length)
  return length
}

export const encoding: readonly HostileCase[] = [
  ...row(
    'Trailing bytes, truncated, indefinite length, non-minimal length, high-tag forms, constructed strings',
    ['octets after the request', () => Buffer.concat([request(), hex('00')]), 'csr.der'],
    ['two requests', () => Buffer.concat([request(), request()]), 'csr.der'],
    ['a truncated request', () => request().subarray(0, -1), 'csr.der'],
    ['a request cut to its first octet', () => request().subarray(0, 1), 'csr.der'],
    ['indefinite length', () => Buffer.concat([hex('3080'), contents(request()), hex('0000')]), 'csr.der'],
    ['indefinite length inside', inside('30 80 00 00'), 'csr.der'],
    [
      'a length in more octets than needed',
      () => Buffer.concat([hex('3084'), length32(contents(request())), contents(request())]),
      'csr.der',
    ],
    ['a long length below 128', inside('30 81 05 02 01 00 05 00'), 'csr.der'],
    ['a length with leading zeros', inside('30 84 00 00 00 05 02 01 00 05 00'), 'csr.der'],
    ['a high tag', inside('1f 81 01 00'), 'csr.der'],
    ['a high tag in low form', inside('bf 1f 00'), 'csr.der'],
    ['a constructed OCTET STRING', inside('24 03 04 01 00'), 'csr.der'],
    ['a constructed UTF8String', inside('2c 03 0c 01 41'), 'csr.der'],
    ['a constructed BIT STRING', inside('23 04 03 02 00 01'), 'csr.der'],
    ['a primitive SEQUENCE', inside('10 00'), 'csr.der'],
    ['an end-of-contents mark', inside('00 00'), 'csr.der'],
  ),
  ...row(
    'BOOLEAN ≠ 00/FF; DEFAULT FALSE encoded (`critical 00`)',
    ['a BOOLEAN of 01', inside('01 01 01'), 'csr.der'],
    ['critical of 01', extensions(extension('2.5.29.99', nil, hex('010101'))), 'csr.der'],
    ['a BOOLEAN of two octets', inside('01 02 ff ff'), 'csr.der'],
    ['critical FALSE', bad({ extensions: [extension('2.5.29.17', seq(dns('host.example.com')), no)] }), 'csr.der'],
    ['cA FALSE', extensions(extension(oids.basicConstraints, seq(no))), 'ext.syntax'],
  ),
  ...row(
    'Non-minimal/negative/empty INTEGER; OID with 0x80 lead or arc ≥2^31',
    ['an INTEGER that is not minimal', inside('02 02 00 01'), 'csr.der'],
    ['a negative INTEGER that is not minimal', inside('02 02 ff ff'), 'csr.der'],
    ['an empty INTEGER', inside('02 00'), 'csr.der'],
    ['a negative version', bad({ version: hex('0201ff') }), 'csr.version'],
    ['an OID that begins with 80', inside('06 01 80'), 'csr.der'],
    ['an OID with an arc that begins with 80', inside('06 03 2a 80 01'), 'csr.der'],
    ['an OID that ends inside an arc', inside('06 02 2a 83'), 'csr.der'],
    ['an empty OID', inside('06 00'), 'csr.der'],
    ['an OID with an arc of 2^31', inside('06 06 2a 88 80 80 80 00'), 'csr.der'],
    ['an OID with an arc of 2^63', inside('06 0b 2a 81 80 80 80 80 80 80 80 80 00'), 'csr.der'],
    ['an OID with an arc of 2^31 − 1', inside('06 06 2a 87 ff ff ff 7f'), 'accepted'],
  ),
  ...row('SET OF not sorted', [
    'attributes that are not sorted',
    bad({ attributes: tlv(0xa0, extensionRequest(host), attribute('1.2.3', nil)) }),
    'accepted',
  ]),
  ...row(
    'Huge lengths, depth >24, >20 k nodes',
    ['a length of 2^31', inside('04 84 80 00 00 00'), 'csr.der'],
    ['a length of 2^32 − 1', inside('04 84 ff ff ff ff'), 'csr.der'],
    ['a length of 2^53 + 1', inside('04 87 20 00 00 00 00 00 01'), 'csr.der'],
    ['a length of 127 octets', inside(`04 ff${'ff'.repeat(127)}`), 'csr.der'],
    [
      'a nesting of 25',
      bad({ attributes: tlv(0xa0, extensionRequest(host), attribute('1.2.3.4', nested(25))) }),
      'csr.der',
    ],
    ['a nesting of 2,000', bad({ attributes: tlv(0xa0, attribute('1.2.3.4', nested(2_000))) }), 'csr.der'],
    [
      '20,001 elements',
      bad({ attributes: tlv(0xa0, attribute('1.2.3.4', ...Array<Buffer>(20_001).fill(nil))) }),
      'csr.too_large',
    ],
  ),
]

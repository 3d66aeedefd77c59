/** PKCS#10 and its attributes and extensions: what may be asked for, how often, and what is never copied. */
import {
  attribute,
  bits,
  dns,
  extension,
  extensionRequest,
  hex,
  host,
  ia5,
  integer,
  nil,
  no,
  octets,
  oid,
  printable,
  san,
  seq,
  tlv,
  utf8,
  yes,
} from '../build.ts'
import { nodeSigner, rsaSigner } from '../keys.ts'
import { attributes, bad, extensions, type HostileCase, keyUsage, oids, purposes, row } from './case.ts'

const extensionRequestOid = '1.2.840.113549.1.9.14'
const microsoft = attribute('1.3.6.1.4.1.311.2.1.14', seq(host))
const challenge = (...values: readonly string[]): Buffer => attribute('1.2.840.113549.1.9.7', ...values.map(utf8))

export const shape: readonly HostileCase[] = [
  ...row(
    'version ≠ 0',
    ['version 1', bad({ version: integer(1) }), 'csr.version'],
    ['version 2', bad({ version: integer(2) }), 'csr.version'],
    ['version 128, whose first octet is 0', bad({ version: integer(128) }), 'csr.version'],
    ['a version of many octets', bad({ version: integer(2n ** 64n) }), 'csr.version'],
    ['no version', bad({ version: Buffer.alloc(0) }), 'csr.der'],
  ),
  ...row(
    '[0] attributes absent',
    ['no attributes', bad({ attributes: Buffer.alloc(0) }), 'csr.attribute'],
    ['attributes under another tag', bad({ attributes: tlv(0xa1) }), 'csr.attribute'],
    ['attributes that claim to be primitive', bad({ attributes: tlv(0x80) }), 'csr.attribute'],
    [
      'empty attributes are well-formed, but nothing is asked for',
      bad({ attributes: tlv(0xa0) }),
      { policy: 'san.required' },
    ],
    ['something after the attributes', bad({ attributes: Buffer.concat([tlv(0xa0), nil]) }), 'csr.der'],
  ),
  ...row(
    'extensionRequest twice / SET of 0 or ≥2 values; also MS 1.3.6.1.4.1.311.2.1.14 beside it',
    ['extensionRequest twice', attributes(extensionRequest(host), extensionRequest(host)), 'csr.attribute'],
    ['extensionRequest without a value', attributes(attribute(extensionRequestOid)), 'csr.attribute'],
    [
      'extensionRequest with two values',
      attributes(attribute(extensionRequestOid, seq(host), seq(host))),
      'csr.attribute',
    ],
    ["Microsoft's attribute beside it", attributes(extensionRequest(host), microsoft), 'csr.attribute'],
    ["Microsoft's attribute before it", attributes(microsoft, extensionRequest(host)), 'csr.attribute'],
    ["Microsoft's attribute alone is ignored", attributes(microsoft), { policy: 'san.required' }],
    [
      'more attributes than anyone needs',
      attributes(...Array<Buffer>(33).fill(attribute('1.2.3', nil))),
      'csr.attribute',
    ],
    ['an attribute without values', attributes(extensionRequest(host), seq(oid('1.2.3'))), 'csr.attribute'],
    [
      'an attribute with more than its values',
      attributes(extensionRequest(host), seq(oid('1.2.3'), tlv(0x31), nil)),
      'csr.attribute',
    ],
    ['extensions that are no SEQUENCE', attributes(attribute(extensionRequestOid, tlv(0x31))), 'ext.syntax'],
    ['an empty list of extensions', attributes(extensionRequest()), 'ext.syntax'],
  ),
  ...row(
    'challengePassword / unstructuredName / unknown attributes',
    ['challengePassword', attributes(extensionRequest(host), challenge('secret')), 'accepted'],
    [
      'unstructuredName',
      attributes(extensionRequest(host), attribute('1.2.840.113549.1.9.2', ia5('name'))),
      'accepted',
    ],
    [
      'unstructuredName twice, with none and with two values',
      attributes(
        extensionRequest(host),
        attribute('1.2.840.113549.1.9.2'),
        attribute('1.2.840.113549.1.9.2', ia5('a'), ia5('b')),
      ),
      'accepted',
    ],
    [
      'an unknown attribute',
      attributes(extensionRequest(host), attribute('1.3.6.1.4.1.99999.1', utf8('x'))),
      'accepted',
    ],
    ['challengePassword with two values', attributes(extensionRequest(host), challenge('a', 'b')), 'csr.attribute'],
    ['challengePassword without a value', attributes(extensionRequest(host), challenge()), 'csr.attribute'],
    ['challengePassword twice', attributes(extensionRequest(host), challenge('a'), challenge('b')), 'csr.attribute'],
  ),
  ...row(
    'Duplicate extension OID',
    ['subjectAltName twice', bad({ extensions: [host, san(dns('evil.example.com'))] }), 'ext.duplicate'],
    ['an unknown extension twice', extensions(extension('1.2.3', nil), extension('1.2.3', nil)), 'ext.duplicate'],
  ),
  ...row(
    'Trailing data inside extnValue; extnValue not DER',
    [
      'data after the names',
      bad({ extensions: [extension('2.5.29.17', Buffer.concat([seq(dns('host.example.com')), nil]))] }),
      'ext.syntax',
    ],
    ['an empty extnValue', extensions(extension('1.2.3', Buffer.alloc(0))), 'ext.syntax'],
    ['names that are not DER', bad({ extensions: [extension('2.5.29.17', hex('3080820161 0000'))] }), 'ext.syntax'],
    ['an unknown extension that is not DER', extensions(extension('1.2.3', hex('ffff'))), 'ext.syntax'],
    ['data after KeyUsage', extensions(extension(oids.keyUsage, hex('030207800500'), yes)), 'ext.syntax'],
    ['an extnValue that is no OCTET STRING', extensions(seq(oid('1.2.3'), nil)), 'ext.syntax'],
    ['something after extnValue', extensions(seq(oid('1.2.3'), octets(nil), nil)), 'ext.syntax'],
  ),
  ...row(
    'Requested cA:TRUE / pathLen',
    ['cA TRUE', extensions(extension(oids.basicConstraints, seq(yes), yes)), 'ext.forbidden'],
    ['cA TRUE, not critical', extensions(extension(oids.basicConstraints, seq(yes))), 'ext.forbidden'],
    ['pathLen', extensions(extension(oids.basicConstraints, seq(yes, integer(0)), yes)), 'ext.forbidden'],
    ['pathLen without cA', extensions(extension(oids.basicConstraints, seq(integer(0)))), 'ext.forbidden'],
    ['a negative pathLen', extensions(extension(oids.basicConstraints, seq(yes, hex('0201ff')))), 'ext.syntax'],
    ['cA FALSE as its absence', extensions(extension(oids.basicConstraints, seq())), 'accepted'],
  ),
  ...row(
    'KU/EKU outside profile; anyExtendedKeyUsage; empty EKU',
    ['keyCertSign', extensions(keyUsage('03020204')), { policy: 'ext.usage' }],
    ['clientAuth from a server profile', extensions(purposes(oids.clientAuth)), { policy: 'ext.usage' }],
    ['a purpose that nobody knows', extensions(purposes('1.2.3.4')), { policy: 'ext.usage' }],
    ['anyExtendedKeyUsage', extensions(purposes(oids.anyPurpose)), 'ext.forbidden'],
    ['anyExtendedKeyUsage beside another', extensions(purposes(oids.serverAuth, oids.anyPurpose)), 'ext.forbidden'],
    ['an empty list of purposes', extensions(purposes()), 'ext.syntax'],
    ['a purpose twice', extensions(purposes(oids.serverAuth, oids.serverAuth)), 'ext.syntax'],
    ['no usage at all', extensions(keyUsage('030100')), 'ext.syntax'],
    ['a usage with trailing zero bits', extensions(keyUsage('03020080')), 'ext.syntax'],
    ['a usage whose unused bits are set', extensions(keyUsage('030207c0')), 'ext.syntax'],
    ['a tenth usage', extensions(keyUsage('0303060040')), 'ext.syntax'],
    ['usages of the profile', extensions(keyUsage('03020780'), purposes(oids.serverAuth)), 'accepted'],
    ['keyEncipherment with an EC key', extensions(keyUsage('030205a0')), 'accepted'],
    [
      'keyEncipherment with an Ed25519 key',
      bad({
        signer: nodeSigner('ed25519', {}, seq(oid('1.3.101.112')), null),
        extensions: [host, keyUsage('030205a0')],
      }),
      'accepted',
    ],
    [
      'keyEncipherment with an ML-DSA key',
      bad({
        signer: nodeSigner('ml-dsa-44', {}, seq(oid('2.16.840.1.101.3.4.3.17')), null),
        extensions: [host, keyUsage('030205a0')],
      }),
      'accepted',
    ],
    [
      'keyEncipherment with an RSA key',
      () => bad({ signer: rsaSigner('2048'), extensions: [host, keyUsage('030205a0')] })(),
      'accepted',
    ],
  ),
  ...row(
    'AKI, AIA, CDP, certificatePolicies, nameConstraints, SCT/poison, OCSP-nocheck in CSR',
    ['authorityKeyIdentifier', extensions(extension('2.5.29.35', seq(tlv(0x80, Buffer.alloc(20, 7))))), 'accepted'],
    [
      'authorityInfoAccess',
      extensions(
        extension('1.3.6.1.5.5.7.1.1', seq(seq(oid('1.3.6.1.5.5.7.48.1'), tlv(0x86, Buffer.from('http://evil/'))))),
      ),
      'accepted',
    ],
    [
      'cRLDistributionPoints',
      extensions(extension('2.5.29.31', seq(seq(tlv(0xa0, tlv(0xa0, tlv(0x86, Buffer.from('http://evil/')))))))),
      'accepted',
    ],
    ['certificatePolicies', extensions(extension('2.5.29.32', seq(seq(oid('2.5.29.32.0'))))), 'accepted'],
    [
      'signed certificate timestamps',
      extensions(extension('1.3.6.1.4.1.11129.2.4.2', octets(hex('0000')))),
      'accepted',
    ],
    ['OCSP-nocheck', extensions(extension('1.3.6.1.5.5.7.48.1.5', nil)), 'accepted'],
    [
      'nameConstraints',
      extensions(extension('2.5.29.30', seq(tlv(0xa0, seq(dns('example.com')))), yes)),
      'ext.forbidden',
    ],
    ['nameConstraints, not critical', extensions(extension('2.5.29.30', seq())), 'ext.forbidden'],
    ["certificate transparency's poison", extensions(extension('1.3.6.1.4.1.11129.2.4.3', nil, yes)), 'ext.forbidden'],
    ['poison, not critical', extensions(extension('1.3.6.1.4.1.11129.2.4.3', nil)), 'ext.forbidden'],
  ),
  ...row(
    'Unknown critical extension',
    ['an unknown extension, critical', extensions(extension('1.2.3.4', nil, yes)), 'ext.forbidden'],
    ['an unknown extension, not critical', extensions(extension('1.2.3.4', nil)), 'accepted'],
    [
      'a known one that is not copied, critical',
      extensions(extension('2.5.29.32', seq(seq(oid('2.5.29.32.0'))), yes)),
      'ext.forbidden',
    ],
    [
      "Microsoft's application policies (EKUwu)",
      extensions(extension('1.3.6.1.4.1.311.21.10', seq(seq(oid(oids.clientAuth))))),
      'accepted',
    ],
    ["Netscape's comment", extensions(extension('2.16.840.1.113730.1.13', printable('hello'))), 'accepted'],
  ),
  ...row('subjectKeyIdentifier in CSR', [
    'a key identifier of their own',
    extensions(extension('2.5.29.14', octets(Buffer.alloc(20, 7)))),
    'accepted',
  ]),
  ...row(
    'Trailing bytes, truncated, indefinite length, non-minimal length, high-tag forms, constructed strings',
    ['something after the signature', () => appendInside(bad({})()), 'csr.der'],
    ['a signature with unused bits', bad({ signature: bits(hex('3006020101020100'), 3) }), 'csr.pop'],
    ['an extension with an explicit FALSE', extensions(extension('1.2.3', nil, no)), 'csr.der'],
  ),
]

/** NULL as a fourth member of the outer SEQUENCE. */
const appendInside = (der: Buffer): Buffer => {
  const header = (der[1] as number) < 0x80 ? 2 : 2 + ((der[1] as number) & 0x7f)
  return seq(der.subarray(header), nil)
}

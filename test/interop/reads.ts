/** What other people's software reads in a certificate, in one form, so that readings can be compared. */
import { createHash } from 'node:crypto'

import { showCertificate } from '../../src/x509/library.ts'
import { output } from './tools.ts'

export interface Reading {
  readonly serial: string
  /** `CN=…` and so on, sorted. */
  readonly subject: readonly string[]
  /** `dns:…`, `ip:…`, `uri:…`, sorted. */
  readonly names: readonly string[]
  readonly namesCritical: boolean
  readonly keyUsage: readonly string[]
  readonly extendedKeyUsage: readonly string[]
  readonly ca: boolean
  readonly notBefore: string
  readonly notAfter: string
  /** SHA-256 of the SubjectPublicKeyInfo, base64. */
  readonly key: string
  /** As `RSA 2048`, `P-256`, `Ed25519`, `ML-DSA-44`. */
  readonly keyType: string
}

/** `openssl x509 -text -pubkey`. */
export const readByOpenssl = async (file: string): Promise<Reading> => {
  const args = ['x509', '-in', file, '-noout', '-nameopt', 'RFC2253', '-text', '-certopt', 'no_sigdump', '-pubkey']
  const said = await output('openssl', args)
  const [pem = ''] = /-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----\n/.exec(said) ?? []
  const text = said.replace(pem, '')
  const one = (pattern: RegExp): string => pattern.exec(text)?.[1]?.trim() ?? ''
  const extension = (title: string): string => one(new RegExp(`X509v3 ${title}:[^\n]*\n([^\n]*)`))
  return {
    serial: one(/Serial Number:\s*\n\s*([0-9a-f:]+)/).replaceAll(':', ''),
    subject: attributesOf(one(/Subject: ?([^\n]*)/)),
    names: listOf(extension('Subject Alternative Name')).map(generalName).sort(),
    namesCritical: /X509v3 Subject Alternative Name: critical/.test(text),
    keyUsage: listOf(extension('Key Usage')).map((title) => named(opensslUsages, title)),
    extendedKeyUsage: listOf(extension('Extended Key Usage')).map((title) => named(opensslPurposes, title)),
    ca: extension('Basic Constraints') !== 'CA:FALSE',
    notBefore: isoOf(one(/Not Before: ([^\n]*)/)),
    notAfter: isoOf(one(/Not After : ([^\n]*)/)),
    key: sha256(Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')),
    keyType: opensslKeyType(
      one(/Public Key Algorithm: ([^\n]*)/),
      one(/Public-Key: \((\d+) bit/),
      one(/NIST CURVE: ([^\n]*)/),
    ),
  }
}

/** `certtool -i`. */
export const readByCerttool = async (file: string): Promise<Reading> => {
  const text = await output('certtool', ['-i', '--infile', file])
  const one = (pattern: RegExp): string => pattern.exec(text)?.[1]?.trim() ?? ''
  const extension = (title: string): readonly string[] =>
    one(new RegExp(`\t\t${title} \\((?:not )?critical\\):\n((?:\t\t\t[^\n]*\n)*)`))
      .split('\n')
      .map((line) => line.trim().replace(/\.$/, ''))
      .filter((line) => line !== '')
  return {
    serial: one(/Serial Number \(hex\): ([0-9a-f]+)/),
    subject: attributesOf(one(/\tSubject:([^\n]*)/)),
    names: extension('Subject Alternative Name').map(generalName).sort(),
    namesCritical: text.includes('Subject Alternative Name (critical)'),
    keyUsage: extension('Key Usage').map((title) => named(certtoolUsages, title)),
    extendedKeyUsage: extension('Key Purpose').map((title) => named(certtoolPurposes, title)),
    ca: !text.includes('Certificate Authority (CA): FALSE'),
    notBefore: isoOf(one(/Not Before: ([^\n]*)/)),
    notAfter: isoOf(one(/Not After: ([^\n]*)/)),
    key: one(/pin-sha256:([^\n]*)/),
    keyType: certtoolKeyType(
      one(/Subject Public Key Algorithm: ([^\n]*)/),
      one(/Algorithm Security Level: [^\n]*\((\d+) bits\)/),
      one(/\tCurve:\t([^\n]*)/),
    ),
  }
}

/** @peculiar/x509, by the one door to it. */
export const readByPeculiar = (der: Buffer): Reading => {
  const shown = showCertificate(der)
  const kinds: Readonly<Record<string, string>> = { url: 'uri' }
  return {
    serial: shown.serial.replace(/^00/, ''),
    subject: attributesOf(shown.subject.replaceAll(', ', ',')),
    names: shown.names
      .map(({ type, value }) => `${kinds[type] ?? type}:${type === 'ip' ? address(value) : value}`)
      .sort(),
    namesCritical: shown.extensions.some(({ oid, critical }) => oid === '2.5.29.17' && critical),
    keyUsage: usageBits.filter((_, bit) => ((shown.keyUsage ?? 0) & (1 << bit)) !== 0),
    extendedKeyUsage: shown.extendedKeyUsage.map((oid) => named(purposeOids, oid)),
    ca: shown.ca ?? true,
    notBefore: shown.notBefore.toISOString(),
    notAfter: shown.notAfter.toISOString(),
    key: sha256(shown.spki),
    keyType: spkiKeyType(shown.spki),
  }
}

const sha256 = (octets: Buffer): string => createHash('sha256').update(octets).digest('base64')

const listOf = (line: string): readonly string[] => line.split(', ').filter((item) => item !== '')

/** No value in these tests holds a comma. */
const attributesOf = (text: string): readonly string[] => listOf(text.trim().replaceAll(',', ', ')).toSorted()

const generalName = (text: string): string => {
  const [, title = '', value = ''] = /^(DNS|DNSname|IP Address|IPAddress|URI): ?(.*)$/.exec(text) ?? []
  if (title.startsWith('DNS')) return `dns:${value}`
  if (title.startsWith('IP')) return `ip:${address(value)}`
  return title === 'URI' ? `uri:${value}` : `unread:${text}`
}

/** IPv6 as a browser writes it. */
const address = (text: string): string =>
  text.includes(':') ? new URL(`http://[${text}]`).hostname.slice(1, -1) : text

const isoOf = (text: string): string =>
  new Date(text.includes('GMT') || text.includes('UTC') ? text : `${text} UTC`).toISOString()

const named = (table: Readonly<Record<string, string>>, title: string): string => table[title] ?? `unread:${title}`

const opensslKeyType = (algorithm: string, bits: string, curve: string): string => {
  if (algorithm === 'rsaEncryption') return `RSA ${bits}`
  if (algorithm === 'id-ecPublicKey') return curve
  return algorithm === 'ED25519' ? 'Ed25519' : algorithm
}

const certtoolKeyType = (algorithm: string, bits: string, curve: string): string => {
  if (algorithm === 'RSA') return `RSA ${bits}`
  if (algorithm === 'EC/ECDSA') return curve.replace(/^SECP(\d+)R1$/, 'P-$1')
  return algorithm === 'EdDSA (Ed25519)' ? 'Ed25519' : algorithm
}

/** The library gives the octets; what they begin with says the rest. */
const spkiKeyType = (spki: Buffer): string => {
  const octets = spki.toString('hex')
  const found = spkiMarks.find(([mark]) => octets.slice(0, 64).includes(mark))
  if (found === undefined) return 'unread'
  return found[1] === 'RSA' ? `RSA ${(spki.length - 38) * 8 - (((spki.length - 38) * 8) % 256)}` : found[1]
}

const spkiMarks = [
  ['06092a864886f70d010101', 'RSA'],
  ['06082a8648ce3d030107', 'P-256'],
  ['06052b81040022', 'P-384'],
  ['06052b81040023', 'P-521'],
  ['06032b6570', 'Ed25519'],
  ['0609608648016503040311', 'ML-DSA-44'],
  ['0609608648016503040312', 'ML-DSA-65'],
  ['0609608648016503040313', 'ML-DSA-87'],
] as const

const usageBits = [
  'digitalSignature',
  'contentCommitment',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const
const opensslUsages = { 'Digital Signature': 'digitalSignature', 'Key Encipherment': 'keyEncipherment' }
const certtoolUsages = { 'Digital signature': 'digitalSignature', 'Key encipherment': 'keyEncipherment' }
const opensslPurposes = { 'TLS Web Server Authentication': 'serverAuth', 'TLS Web Client Authentication': 'clientAuth' }
const certtoolPurposes = { 'TLS WWW Server': 'serverAuth', 'TLS WWW Client': 'clientAuth' }
const purposeOids = { '1.3.6.1.5.5.7.3.1': 'serverAuth', '1.3.6.1.5.5.7.3.2': 'clientAuth' }

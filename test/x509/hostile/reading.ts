/** Bodies and PEM: sizes, boundaries, base64, and private keys that should never have been sent. */
import { attribute, extensionRequest, host, integer, octets, oid, pem, request, seq, tlv } from '../build.ts'
import { nodeSigner } from '../keys.ts'
import { bad, by, type HostileCase, row, text } from './case.ts'

const good = (): string => pem(request())
const body = (): string => good().split('\n').slice(1, -2).join('\n')
const wrap = (inner: string): string =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${inner}\n-----END CERTIFICATE REQUEST-----\n`
const padding = (size: number): Buffer => attribute('1.2.3.4', octets(Buffer.alloc(size)))
/** PKCS#8 around nothing: what matters is that it is one. */
const pkcs8 = seq(integer(0), seq(oid('1.3.101.112')), octets(octets(Buffer.alloc(32, 7))))
const privateKey = pem(pkcs8, 'PRIVATE KEY')

export const reading: readonly HostileCase[] = [
  ...text(
    'Body > 64 KiB / CSR > 16 KiB DER',
    ['a body of more than 64 KiB', () => pem(request({ attributes: tlv(0xa0, padding(70_000)) })), 'csr.too_large'],
    [
      'a request of more than 16 KiB of DER',
      () => pem(request({ attributes: tlv(0xa0, padding(16_384)) })),
      'csr.too_large',
    ],
  ),
  ...row(
    'Body > 64 KiB / CSR > 16 KiB DER',
    ['a request of more than 16 KiB as DER', bad({ attributes: tlv(0xa0, padding(16_384)) }), 'csr.too_large'],
    [
      'a request of just under 16 KiB fits',
      bad({ attributes: tlv(0xa0, extensionRequest(host), padding(16_000)) }),
      'accepted',
    ],
    [
      'an ML-DSA-87 request of 7.5 KB fits',
      by(() => nodeSigner('ml-dsa-87', {}, seq(oid('2.16.840.1.101.3.4.3.19')), null)),
      'accepted',
    ],
  ),
  ...text(
    'No block, two blocks, wrong label, mismatched END',
    ['no block', () => 'hello\n', 'csr.pem'],
    ['nothing but blank lines', () => '\n \n', 'csr.pem'],
    ['bare base64', body, 'csr.pem'],
    ['two blocks', () => good() + good(), 'csr.pem'],
    ['two blocks in one line of sight', () => good().trimEnd() + good(), 'csr.pem'],
    ['the label CERTIFICATE', () => pem(request(), 'CERTIFICATE'), 'csr.pem'],
    ['a label in lower case', () => pem(request(), 'certificate request'), 'csr.pem'],
    ['an END with another label', () => good().replace('END CERTIFICATE REQUEST', 'END CERTIFICATE'), 'csr.pem'],
    ['an END with the old label', () => good().replace('END CERTIFICATE', 'END NEW CERTIFICATE'), 'csr.pem'],
    ['no END', () => good().replace(/-----END.*\n/, ''), 'csr.pem'],
    ['four dashes', () => good().replaceAll('-----', '----'), 'csr.pem'],
    ['an empty block', () => wrap(''), 'csr.pem'],
  ),
  ...text('`NEW CERTIFICATE REQUEST`', ['the old label', () => pem(request(), 'NEW CERTIFICATE REQUEST'), 'accepted']),
  ...text(
    'CRLF, no final newline, one long line, trailing spaces on lines',
    ['CRLF', () => good().replaceAll('\n', '\r\n'), 'accepted'],
    ['no newline at the end', () => good().trimEnd(), 'accepted'],
    ['one long line', () => wrap(body().replaceAll('\n', '')), 'accepted'],
    ['spaces at the ends of lines', () => good().replaceAll('\n', '  \t\n'), 'accepted'],
  ),
  ...text(
    'UTF-8 BOM; text before BEGIN; junk after END',
    ['a byte order mark', () => `\ufeff${good()}`, 'csr.pem'],
    ['text before BEGIN', () => `Certificate Request:\n${good()}`, 'csr.pem'],
    ['junk after END', () => `${good()}junk\n`, 'csr.pem'],
    ['junk after END in the same line', () => good().replace(/-----\n$/, '----- junk\n'), 'csr.pem'],
    ['a NUL after END', () => `${good()}\0`, 'csr.pem'],
  ),
  ...text(
    'RFC 1421 headers, `Proc-Type: ENCRYPTED`, private key in body',
    ['RFC 1421 headers', () => wrap(`X-Header: value\n\n${body()}`), 'csr.pem'],
    ['Proc-Type: ENCRYPTED', () => wrap(`Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n${body()}`), 'csr.pem'],
    ['a private key before the request', () => `${privateKey}${good()}`, 'csr.key_material'],
    ['a private key after the request', () => `${good()}${privateKey}`, 'csr.key_material'],
    ['a private key alone', () => privateKey, 'csr.key_material'],
    [
      'an encrypted private key',
      () => `${privateKey.replaceAll('PRIVATE', 'ENCRYPTED PRIVATE')}${good()}`,
      'csr.key_material',
    ],
    ['an OpenSSH private key', () => `${good()}-----BEGIN OPENSSH PRIVATE KEY-----\n`, 'csr.key_material'],
    ['a private key under the label of a request', () => wrap(pkcs8.toString('base64')), 'csr.key_material'],
  ),
  ...row(
    'RFC 1421 headers, `Proc-Type: ENCRYPTED`, private key in body',
    ['a PKCS#8 private key as DER', () => pkcs8, 'csr.key_material'],
    ['a SEC 1 private key as DER', () => seq(integer(1), octets(Buffer.alloc(32, 7))), 'csr.key_material'],
  ),
  ...text(
    'non-base64 chars, wrong padding, non-zero pad bits',
    ['a character outside of base64', () => good().replace(/\nM/, '\n*'), 'csr.pem'],
    ['the URL-safe alphabet', () => wrap('_-__'), 'csr.pem'],
    ['a space inside a line', () => wrap(`${body().slice(0, 8)} ${body().slice(8)}`), 'csr.pem'],
    ['padding that is missing', () => wrap('MAA'), 'csr.pem'],
    ['padding that is too much', () => wrap('MAAA===='), 'csr.pem'],
    ['padding in the middle', () => wrap('MA==MAAA'), 'csr.pem'],
    ['pad bits that are not zero', () => wrap('MAB='), 'csr.pem'],
    ['an empty line in the block', () => wrap(`\n${body()}`), 'csr.pem'],
  ),
]

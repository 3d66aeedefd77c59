import { Problem } from '../errors.ts'
import { requestSlabs } from '../lib/slabs.ts'
import { tags } from './der.ts'

/**
 * Strict PEM (RFC 7468), linear in the input. One block and nothing else: what stands before or after a block is how
 * things are smuggled past one reader to another, and text before it, which RFC 7468 2 would let pass, is refused too.
 * Accepted beside the strict form: CRLF, no newline at the end, one long line, spaces at the ends of lines, blank lines
 * around the block.
 */

export type PemLabel = 'CERTIFICATE REQUEST' | 'CERTIFICATE' | 'PUBLIC KEY' | 'X509 CRL'

/**
 * The octets of the one block, which must have this label (`NEW CERTIFICATE REQUEST` is the old name of `CERTIFICATE
 * REQUEST`, RFC 7468 7). Throws csr.pem; csr.key_material when a private key is anywhere in the text, whatever else
 * is wrong with it. The text never goes into a problem.
 */
export const parsePem = (text: string | Buffer, label: PemLabel): Buffer => {
  const input = typeof text === 'string' ? text : text.toString('latin1')
  assertNoKey(input)
  const lines = input.split('\n')
  const [first, last] = [lines.findIndex(isNotBlank), lines.findLastIndex(isNotBlank)]
  if (first < 0) throw refusal('the text is empty')
  const found = boundary('BEGIN', lines[first] as string)
  const bundle = label === 'CERTIFICATE' ? bundleFault(input) : undefined
  if (bundle !== undefined) throw refusal(bundle)
  if (found === undefined) throw refusal(firstLineFault(lines[first] as string, hasBlock(input)))
  if (found.includes('-----')) throw refusal('its line ends are gone (curl -d takes them out, --data-binary does not)')
  if (found !== label && !(label === 'CERTIFICATE REQUEST' && found === `NEW ${label}`))
    throw refusal(`the block is not labelled ${label}`)
  const end = lines.findIndex((line, i) => i > first && line.startsWith('-----'))
  if (end < 0) throw refusal('the block does not end')
  if (boundary('END', lines[end] as string) !== found)
    throw refusal('the block does not end with the label that it begins with')
  if (end !== last) throw refusal('there is something after the block')
  return decodeBody(lines.slice(first + 1, end))
}

/**
 * Several certificates, each as strict as `parsePem`, blank lines between them, and at most `most`. Throws csr.pem and
 * csr.key_material like it.
 */
export const parsePemCertificates = (text: string, most: number): readonly Buffer[] => {
  assertNoKey(text)
  const blocks = text.split(/(?<=^-----END [A-Z0-9 ]{1,40}-----[ \t]*\r?\n)/m).filter((block) => block.trim() !== '')
  if (blocks.length === 0) throw refusal('the text is empty')
  if (blocks.length > most) throw refusal(`there are more than ${most} blocks`)
  return blocks.map((block, i) => {
    if (i > 0 && !hasBlock(block)) throw refusal('there is something after the last block')
    return parsePem(block, 'CERTIFICATE')
  })
}

/**
 * A body of application/pkcs10: DER (RFC 5967), or strict base64 of it with line ends, as some clients send it. Throws
 * csr.pem; csr.key_material when it is the text of a private key.
 */
export const parseRawBody = (body: string | Buffer): Buffer => {
  const octets = typeof body === 'string' ? Buffer.from(body, 'latin1') : body
  if (octets[0] === tags.sequence) return octets
  const input = octets.toString('latin1')
  assertNoKey(input)
  if (hasBlock(input)) throw refusal('it is PEM, whose Content-Type is application/x-pem-file')
  const text = input.replaceAll(/\r?\n/g, '')
  if (text === '') throw refusal('the body is empty')
  return decodeBase64(text)
}

/** One block, 64 characters a line, newline at the end. */
export const encodePem = (label: PemLabel, der: Buffer): string => {
  const text = der.toString('base64')
  const lines: string[] = []
  for (let i = 0; i < text.length; i += 64) lines.push(text.slice(i, i + 64))
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** Strict base64 (RFC 4648 3.3, 3.5) without line breaks: alphabet, padding, zero pad bits. Throws csr.pem. */
export const decodeBase64 = (text: string): Buffer => {
  const octets = requestSlabs(Buffer.byteLength(text, 'base64'))
  octets.write(text, 'base64')
  // Only the one strict spelling of these octets encodes back to itself; where not all were written, nothing does.
  if (octets.toString('base64') !== text) throw refusal('the text is not strict base64')
  return octets
}

const decodeBody = (lines: readonly string[]): Buffer => {
  const trimmed = lines.map(trimEnd)
  if (trimmed.some((line) => line.includes(':'))) throw refusal('the block has header fields')
  if (trimmed.some((line) => line === '')) throw refusal('the block has an empty line')
  const body = trimmed.join('')
  if (body === '') throw refusal('the block is empty')
  return decodeBase64(body)
}

/** The label of an encapsulation boundary, or nothing if the line is none. */
const boundary = (kind: 'BEGIN' | 'END', line: string): string | undefined => {
  const trimmed = trimEnd(line)
  const [head, tail] = [`-----${kind} `, '-----']
  if (!trimmed.startsWith(head) || !trimmed.endsWith(tail) || trimmed.length < head.length + tail.length)
    return undefined
  return trimmed.slice(head.length, -tail.length)
}

const firstLineFault = (line: string, isBefore: boolean): string => {
  if (line.startsWith('\ufeff') || line.startsWith('\u00ef\u00bb\u00bf'))
    return 'the text begins with a byte order mark'
  // DER begins with a length, which is no character of any text.
  if (/(?!\t|\r)[\p{Cc}\ufffd]/u.test(line)) return 'it is binary, as DER is, and PEM is wanted'
  // `openssl ca` writes a certificate in words before it, unless told -notext.
  return `the text does not begin with a block${isBefore ? ': take out what stands before it' : ''}`
}

/**
 * Of a PKCS#7 (a `.p7b` or `.p7c`) in the place of certificates, as Windows and many CAs hand out chains. Its octets, which begin by
 * saying what it is, may have become text on their way.
 */
export const bundleFault = (input: string): string | undefined => {
  const label = /^\s*-----BEGIN (PKCS7|PKCS #7 SIGNED DATA|CMS)-----/.exec(input)?.[1]
  const isBinary = input.startsWith('0') && input.slice(0, 18).includes(endOfSignedData)
  if (label === undefined && !isBinary && !isLabelledCertificate(input)) return undefined
  return `it is PKCS#7, and PEM of certificates is wanted: ${label === 'CMS' ? cmsToPem : pkcs7ToPem} makes it of that (with -inform DER where FILE is binary); put each certificate before that of its issuer`
}

/** As `certutil -encode` of Windows labels whatever it is given. */
const isLabelledCertificate = (input: string): boolean => {
  const [, body = ''] = /^\s*-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/]{24})/.exec(input) ?? []
  const octets = Buffer.from(body, 'base64')
  const length = octets[1] ?? 0
  const start = length < 0x80 ? 2 : 2 + (length & 0x7f)
  return octets[0] === tags.sequence && octets.subarray(start, start + signedData.length).equals(signedData)
}

/** OpenSSL writes whose certificate it is before each, which is no PEM. */
const printed = "-print_certs | sed -n '/^-----BEGIN/,/^-----END/p'"
const pkcs7ToPem = `openssl pkcs7 -in FILE ${printed}`
/** The newer label of the same, which that command does not take; the one that does takes not all of the older ones. */
const cmsToPem = `sed 's/ CMS--/ PKCS7--/' FILE | openssl pkcs7 ${printed}`

const assertNoKey = (text: string): void => {
  if (isKeyMaterial(text)) throw new Problem('csr.key_material', 'the text holds a private key: treat it as exposed')
}

/**
 * A boundary of a private key of any kind (PRIVATE KEY, RSA PRIVATE KEY, ENCRYPTED PRIVATE KEY, OPENSSH PRIVATE KEY,
 * PGP PRIVATE KEY BLOCK), or a PuTTY key file.
 */
export const isKeyMaterial = (input: string): boolean =>
  input.includes('PRIVATE KEY') || input.includes('PuTTY-User-Key-File')

/** Keys come in many forms without one: DER, base64 alone, PKCS#12, JWK. */
export const hasBlock = (input: string): boolean => input.includes('-----BEGIN ')

/** Space, tab and carriage return; not `trimEnd`, which also takes Unicode spaces and a byte order mark. */
const trimEnd = (line: string): string => {
  let end = line.length
  while (end > 0 && ' \t\r'.includes(line[end - 1] as string)) end--
  return line.slice(0, end)
}

const isNotBlank = (line: string): boolean => trimEnd(line) !== ''

const refusal = (detail: string): Problem => new Problem('csr.pem', detail)

/** 1.2.840.113549.1.7.2, which is what PKCS#7 begins with behind its length. */
const signedData = Buffer.from('06092a864886f70d010702', 'hex')
/** Of that, what stays as it is where octets are read as UTF-8. */
const endOfSignedData = '\r\u0001\u0007\u0002'

/** What to trust, in PEM: certificates, one after the other, and perhaps words or keys between them. */
import { X509Certificate } from 'node:crypto'

/**
 * What is wrong with it, to be said of the file; undefined where all of it can be trusted. TLS takes certificates as far as the
 * first that it cannot read, and passes over that and all behind it without a word: what was to be trusted besides would be
 * missed when a server shows it, which may be months later.
 */
export const trustFault = (pem: string): string | undefined => {
  const parts = pem.split(behindEach)
  if (!beginning.test(parts.at(-1) ?? '')) parts.pop()
  if (parts.length === 0) return 'holds no certificate in PEM'
  const at = parts.findIndex((part) => !isCertificate(part))
  if (at < 0) return undefined
  return `holds a certificate that cannot be read, as when it is torn or the next begins in its last line: number ${at + 1}`
}

const isCertificate = (part: string): boolean => {
  try {
    new X509Certificate(part)
    return true
  } catch {
    return false
  }
}

/**
 * The end of each is a line of its own, as for TLS: a file that was put behind another without a newline at its end begins in
 * the last line of that one, and neither is read. What is a comment, as one that was taken out, is no such line; one that is
 * indented was to be trusted.
 */
const behindEach = /(?<=^[ \t]*-----END (?:X509 |TRUSTED )?CERTIFICATE-----[ \t\r]*\n)/m
/** Perhaps behind a byte order mark. */
const beginning = /^[ \t\ufeff]*-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/m

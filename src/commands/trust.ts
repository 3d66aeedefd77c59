/** What to trust, in PEM: certificates, one after the other, and perhaps words between them. */
import { X509Certificate } from 'node:crypto'

/**
 * What is wrong with it, to be said of the file; undefined where all of it can be trusted. TLS takes certificates as far as the
 * first that it cannot read, and passes over that and all behind it without a word: what was to be trusted besides would be
 * missed when a server shows it, which may be months later.
 */
export const trustFault = (pem: string): string | undefined => {
  const parts = pem.split(/(?<=-----END (?:X509 |TRUSTED )?CERTIFICATE-----)/)
  if (!parts.at(-1)?.includes('CERTIFICATE-----')) parts.pop()
  if (parts.length === 0) return 'holds no certificate in PEM'
  const at = parts.findIndex((part) => !isCertificate(part))
  return at < 0 ? undefined : `holds a certificate that cannot be read, as when it is torn: number ${at + 1}`
}

const isCertificate = (part: string): boolean => {
  try {
    new X509Certificate(part)
    return true
  } catch {
    return false
  }
}

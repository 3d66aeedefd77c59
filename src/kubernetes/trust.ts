/** What to trust, in PEM. */
import { X509Certificate } from 'node:crypto'

/** Whether it begins with a certificate: Node passes over what is none, and over all that comes after, without a word. */
export const holdsCertificate = (pem: string | Buffer): boolean => {
  try {
    return pem.includes('-----BEGIN CERTIFICATE-----') && new X509Certificate(pem).raw.length > 0
  } catch {
    return false
  }
}

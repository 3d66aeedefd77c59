/** Names as records keep them beside a certificate: GeneralNames in DER (RFC 5280 4.2.1.6), and no octets where there are none. */
import { isProblem } from '../errors.ts'
import { openDer } from './der.ts'
import { encodeGeneralNames, type Name, readIssuedNames } from './names.ts'
import { readNamesAtEnd } from './names-at-end.ts'

export const keptNames = (names: readonly Name[]): Buffer => (names.length === 0 ? none : encodeGeneralNames(names))

/**
 * From this form, or from a TBSCertificate as `readNamesAtEnd` takes it. None where somebody has changed what was kept:
 * `chancery roll verify` tells of that.
 */
export const readNames = (octets: Buffer, form: 'kept' | 'tbs'): readonly Name[] => {
  if (form === 'tbs') return readNamesAtEnd(octets)
  if (octets.length === 0) return []
  try {
    return readIssuedNames(openDer(octets, 'ext.syntax'))
  } catch (error) {
    if (isProblem(error)) return []
    throw error
  }
}

const none = Buffer.alloc(0)

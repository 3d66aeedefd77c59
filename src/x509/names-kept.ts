/** Names as records keep them beside a certificate: GeneralNames in DER (RFC 5280 4.2.1.6), and no octets where there are none. */
import { isProblem } from '../errors.ts'
import { openDer } from './der.ts'
import { encodeGeneralNames, type Name, readIssuedNames } from './names.ts'

export const keptNames = (names: readonly Name[]): Buffer => (names.length === 0 ? none : encodeGeneralNames(names))

/** None where what was kept has been altered: `chancery roll verify` reports that. */
export const readNames = (octets: Buffer): readonly Name[] => {
  if (octets.length === 0) return []
  try {
    return readIssuedNames(openDer(octets, 'ext.syntax'))
  } catch (error) {
    if (isProblem(error)) return []
    throw error
  }
}

const none = Buffer.alloc(0)

/** Patterns that can be read and match nothing, as for a host in upper case: a `deny` of such denies nothing. */
import { isProblem } from '../errors.ts'
import { type NameKind, parseName } from '../x509/names.ts'

/** Why no name ever matches this pattern, which was read. Asked of new ones alone: those that are kept hold as they are. */
export const idleFault = (kind: NameKind | 'commonName', text: string): string | undefined => {
  // A range has no example, and neither holds what could not be asked for.
  if (kind === 'ip' || kind === 'commonName') return undefined
  try {
    parseName(kind, text.replaceAll(/\*+/g, 'x'))
    return undefined
  } catch (error) {
    if (!isProblem(error)) throw error
    return `matches no name that can be asked for: ${error.detail}`
  }
}

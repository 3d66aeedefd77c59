/** Private keys in bodies: whoever has sent one has shown it, which matters more than whatever else is wrong with the body. */
import { Problem } from '../errors.ts'

/** What is told of a body that is refused: that it holds a private key, where it does. */
export const keyFirst = (problem: Problem, body: unknown): Problem =>
  isOfBody(problem) && holdsPrivateKey(body) ? keyInBody() : problem

export const keyInBody = (): Problem =>
  new Problem('csr.key_material', 'The body holds a private key: treat it as exposed.')

/** Anywhere in it, names of fields included. */
export const holdsPrivateKey = (body: unknown): boolean => isPrivateKey(JSON.stringify(body) ?? '')

/** The line that one begins with, also as it stands in JSON. Whoever only speaks of a PRIVATE KEY has shown none. */
export const isPrivateKey = (text: string): boolean =>
  /BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY/.test(text) || text.includes('PuTTY-User-Key-File-')

/** Of what else a call is turned down for, its body is not the reason; and who reads the field of a key itself has said so. */
const isOfBody = ({ kind, code }: Problem): boolean => [400, 422].includes(kind.status) && code !== 'csr.key_material'

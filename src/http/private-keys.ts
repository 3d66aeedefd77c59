/** Private keys in bodies: whoever has sent one has shown it, which matters more than whatever else is wrong with the body. */
import { Problem } from '../errors.ts'

/** What is told of a body that is refused: that it holds a private key, where it does. */
export const keyFirst = (problem: Problem, body: unknown): Problem =>
  isOfBody(problem) && holdsPrivateKey(body) ? keyInBody() : problem

export const keyInBody = (): Problem =>
  new Problem('csr.key_material', 'The body holds a private key: treat it as exposed.')

/** Anywhere in it, names of fields included. */
export const holdsPrivateKey = (body: unknown): boolean => isPrivateKey(JSON.stringify(body) ?? '')

/** In any of the forms that people have keys in, also as they stand in JSON. Whoever only speaks of a PRIVATE KEY has shown none. */
export const isPrivateKey = (text: string): boolean =>
  labelled.test(text) || text.includes('PuTTY-User-Key-File-') || isJwk(text) || base64.test(text)

/** It has its secret in `d` (RFC 7518 6) or `priv` (RFC 9964). */
const isJwk = (text: string): boolean => kty.test(text) && secret.test(text)

/**
 * Of a body of four MiB none of these may hold up all others: what one look has passed over, the next does not begin with, and
 * what it has passed on its way it does not pass again on its way back (`?`), which is half of the time.
 */
const labelled = /BEGIN (?:(?!BEGIN )[A-Z0-9 ]){0,40}?PRIVATE KEY/
/** Perhaps within a string of JSON, or one in that: each quote has backslashes before it then, and each line's end is written with some. */
const kty = /"kty\\*"[\s\\rn]*:/
const secret = /"(?:d|priv)\\*"[\s\\rn]*:[\s\\rn]*"[\w-]{32}/
/**
 * DER as base64 writes it, so that none is taken apart that is no key: a SEQUENCE with one, two or three octets of length, and in it
 * version and algorithm (PKCS#8), version 1 and octets (SEC 1), or version 0 and numbers (PKCS#1).
 */
const heads = [
  '[A-H][AEIMQUYcgkosw048]CAQ(?:[AE]w[A-Za-f][AQgw][YZab]|EE|AC)',
  'I[E-H].AgE(?:[AB]M[A-H][AEIMQUYcgkosw048]G|BB[A-P]|AA[g-v])',
  'I[I-L]..[AQgw]IBA(?:[DT][AB].B[g-v]|Q[Q-T]|A[I-L])',
]
/** As much of it as a key has. An escape before it (`\n`) ends in a letter. */
const base64 = new RegExp(`(?:(?<![\\w+/-])|(?<=\\\\[nrt]))M(?=${heads.join('|')})[\\w+/-]{23}(?=[\\w+/\\\\\\s-]{32})`)

/** Of what else a call is turned down for, its body is not the reason; and who reads the field of a key itself has said so. */
const isOfBody = ({ kind, code }: Problem): boolean => [400, 422].includes(kind.status) && code !== 'csr.key_material'

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
  labelled.test(text) ||
  text.includes('PuTTY-User-Key-File-') ||
  isJwk(text) ||
  Array.from(text.matchAll(base64)).some(isDer)

/** It has its secret in `d` (RFC 7518 6) or `priv` (RFC 9964). */
const isJwk = (text: string): boolean => kty.test(text) && secret.test(text)

const isDer = ([start]: RegExpExecArray): boolean => derHead.test(Buffer.from(start, 'base64').toString('hex'))

/** Of a body of four MiB none of these may hold up all others: what one look has passed over, the next does not begin with. */
const labelled = /BEGIN (?:(?!BEGIN )[A-Z0-9 ]){0,40}PRIVATE KEY/
/** Perhaps within a string of JSON, or one in that: each quote has backslashes before it then, and each line's end is written with some. */
const kty = /"kty\\*"(?:\s|\\[rn]?)*:/
const secret = /"(?:d|priv)\\*"(?:\s|\\[rn]?)*:(?:\s|\\[rn]?)*"[\w-]{32}/
/** Base64 that begins as each SEQUENCE does, with as much behind it as a key has. An escape before it (`\n`) ends in a letter. */
const base64 = /(?:(?<![\w+/-])|(?<=\\[nrt]))M[\w+/-]{23}(?=[\w+/\\\s-]{32})/g
/** A SEQUENCE, and in it version and algorithm (PKCS#8), version and octets (SEC 1), or version and numbers (PKCS#1). */
const derHead = /^30(?:[0-7].|81..|82....)0201(?:0[01]30[0-7].06|0104|0002)/

/** Of what else a call is turned down for, its body is not the reason; and who reads the field of a key itself has said so. */
const isOfBody = ({ kind, code }: Problem): boolean => [400, 422].includes(kind.status) && code !== 'csr.key_material'

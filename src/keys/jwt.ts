/**
 * Tokens of others (JWT in the compact form of RFC 7515): taken apart, and their signature checked. What a token says of
 * keys itself (`jwk`, `jku`, `x5u`, `x5c`) is never looked at: its issuer's keys come from elsewhere.
 */
import type { CompactJWSHeaderParameters, CryptoKey } from 'jose'
// Of jose only what is used here, and in this folder: all of it is four times as many files to read at each start.
import * as errors from 'jose/errors'
import { compactVerify } from 'jose/jws/compact/verify'

import { isObject } from '../lib/canonical-json.ts'

/** In a word why a token is not what it should be: for the log. */
export class TokenFault extends Error {
  readonly reason: string

  constructor(reason: string, cause?: unknown) {
    super(reason, { cause })
    this.name = 'TokenFault'
    this.reason = reason
  }
}

export interface UnverifiedToken {
  readonly typ: string | undefined
  /** Who says to have issued it. */
  readonly issuer: string
}

export type FindKey = (header: CompactJWSHeaderParameters) => Promise<CryptoKey>

/** What can be read before anything is believed. Throws a TokenFault. */
export const readToken = (token: string): UnverifiedToken => {
  if (token.length > maxLength) throw new TokenFault('huge')
  const parts = token.split('.')
  if (parts.length !== 3 || !parts.every((part) => base64url.test(part))) throw new TokenFault('malformed')
  const [head, body] = parts.slice(0, 2).map(decode)
  const { alg, typ, kid } = objectIn(head)
  if (typeof alg !== 'string' || !isTextOrNone(typ) || !isTextOrNone(kid)) throw new TokenFault('malformed')
  if (kid !== undefined && kid.length > maxKeyId) throw new TokenFault('key')
  const { iss } = objectIn(body)
  if (typeof iss !== 'string') throw new TokenFault('issuer')
  return { typ, issuer: iss }
}

/**
 * The claims of a token whose signature is by one of these algorithms, which is looked at first, and by a key that `findKey`
 * gives. Throws a TokenFault, or what `findKey` throws.
 */
export const verifyToken = async (
  token: string,
  algorithms: readonly string[],
  findKey: FindKey,
): Promise<Readonly<Record<string, unknown>>> => {
  try {
    const { payload } = await compactVerify(token, findKey, { algorithms: [...algorithms] })
    return objectIn(utf8.decode(payload))
  } catch (error) {
    throw faultOf(error)
  }
}

const faultOf = (error: unknown): unknown => {
  if (error instanceof errors.JWSSignatureVerificationFailed) return new TokenFault('signature', error)
  if (error instanceof errors.JOSEAlgNotAllowed) return new TokenFault('algorithm', error)
  // A key that is too weak, or not of the algorithm.
  if (error instanceof TypeError) return new TokenFault('key', error)
  return error instanceof errors.JOSEError ? new TokenFault('malformed', error) : error
}

const decode = (part: string): string => {
  try {
    return utf8.decode(Buffer.from(part, 'base64url'))
  } catch (error) {
    throw new TokenFault('malformed', error)
  }
}

const objectIn = (json = ''): Readonly<Record<string, unknown>> => {
  try {
    const value: unknown = JSON.parse(json)
    if (isObject(value)) return value
  } catch {
    // Told below.
  }
  throw new TokenFault('malformed')
}

const isTextOrNone = (value: unknown): value is string | undefined => value === undefined || typeof value === 'string'

/** Those of Kubernetes and of build services have one or two thousand characters. */
const maxLength = 8_192
const maxKeyId = 256
const base64url = /^[A-Za-z0-9_-]+$/
const utf8 = new TextDecoder('utf8', { fatal: true })

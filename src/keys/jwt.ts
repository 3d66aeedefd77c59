/**
 * Tokens of others (JWT in the compact form of RFC 7515). What a token says of keys itself (`jwk`, `jku`, `x5u`, `x5c`) is never
 * looked at: its issuer's keys come from elsewhere.
 */
import type { CompactJWSHeaderParameters, CryptoKey } from 'jose'
// Only the parts of jose that are used: all of it is four times as many files to read at each start.
import { decodeProtectedHeader } from 'jose/decode/protected_header'
import * as errors from 'jose/errors'
import { compactVerify } from 'jose/jws/compact/verify'
import { decodeJwt } from 'jose/jwt/decode'

/** Why a token is not accepted, in a word for the log. */
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
  readonly issuer: string
}

export type FindKey = (header: CompactJWSHeaderParameters) => Promise<CryptoKey>

/** What can be read before the signature is checked. Throws a TokenFault. */
export const readToken = (token: string): UnverifiedToken => {
  if (token.length > maxLength) throw new TokenFault('huge')
  const { typ, iss } = decode(token)
  if (typ !== undefined && typeof typ !== 'string') throw new TokenFault('malformed')
  if (typeof iss !== 'string') throw new TokenFault('issuer')
  return { typ, issuer: iss }
}

/**
 * The claims of a token that was signed by one of these algorithms and by a key that `findKey` gives. Throws a TokenFault, or
 * what `findKey` throws. Times are judged by the provider's document.
 */
export const verifyToken = async (
  token: string,
  algorithms: readonly string[],
  findKey: FindKey,
): Promise<Readonly<Record<string, unknown>>> => {
  try {
    await compactVerify(token, findKey, { algorithms: [...algorithms] })
    return decodeJwt(token)
  } catch (error) {
    throw faultOf(error)
  }
}

const decode = (token: string): { readonly typ?: unknown; readonly iss?: unknown } => {
  try {
    return { typ: decodeProtectedHeader(token).typ, iss: decodeJwt(token).iss }
  } catch (error) {
    throw new TokenFault('malformed', error)
  }
}

const faultOf = (error: unknown): unknown => {
  if (error instanceof errors.JWSSignatureVerificationFailed) return new TokenFault('signature', error)
  if (error instanceof errors.JOSEAlgNotAllowed) return new TokenFault('algorithm', error)
  // A key that is too weak, or not of the algorithm.
  if (error instanceof TypeError) return new TokenFault('key', error)
  return error instanceof errors.JOSEError ? new TokenFault('malformed', error) : error
}

/** Those of Kubernetes and of build services have one or two thousand characters. */
const maxLength = 8_192

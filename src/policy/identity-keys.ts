/** Public keys that stand in the document of an identity provider: whether any token could be by them. */
import { createPublicKey, type KeyObject } from 'node:crypto'

import type { ProviderDocument, TokenAlgorithm } from './identity-document.ts'

export interface Jwk {
  readonly kty?: string | undefined
  readonly alg?: unknown
  readonly use?: unknown
  readonly key_ops?: unknown
}

interface KeyFault {
  /** In the document. */
  readonly field: string
  readonly reason: string
}

/** Keys that verify nothing, as a mistyped or a private one; and a list without any by one of the algorithms. */
export const uselessKeys = ({ keys: { static: given }, algorithms }: ProviderDocument): readonly KeyFault[] => {
  if (given === undefined) return []
  const faults = given.flatMap((jwk, i) => {
    const reason = isSecret(jwk) ? 'holds a private or a shared key: treat it as exposed' : faultOf(jwk)
    return reason === undefined ? [] : [{ field: `/keys/static/${i}`, reason }]
  })
  if (faults.length > 0 || hasKeyFor(given, algorithms)) return faults
  return [{ field: '/keys/static', reason: `has no key that signs by ${algorithms.join(' or ')}` }]
}

/** Whether any token could be by one of these. */
export const hasKeyFor = (keys: readonly Jwk[], algorithms: readonly TokenAlgorithm[]): boolean =>
  keys.some(
    (jwk) => !isSecret(jwk) && faultOf(jwk) === undefined && algorithms.some((algorithm) => fits(jwk, algorithm)),
  )

/** A private or a shared key: nothing is verified with what others may sign by. */
const isSecret = (jwk: object): boolean => secrets.some((member) => Object.hasOwn(jwk, member))

const faultOf = (jwk: Jwk): string | undefined => {
  const key = read(jwk)
  if (key === undefined) return `is no public key of type ${jwk.kty}`
  const { modulusLength: bits = leastBits } = key.asymmetricKeyDetails ?? {}
  return bits < leastBits ? `has ${bits} bits; tokens are verified by RSA keys of at least ${leastBits}` : undefined
}

/** RFC 7517 4: what a key says of its use holds. One of ML-DSA says its algorithm (RFC 9964 3). */
const fits = (jwk: Jwk, algorithm: TokenAlgorithm): boolean => {
  const { alg = jwk.kty === 'AKP' ? '' : algorithm, use = 'sig', key_ops: uses = ['verify'] } = jwk
  const isForIt = alg === algorithm && use === 'sig' && Array.isArray(uses) && uses.includes('verify')
  const key = isForIt ? read(jwk) : undefined
  return key !== undefined && kindOf(key) === kinds[algorithm]
}

const read = (jwk: Jwk): KeyObject | undefined => {
  try {
    return createPublicKey({ key: { ...jwk } as { kty: string }, format: 'jwk' })
  } catch {
    return undefined
  }
}

const kindOf = ({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string | undefined =>
  asymmetricKeyDetails?.namedCurve ?? asymmetricKeyType

/** Members of private and shared keys (RFC 7518 6, RFC 9964). */
const secrets = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']
/** RFC 7518 3.3. */
const leastBits = 2048
const kinds: Readonly<Record<TokenAlgorithm, string>> = {
  RS256: 'rsa',
  RS384: 'rsa',
  RS512: 'rsa',
  PS256: 'rsa',
  PS384: 'rsa',
  PS512: 'rsa',
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
  EdDSA: 'ed25519',
  Ed25519: 'ed25519',
  'ML-DSA-44': 'ml-dsa-44',
  'ML-DSA-65': 'ml-dsa-65',
  'ML-DSA-87': 'ml-dsa-87',
}

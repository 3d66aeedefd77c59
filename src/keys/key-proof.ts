/**
 * A revocation that the holder of a certificate's key asks for: a compact JWS (RFC 7515) by that very key over which
 * certificate is meant, why and when. Its `typ` keeps it apart from whatever else the key may have signed. The key itself
 * is never sent.
 */
import { createPrivateKey, createPublicKey } from 'node:crypto'

import { CompactSign } from 'jose/jws/compact/sign'
import { compactVerify } from 'jose/jws/compact/verify'

import { Problem } from '../errors.ts'
import type { KeyAlgorithmId } from '../x509/algorithms.ts'
import { parsePublicKey } from '../x509/keys.ts'

export interface KeyProof {
  readonly issuer: string
  /** 32 hexadecimal digits. */
  readonly serial: string
  readonly reason: string
  /** RFC 3339. */
  readonly invalidityDate?: string
  /** Seconds since 1970. */
  readonly iat: number
}

export const keyProofType = 'chancery-revocation+jws'

/** Throws `revocation.proof`: not of this kind, not by this key, or not JSON. What it says is the caller's to judge. */
export const verifyKeyProof = async (jws: string, spki: Buffer): Promise<unknown> => {
  const algorithms = jwsAlgorithms[parsePublicKey(spki).algorithm.id]
  try {
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    const { payload, protectedHeader } = await compactVerify(jws, key, { algorithms: [...algorithms] })
    if (protectedHeader.typ !== keyProofType) throw new Error(`typ is not ${keyProofType}`)
    return JSON.parse(Buffer.from(payload).toString())
  } catch (error) {
    throw new Problem('revocation.proof', `The proof does not hold: ${sentenceOf(error)}.`)
  }
}

/** With a private key in PEM. */
export const signKeyProof = async (proof: KeyProof, pem: string): Promise<string> => {
  const key = createPrivateKey(pem)
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const [alg] = jwsAlgorithms[parsePublicKey(spki).algorithm.id]
  return new CompactSign(Buffer.from(JSON.stringify(proof))).setProtectedHeader({ alg, typ: keyProofType }).sign(key)
}

/** The message of V8 quotes what is not JSON. */
const sentenceOf = (error: unknown): string =>
  error instanceof SyntaxError ? 'the payload is not JSON' : (error as Error).message.replace(/[.]$/, '').slice(0, 200)

/** What each kind of key may sign with; the first is what we sign with. */
const jwsAlgorithms: Readonly<Record<KeyAlgorithmId, readonly [string, ...string[]]>> = {
  rsa: ['PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512'],
  'ec-p256': ['ES256'],
  'ec-p384': ['ES384'],
  'ec-p521': ['ES512'],
  ed25519: ['EdDSA', 'Ed25519'],
  'ml-dsa-44': ['ML-DSA-44'],
  'ml-dsa-65': ['ML-DSA-65'],
  'ml-dsa-87': ['ML-DSA-87'],
}

/**
 * A key that signs and shows nothing of itself. Providers stand beside this file: `software.ts` now, PKCS#11 and the
 * signer process behind the same face.
 */
import type { SignatureAlgorithm } from '../x509/algorithms.ts'

export interface SigningKey {
  /** Where the key is, as its provider names it: never a secret. */
  readonly id: string
  readonly algorithm: SignatureAlgorithm
  /** DER of the SubjectPublicKeyInfo. */
  readonly spki: Buffer
  /** A signature, encoded as a certificate carries it, or a fault, for each message, in order. Never rejects. */
  sign(messages: readonly Buffer[]): Promise<readonly (Buffer | SigningFault)[]>
  close(): Promise<void>
}

/** Whether the key was touched decides what happens to the intent: `before` is `unsigned`, all else is abandoned. */
export class SigningFault extends Error {
  readonly when: 'before' | 'late' | 'unknown'

  constructor(when: SigningFault['when'], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'SigningFault'
    this.when = when
  }
}

/**
 * A key that signs and shows nothing of itself. Providers stand beside this file: `software.ts` and `pkcs11/`, here or
 * behind the socket of the signer process (`signer/`), all with the same face.
 */
import type { SignatureAlgorithm } from '../x509/algorithms.ts'

export interface SigningKey {
  /** Where the key is, as its provider names it: never a secret. */
  readonly id: string
  readonly algorithm: SignatureAlgorithm
  /** DER of the SubjectPublicKeyInfo. */
  readonly spki: Buffer
  /** What its token said of how it is held, when it was opened last; absent for software keys. */
  readonly attributes?: KeyAttributes | undefined
  /** How often it was opened until now, each time in another process; absent where that happens once. */
  readonly openings?: number
  /**
   * A signature, encoded as a certificate carries it, or a fault, for each message, in order. Never rejects. A provider
   * that queues gives up on a message `withinMs` after it was asked.
   */
  sign(messages: readonly Buffer[], withinMs?: number): Promise<readonly (Buffer | SigningFault)[]>
  close(): Promise<void>
}

/** Of a key in a token (PKCS #11 2.40, 4.9); null where the token does not say. */
export interface KeyAttributes {
  readonly sensitive: boolean | null
  readonly extractable: boolean | null
  readonly alwaysSensitive: boolean | null
  readonly neverExtractable: boolean | null
  readonly local: boolean | null
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

/** Nobody waits for it any more. It may still be heard that the key was never touched. */
export class LateSignature extends SigningFault {
  /** What came of it in the end. Never rejects. */
  readonly outcome: Promise<Buffer | SigningFault>

  constructor(message: string, outcome: LateSignature['outcome']) {
    super('late', message)
    this.outcome = outcome
  }
}

/** Octets of what is signed at once: a certificate, an answer, or a list, which may be long. With its head a signer process takes 64 MiB. */
export const longestMessage = 64 * 1024 * 1024 - 8

/** What a key signs to show that it can; never a valid TBS, so worth nothing to anyone. */
export const trialText = Buffer.from('Chancery trial signature: this is not a certificate.\n')

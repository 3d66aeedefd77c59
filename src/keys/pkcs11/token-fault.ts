import type { Remedy } from './return-values.ts'

/** Why a token, or a key in it, cannot be used; a sentence, and what would help. */
export class TokenFault extends Error {
  readonly remedy: Remedy

  constructor(remedy: Remedy, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'TokenFault'
    this.remedy = remedy
  }
}

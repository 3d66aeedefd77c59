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

/** Of a key that was to be made, in a token or a file: there is one, which is never overwritten. */
export class KeyExists extends TokenFault {
  constructor(message: string, cause?: unknown) {
    super('request', message, cause)
    this.name = 'KeyExists'
  }
}

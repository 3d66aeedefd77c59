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

/** There is no login to this token yet in the process that has its keys. */
export class LoginNeeded extends TokenFault {
  readonly token: string
  readonly serial: string

  constructor(token: string, serial: string) {
    super('request', `There is no login to the token ${token} yet.`)
    this.name = 'LoginNeeded'
    this.token = token
    this.serial = serial
  }
}

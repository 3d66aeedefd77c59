/** PINs that a token has refused: each is tried once, by anyone, ever; a token locks after a few. */
import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'

import { TokenFault } from './token-fault.ts'

/** By a digest that tells the PIN apart from another, and not what it was. */
export interface RefusedPin {
  readonly token: string
  readonly serial: string
  /** Hexadecimal, as the digest is. */
  readonly salt: string
  readonly digest: string
}

/** Who knows which PINs were refused, of every replica and for ever. */
export interface PinGuard {
  /** Opens one token at a time, telling `open` what was refused; a `PinRefused` is on record before this rejects with it. */
  openOnce<T>(open: (refused: readonly RefusedPin[]) => Promise<T>): Promise<T>
}

/** A token refused its PIN just now: whoever keeps the records must keep it from being tried again. */
export class PinRefused extends TokenFault {
  readonly pin: RefusedPin

  constructor(pin: RefusedPin, fault: TokenFault) {
    super('pin', `${fault.message.replace(/\.$/, '')}. It is not asked again with the same one: ${wayOut}.`, fault)
    this.pin = pin
  }
}

/** Throws when this PIN is among those that the token has refused. */
export const assertNotRefused = (
  { label, serial }: { readonly label: string; readonly serial: string },
  pin: string,
  refused: readonly RefusedPin[],
): void => {
  const ours = refused.filter((one) => one.token === label && one.serial === serial)
  if (!ours.some(({ salt, digest }) => timingSafeEqual(digestPin(pin, salt), Buffer.from(digest, 'hex')))) return
  throw new TokenFault(
    'pin',
    `The token ${label} has refused this PIN before, and is not asked again, since that would lock it: ${wayOut}.`,
  )
}

export const describeRefused = (token: string, serial: string, pin: string): RefusedPin => {
  const salt = randomBytes(16).toString('hex')
  return { token, serial, salt, digest: digestPin(pin, salt).toString('hex') }
}

/** Slow on purpose, 60 ms: a mistyped PIN is close to the right one. */
const digestPin = (pin: string, salt: string): Buffer =>
  scryptSync(pin, Buffer.from(salt, 'hex'), 32, { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 })

const wayOut = 'put the right PIN into its file, or, where it was right, say "chancery key unlatch"'

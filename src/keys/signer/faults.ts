/** Errors on their way from the signer to the service: a sentence, and for some more, by which the service goes on. */
import { LoginNeeded, NoVerdict, PinRefused, PinWithheld, type RefusedPin, type TokenPlace } from '../pkcs11/pins.ts'
import type { Remedy } from '../pkcs11/return-values.ts'
import { KeyExists, TokenFault } from '../pkcs11/token-fault.ts'
import { decodeJson, encodeJson } from './stream.ts'

interface Told {
  readonly name: string
  readonly message: string
  readonly place: TokenPlace
  readonly pin: RefusedPin
  readonly remedy: Remedy
}

export const encodeFault = (error: unknown): Buffer => {
  const { name, message, place, pin, remedy } = error as Told
  return encodeJson({ name, message, place, pin, remedy })
}

export const decodeFault = (body: Buffer): Error => {
  const told = decodeJson(body) as Told
  return Object.hasOwn(special, told.name) ? (special[told.name]?.(told) ?? new Error()) : new Error(told.message)
}

const special: Readonly<Record<string, (told: Told) => Error>> = {
  LoginNeeded: ({ place }) => new LoginNeeded(place),
  PinRefused: ({ message, pin }) => new PinRefused(pin, message),
  PinWithheld: ({ message }) => new PinWithheld(message),
  NoVerdict: ({ message }) => new NoVerdict(message),
  KeyExists: ({ message }) => new KeyExists(message),
  TokenFault: ({ remedy, message }) => new TokenFault(remedy, message),
}

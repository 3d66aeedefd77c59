/** Errors on their way from the signer to the service: a sentence, and for some more, by which the service goes on. */
import type { Remedy } from '../pkcs11/return-values.ts'
import { KeyExists, LoginNeeded, TokenFault } from '../pkcs11/token-fault.ts'
import { decodeJson, encodeJson } from './stream.ts'

interface Fault {
  readonly name: string
  readonly message: string
  readonly token: string
  readonly serial: string
  readonly remedy: Remedy
}

export const encodeFault = (error: unknown): Buffer => {
  const { name, message, token, serial, remedy } = error as Fault
  return encodeJson({ name, message, token, serial, remedy })
}

export const decodeFault = (body: Buffer): Error => {
  const fault = decodeJson(body) as Fault
  return Object.hasOwn(special, fault.name) ? (special[fault.name]?.(fault) ?? new Error()) : new Error(fault.message)
}

const special: Readonly<Record<string, (fault: Fault) => Error>> = {
  LoginNeeded: ({ token, serial }) => new LoginNeeded(token, serial),
  KeyExists: ({ message }) => new KeyExists(message),
  TokenFault: ({ remedy, message }) => new TokenFault(remedy, message),
}

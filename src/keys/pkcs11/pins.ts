/**
 * PINs are tried with care, since a token locks after a few wrong ones: one at a time, of all replicas; each try on record
 * before the token sees it; a PIN that was refused never again; and after a try that nobody saw the end of (a crash, a
 * module that hangs) one more, no matter with which PIN. The records never learn what was tried, unless it was refused.
 */
import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'

import type { Token } from './module.ts'
import { TokenFault } from './token-fault.ts'

/** By a digest that tells the PIN apart from another, and not what it was. */
export interface RefusedPin {
  readonly token: string
  readonly serial: string
  /** Hexadecimal, as the digest is. */
  readonly salt: string
  readonly digest: string
}

export interface TokenPlace {
  readonly token: string
  readonly serial: string
}

/** What is on record of one token since an operator has last let its PIN be tried again. */
export interface PastTries {
  readonly refused: readonly RefusedPin[]
  /** Tries since the last login whose end nobody knows. */
  readonly unfinished: number
  /** An operator has just let it be tried again, and nobody has. */
  readonly unlatched: boolean
}

/** Who knows what was tried, by every replica and for ever. */
export interface PinGuard {
  /** Lets one in at a time, of all who would log in to this token. */
  inTurn<T>(place: TokenPlace, work: (turn: PinTurn) => Promise<T>): Promise<T>
}

export interface PinTurn {
  readonly past: PastTries
  /** Durable when it resolves; where it rejects, nothing may be tried. */
  begin(): Promise<void>
  /** Of the try that was begun: accepted; refused, with the PIN; or undefined, failed for another reason than the PIN. */
  end(how: 'accepted' | 'failed' | RefusedPin): Promise<void>
  /** Nothing was tried, and is to be before an operator says so. */
  withhold(): Promise<void>
}

/** Where nobody keeps records, and whoever has asked waits for the answer: at a ceremony. */
export const unguarded: PinGuard = {
  inTurn: (_, work) =>
    work({
      past: { refused: [], unfinished: 0, unlatched: true },
      begin: async () => {},
      end: async () => {},
      withhold: async () => {},
    }),
}

/** A way into tokens, here or in the signer process. */
export interface TokenDoor {
  /** Reads the PIN and judges by the past whether it may be tried: rejects if not. False: logged in already. */
  prepare(uri: string, past: PastTries): Promise<boolean>
  /** Tries what was prepared. */
  logIn(uri: string): Promise<void>
}

/** Nobody has logged in to the token yet. */
export class LoginNeeded extends TokenFault {
  readonly place: TokenPlace

  constructor(place: TokenPlace) {
    super('request', `Nobody has logged in to the token ${place.token}.`)
    this.name = 'LoginNeeded'
    this.place = place
  }
}

/** The token refused its PIN just now. */
export class PinRefused extends TokenFault {
  readonly pin: RefusedPin

  constructor(pin: RefusedPin, message: string, cause?: unknown) {
    super('pin', message, cause)
    this.name = 'PinRefused'
    this.pin = pin
  }
}

/** The token was not asked, since it would lock if the PIN were wrong. */
export class PinWithheld extends TokenFault {
  constructor(message: string) {
    super('pin', message)
    this.name = 'PinWithheld'
  }
}

/** What became of it nobody knows: the token may have counted a wrong PIN. */
export class NoVerdict extends TokenFault {
  constructor(message: string, cause?: unknown) {
    super('token', message, cause)
    this.name = 'NoVerdict'
  }
}

/** Runs what needs a token, and logs in first where nobody has: once for all who ask at that time. */
export const openEntrance = (door: TokenDoor, pins: PinGuard) => {
  const entering = new Map<string, Promise<void>>()

  const enter = (uri: string, place: TokenPlace): Promise<void> =>
    pins.inTurn(place, async ({ past, begin, end, withhold }) => {
      const isNeeded = await door.prepare(uri, past).catch(async (error: unknown) => {
        if (error instanceof PinWithheld) await withhold()
        throw error
      })
      if (!isNeeded) return
      await begin()
      await door.logIn(uri).catch(async (error: unknown) => {
        if (!(error instanceof NoVerdict)) await end(error instanceof PinRefused ? error.pin : 'failed')
        throw error
      })
      await end('accepted')
    })

  return async <T>(uri: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof LoginNeeded)) throw error
      const { place } = error
      const id = `${place.token}\n${place.serial}`
      const entry = entering.get(id) ?? enter(uri, place).finally(() => entering.delete(id))
      entering.set(id, entry)
      await entry
      return work()
    }
  }
}

/**
 * Throws for what can be no PIN, since a try of it would count as a wrong one: what is left of a file while another program
 * writes it, or what an editor put in. With a NUL at its end, scrypt could not tell it from the right one either.
 */
export const assertIsPin = ({ label, wantsPin }: Pick<Token, 'label' | 'wantsPin'>, pin: string): void => {
  const odd = [...pin].find((character) => noPinHas.test(character))
  if (odd === undefined && (pin !== '' || !wantsPin)) return
  const what = odd === undefined ? 'is empty' : `has a character in it that no PIN has (${characterName(odd)})`
  throw new TokenFault(
    'request',
    `The PIN for the token ${label} ${what}, and was not tried: put the right one into its file, as one line of UTF-8.`,
  )
}

/** By its number, and what it is where an editor put it in. */
export const characterName = (character: string): string => {
  const point = `U+${character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0')}`
  const said = oddities[point]
  return said === undefined ? point : `${point}, ${said}`
}

/** Throws when this PIN must not be shown to the token, with the way out. */
export const assertMayTry = (
  { label, isLastTry }: { readonly label: string; readonly isLastTry: boolean },
  pin: string,
  { refused, unfinished, unlatched }: PastTries,
): void => {
  if (refused.some(({ salt, digest }) => timingSafeEqual(digestPin(pin, salt), Buffer.from(digest, 'hex'))))
    throw new TokenFault(
      'pin',
      `The token ${label} has refused this PIN before, and is not asked again, since that would lock it: ${wayOut(label)}.`,
    )
  if (unfinished >= mostUnfinished)
    throw new TokenFault(
      'pin',
      `Nobody saw the end of the last ${unfinished} tries to log in to the token ${label}, which may have been refused. It is not asked again before you say "${unlatch(label)}".`,
    )
  if (isLastTry && !unlatched)
    throw new PinWithheld(
      `The token ${label} says that the next wrong PIN locks it, and is not asked. See that the PIN is right, and say "${unlatch(label)}", or log in once with a tool of its own.`,
    )
}

export const refusal = ({ token, serial }: TokenPlace, pin: string, fault: TokenFault): PinRefused => {
  const salt = randomBytes(16).toString('hex')
  const message = `${fault.message.replace(/\.$/, '')}. It is not asked again with the same one: ${wayOut(token)}.`
  return new PinRefused({ token, serial, salt, digest: digestPin(pin, salt).toString('hex') }, message, fault)
}

/** Slow on purpose, 60 ms: a mistyped PIN is close to the right one. */
const digestPin = (pin: string, salt: string): Buffer =>
  scryptSync(pin, Buffer.from(salt, 'hex'), 32, { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 })

const wayOut = (label: string): string =>
  `put the right PIN into its file, or, where it was right, say "${unlatch(label)}"`

/** As a shell takes it; labels have blanks in them. */
const unlatch = (label: string): string =>
  `chancery key unlatch ${/^[\w.-]+$/.test(label) ? label : `'${label.replaceAll("'", "'\\''")}'`}`
/** Controls but for the tab, a byte order mark, and what stands for octets that are no UTF-8. */
const noPinHas = /(?!\t)[\p{Cc}\uFEFF\uFFFD]/u
/** What nobody sees in an editor. */
const oddities: Readonly<Record<string, string>> = {
  'U+000A': 'a second line',
  'U+FEFF': 'the byte order mark that some editors put before the text: save it without one',
  'U+FFFD': 'octets that are no UTF-8',
}
/** A crash in the middle of a good login needs no operator; and tokens give three tries at least. */
const mostUnfinished = 2

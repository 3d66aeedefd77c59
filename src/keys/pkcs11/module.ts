/** A PKCS#11 library, loaded and initialised once in this process; its tokens, by what they say of themselves. */
import { existsSync } from 'node:fs'

import type { Handle, PKCS11 } from 'pkcs11js'

import { alreadyLoggedIn, isKnown, judgeFailure } from './return-values.ts'
import { TokenFault } from './token-fault.ts'
import type { Pkcs11Uri } from './uri.ts'

export interface Module {
  readonly lib: PKCS11
  readonly path: string
}

export interface Token {
  readonly lib: PKCS11
  readonly slot: Handle
  readonly label: string
  readonly serial: string
  /** Mechanisms that the token offers. */
  readonly mechanisms: ReadonlySet<number>
  /** How many sessions that may write it allows at the same time; undefined: it does not say, or does not care. */
  readonly maxSessions: number | undefined
  /** False: it wants no login, or asks for the PIN at a pad of its own, so an empty one is as good as any. */
  readonly wantsPin: boolean
  /** The next wrong PIN locks it. */
  readonly isLastTry: boolean
}

export const openModule = async (path: string): Promise<Module> => {
  const { PKCS11 } = await loadPkcs11js()
  if (!existsSync(path)) throw new TokenFault('request', `There is no PKCS#11 module at ${path}.`)
  const lib = new PKCS11()
  try {
    lib.load(path)
  } catch (cause) {
    throw new TokenFault('request', `${path} cannot be loaded as a PKCS#11 module: ${(cause as Error).message}.`, cause)
  }
  try {
    lib.C_Initialize({ flags: osLockingOk })
  } catch (cause) {
    throw faultOf(cause, `The PKCS#11 module ${path} does not start`)
  }
  return { lib, path }
}

/** The one token that the URI means. Throws when there is none, or more than one. */
export const findToken = ({ lib, path }: Module, { token, serial, manufacturer, model }: Pkcs11Uri): Token => {
  const asked = { label: token, 'serial number': serial, manufacturer, model }
  const given = Object.entries(asked).filter(([, value]) => value !== undefined)
  const wanted = given.map(([name, value]) => `${name} ${value}`).join(' and ')
  const slots = call('The module does not list its tokens', () => lib.C_GetSlotList(true))
  const faults: TokenFault[] = []
  const all = slots.flatMap((slot) => {
    try {
      return [describe(lib, slot)]
    } catch (cause) {
      // One that was pulled meanwhile, or that is of no kind the module knows, is no trouble of the others.
      faults.push(faultOf(cause, 'A token does not describe itself'))
      return []
    }
  })
  const [only, second] = all.filter(({ told }) =>
    given.every(([name, value]) => told[name as keyof typeof told] === value),
  )
  if (only === undefined) {
    const [fault] = faults
    const told = `There is no token with ${wanted}. ${shownBy(path, all)}`
    throw new TokenFault('token', fault ? `${told} ${fault.message}` : told, fault)
  }
  if (second !== undefined)
    throw new TokenFault(
      'request',
      `More than one token has ${wanted}: name one by its serial number, or give the other one another label.`,
    )
  const { slot, info, told } = only
  if ((info.flags & userPinLocked) !== 0)
    throw new TokenFault('pin', `The PIN of the token with ${wanted} is locked; its security officer can unlock it.`)
  return {
    lib,
    slot,
    label: told.label,
    serial: told['serial number'],
    mechanisms: new Set(call('The token does not list what it can', () => lib.C_GetMechanismList(slot))),
    maxSessions: [info.maxSessionCount, info.maxRwSessionCount].filter(isCount).sort((a, b) => a - b)[0],
    wantsPin: (info.flags & (loginRequired | protectedPath)) === loginRequired,
    isLastTry: (info.flags & userPinFinalTry) !== 0,
  }
}

const describe = (lib: PKCS11, slot: Handle) => {
  const info = lib.C_GetTokenInfo(slot)
  const told = {
    label: unpadded(info.label),
    'serial number': unpadded(info.serialNumber),
    manufacturer: unpadded(info.manufacturerID),
    model: unpadded(info.model),
  }
  return { slot, info, told }
}

/** By blanks, as it should be, or by NULs, as some modules do: in no URI that anybody writes are those. */
const unpadded = (text: string): string => text.replace(/\0+$/, '').trim()

const shownBy = (path: string, tokens: readonly { readonly told: { readonly label: string } }[]): string => {
  const labels = [...new Set(tokens.map(({ told }) => told.label))].filter((label) => label !== '').sort()
  return labels.length > 0
    ? `The module ${path} shows ${labels.join(', ')}.`
    : `The module ${path} shows none to this user: see to its settings, and to the rights to what it keeps.`
}

/** Once: a second try with a PIN that was refused would lock the token. */
export const logIn = ({ lib, label }: Token, session: Handle, pin: string): void => {
  try {
    lib.C_Login(session, userPinHolder, pin)
  } catch (cause) {
    const { code, remedy } = judgeFailure(cause)
    if (code === alreadyLoggedIn) return
    const what = refusals[code] ?? (remedy === 'pin' ? 'refuses the PIN' : 'lets nobody log in')
    const fault = faultOf(cause, `The token ${label} ${what}`)
    // A value of its own may be its word for a wrong PIN.
    throw isKnown(cause) ? fault : new TokenFault('pin', fault.message, cause)
  }
}

export const call = <T>(what: string, work: () => T): T => {
  try {
    return work()
  } catch (cause) {
    throw faultOf(cause, what)
  }
}

export const faultOf = (cause: unknown, what: string): TokenFault => {
  if (cause instanceof TokenFault) return cause
  const { name, remedy } = judgeFailure(cause)
  return new TokenFault(remedy, `${what} (${name}).`, cause)
}

const loadPkcs11js = async (): Promise<typeof import('pkcs11js')> => {
  try {
    const { default: pkcs11js } = await import('pkcs11js')
    return pkcs11js as unknown as typeof import('pkcs11js')
  } catch (cause) {
    throw new TokenFault(
      'request',
      'PKCS#11 needs the package pkcs11js, which was not built here: install a C++ compiler (Debian: g++) and run "node tools/pkcs11.mjs" in the folder of Chancery.',
      cause,
    )
  }
}

/** Zero, and all bits, mean that there is no number. */
const isCount = (count: number): boolean => count > 0 && count < 0x7fff_ffff

/** Where another PIN in its file would not help. */
const refusals: Readonly<Record<number, string>> = {
  163: 'wants its PIN changed with a tool of its own',
  164: 'has locked its PIN, which its security officer can unlock',
  258: 'has no PIN yet, which its security officer sets',
}
export const sessionFlags = { readWrite: 0x02, serial: 0x04 } as const
const osLockingOk = 0x02
const userPinHolder = 1
const loginRequired = 0x04
const protectedPath = 0x100
const userPinFinalTry = 0x0002_0000
const userPinLocked = 0x0004_0000

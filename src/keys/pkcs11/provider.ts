/**
 * Keys in the tokens of one PKCS#11 module. Everything that was opened here is good until the first failure that only a
 * fresh start of the module can mend: `lost` is told of it, once, and whoever owns this process ends it.
 */
import type { Handle } from 'pkcs11js'

import type { KeyKind } from '../../x509/algorithms.ts'
import { addLoads, type KeyLoad, noLoad } from '../key-load.ts'
import { readPrivateFile } from '../private-file.ts'
import type { SigningKey } from '../signing-key.ts'
import { createTokenKey, openTokenKey, type TokenKeyDeps } from './key.ts'
import { call, findToken, logIn, type Module, openModule, sessionFlags } from './module.ts'
import { assertNotRefused, describeRefused, PinRefused, type RefusedPin } from './pins.ts'
import { judgeFailure, type Remedy, sessionCount } from './return-values.ts'
import { openSessions } from './sessions.ts'
import { TokenFault } from './token-fault.ts'
import { type Pkcs11Uri, parsePkcs11Uri } from './uri.ts'

export interface Pkcs11Settings {
  /** The first is for URIs that name none; no other than these is loaded, since URIs lie in the database. */
  readonly modules: readonly string[]
  /** For URIs that name no file with the PIN: asked each time, since another one may be in its file by then. */
  readonly pin: () => Promise<string | undefined>
  /** Sessions of one token at most. */
  readonly sessions: number
  /** Operations that may wait for one. */
  readonly queue: number
  readonly deadlineMs: number
}

export interface Pkcs11Provider {
  open(uri: string, refused: readonly RefusedPin[]): Promise<SigningKey>
  create(uri: string, kind: KeyKind, refused: readonly RefusedPin[]): Promise<SigningKey>
  load(): KeyLoad
  close(): void
}

export const openPkcs11 = (settings: Pkcs11Settings, lost: (reason: string) => void): Pkcs11Provider => {
  const modules = new Map<string, Promise<Module>>()
  const tokens = new Map<string, TokenKeyDeps>()
  const failures = new Map<string, number>()

  const count = (name: string): void => void failures.set(name, (failures.get(name) ?? 0) + 1)
  const failed = (remedy: Remedy, name: string, reason: string): void => {
    count(name)
    if (remedy === 'token') lost(reason)
  }

  const moduleOf = ({ modulePath = settings.modules[0] }: Pkcs11Uri): Promise<Module> => {
    if (modulePath !== undefined && !settings.modules.includes(modulePath))
      throw new TokenFault('request', `${modulePath} is not a module that CHANCERY_PKCS11_MODULE names: add it there.`)
    if (modulePath === undefined)
      throw new TokenFault(
        'request',
        'Which PKCS#11 module? Set CHANCERY_PKCS11_MODULE, or add ?module-path=… to the URI.',
      )
    const opened = modules.get(modulePath) ?? openModule(modulePath)
    modules.set(modulePath, opened)
    // What is not there, or does not load, may be mended by the next try.
    opened.catch(() => modules.delete(modulePath))
    return opened
  }

  const pinOf = async ({ pinSource }: Pkcs11Uri): Promise<string> => {
    const configured = pinSource === undefined ? await settings.pin() : undefined
    if (pinSource === undefined && configured === undefined)
      throw new TokenFault(
        'request',
        'Where is the PIN? Set CHANCERY_PKCS11_PIN_FILE, or add ?pin-source=file:… to the URI.',
      )
    if (pinSource === undefined) return configured ?? ''
    const octets = await readPrivateFile(pinSource).catch((cause: NodeJS.ErrnoException) => {
      throw new TokenFault(
        'request',
        cause.code === undefined
          ? cause.message
          : `The file with the PIN, ${pinSource}, cannot be read (${cause.code}).`,
        cause,
      )
    })
    const pin = octets.toString('utf8').replace(/\r?\n$/, '')
    octets.fill(0)
    return pin
  }

  /**
   * The token remembers the login while any session is open: with two from the start, one that fails and is closed
   * does not take it along. Where the token allows no second, the one that has logged in does all the work.
   */
  const enter = async (uri: Pkcs11Uri, refused: readonly RefusedPin[]): Promise<TokenKeyDeps> => {
    const module = await moduleOf(uri)
    const token = findToken(module, uri)
    const place = `${module.path}\n${token.label}\n${token.serial}`
    const known = tokens.get(place)
    if (known) return known
    const pin = await pinOf(uri)
    assertNotRefused(token, pin, refused)
    const openSession = () => token.lib.C_OpenSession(token.slot, sessionFlags.serial)
    const first = call(`The token ${token.label} gives no session`, openSession)
    try {
      logIn(token, first, pin)
    } catch (error) {
      if (error instanceof TokenFault && error.remedy === 'pin')
        throw new PinRefused(describeRefused(token.label, token.serial, pin), error)
      throw error
    }
    const sessions = openSessions({
      size: Math.min(settings.sessions, token.maxSessions ?? Number.POSITIVE_INFINITY),
      bound: settings.queue,
      first: token.maxSessions === 1 ? [first] : [first, ...another(openSession)],
      open: openSession,
      close: (session) => token.lib.C_CloseSession(session),
    })
    const deps = { token, sessions, deadlineMs: settings.deadlineMs, failed }
    tokens.set(place, deps)
    return deps
  }

  const mend = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      const name = nameIn(error)
      if (name !== undefined) count(name)
      if (error instanceof TokenFault && error.remedy === 'token') lost(error.message)
      throw error
    })

  return {
    open: (text, refused) =>
      mend(
        (async () => {
          const uri = parsePkcs11Uri(text)
          return openTokenKey(await enter(uri, refused), uri)
        })(),
      ),
    create: (text, kind, refused) =>
      mend(
        (async () => {
          const uri = parsePkcs11Uri(text)
          return createTokenKey(await enter(uri, refused), uri, kind)
        })(),
      ),
    load: () =>
      [...tokens.values()]
        .map(({ sessions }) => ({ ...sessions.load, failures: {} }))
        .reduce(addLoads, { ...noLoad, failures: Object.fromEntries(failures) }),
    close: () => {
      for (const { token } of tokens.values()) token.lib.C_CloseAllSessions(token.slot)
    },
  }
}

/** Of the call that failed, where it was one. */
const nameIn = (error: unknown): string | undefined => {
  for (let at = error; at instanceof Error; at = at.cause) if ('code' in at) return judgeFailure(at).name
  return undefined
}

const another = (open: () => Handle): readonly Handle[] => {
  try {
    return [open()]
  } catch (error) {
    if (judgeFailure(error).code === sessionCount) return []
    throw error
  }
}

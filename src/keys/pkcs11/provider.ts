/**
 * Keys in tokens of PKCS#11 modules. Everything that was opened here is good until the first failure that only a fresh
 * start of the module can mend: `lost` is told of it, and whoever owns this process ends it. That costs every key in it,
 * so what signs decides: a key that cannot be opened or made is its own trouble as long as another one here works.
 */
import type { Handle } from 'pkcs11js'

import type { KeyKind } from '../../x509/algorithms.ts'
import { addLoads, type KeyLoad, noLoad } from '../key-load.ts'
import { readPrivateFile, signerPatienceMs } from '../private-file.ts'
import { type SigningKey, trialText } from '../signing-key.ts'
import { createTokenKey, openTokenKey, type TokenKeyDeps } from './key.ts'
import { call, findToken, logIn, type Module, openModule, sessionFlags, type Token } from './module.ts'
import { assertIsPin } from './pins.ts'
import { judgeFailure, type Remedy, sessionCount, writeProtected } from './return-values.ts'
import { openSessions, type Sessions } from './sessions.ts'
import { LoginNeeded, TokenFault } from './token-fault.ts'
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
  /** Does nothing where there was a login. */
  logIn(uri: string): Promise<void>
  /** Rejects with `LoginNeeded` before a login, and so does `create`. */
  open(uri: string): Promise<SigningKey>
  create(uri: string, kind: KeyKind): Promise<SigningKey>
  load(): KeyLoad
  /** Whoever waits for a session is told within this time, if there was none: that the key was not touched. */
  hurry(withinMs: number): void
  close(): void
}

export const openPkcs11 = (settings: Pkcs11Settings, lost: (reason: string) => void): Pkcs11Provider => {
  const moduleOf = openModules(settings)
  const tokens = new Map<string, Entered>()
  const failures = new Map<string, number>()
  const count = (name: string): void => void failures.set(name, (failures.get(name) ?? 0) + 1)
  /** Keys that were opened here, and have not been closed. */
  const working = new Set<SigningKey>()

  const find = async (text: string) => {
    const uri = parsePkcs11Uri(text)
    const module = await moduleOf(uri)
    const token = findToken(module, uri)
    return { uri, token, place: `${module.path}\n${token.label}\n${token.serial}` }
  }

  const enter = async (text: string): Promise<Entered & { readonly uri: Pkcs11Uri }> => {
    const { uri, token, place } = await find(text)
    const entered = tokens.get(place)
    if (entered === undefined) throw new LoginNeeded(token.label, token.serial)
    // What is wrong with a file that is named would only show at the next start.
    if (uri.pinSource !== undefined) await readPin(settings, uri)
    return { ...entered, uri }
  }

  /** While a key is opened or made, its failures are told by the error. A call that hangs holds its session for good. */
  const hold = async (entered: Entered, obtain: (deps: TokenKeyDeps) => Promise<SigningKey>): Promise<SigningKey> => {
    let isWorking = false
    const failed = (remedy: Remedy, name: string, reason: string): void => {
      count(name)
      if (name === 'late' || (isWorking && remedy === 'token')) lost(reason)
    }
    const found = await obtain({ ...entered, deadlineMs: settings.deadlineMs, failed })
    isWorking = true
    const key: SigningKey = { ...found, close: async () => void working.delete(key) }
    working.add(key)
    return key
  }

  const counted = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      const name = nameIn(error)
      if (name !== undefined) count(name)
      throw error
    })

  /** What another start of the module may mend. Where a key works, it is asked to sign: if it does not, it says so itself. */
  const judgeOpening = (error: unknown): void => {
    if (!(error instanceof TokenFault) || error.remedy !== 'token') return
    if (working.size === 0) lost(error.message)
    for (const key of working) void key.sign([trialText])
  }

  const opening = <T>(work: Promise<T>): Promise<T> =>
    counted(work).catch((error: unknown) => {
      judgeOpening(error)
      throw error
    })

  return {
    logIn: (text) =>
      opening(
        (async () => {
          const { uri, token, place } = await find(text)
          if (tokens.has(place)) return
          const pin = await readPin(settings, uri)
          assertIsPin(token, pin)
          assertNotLastTry(token)
          tokens.set(place, { token, sessions: logInto(settings, token, pin) })
        })(),
      ),
    open: (text) =>
      opening(enter(text).then(({ uri, ...entered }) => hold(entered, (deps) => openTokenKey(deps, uri)))),
    create: (text, kind) =>
      counted(enter(text).then(({ uri, ...entered }) => hold(entered, (deps) => createTokenKey(deps, uri, kind)))),
    load: () =>
      [...tokens.values()]
        .map(({ sessions }) => ({ ...sessions.load, failures: {} }))
        .reduce(addLoads, { ...noLoad, failures: Object.fromEntries(failures) }),
    hurry: (withinMs) => {
      for (const { sessions } of tokens.values()) sessions.hurry(withinMs)
    },
    close: () => {
      for (const { token } of tokens.values()) quietly(() => token.lib.C_CloseAllSessions(token.slot))
    },
  }
}

interface FirstSessions {
  readonly sessions: readonly [Handle, ...(readonly Handle[])]
  readonly open: () => Handle
}

/**
 * The token remembers the login while any session is open: with two from the start, one that fails and is closed does
 * not take it along. Where the token allows no second, the one that has logged in does all the work.
 */
const openFirst = (token: Token): FirstSessions => {
  const openAs = (more: number) => () => token.lib.C_OpenSession(token.slot, sessionFlags.serial | more)
  return call(`The token ${token.label} gives no session`, () => {
    try {
      // All may write: keys are made in one of these, since there may be no other to have.
      return openTwo(token, openAs(sessionFlags.readWrite))
    } catch (error) {
      if (judgeFailure(error).code !== writeProtected) throw error
      return openTwo(token, openAs(0))
    }
  })
}

const openTwo = (token: Token, open: () => Handle): FirstSessions => {
  const first = open()
  try {
    return { sessions: [first, ...(token.maxSessions === 1 ? [] : another(open))], open }
  } catch (error) {
    closeAll(token, [first])
    throw error
  }
}

const assertNotLastTry = ({ label, isLastTry }: Token): void => {
  if (isLastTry)
    throw new TokenFault(
      'pin',
      `The next wrong PIN locks the token ${label} (CKF_USER_PIN_FINAL_TRY): log in once with the token's own tool, which sets that back.`,
    )
}

const logInto = (settings: Pkcs11Settings, token: Token, pin: string): Sessions => {
  const { sessions: first, open } = openFirst(token)
  try {
    logIn(token, first[0], pin)
  } catch (error) {
    closeAll(token, first)
    throw error
  }
  return openSessions({
    size: Math.min(settings.sessions, token.maxSessions ?? Number.POSITIVE_INFINITY),
    bound: settings.queue,
    first,
    open,
    close: (session) => token.lib.C_CloseSession(session),
  })
}

/** Each module once. What is not there, or does not load, may be mended by the next try. */
const openModules = (settings: Pick<Pkcs11Settings, 'modules'>) => {
  const modules = new Map<string, Promise<Module>>()
  return ({ modulePath = settings.modules[0] }: Pkcs11Uri): Promise<Module> => {
    if (modulePath !== undefined && !settings.modules.includes(modulePath))
      throw new TokenFault('request', `${modulePath} is not a module that CHANCERY_PKCS11_MODULE names: add it there.`)
    if (modulePath === undefined)
      throw new TokenFault(
        'request',
        'Which PKCS#11 module? Set CHANCERY_PKCS11_MODULE, or add ?module-path=… to the URI.',
      )
    const opened = modules.get(modulePath) ?? openModule(modulePath)
    modules.set(modulePath, opened)
    opened.catch(() => modules.delete(modulePath))
    return opened
  }
}

const readPin = async (settings: Pick<Pkcs11Settings, 'pin'>, { pinSource }: Pkcs11Uri): Promise<string> => {
  const configured = pinSource === undefined ? await settings.pin() : undefined
  if (pinSource === undefined && configured === undefined)
    throw new TokenFault(
      'request',
      'Where is the PIN? Set CHANCERY_PKCS11_PIN_FILE, or add ?pin-source=file:… to the URI.',
    )
  if (pinSource === undefined) return configured ?? ''
  const octets = await readPrivateFile(pinSource, signerPatienceMs).catch((cause: NodeJS.ErrnoException) => {
    throw new TokenFault(
      'request',
      cause.code === undefined ? cause.message : `The file with the PIN, ${pinSource}, cannot be read (${cause.code}).`,
      cause,
    )
  })
  const pin = octets.toString('utf8').replace(/\r?\n$/, '')
  octets.fill(0)
  return pin
}

/** A token that we are logged in to. */
type Entered = Pick<TokenKeyDeps, 'token' | 'sessions'>

/** Of the call that failed, where it was one. */
const nameIn = (error: unknown): string | undefined => {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code, name } = judgeFailure(at)
    if (code >= 0) return name
  }
  return undefined
}

const closeAll = ({ lib }: Token, sessions: readonly Handle[]): void => {
  for (const session of sessions) quietly(() => lib.C_CloseSession(session))
}

const quietly = (close: () => void): void => {
  try {
    close()
  } catch {
    // It is of no use either way: its token was pulled, say, as soon as it had signed.
  }
}

const another = (open: () => Handle): readonly Handle[] => {
  try {
    return [open()]
  } catch (error) {
    if (judgeFailure(error).code === sessionCount) return []
    throw error
  }
}

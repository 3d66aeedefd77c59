/** Keys by their URIs, whichever provider has them. The same ring serves in the signer process and, where wished, in ours. */
import { isAbsolute, join, relative } from 'node:path'

import type { KeyKind } from '../x509/algorithms.ts'
import { type KeyLoad, noLoad } from './key-load.ts'
import { openLogins } from './pkcs11/pins.ts'
import type { Pkcs11Provider, Pkcs11Settings } from './pkcs11/provider.ts'
import type { SigningKey } from './signing-key.ts'
import { createSoftwareKey, openSoftwareKey, WrongPassphrase } from './software.ts'

export interface Keyring {
  /** An existing key. Rejects with a sentence when it is missing, open to others, or cannot be used. */
  open(uri: string): Promise<SigningKey>
  /** Makes a key, durably, before it can sign anything. Never overwrites one. */
  create(uri: string, kind: KeyKind): Promise<SigningKey>
  load(): KeyLoad
  close(): Promise<void>
}

/** One that does not log in by itself: keys in tokens reject with `LoginNeeded` before `logIn`. */
export interface BareKeyring extends Keyring {
  /** To the token of this key. */
  logIn(uri: string): Promise<void>
  /** Before an end: whoever waits for a session of a token is told within this time, or nobody would know what was signed. */
  hurry(withinMs: number): void
}

export interface KeyringDeps {
  /** `file:` keys lie under it. */
  readonly dataDir: string
  /** Asked for when the first software key is opened or made, and again after it was not there, or not the right one. */
  readonly passphrase: () => Promise<string>
  /** Of PBKDF2, in software keys that are made; by default what a passphrase needs that a person has chosen. */
  readonly rounds?: number
  readonly pkcs11: Pkcs11Settings
  /** Told once, before the first module is loaded: from then on this thread may hang. */
  readonly loading?: () => void
  /** What was opened is of no use any more, and only another process would find out what is left. Told once. */
  readonly lost: (reason: string) => void
}

export const openKeyring = ({ dataDir, passphrase, rounds, pkcs11, loading, lost }: KeyringDeps): BareKeyring => {
  let known: Promise<string> | undefined
  let provider: Promise<Pkcs11Provider> | undefined
  let tokens: Pkcs11Provider | undefined
  const inFile = async (uri: string) => {
    const path = pathUnder(dataDir, uri)
    known ??= passphrase()
    const read = await known.catch((cause: Error) => {
      known = undefined
      throw new Error(`${path} cannot be used: ${cause.message}`, { cause })
    })
    return { path, passphrase: read, ...(rounds !== undefined && { rounds }) }
  }
  /** What was not the right one may be by the next try. To ask again costs the others their time: a pipe is waited for. */
  const forget = (error: unknown): never => {
    if (error instanceof WrongPassphrase) known = undefined
    throw error
  }
  const inToken = async (): Promise<Pkcs11Provider> => {
    // Loaded when it is needed: whoever has keys in files has no need of its memory.
    if (provider === undefined) loading?.()
    provider ??= import('./pkcs11/provider.ts').then(({ openPkcs11 }) => openPkcs11(pkcs11, lost))
    tokens = await provider
    return tokens
  }
  return {
    open: async (uri) =>
      isInToken(uri) ? (await inToken()).open(uri) : inFile(uri).then(openSoftwareKey).catch(forget),
    create: async (uri, kind) =>
      isInToken(uri) ? (await inToken()).create(uri, kind) : createSoftwareKey(await inFile(uri), kind),
    logIn: async (uri) => (await inToken()).logIn(uri),
    load: () => tokens?.load() ?? noLoad,
    hurry: (withinMs) => tokens?.hurry(withinMs),
    close: async () => tokens?.close(),
  }
}

/** The same ring, which logs in where it must. */
export const openGuarded = (ring: BareKeyring): Keyring => {
  const withLogin = openLogins()
  return {
    open: (uri) => withLogin(uri, ring.logIn, () => ring.open(uri)),
    create: (uri, kind) => withLogin(uri, ring.logIn, () => ring.create(uri, kind)),
    load: ring.load,
    close: ring.close,
  }
}

export const isInToken = (uri: string): boolean => uri.startsWith('pkcs11:')

const pathUnder = (dataDir: string, uri: string): string => {
  const path = uri.startsWith('file:') ? uri.slice('file:'.length) : undefined
  if (path === undefined) throw new Error(`No key provider knows ${uri}.`)
  const under = join(dataDir, path)
  if (isAbsolute(path) || relative(dataDir, under).startsWith('..'))
    throw new Error(`${uri} lies outside of the data folder.`)
  return under
}

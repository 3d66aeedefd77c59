/** The root's key, opened in this process for one ceremony: there is no service, and nobody else's requests. */
import { basename, dirname } from 'node:path'

import { openGuarded, openKeyring } from '../../keys/keyring.ts'
import { keepOutOfCores } from '../../keys/no-core.ts'
import { characterName } from '../../keys/pkcs11/pins.ts'
import { KeyExists, TokenFault } from '../../keys/pkcs11/token-fault.ts'
import { parsePkcs11Uri } from '../../keys/pkcs11/uri.ts'
import { readPrivateFile } from '../../keys/private-file.ts'
import type { SigningKey } from '../../keys/signing-key.ts'
import { Failure } from '../../lib/failure.ts'
import { unseen } from '../../lib/output.ts'
import type { KeyKind } from '../../x509/algorithms.ts'
import type { KeyDocument } from './schema.ts'
import type { Session } from './session.ts'

export interface CeremonyKey {
  /** The file of a software key; absent for one in a token. */
  readonly path?: string
  open(): Promise<SigningKey>
  create(kind: KeyKind): Promise<SigningKey>
  close(): Promise<void>
}

export const takeIt = ' To take the key that is there, add existing: true to /key.'

export const keyOf = (document: KeyDocument, session: Session): CeremonyKey => {
  keepOutOfCores()
  return document.uri.startsWith('file:') ? fileKey(document, session) : tokenKey(document, session)
}

const fileKey = ({ uri, passphraseFile = '' }: KeyDocument, session: Session): CeremonyKey => {
  const path = session.pathOf(uri.slice('file:'.length))
  const secret = session.pathOf(passphraseFile)
  session.mention('passphrase', secret)
  // Once: a pipe tells it to the first who reads.
  let read: Promise<string> | undefined
  const passphrase = (): Promise<string> => {
    read ??= readSecret(secret)
    return read
  }
  const ring = openKeyring({
    dataDir: dirname(path),
    passphrase,
    pkcs11: { modules: [], pin: async () => undefined, ...patience },
    lost: () => {},
  })
  return {
    path,
    open: () => ring.open(`file:${basename(path)}`).catch(explain(path)),
    create: async (kind) => {
      assertLasts(await passphrase(), secret)
      return ring.create(`file:${basename(path)}`, kind).catch(explain(path))
    },
    close: ring.close,
  }
}

const tokenKey = ({ uri, module, pinFile }: KeyDocument, session: Session): CeremonyKey => {
  const { modulePath, pinSource } = parsePkcs11Uri(uri)
  const library = modulePath ?? session.pathOf(module ?? '')
  const secret = pinSource ?? session.pathOf(pinFile ?? '')
  session.mention('PIN', secret)
  const bare = openKeyring({
    dataDir: '/',
    passphrase: async () => '',
    pkcs11: { modules: [library], pin: () => readSecret(secret), ...patience },
    lost: () => {},
  })
  const ring = openGuarded(bare)
  return {
    open: () => ring.open(uri).catch(explain(uri)),
    create: (kind) => ring.create(uri, kind).catch(explain(uri)),
    close: ring.close,
  }
}

const readSecret = async (path: string): Promise<string> => {
  const octets = await readPrivateFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Failure('usage', error.code === undefined ? error.message : `${path} cannot be read (${error.code}).`)
  })
  const secret = octets.toString('utf8').replace(/\r?\n$/, '')
  octets.fill(0)
  return secret
}

/** Years later there is only the paper: what is not seen on it, nobody types again. A key that is there is opened by whatever made it. */
const assertLasts = (passphrase: string, secret: string): void => {
  if (passphrase.length < minPassphrase)
    throw new Failure('usage', `The passphrase in ${secret} is shorter than ${minPassphrase} characters.`)
  const [odd = passphrase.includes('\ufffd') ? '\ufffd' : undefined] = passphrase.match(unseen) ?? []
  if (odd === undefined && passphrase === passphrase.trim()) return
  const what =
    odd === undefined
      ? 'a blank at its beginning or end'
      : `a character in it that is not seen on paper (${characterName(odd)})`
  throw new Failure(
    'usage',
    `The passphrase in ${secret} has ${what}, and no key was made with it: write it into its file as it stands on paper, as one line of UTF-8.`,
  )
}

/** Keys fail with sentences; what is left to say is how the command ends. */
const explain =
  (place: string) =>
  (error: Error & { readonly code?: string }): never => {
    if (error instanceof Failure) throw error
    if (error instanceof TokenFault && error.remedy === 'pin') throw new Failure('denied', error.message)
    if (error.code === 'ENOENT') throw new Failure('missing', `There is no key at ${place}.`)
    if (/has no private key/.test(error.message)) throw new Failure('missing', error.message)
    if (error instanceof KeyExists) {
      // Where the id alone is another's, its key is not the one that was named.
      const take = /overwritten\.$/.test(error.message) ? takeIt : ''
      throw new Failure('conflict', `${error.message}${take}`)
    }
    // Without its path, where it was open already.
    if (/^E[A-Z]+$/.test(error.code ?? ''))
      throw new Failure('usage', `The key at ${place} cannot be read or written: ${error.message}.`)
    throw new Failure(/passphrase opens/.test(error.message) ? 'denied' : 'usage', error.message)
  }

/** One signature at a time, by people: a module that asks for a touch or a card gets the time for it. */
const patience = { sessions: 1, queue: 8, deadlineMs: 300_000 } as const
const minPassphrase = 12

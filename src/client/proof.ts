/** As whom a command asks: by a token, wherever it is kept, or by a client certificate. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'

import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import type { CertificateFiles, Context, Environment, NamedContext } from './contexts.ts'

/** A certificate, its leaf first, and its key; PEM. */
export interface Identity {
  readonly cert: string
  readonly key: string
}

export interface Proof {
  /** A failure where there is none, though one is needed. */
  readonly token?: string | Failure | undefined
  /** In place of a token. */
  readonly identity?: Identity
  /**
   * Another token than this one, which was not taken: whoever waits for people outlives many. Undefined where there is none;
   * rejects where somebody has to do something about it, and says what.
   */
  readonly another?: (refused: string) => Promise<string | undefined>
}

interface ProofOptions {
  readonly tokenFile?: string
}

export const proofOf = async (
  options: ProofOptions,
  ours: NamedContext | undefined,
  env: Environment,
): Promise<Proof> => {
  const said = saidOf(options, env)
  if (!said && ours) return proofIn(ours, env)
  return proofBy(said ?? standardToken(env['CHANCERY_DATA'] ?? 'data'))
}

/** As whom a context asks. Its login at an identity provider is loaded where there is one: most have none. */
const proofIn = async (context: NamedContext, env: Environment): Promise<Proof> => {
  const { certificate, oidc } = context
  if (certificate) return { identity: await readIdentity(certificate) }
  if (!oidc) return proofBy(context)
  const { freshToken, anotherToken } = await import('./oidc-context.ts')
  const login = { ...context, oidc }
  return { token: await freshToken(login, env), another: (refused) => anotherToken(login, env, refused) }
}

/** Throws a usage failure. */
export const readIdentity = async ({ certificateFile, keyFile }: CertificateFiles): Promise<Identity> => {
  const cert = await readGivenText(certificateFile, 'The certificate ')
  const key = await readGivenText(keyFile, 'The key ')
  try {
    createSecureContext({ cert, key })
    // OpenSSL keeps what is of another kind for another certificate, and shows none at all.
    if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) throw new Error('it is of another kind')
  } catch (error) {
    throw new Failure('usage', `${keyFile} is not the key of ${certificateFile}: ${(error as Error).message}.`)
  }
  return { cert, key }
}

/** A file is read each time: what is in it may be replaced by others. */
const proofBy = async (source: TokenSource): Promise<Proof> => {
  const token = await tokenIn(source)
  const another = async (refused: string): Promise<string | undefined> => {
    const found = await tokenIn(source).catch(() => undefined)
    return found === refused ? undefined : found
  }
  return { token, another }
}

type TokenSource = Pick<Context, 'token' | 'tokenFile'>

/** The token that is said here. Throws a usage failure where it is none. */
export const tokenIn = async ({ tokenFile, token = '' }: TokenSource): Promise<string> => {
  const text = (tokenFile === undefined ? token : await readOption('token', tokenFile)).trim()
  if (/^[\x21-\x7e]+$/.test(text)) return text
  throw new Failure('usage', 'The token is empty or no token; name another file by --token-file.')
}

const saidOf = (options: ProofOptions, env: Environment): TokenSource | undefined => {
  const tokenFile = options.tokenFile ?? env['CHANCERY_TOKEN_FILE']
  if (tokenFile !== undefined) return { tokenFile }
  const token = env['CHANCERY_TOKEN']
  return token === undefined ? undefined : { token }
}

const standardToken = (data: string): TokenSource => ({ tokenFile: join(data, 'admin.token') })

/** `where` it comes from, if nobody named it. */
export const readOption = async (what: string, path: string, where = ''): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const names = what === 'token' ? '--token-file or CHANCERY_TOKEN_FILE' : '--ca or CHANCERY_CACERT'
    throw new Failure('usage', `The ${what} ${path} cannot be read (${code}); ${where}name another by ${names}.`)
  }
}

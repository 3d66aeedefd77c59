/**
 * The context file: which servers a person uses, and as whom. Like kubectl's, but one that others could read is refused,
 * and a token goes to the server that it was given for and to no other.
 */
import { readdir, realpath, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { readPrivateFile, writePrivateFile } from '../keys/private-file.ts'
import { isObject } from '../lib/canonical-json.ts'
import { Failure } from '../lib/failure.ts'
import { withLock } from '../lib/lock.ts'
import { formatYaml, parseYaml } from '../lib/yaml.ts'
import type { Provider, Tokens } from './oidc.ts'

export interface Context {
  /** `https://host:port`. */
  readonly server: string
  /** PEM of what the server's certificate must chain to. */
  readonly ca: string
  /** One of these says as whom. */
  readonly tokenFile?: string
  readonly token?: string
  readonly certificate?: CertificateFiles
  readonly oidc?: OidcLogin
}

/** PEM files, read each time. */
export interface CertificateFiles {
  readonly certificateFile: string
  readonly keyFile: string
}

/** A login at an identity provider, with what came of it. */
export interface OidcLogin extends Provider, Tokens {}

export interface NamedContext extends Context {
  readonly name: string
}

export interface Contexts {
  readonly current: string | undefined
  readonly contexts: Readonly<Record<string, Context>>
}

export type Environment = Readonly<Record<string, string | undefined>>

/** Where it is: undefined for whoever has no home. */
const contextsPath = (env: Environment): string | undefined => {
  const home = env['HOME']
  const folder = env['XDG_CONFIG_HOME'] || (home ? join(home, '.config') : undefined)
  return folder === undefined ? undefined : join(folder, 'chancery', 'config.yaml')
}

/** None where there is no file. Throws a usage failure where others could read it, or something else is in it. */
export const loadContexts = async (env: Environment): Promise<Contexts> => {
  const path = contextsPath(env)
  return path === undefined ? none : readContexts(path)
}

/** The file while nobody else changes it. */
export interface ContextsFile {
  read(): Promise<Contexts>
  /** Durable and whole when it resolves, 0600. */
  write(contexts: Contexts): Promise<void>
  /** The same, also where another command has the file by now: for what would be lost for good. */
  writeAnyway(contexts: Contexts): Promise<void>
  /** Rejects where the disk has no room for what is to be written. */
  assertRoom(): Promise<void>
}

/** One command at a time reads, thinks and writes, or one of two would lose what the other has written. */
export const withContexts = async <T>(env: Environment, work: (file: ContextsFile) => Promise<T>): Promise<T> => {
  const named = contextsPath(env)
  if (named === undefined) throw new Failure('usage', 'There is no place for the context file: set HOME.')
  // Who keeps it elsewhere, behind a link, finds it there.
  const path = await realpath(named).catch(() => named)
  try {
    return await withLock(`${path}.lock`, async (lock) => {
      await sweep(path)
      const write = async ({ current, contexts }: Contexts, may: () => Promise<void>): Promise<void> => {
        const text = await formatYaml({ ...(current !== undefined && { current }), contexts })
        await may()
        await writePrivateFile(path, text)
      }
      return work({
        read: () => readContexts(path),
        write: (contexts) => write(contexts, lock.assertHeld),
        writeAnyway: (contexts) => write(contexts, async () => {}),
        assertRoom: async () => {
          const trial = `${path}.${trialName}`
          await writePrivateFile(trial, ' '.repeat(trialOctets)).finally(() => rm(trial, { force: true }))
        },
      })
    })
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    throw syscall === undefined ? error : new Failure('usage', `${path} cannot be written (${code}).`)
  }
}

/** Reads it, changes it, writes it. */
export const changeContexts = (env: Environment, change: (contexts: Contexts) => Contexts): Promise<void> =>
  withContexts(env, async ({ read, write }) => write(change(await read())))

const readContexts = async (path: string): Promise<Contexts> => {
  try {
    await assertOurs(path)
    const octets = await readPrivateFile(path)
    return assertContexts(path, await parseContexts(path, octets.toString()))
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    // As for accounts whose HOME is /dev/null.
    if (code === 'ENOENT' || code === 'ENOTDIR') return none
    if (syscall !== undefined)
      throw new Failure(
        'usage',
        `The context file ${path} cannot be read (${code}): set HOME, or XDG_CONFIG_HOME, to a folder of the account that this runs as.`,
      )
    throw error instanceof Failure ? error : new Failure('usage', (error as Error).message)
  }
}

/** The library shows the line that it does not understand, which may be that of a token. */
const parseContexts = (path: string, text: string): Promise<unknown> =>
  parseYaml(text).catch(({ linePos }: { readonly linePos?: readonly { readonly line: number }[] }) => {
    const where = linePos?.[0] ? `, from line ${linePos[0].line} on` : ''
    throw new Failure('usage', `${path} is no YAML${where}.`)
  })

/** What a command that was killed has left half written: nobody else writes now. */
const sweep = async (path: string): Promise<void> => {
  for (const name of await readdir(dirname(path)))
    if (name.startsWith(`${basename(path)}.`) && draftForm.test(name)) await rm(join(dirname(path), name))
}

/**
 * Whoever is root with the home of somebody else, as by sudo, would follow what that one has written, and leave a file behind
 * that it cannot read any more. A pipe would be waited for, for ever.
 */
const assertOurs = async (path: string): Promise<void> => {
  const found = await stat(path)
  if (!found.isFile()) throw new Failure('usage', `${path} is no file.`)
  if (found.size > mostOctets) throw new Failure('usage', `${path} is longer than ${mostOctets} octets.`)
  if (found.uid === 0 || found.uid === process.geteuid?.()) return
  const hint = 'set HOME or XDG_CONFIG_HOME, or CHANCERY_CONTEXT to nothing'
  throw new Failure('usage', `${path} belongs to another user; ${hint}.`)
}

/** The one to use: by its name, by `CHANCERY_CONTEXT`, or the current one. Throws a usage failure where the name is unknown. */
export const chooseContext = async (name: string | undefined, env: Environment): Promise<NamedContext | undefined> => {
  const asked = name ?? env['CHANCERY_CONTEXT']
  if (asked === '') return undefined
  const { current, contexts } = await loadContexts(env)
  const wanted = asked ?? current
  if (wanted === undefined) return undefined
  return { ...contextNamed(contexts, wanted), name: wanted }
}

/** Throws a usage failure where there is none. */
export const contextNamed = (contexts: Contexts['contexts'], name: string): Context => {
  const found = Object.hasOwn(contexts, name) ? contexts[name] : undefined
  if (found !== undefined) return found
  const names = Object.keys(contexts).join(', ') || 'none; chancery login makes one'
  throw new Failure('usage', `There is no context ${name}; there is ${names}.`)
}

/** Throws a usage failure: the name stands in a file and on command lines. */
export const assertContextName = (name: string): void => {
  if (!/^[A-Za-z0-9:][A-Za-z0-9._:@-]{0,127}$/.test(name))
    throw new Failure('usage', `${name} is no name of a context: letters, digits and . _ : @ - make one.`)
}

/** Throws a usage failure. */
export const assertServer = (server: string): void => {
  if (!isServer(server)) throw new Failure('usage', `${server} is not like https://host:port.`)
}

const isServer = (server: string): boolean => /^https:\/\/[^/?#@]+\/?$/.test(server) && URL.canParse(server)

const assertContexts = (path: string, value: unknown): Contexts => {
  const wrong = (what: string): Failure => new Failure('usage', `${path}: ${what}.`)
  if (!isObject(value)) throw wrong('it is not a mapping')
  const { current, contexts = {}, ...rest } = value
  if (Object.keys(rest).length > 0) throw wrong(`${Object.keys(rest).join(', ')} is unknown`)
  if (current !== undefined && typeof current !== 'string') throw wrong('current is no name')
  if (!isObject(contexts)) throw wrong('contexts is not a mapping')
  for (const [name, context] of Object.entries(contexts)) {
    if (!isObject(context) || ![context['server'], context['ca']].every((text) => typeof text === 'string'))
      throw wrong(`${name} has no server or no trust anchor`)
    if (!isServer(context['server'] as string)) throw wrong(`the server of ${name} is not like https://host:port`)
    const fault =
      faultOf(context, members) ?? Object.entries(groups).find(([key, texts]) => isFaulty(context[key], texts))?.[0]
    if (fault !== undefined) throw wrong(`${fault} of ${name} is unknown or no text`)
  }
  return { current, contexts: contexts as Contexts['contexts'] }
}

/** The first member that is none of these, or is no text. */
const faultOf = (value: Readonly<Record<string, unknown>>, texts: readonly string[]): string | undefined =>
  Object.entries(value).find(
    ([key, text]) => !Object.hasOwn(groups, key) && (!texts.includes(key) || typeof text !== 'string'),
  )?.[0]

const isFaulty = (value: unknown, texts: readonly string[]): boolean =>
  value !== undefined &&
  (!isObject(value) ||
    Object.keys(value).some((key) => Object.hasOwn(groups, key)) ||
    faultOf(value, texts) !== undefined)

const members = ['server', 'ca', 'tokenFile', 'token']
const groups: Readonly<Record<string, readonly string[]>> = {
  certificate: ['certificateFile', 'keyFile'],
  oidc: ['issuer', 'clientId', 'scope', 'ca', 'idToken', 'refreshToken'],
}
const mostOctets = 4 * 1024 * 1024
/** Of what is written beside it, and then gets its name or goes: only by a kill is it left. */
const draftForm = /\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|\.trial$/
const trialName = 'trial'
/** More than a login at an identity provider may take. */
const trialOctets = 131_072
const none: Contexts = { current: undefined, contexts: {} }

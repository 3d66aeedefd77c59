/**
 * The context file: which servers a person uses, and as whom. Like kubectl's, but one that others could read is refused,
 * and a token goes to the server that it was given for and to no other.
 */
import { join } from 'node:path'

import { readPrivateFile, writePrivateFile } from '../keys/private-file.ts'
import { Failure } from './failure.ts'
import type { Provider, Tokens } from './oidc.ts'
import { formatYaml, parseYaml } from './yaml.ts'

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

type Environment = Readonly<Record<string, string | undefined>>

/** Where it is: undefined for whoever has no home. */
export const contextsPath = (env: Environment): string | undefined => {
  const home = env['HOME']
  const folder = env['XDG_CONFIG_HOME'] || (home ? join(home, '.config') : undefined)
  return folder === undefined ? undefined : join(folder, 'chancery', 'config.yaml')
}

/** None where there is no file. Throws a usage failure where others could read it, or something else is in it. */
export const loadContexts = async (env: Environment): Promise<Contexts> => {
  const path = contextsPath(env)
  if (path === undefined) return none
  try {
    return assertContexts(path, await parseYaml((await readPrivateFile(path)).toString()))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return none
    throw error instanceof Failure ? error : new Failure('usage', (error as Error).message)
  }
}

/** Durable and whole when it resolves, 0600 in a folder of 0700. */
export const saveContexts = async (env: Environment, { current, contexts }: Contexts): Promise<void> => {
  const path = contextsPath(env)
  if (path === undefined) throw new Failure('usage', 'There is no place for the context file: set HOME.')
  await writePrivateFile(path, await formatYaml({ ...(current !== undefined && { current }), contexts }))
}

/**
 * The one to use: by its name, by `CHANCERY_CONTEXT`, or the current one, unless the environment names the data folder of a
 * service on this machine. Throws a usage failure where the name is unknown.
 */
export const chooseContext = async (name: string | undefined, env: Environment): Promise<NamedContext | undefined> => {
  const asked = name ?? env['CHANCERY_CONTEXT']
  if (asked === '' || (asked === undefined && env['CHANCERY_DATA'] !== undefined)) return undefined
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

const assertContexts = (path: string, value: unknown): Contexts => {
  const wrong = (what: string): Failure => new Failure('usage', `${path}: ${what}.`)
  if (!isMapping(value)) throw wrong('it is not a mapping')
  const { current, contexts = {}, ...rest } = value
  if (Object.keys(rest).length > 0) throw wrong(`${Object.keys(rest).join(', ')} is unknown`)
  if (current !== undefined && typeof current !== 'string') throw wrong('current is no name')
  if (!isMapping(contexts)) throw wrong('contexts is not a mapping')
  for (const [name, context] of Object.entries(contexts)) {
    if (!isMapping(context) || ![context['server'], context['ca']].every((text) => typeof text === 'string'))
      throw wrong(`${name} has no server or no trust anchor`)
    const fault =
      faultOf(context, members) ?? Object.entries(groups).find(([key, texts]) => isFaulty(context[key], texts))?.[0]
    if (fault !== undefined) throw wrong(`${fault} of ${name} is unknown or no text`)
  }
  return { current, contexts: contexts as Contexts['contexts'] }
}

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The first member that is none of these, or is no text. */
const faultOf = (value: Readonly<Record<string, unknown>>, texts: readonly string[]): string | undefined =>
  Object.entries(value).find(
    ([key, text]) => !Object.hasOwn(groups, key) && (!texts.includes(key) || typeof text !== 'string'),
  )?.[0]

const isFaulty = (value: unknown, texts: readonly string[]): boolean =>
  value !== undefined &&
  (!isMapping(value) ||
    Object.keys(value).some((key) => Object.hasOwn(groups, key)) ||
    faultOf(value, texts) !== undefined)

const members = ['server', 'ca', 'tokenFile', 'token']
const groups: Readonly<Record<string, readonly string[]>> = {
  certificate: ['certificateFile', 'keyFile'],
  oidc: ['issuer', 'clientId', 'scope', 'ca', 'idToken', 'refreshToken'],
}
const none: Contexts = { current: undefined, contexts: {} }

/** The token of a login at an identity provider, renewed before it ends; what came of it is kept in the context file. */

import { Failure } from '../lib/failure.ts'
import {
  type Context,
  type ContextsFile,
  type Environment,
  type NamedContext,
  type OidcLogin,
  withContexts,
} from './contexts.ts'
import { endOf, refresh, subjectOf } from './oidc.ts'

export interface LoggedIn extends NamedContext {
  readonly oidc: OidcLogin
}

/** Throws `denied` where one has to log in again. */
export const freshToken = async (context: LoggedIn, env: Environment): Promise<string> => {
  const { idToken, refreshToken, issuer } = context.oidc
  if (isFresh(idToken)) return idToken
  const isGood = (): boolean => endOf(idToken) > Date.now()
  if (refreshToken === undefined && isGood()) return idToken
  if (refreshToken === undefined) throw hasEnded(issuer)
  try {
    return await withContexts(env, (file) => renew(context, file, isFresh))
  } catch (error) {
    // Nobody answers, the disk is full: what is there will do for this once.
    if (isGood() && error instanceof Failure && error.kind !== 'denied' && error.kind !== 'conflict') return idToken
    throw error
  }
}

/**
 * In place of one that the service does not take any more, whatever is left of its time, as after its provider has given up a
 * key. Undefined while none can be had; throws `denied` where one has to log in again.
 */
export const anotherToken = async (
  context: LoggedIn,
  env: Environment,
  refused: string,
): Promise<string | undefined> => {
  const isAnother = (idToken: string): boolean => idToken !== refused && isFresh(idToken)
  try {
    return await withContexts(env, (file) => renew(context, file, isAnother))
  } catch (error) {
    if (!(error instanceof Failure) || error.kind === 'denied') throw error
    return undefined
  }
}

/**
 * While no other command changes the file: some refresh tokens are good for one use, and whoever came first has kept what it
 * got. What came is kept before it is looked at, since the refresh token of before may be spent.
 */
const renew = async (context: LoggedIn, file: ContextsFile, isGood: (idToken: string) => boolean): Promise<string> => {
  const { oidc: login } = await loginIn(file, context)
  if (isGood(login.idToken)) return login.idToken
  const { refreshToken: spent } = login
  if (spent === undefined) throw hasEnded(login.issuer)
  await file.assertRoom()
  const { refreshToken, idToken } = await refresh(login, { idToken: login.idToken, refreshToken: spent })
  const kept = { ...login, refreshToken, idToken: idToken instanceof Failure ? login.idToken : idToken }
  await keep(file, { ...context, oidc: login }, kept)
  if (idToken instanceof Failure) throw idToken
  return idToken
}

const loginIn = async (file: ContextsFile, context: LoggedIn): Promise<LoggedIn> => {
  const { contexts } = await file.read()
  const there = Object.hasOwn(contexts, context.name) ? contexts[context.name] : undefined
  if (there && isOfSameLogin(there, context)) return { ...there, name: context.name }
  throw new Failure('conflict', `${context.name} has been replaced meanwhile. Nothing was asked.`)
}

/**
 * A file that somebody has written by hand meanwhile is not overwritten, and no other server is given our tokens. Where the
 * refresh token that was spent still stands there, nothing is better than what came for it, whoever has the lock by now.
 */
const keep = async (file: ContextsFile, context: LoggedIn, oidc: OidcLogin): Promise<void> => {
  const { contexts, current } = await file.read()
  const there = Object.hasOwn(contexts, context.name) ? contexts[context.name] : undefined
  if (!there || !isOfSameLogin(there, context) || there.oidc.refreshToken !== context.oidc.refreshToken) return
  await file.writeAnyway({ current, contexts: { ...contexts, [context.name]: { ...there, oidc } } })
}

/** The same person, by the same client of the same provider, at the same server. */
const isOfSameLogin = (there: Context, { server, oidc }: LoggedIn): there is Context & { oidc: OidcLogin } =>
  there.oidc !== undefined &&
  there.server === server &&
  there.oidc.issuer === oidc.issuer &&
  there.oidc.clientId === oidc.clientId &&
  subjectOf(there.oidc.idToken) === subjectOf(oidc.idToken)

const hasEnded = (issuer: string): Failure =>
  new Failure('denied', `The login at ${issuer} has ended. Log in again by chancery login.`)

const isFresh = (idToken: string): boolean => endOf(idToken) - Date.now() > marginMs

/** For the call, and clocks that differ. */
const marginMs = 60_000

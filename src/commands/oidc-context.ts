/** The token of a login at an identity provider, renewed before it ends; what came of it is kept in the context file. */
import { setTimeout as sleep } from 'node:timers/promises'

import { loadContexts, type OidcLogin, saveContexts } from './contexts.ts'
import { Failure } from './failure.ts'
import { endOf, refresh } from './oidc.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** Throws `denied` where one has to log in again. */
export const freshToken = async (name: string, login: OidcLogin, env: Environment): Promise<string> => {
  const { idToken, refreshToken } = login
  if (isFresh(idToken)) return idToken
  const isGood = endOf(idToken) > Date.now()
  if (refreshToken === undefined) {
    if (isGood) return idToken
    throw new Failure('denied', `The login at ${login.issuer} has ended. Log in again by chancery login.`)
  }
  try {
    const tokens = await refresh(login, refreshToken)
    await keep(name, { ...login, ...tokens }, env)
    return tokens.idToken
  } catch (error) {
    const kept = error instanceof Failure && error.kind === 'denied' ? await keptBySomebody(name, env) : undefined
    if (kept !== undefined) return kept
    if (isGood && error instanceof Failure && error.kind === 'later') return idToken
    throw error
  }
}

/** Some refresh tokens are good for one use, and another command may have come first: it will have kept what it got. */
const keptBySomebody = async (name: string, env: Environment): Promise<string | undefined> => {
  for (let tries = 20; tries > 0; tries -= 1) {
    const kept = (await loadContexts(env)).contexts[name]?.oidc
    if (kept && isFresh(kept.idToken)) return kept.idToken
    await sleep(100)
  }
  return undefined
}

const keep = async (name: string, oidc: OidcLogin, env: Environment): Promise<void> => {
  const { contexts, current } = await loadContexts(env)
  const context = contexts[name]
  if (context?.oidc === undefined) return
  await saveContexts(env, { current, contexts: { ...contexts, [name]: { ...context, oidc } } })
}

const isFresh = (idToken: string): boolean => endOf(idToken) - Date.now() > marginMs

/** For the call, and clocks that differ. */
const marginMs = 60_000

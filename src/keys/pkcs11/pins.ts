/**
 * A token locks after a few wrong PINs. So a process logs in to a token once at a time, and after a refused PIN not again
 * before it restarts. Each instance counts for itself.
 */
import { type InLane, openLanes } from '../../lib/semaphore.ts'
import type { Token } from './module.ts'
import { LoginNeeded, TokenFault } from './token-fault.ts'

interface TokenLogin {
  readonly oneByOne: InLane
  /** Why there is no further login. */
  blocked?: TokenFault
}

/** Runs `work`, and logs in first where its token needs it. */
export type WithLogin = <T>(uri: string, logIn: (uri: string) => Promise<void>, work: () => Promise<T>) => Promise<T>

/** By token and serial number: URIs that differ may mean the same token, in two signer processes. */
export const openLogins = (): WithLogin => {
  const tokens = new Map<string, TokenLogin>()

  const loginTo = ({ token, serial }: LoginNeeded): TokenLogin => {
    const id = `${token}\n${serial}`
    const login = tokens.get(id) ?? { oneByOne: openLanes(1) }
    tokens.set(id, login)
    return login
  }
  const tryOnce = async (login: TokenLogin, logIn: () => Promise<void>): Promise<void> => {
    if (login.blocked) throw login.blocked
    await logIn().catch((error: unknown) => {
      if (!(error instanceof TokenFault) || error.remedy !== 'pin') throw error
      login.blocked = new TokenFault('pin', `${error.message} ${advice}`, error)
      throw login.blocked
    })
  }

  return async (uri, logIn, work) => {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof LoginNeeded)) throw error
      const login = loginTo(error)
      await login.oneByOne(() => tryOnce(login, () => logIn(uri)))
      return work()
    }
  }
}

/**
 * Throws for what can be no PIN, since a try of it would count as a wrong one: what is left of a file while another program
 * writes it, or what an editor put in.
 */
export const assertIsPin = ({ label, wantsPin }: Pick<Token, 'label' | 'wantsPin'>, pin: string): void => {
  const odd = [...pin].find((character) => noPinHas.test(character))
  if (odd === undefined && (pin !== '' || !wantsPin)) return
  const what = odd === undefined ? 'is empty' : `has a character in it that no PIN has (${characterName(odd)})`
  throw new TokenFault(
    'request',
    `The PIN for the token ${label} ${what}, and was not tried: put the right one into its file, as one line of UTF-8.`,
  )
}

/** By its number, and what it is where an editor put it in. */
export const characterName = (character: string): string => {
  const point = `U+${character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0')}`
  const meaning = oddities[point]
  return meaning === undefined ? point : `${point}, ${meaning}`
}

const advice = 'No login is tried again before a restart: see first that the right PIN is in its file.'
/** Controls but for the tab, a byte order mark, and what stands for octets that are no UTF-8. */
const noPinHas = /(?!\t)[\p{Cc}\uFEFF\uFFFD]/u
/** Not visible in an editor. */
const oddities: Readonly<Record<string, string>> = {
  'U+000A': 'a second line',
  'U+FEFF': 'the byte order mark that some editors put before the text: save it without one',
  'U+FFFD': 'octets that are no UTF-8',
}

/**
 * The public keys of an identity provider: written down, or fetched and kept up. Keys that come are found without a
 * restart, and those that go are not accepted for long; who asks for keys that do not exist makes nobody fetch more often.
 */
import type { CryptoKey, JSONWebKeySet } from 'jose'
import { JWKSNoMatchingKey } from 'jose/errors'
import { createLocalJWKSet } from 'jose/jwks/local'

import { type FindKey, TokenFault } from './jwt.ts'

export interface KeySet {
  /** Throws a TokenFault for a key that there is not, and `KeysUnavailable`. */
  readonly find: FindKey
  /** Differs after any of the keys has changed, or is too old: what was verified before is worth nothing then. */
  readonly generation: number
  /** Sees to it, beside, that keys which have gone are noticed while only what was verified before is shown. */
  keepUp(): void
  /** Fetches them, unless that was tried a moment ago. Resolves to a sentence where no token could be verified by what there is. */
  check(): Promise<string | undefined>
  /** Milliseconds since they were fetched; undefined where they never were. */
  readonly ageMs: number | undefined
}

/** There are no keys that are fresh enough, and none could be fetched. */
export class KeysUnavailable extends Error {
  override readonly name = 'KeysUnavailable'
}

/** Throws where these are no public keys. */
export const staticKeys = (keys: readonly object[]): KeySet => {
  const find = finderOf({ keys: keys as JSONWebKeySet['keys'] })
  return { find, generation: 0, keepUp: () => {}, check: async () => undefined, ageMs: undefined }
}

export interface FetchedKeysDeps {
  readonly fetch: () => Promise<unknown>
  /** Milliseconds, of a clock that only goes on. */
  readonly now: () => number
  /** Told of each try, with all that there is; a sentence where that is of no use. */
  readonly fetched?: (keys: JSONWebKeySet['keys']) => string | undefined
  /** Told of each that brought nothing; a sentence about it. */
  readonly failed: (error: unknown) => string
}

/**
 * Nothing is fetched before a token asks for it, or whoever has applied the document. Who publishes no key any more has taken them
 * all back: those of before are not kept for it.
 */
export const fetchedKeys = ({ fetch, now, fetched = () => undefined, failed }: FetchedKeysDeps): KeySet => {
  let held: { readonly find: FindKey; readonly text: string; readonly at: number } | undefined
  let triedAt = Number.NEGATIVE_INFINITY
  let fetching: Promise<void> | undefined
  let generation = 0
  /** The last try brought no keys: what there is now, nobody knows. */
  let isAway = false
  let fault: string | undefined

  const fetchNow = async (): Promise<void> => {
    triedAt = now()
    try {
      const keys = await fetch()
      const text = JSON.stringify(keys)
      const isSame = held?.text === text
      held = { find: held && isSame ? held.find : finderOf(keys), text, at: now() }
      if (!isSame) generation += 1
      isAway = false
      fault = fetched((keys as JSONWebKeySet).keys)
    } catch (error) {
      isAway = true
      fault = failed(error)
    }
  }

  /** At most once in a while, whoever asks and why; those who come meanwhile wait for the same. */
  const refresh = (): Promise<void> => {
    if (fetching) return fetching
    if (now() - triedAt < cooldownMs) return Promise.resolve()
    fetching = fetchNow().finally(() => {
      fetching = undefined
    })
    return fetching
  }

  const age = (): number => (held ? now() - held.at : Number.POSITIVE_INFINITY)
  const keepUp = (): void => {
    if (age() > freshMs) void refresh()
  }

  return {
    get generation() {
      return age() > staleMs ? none : generation
    },
    get ageMs() {
      return held && age()
    },
    keepUp,
    check: async () => {
      await refresh()
      return fault
    },
    find: async (header) => {
      if (age() > staleMs) await refresh()
      else keepUp()
      if (!held || age() > staleMs) throw new KeysUnavailable('no keys could be fetched')
      const before = generation
      try {
        return await held.find(header)
      } catch (error) {
        if (!isUnknown(error)) throw error
        await refresh()
        if (generation !== before) return held.find(header)
        // It may be one that its issuer has had since: whoever shows it is not to give up.
        throw isAway ? new KeysUnavailable('whether there is such a key could not be asked', { cause: error }) : error
      }
    },
  }
}

const finderOf = (keys: unknown): FindKey => {
  const find = createLocalJWKSet(keys as JSONWebKeySet)
  return async (header): Promise<CryptoKey> => {
    try {
      return await find(header)
    } catch (error) {
      throw new TokenFault('key', error)
    }
  }
}

const isUnknown = (error: unknown): boolean => error instanceof TokenFault && error.cause instanceof JWKSNoMatchingKey

/** The generation of keys that nobody has: not even equal to itself, so that nothing counts as verified by them. */
const none = Number.NaN
/** Between two fetches: an issuer with a new key is believed this much later at the most, and never asked more often. */
const cooldownMs = 10_000
/** Then they are fetched again, beside answering: a key that has gone is accepted this much longer. */
const freshMs = 300_000
/** How long an issuer may be away before its tokens are not accepted any more. */
const staleMs = 3_600_000

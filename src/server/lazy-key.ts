/** A key that is opened when it is first needed, and again when that failed: ever more rarely, and told of sparingly. */

import type { Keyring } from '../keys/keyring.ts'
import { SigningFault, type SigningKey } from '../keys/signing-key.ts'
import { openComplaint } from '../lib/log-throttle.ts'
import type { Log } from '../log.ts'

export interface LazyKeyDeps {
  readonly keys: Pick<Keyring, 'open'>
  readonly uri: string
  /** No other key is taken for it. */
  readonly spki: Buffer
  readonly algorithm: SigningKey['algorithm']
  readonly log: Log
  /** Milliseconds. */
  readonly now: () => number
}

export interface LazyKey extends SigningKey {
  /** Why it did not open last. */
  fault(): string | undefined
}

export const openLazily = ({ keys, uri, spki, algorithm, log, now }: LazyKeyDeps): LazyKey => {
  let opening: Promise<SigningKey> | undefined
  /** Why it does not open, while nobody tries: whoever asks again and again is no reason to. */
  let failed: { readonly error: Error; readonly until: number; readonly pauseMs: number } | undefined
  const complaint = openComplaint(now)

  const tryOpen = async (): Promise<SigningKey> => {
    try {
      const key = await keys.open(uri)
      if (!key.spki.equals(spki)) {
        await key.close()
        throw new Error(`the key at ${uri} is not the one on record`)
      }
      if (complaint.end()) log.info({ event: 'roll.key_back', key: uri }, 'the key of the roll can be opened again')
      failed = undefined
      return key
    } catch (thrown) {
      const err = thrown as Error
      opening = undefined
      const pauseMs = Math.min(failed ? failed.pauseMs * 2 : firstPauseMs, longestPauseMs)
      failed = { error: err, until: now() + pauseMs, pauseMs }
      complaint.tell(err.message, () => log.error({ event: 'roll.key', err }, 'the key of the roll cannot be opened'))
      throw err
    }
  }
  const open = async (): Promise<SigningKey> => {
    if (opening === undefined && failed && now() < failed.until) throw failed.error
    opening ??= tryOpen()
    return opening
  }
  return {
    id: uri,
    algorithm,
    spki,
    sign: async (messages: readonly Buffer[], withinMs?: number): Promise<readonly (Buffer | SigningFault)[]> => {
      try {
        return await (await open()).sign(messages, withinMs)
      } catch (error) {
        const fault = new SigningFault('before', (error as Error).message, error)
        return messages.map(() => fault)
      }
    },
    fault: () => failed?.error.message,
    close: async () =>
      void (await opening?.then(
        (key) => key.close(),
        // One that does not open leaves nothing to close, and was told of.
        () => {},
      )),
  }
}

const firstPauseMs = 100
/** Nothing is issued without it: soon after it is back. */
const longestPauseMs = 2_000

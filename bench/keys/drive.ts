/** A key that is never left idle. */
import { randomBytes } from 'node:crypto'

import type { SigningKey } from '../../src/keys/signing-key.ts'

export interface Drive {
  /** Signatures that are asked for at the same time. */
  readonly outstanding: number
  readonly seconds: number
}

/** Signatures a second, after a warm-up of a fifth of the time. Rejects with the first fault. */
export const rateOf = async (key: SigningKey, { outstanding, seconds }: Drive): Promise<number> => {
  await drive(key, { outstanding, seconds: seconds / 5 })
  return drive(key, { outstanding, seconds })
}

const drive = async (key: SigningKey, { outstanding, seconds }: Drive): Promise<number> => {
  const began = performance.now()
  const until = began + seconds * 1000
  let made = 0
  const one = async (): Promise<void> => {
    while (performance.now() < until) {
      const [signature] = await key.sign([message])
      if (!Buffer.isBuffer(signature)) throw signature ?? new Error('no answer')
      made += 1
      // What signs on the spot must not keep the event loop from turning, as it would not in the service.
      if (made % outstanding === 0) await new Promise(setImmediate)
    }
  }
  await Promise.all(Array.from({ length: outstanding }, one))
  return (made * 1000) / (performance.now() - began)
}

/** As long as the TBS of a leaf. */
const message = randomBytes(500)

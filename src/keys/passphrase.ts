/** What software keys are encrypted with at rest: the configured passphrase, or in development one of this data folder. */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

import { passphraseRounds, randomPassphraseRounds } from './pbes2.ts'
import { createPrivateFile, readPrivateFile } from './private-file.ts'

/** Of the settings. */
export interface PassphraseSource {
  readonly mode: 'development' | 'production'
  readonly dataDir: string
  readonly keys: { readonly passphrase?: string }
}

/** Throws a sentence where there is none: what opens the keys that there are is never made up in its place. */
export const loadPassphrase = async ({ mode, dataDir, keys }: PassphraseSource): Promise<string> => {
  if (keys.passphrase !== undefined) return keys.passphrase
  if (mode === 'production') throw new Error('Software keys need CHANCERY_KEY_PASSPHRASE_FILE in production.')
  const path = pathIn(dataDir)
  const octets = await readPrivateFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new Error(
      `${path} is not there, and no other passphrase opens the keys in files: put its folder back, or set CHANCERY_KEY_PASSPHRASE_FILE as before.`,
      { cause },
    )
  })
  return octets.toString('utf8').trimEnd()
}

/**
 * Of the settings as they were read first, and read again each time that one is asked for anew: a file may have been mended. What
 * can't be read any more stays as it was told, since a pipe tells it once.
 */
export const openPassphrase = (
  first: PassphraseSource,
  again: () => Promise<PassphraseSource>,
): (() => Promise<string>) => {
  const sources = [first]
  let told: string | undefined
  return async () => {
    try {
      told = await loadPassphrase(sources.pop() ?? (await again()))
    } catch (error) {
      if (told === undefined) throw error
    }
    return told
  }
}

/** One of this data folder, where it has none: for whoever knows that no key needs another one. */
export const makePassphrase = async (dataDir: string): Promise<void> => {
  const path = pathIn(dataDir)
  if (existsSync(path)) return
  // Several may start at once: the first one's is everybody's.
  await createPrivateFile(path, `${randomBytes(32).toString('base64url')}\n`).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
}

/**
 * How often PBKDF2 hashes it, in files that are made: one of ours has 256 random bits, so nothing is gained by making it
 * slow to try, and each start in development opens five keys.
 */
export const roundsFor = (configured: string | undefined): number =>
  configured === undefined ? randomPassphraseRounds : passphraseRounds

const pathIn = (dataDir: string): string => join(dataDir, 'keys', 'passphrase')

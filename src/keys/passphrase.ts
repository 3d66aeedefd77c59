/** What software keys are encrypted with at rest: the configured passphrase, or in development one of this data folder. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'

import { passphraseRounds, randomPassphraseRounds } from './pbes2.ts'
import { createPrivateFile, readPrivateFile } from './private-file.ts'

export interface PassphraseSource {
  readonly mode: 'development' | 'production'
  readonly dataDir: string
  readonly configured: string | undefined
}

/** Throws a sentence in production when there is none, or one that everybody knows. */
export const loadPassphrase = async ({ mode, dataDir, configured }: PassphraseSource): Promise<string> => {
  if (configured !== undefined) return configured
  if (mode === 'production') throw new Error('Software keys need CHANCERY_KEY_PASSPHRASE_FILE in production.')
  const path = join(dataDir, 'keys', 'passphrase')
  const read = async (): Promise<string> => (await readPrivateFile(path)).toString('utf8').trimEnd()
  return read().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    // Several may start at once: the first one's is everybody's.
    await createPrivateFile(path, `${randomBytes(32).toString('base64url')}\n`).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error
      },
    )
    return read()
  })
}

/**
 * How often PBKDF2 hashes it, in files that are made: one of ours has 256 random bits, so nothing is gained by making it
 * slow to try, and each start in development opens five keys.
 */
export const roundsFor = (configured: string | undefined): number =>
  configured === undefined ? randomPassphraseRounds : passphraseRounds

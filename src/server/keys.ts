/** Where this process has its keys from: signer processes, or, to measure what these cost, itself. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { type Config, loadConfig } from '../config/config.ts'
import { loadIssuers, openIssuerStore } from '../db/issuers.ts'
import { readStanding } from '../db/log-opening.ts'
import { isInToken, type Keyring, openGuarded, openKeyring } from '../keys/keyring.ts'
import { makePassphrase, openPassphrase, roundsFor } from '../keys/passphrase.ts'
import { openSigners } from '../keys/signer/client.ts'
import type { Log } from '../log.ts'
import type { Stores } from './stores.ts'

/** Nothing is opened yet, and no process started, before the first key is asked for. */
export const openKeys = async (config: Config, log: Log): Promise<Keyring> => {
  const { signer, environment } = config.keys
  const { sessions } = config.keys.pkcs11
  const deadlineMs = config.limits.signingDeadlineMs
  if (signer === 'process') return openSigners({ log, script, env: environment, deadlineMs, sessions })
  const first = await loadConfig(environment, 'sign')
  const { dataDir, keys, limits } = first
  const ring = openKeyring({
    dataDir,
    passphrase: openPassphrase(first, () => loadConfig(environment, 'sign')),
    rounds: roundsFor(keys.passphrase),
    pkcs11: {
      ...keys.pkcs11,
      pin: async () => (await loadConfig(environment, 'sign')).keys.pkcs11.pin,
      queue: limits.queue,
      deadlineMs,
    },
    lost: (reason) => log.error({ event: 'signer.lost', reason }, 'a token is lost to this process; start it again'),
  })
  return openGuarded(ring)
}

/**
 * Before a key is made: the passphrase of a data folder that has none, in development. Not where a key needs the one that there
 * was, by the records or by the file of the root: that is away, with a folder that was moved or not restored, and to be put back.
 */
export const providePassphrase = async ({
  db,
  roll,
  config,
}: Pick<Stores, 'db' | 'roll' | 'config'>): Promise<void> => {
  const { mode, keys, dataDir } = config
  if (mode === 'production' || keys.hasPassphrase) return
  if (existsSync(join(dataDir, rootKey.slice('file:'.length)))) return
  const requests = await openIssuerStore({ db, roll, longestValidity: () => 0 }).requests()
  const issuers = (await loadIssuers(db)).filter(({ state }) => state !== 'retired')
  const { opened } = await readStanding(db)
  const known = [...issuers, ...requests].map(({ keyUri }) => keyUri).concat(opened ? [config.roll.key] : [])
  if (known.every(isInToken)) await makePassphrase(dataDir)
}

/** Of the root that development makes. */
export const rootKey = 'file:offline-root/root.key.pem'

/** `.ts` as we are run, `.js` from the built image. */
const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'))
const script = fileURLToPath(new URL(`./signer${extension}`, import.meta.url))

/** Where this process has its keys from: signer processes, or, to measure what these cost, itself. */
import { fileURLToPath } from 'node:url'

import { type Config, loadConfig } from '../config.ts'
import { type Keyring, openGuarded, openKeyring } from '../keys/keyring.ts'
import { loadPassphrase, roundsFor } from '../keys/passphrase.ts'
import type { PinGuard } from '../keys/pkcs11/pins.ts'
import { openSigners } from '../keys/signer/client.ts'
import type { Log } from '../telemetry.ts'

/** Nothing is opened yet, and no process started, before the first key is asked for. */
export const openKeys = async (config: Config, log: Log, pins: PinGuard): Promise<Keyring> => {
  const { signer, environment } = config.keys
  const { sessions } = config.keys.pkcs11
  const deadlineMs = config.limits.signingDeadlineMs
  if (signer === 'process') return openSigners({ log, script, env: environment, deadlineMs, pins, sessions })
  const { mode, dataDir, keys, limits } = await loadConfig(environment, 'sign')
  const ring = openKeyring({
    dataDir,
    passphrase: () => loadPassphrase({ mode, dataDir, configured: keys.passphrase }),
    rounds: roundsFor(keys.passphrase),
    pkcs11: {
      ...keys.pkcs11,
      pin: async () => (await loadConfig(environment, 'sign')).keys.pkcs11.pin,
      queue: limits.queue,
      deadlineMs,
    },
    lost: (reason) => log.error({ event: 'signer.lost', reason }, 'a token is lost to this process; start it again'),
  })
  return openGuarded(ring, pins)
}

/** `.ts` as we are run, `.js` from the built image. */
const extension = import.meta.url.slice(import.meta.url.lastIndexOf('.'))
const script = fileURLToPath(new URL(`../signer${extension}`, import.meta.url))

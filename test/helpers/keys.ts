import type { Config } from '../../src/config/config.ts'
import type { Keyring } from '../../src/keys/keyring.ts'
import { openKeys } from '../../src/server/keys.ts'
import { quiet } from './log.ts'

/** Keys in the process of the test, for tests that stand between a key and whoever uses it. */
export const openInlineKeys = (config: Config): Promise<Keyring> =>
  openKeys({ ...config, keys: { ...config.keys, signer: 'inline' } }, quiet)

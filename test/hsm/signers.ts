/** Signer processes over a token, as the service starts them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Test } from 'tap'

import type { Keyring } from '../../src/keys/keyring.ts'
import { openSigners } from '../../src/keys/signer/client.ts'
import { bare } from '../helpers/environment.ts'
import type { SoftHsm } from './softhsm.ts'

export interface TestSigners {
  readonly keys: Keyring
  /** Of log lines, as they came. */
  readonly events: string[]
}

/** `env` adds or changes settings of the signer. */
export const openTestSigners = async (
  t: Pick<Test, 'teardown'>,
  hsm: SoftHsm,
  env: Readonly<Record<string, string>> = {},
): Promise<TestSigners> => {
  const data = await mkdtemp(join(tmpdir(), 'chancery-signer-'))
  const events: string[] = []
  const note = (line: object): void => void events.push((line as { event: string }).event)
  const sessions = Number(env['CHANCERY_PKCS11_SESSIONS'] ?? 8)
  const keys = openSigners({
    log: { debug: note, info: note, warn: note, error: note },
    script: join(import.meta.dirname, '../../src/server/signer.ts'),
    env: {
      ...process.env,
      ...bare,
      NODE_OPTIONS: '',
      CHANCERY_DATA: data,
      CHANCERY_PKCS11_MODULE: hsm.module,
      CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
      CHANCERY_SIGNING_DEADLINE: `${deadlineMs}ms`,
      ...hsm.env,
      ...env,
    },
    deadlineMs,
    sessions,
  })
  t.teardown(async () => {
    await keys.close()
    await rm(data, { recursive: true, force: true })
  })
  return { keys, events }
}

const deadlineMs = 1_000

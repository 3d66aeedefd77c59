/** The modules that are measured: a SoftHSM of this run's own, and the same with the latency of a network. */
import { join } from 'node:path'

import { openSoftHsm, type SoftHsm } from '../../test/hsm/softhsm.ts'
import type { Place } from '../place.ts'
import { outputOf } from '../process.ts'

export interface Tokens {
  readonly quick: SoftHsm
  /** The same token behind `latency.c`. */
  readonly slow: SoftHsm
  /** Removes both. */
  close(): Promise<void>
}

export const openTokens = async ({ folder }: Place): Promise<Tokens> => {
  const closing: (() => unknown)[] = []
  const quick = await openSoftHsm({ teardown: (close: () => unknown) => void closing.push(close) })
  const module = join(folder, 'latency.so')
  const source = join(import.meta.dirname, 'latency.c')
  if (outputOf('gcc', '-shared', '-fPIC', '-O2', '-o', module, `-I${headers}`, source, '-ldl') === undefined)
    throw new Error(`${source} cannot be compiled (Debian: gcc)`)
  const env = { ...quick.env, LATENCY_MODULE: quick.module, LATENCY_US: String(latencyMs * 1000) }
  return {
    quick,
    slow: { ...quick, module, env },
    close: async () => {
      for (const close of closing) await close()
    },
  }
}

/** What the service has to be told to use a token's keys. */
export const settingsOf = ({ module, pinFile, env }: SoftHsm): Readonly<Record<string, string>> => ({
  CHANCERY_PKCS11_MODULE: module,
  CHANCERY_PKCS11_PIN_FILE: pinFile,
  ...env,
})

/** Of one C_Sign of the slow module. */
export const latencyMs = 5
const headers = join(import.meta.dirname, '..', '..', 'node_modules', 'pkcs11js', 'includes', 'pkcs11')

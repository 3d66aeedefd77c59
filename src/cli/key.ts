/** `chancery key`: keys in security modules, for the operator beside the database and the module. */
import { hash } from 'node:crypto'

import type { Config } from '../config/config.ts'
import type { KeyAttributes } from '../keys/signing-key.ts'
import { Failure } from '../lib/failure.ts'
import type { Log } from '../log.ts'
import { openKeys } from '../server/keys.ts'
import { probing } from './probe.ts'
import { withRecords } from './with-records.ts'

export interface ProbedKey {
  /** Its URI, without the library and the PIN's file. */
  readonly id: string
  /** By which it signs. */
  readonly algorithm: string
  /** SHA-256 of the SubjectPublicKeyInfo, hexadecimal. */
  readonly spki: string
  /** What its token says of how it is held; null for a key in a file. */
  readonly attributes: KeyAttributes | null
}

/** Opens a key as the service would, trial signature included. It is on record. */
export const runProbe = (config: Config, log: Log, uri: string): Promise<ProbedKey> =>
  withRecords(config, log, async (records) => {
    const keys = probing(records, await openKeys(config, log))
    try {
      const {
        id,
        algorithm,
        spki,
        attributes = null,
      } = await keys.open(uri).catch((cause: Error) => {
        throw new Failure('usage', cause.message)
      })
      return { id, algorithm: algorithm.id, spki: hash('sha256', spki), attributes }
    } finally {
      await keys.close()
    }
  })

export const probeText = ({ id, algorithm, spki, attributes }: ProbedKey): string => {
  const flags = Object.entries(attributes ?? {}).map(
    ([name, value]) => `  ${name}: ${value ?? 'the token does not say'}`,
  )
  return [`${id} signs by ${algorithm}.`, `  SHA-256 of its public key: ${spki}`, ...flags].join('\n')
}

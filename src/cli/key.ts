/** `chancery key`: keys in security modules, for the operator beside the database and the module. */
import { hash } from 'node:crypto'

import type { Config } from '../config/config.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { KeyAttributes, SigningKey } from '../keys/signing-key.ts'
import { Failure } from '../lib/failure.ts'
import type { Log } from '../log.ts'
import { openKeys } from '../server/keys.ts'
import type { KeyProbed } from '../tlog/entries.ts'
import { type CommandRecords, operator, withRecords } from './with-records.ts'

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

/** The same ring; each key that it opens is on the log, with who opened it. */
export const probing = (
  { roll, log }: Pick<CommandRecords, 'roll' | 'log'>,
  keys: Keyring,
): Pick<Keyring, 'open' | 'close'> => ({
  open: async (uri) => {
    const key = await keys.open(uri)
    const event = probedEvent(key)
    await roll
      .change(async () => ({ events: [event], result: undefined }))
      .catch((err: unknown) => log.warn({ ...event, event: 'key.unrecorded', err }, 'an opened key is not on record'))
    return key
  },
  close: keys.close,
})

const probedEvent = ({ id, spki, attributes }: SigningKey): KeyProbed => ({
  type: 'key.probed',
  key: id,
  spki: hash('sha256', spki),
  attributes: attributes ? { ...attributes } : null,
  by: operator(),
})

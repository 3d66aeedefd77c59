/** Opening keys beside the service: each that opens is on the roll, with who opened it. */
import { hash } from 'node:crypto'

import type { Keyring } from '../keys/keyring.ts'
import type { SigningKey } from '../keys/signing-key.ts'
import type { KeyProbed } from '../tlog/entries.ts'
import { operator } from './operator.ts'
import type { CommandRecords } from './with-records.ts'

/** The same ring, for keys that are looked at. */
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

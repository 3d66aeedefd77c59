/** Checkpoints on their way in: nothing that is not signed is looked at any further. */

import { verifyEd25519 } from '../keys/note-signatures.ts'
import { Failure } from '../lib/failure.ts'
import { openCheckpoint, type SignedCheckpoint } from '../tlog/checkpoint.ts'
import { isRollFault } from '../tlog/fault.ts'
import type { RollKeys } from './keys.ts'

/** Throws a `Failure` for what none of the keys has signed; `where` it came from. */
export const openNote = async (note: Uint8Array | string, keys: RollKeys, where: string): Promise<SignedCheckpoint> => {
  try {
    return await openCheckpoint(note, keys, verifyEd25519)
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Failure('refused', `The checkpoint of ${where} is none of this roll: ${error.detail}.`)
  }
}

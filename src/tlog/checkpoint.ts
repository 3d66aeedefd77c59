/** Checkpoints (c2sp.org/tlog-checkpoint): the size and the root of a roll, in a note that its key has signed. */
import { RollFault } from './fault.ts'
import type { Hash } from './merkle.ts'
import {
  encodeNote,
  type NoteSigner,
  parseNote,
  type Signed,
  signText,
  type VerifierKey,
  type VerifyEd25519,
  verifyNote,
} from './note.ts'
import { readDecimal, readHash } from './text.ts'

export interface Checkpoint {
  /** The name of the roll, and of the key that signs for it. */
  readonly origin: string
  readonly size: number
  readonly root: Hash
}

export interface SignedCheckpoint extends Checkpoint {
  /** Of the roll itself. */
  readonly key: VerifierKey
  /** By witnesses that are known. */
  readonly cosignatures: readonly Signed[]
}

/** The text that is signed. */
export const encodeCheckpoint = ({ origin, size, root }: Checkpoint): string =>
  `${origin}\n${size}\n${root.toBase64()}\n`

/** Reads the text of a note. Lines of others' extensions are passed over: ours have none. Throws `checkpoint.text`. */
export const parseCheckpoint = (text: string): Checkpoint => {
  const [origin = '', size = '', root = '', ...rest] = text.split('\n')
  if (origin === '' || rest.pop() !== '' || rest.includes(''))
    throw new RollFault('checkpoint.text', 'it is not three lines or more, none of them empty')
  return {
    origin,
    size: readDecimal(size, 'checkpoint.text', 'the size'),
    root: readHash(root, 'checkpoint.text', 'the root'),
  }
}

/** The note that a roll publishes. Whoever signs sees to it that no two are inconsistent. */
export const signCheckpoint = async (checkpoint: Checkpoint, signer: NoteSigner): Promise<string> => {
  if (signer.key.name !== checkpoint.origin) throw new RollFault('checkpoint.origin', otherName)
  const text = encodeCheckpoint(checkpoint)
  return encodeNote({ text, signatures: [await signText(text, signer)] })
}

/**
 * Reads a checkpoint that one of the roll's keys has signed, with the cosignatures of known witnesses. Throws `note.text`,
 * `note.unsigned`, `note.signature`, `checkpoint.text`, or `checkpoint.origin` for a roll of another name.
 */
export const openCheckpoint = async (
  input: string | Uint8Array,
  keys: { readonly roll: readonly VerifierKey[]; readonly witnesses?: readonly VerifierKey[] },
  verify: VerifyEd25519,
): Promise<SignedCheckpoint> => {
  const note = parseNote(input)
  const checkpoint = parseCheckpoint(note.text)
  const signed = await verifyNote(note, [...keys.roll, ...(keys.witnesses ?? [])], verify)
  const own = signed.find(({ key }) => keys.roll.includes(key))
  if (own === undefined) throw new RollFault('note.unsigned', 'none of its signatures is by a key of the roll')
  if (own.key.name !== checkpoint.origin) throw new RollFault('checkpoint.origin', otherName)
  return { ...checkpoint, key: own.key, cosignatures: signed.filter(({ key }) => !keys.roll.includes(key)) }
}

const otherName = 'the key that signed it has another name than its origin'

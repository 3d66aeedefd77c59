/**
 * What a roll asks a witness for (c2sp.org/tlog-witness): a cosignature of its newest checkpoint, with the proof that it
 * grew out of the one that the witness knows. The answer is lines of signatures, as `parseSignatures` reads them.
 */
import { RollFault } from './fault.ts'
import type { Hash } from './merkle.ts'
import { readDecimal, readHash, readText } from './text.ts'

/** The body of `POST /add-checkpoint`. */
export interface AddCheckpoint {
  /** The size that the witness has cosigned last; 0 for never. */
  readonly old: number
  /** That the checkpoint's tree has grown out of that of the old size. */
  readonly proof: readonly Hash[]
  /** The signed note. */
  readonly checkpoint: string
}

export const encodeAddCheckpoint = ({ old, proof, checkpoint }: AddCheckpoint): string =>
  [`old ${old}\n`, ...proof.map((hash) => `${hash.toBase64()}\n`), '\n', checkpoint].join('')

/** Reads the body; the checkpoint in it is not looked into. Throws `witness.text`. */
export const parseAddCheckpoint = (input: string | Uint8Array): AddCheckpoint => {
  const text = readText(input, 'witness.text', maxOctets)
  const blank = text.indexOf('\n\n')
  if (blank < 0) throw new RollFault('witness.text', 'there is no empty line before the checkpoint')
  const [first = '', ...lines] = text.slice(0, blank).split('\n', maxHashes + 2)
  if (!first.startsWith('old ')) throw new RollFault('witness.text', 'it does not say the old size')
  if (lines.length > maxHashes) throw new RollFault('witness.text', `there are more than ${maxHashes} hashes`)
  return {
    old: readDecimal(first.slice('old '.length), 'witness.text', 'the old size'),
    proof: lines.map((line) => readHash(line, 'witness.text', 'a hash')),
    checkpoint: text.slice(blank + 2),
  }
}

/** What a witness answers with 409: the size that it has cosigned last. Throws `witness.text`. */
export const parseKnownSize = (input: string | Uint8Array): number => {
  const text = readText(input, 'witness.text', maxSizeOctets)
  if (!text.endsWith('\n')) throw new RollFault('witness.text', 'the line of the size does not end')
  return readDecimal(text.slice(0, -1), 'witness.text', 'the size')
}

const maxHashes = 63
const maxOctets = 2_000_000
const maxSizeOctets = 32

/**
 * What can be wrong with what is read of a roll, in one table: code → what it means. It stands apart from the problems of
 * the service, because a verifier in a browser or at an auditor's terminal has no HTTP status to give.
 */
export const faults = {
  'bundle.octets': 'An entry bundle is not as many length-prefixed entries as its width says.',
  'checkpoint.text': 'A checkpoint is not an origin, a size and a root, each on its line.',
  'checkpoint.origin': 'A checkpoint is signed by a key of another name than its origin.',
  'edge.tiles': 'The tiles of the right edge do not fit the size, or do not hash to the root.',
  'entry.form': 'An entry lacks a field of its type, has another one, or one that does not look as it must.',
  'entry.text': 'An entry is not canonical JSON (RFC 8785).',
  'entry.type': 'An entry is of a type or version that is not known.',
  'key.text': 'A verifier key is not a name, its id and a public key of a known type.',
  'note.text': 'A signed note is not a text and its signatures.',
  'note.signature': 'A signature by a known key does not hold.',
  'note.unsigned': 'A note has no signature by a known key.',
  'proof.inclusion': 'The entry is not in the tree of the checkpoint at this index.',
  'proof.text': 'A proof is not an index, hashes and a checkpoint.',
  'tile.octets': 'A tile is not as many hashes as its width says.',
  'tile.path': 'This is not the path of a tile or an entry bundle.',
  'witness.text': 'The body of add-checkpoint is not an old size, a consistency proof and a checkpoint.',
} as const satisfies Readonly<Record<string, string>>

export type FaultCode = keyof typeof faults

/** The one error of everything that reads a roll; anything else that is thrown is a defect, or comes from what was passed in. */
export class RollFault extends Error {
  readonly code: FaultCode
  readonly detail: string

  constructor(code: FaultCode, detail: string) {
    super(`${code}: ${detail}`)
    this.name = 'RollFault'
    this.code = code
    this.detail = detail
  }
}

export const isRollFault = (error: unknown, code?: FaultCode): error is RollFault =>
  error instanceof RollFault && (code === undefined || error.code === code)

/** Rolls for witnesses: their checkpoints and the proofs between them, and forks of them. */
import { signCheckpoint } from '../../src/tlog/checkpoint.ts'
import type { NoteSigner } from '../../src/tlog/note.ts'
import { encodeAddCheckpoint } from '../../src/tlog/witness.ts'
import { leavesUpTo, newSigner } from '../tlog/hashing.ts'
import { naiveConsistency, naiveRoot } from '../tlog/naive.ts'

export interface TestRoll {
  readonly signer: NoteSigner
  readonly root: (size: number) => Uint8Array
  readonly checkpoint: (size: number) => Promise<string>
  readonly proof: (from: number, to: number) => readonly Uint8Array[]
  /** The body that asks for a cosignature. */
  readonly ask: (old: number, size: number) => Promise<string>
  /** Another one of the same key, that is the same below `at`. */
  readonly fork: (at: number) => TestRoll
}

export const openTestRoll = (
  origin = 'roll.example/1',
  signer = newSigner(origin),
  forkedAt = Number.NaN,
): TestRoll => {
  const leaves = leavesUpTo(400).map((leaf, i) => (i >= forkedAt ? Buffer.from(leaf).reverse() : leaf))
  const root = (size: number) => naiveRoot(leaves.slice(0, size))
  const checkpoint = (size: number) => signCheckpoint({ origin, size, root: root(size) }, signer)
  const proof = (from: number, to: number) =>
    from === 0 || from === to ? [] : naiveConsistency(from, leaves.slice(0, to))
  return {
    signer,
    root,
    checkpoint,
    proof,
    ask: async (old, size) =>
      encodeAddCheckpoint({ old, proof: old <= size ? proof(old, size) : [], checkpoint: await checkpoint(size) }),
    fork: (at) => openTestRoll(origin, signer, at),
  }
}

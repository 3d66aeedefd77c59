/**
 * The proof that goes with an entry (c2sp.org/tlog-proof): its index, the hashes that lead from its leaf to the root, and
 * the checkpoint. With the key of the roll it is verified for ever, without anybody being asked.
 */
import { openCheckpoint, type SignedCheckpoint } from './checkpoint.ts'
import { maxEntryOctets } from './entries.ts'
import { type FaultCode, isRollFault, RollFault } from './fault.ts'
import { type Hash, type TreeHasher, verifyInclusion } from './merkle.ts'
import type { VerifierKey, VerifyEd25519 } from './note.ts'
import { readBase64, readDecimal, readHash, readText } from './text.ts'

export interface Proof {
  readonly index: number
  /** From the leaf's sibling up. */
  readonly hashes: readonly Hash[]
  /** The signed note, as it was published. */
  readonly checkpoint: string
  /** Which nothing vouches for. */
  readonly extra?: Uint8Array
}

export type ProofVerdict =
  | { readonly ok: true; readonly index: number; readonly checkpoint: SignedCheckpoint }
  | { readonly ok: false; readonly reason: FaultCode; readonly detail: string }

export interface ProofTrust {
  /** Keys of the roll. */
  readonly roll: readonly VerifierKey[]
  readonly witnesses?: readonly VerifierKey[]
  readonly hasher: TreeHasher
  readonly verify: VerifyEd25519
}

export const encodeProof = ({ index, hashes, checkpoint, extra }: Proof): string => {
  const lines = [header, ...(extra === undefined ? [] : [`extra ${extra.toBase64()}`]), `index ${index}`]
  for (const hash of hashes) lines.push(hash.toBase64())
  return `${lines.join('\n')}\n\n${checkpoint}`
}

/** Reads a proof; the checkpoint in it is not looked into. Throws `proof.text`. */
export const parseProof = (input: string | Uint8Array): Proof => {
  const text = readText(input, 'proof.text', maxProofOctets)
  // No line before the checkpoint is empty, so the first empty one ends them.
  const blank = text.indexOf('\n\n')
  if (blank < 0) throw new RollFault('proof.text', 'there is no empty line before the checkpoint')
  const [first, ...lines] = text.slice(0, blank).split('\n', maxLines)
  if (first !== header) throw new RollFault('proof.text', `it does not begin with ${header}`)
  const extra = lines[0]?.startsWith(extraStart) ? lines.shift()?.slice(extraStart.length) : undefined
  const index = lines.shift() ?? ''
  if (!index.startsWith(indexStart)) throw new RollFault('proof.text', 'it does not say the index')
  if (lines.length > maxHashes) throw new RollFault('proof.text', `there are more than ${maxHashes} hashes`)
  return {
    index: readDecimal(index.slice(indexStart.length), 'proof.text', 'the index'),
    hashes: lines.map((line) => readHash(line, 'proof.text', 'a hash')),
    checkpoint: text.slice(blank + 2),
    ...(extra === undefined ? {} : { extra: readBase64(extra, 'proof.text', 'the extra data') }),
  }
}

/** Whether an entry is on the roll of these keys, or the first reason why that does not follow. Never throws for what it is given. */
export const verifyProof = async (
  entry: Uint8Array,
  input: string | Uint8Array,
  trust: ProofTrust,
): Promise<ProofVerdict> => {
  try {
    const { index, hashes, checkpoint: note } = parseProof(input)
    if (entry.length > maxEntryOctets)
      throw new RollFault(
        'proof.inclusion',
        `no entry has more than ${maxEntryOctets} octets, and this has ${entry.length}`,
      )
    const checkpoint = await openCheckpoint(note, trust, trust.verify)
    const { size, root } = checkpoint
    const leaf = trust.hasher.leaf(entry)
    if (verifyInclusion({ leaf, index, size, proof: hashes, root }, trust.hasher))
      return { ok: true, index, checkpoint }
    return {
      ok: false,
      reason: 'proof.inclusion',
      detail: `entry ${index} does not lead to the root of ${size} entries`,
    }
  } catch (error) {
    if (!isRollFault(error)) throw error
    return { ok: false, reason: error.code, detail: error.detail }
  }
}

const header = 'c2sp.org/tlog-proof@v1'
const extraStart = 'extra '
const indexStart = 'index '
const maxHashes = 63
/** Beyond them there is nothing that a proof could say. */
const maxLines = maxHashes + 4
const maxProofOctets = 2_000_000

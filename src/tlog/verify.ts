/**
 * Verifying a roll from its entries alone: they are fed in order, in batches of any size; the tree is computed anew, and
 * everything that can be found is told, not the first thing only. Memory is the tree's right edge and what `known.ts`
 * remembers. Signatures of certificates are handed on in batches, so that whoever checks them may use other threads,
 * while the next entries are read. The state can be saved and taken up again, and so a roll is verified as it grows.
 */
import { openCheckpoint, type SignedCheckpoint } from './checkpoint.ts'
import { isRollFault } from './fault.ts'
import { type Finding, type FindingCode, isFindingCode } from './findings.ts'
import { parseEntry, type RollEntry } from './forms.ts'
import { type Edge, emptyEdge, extend, openEdge, type Subtree, storeEdge } from './frontier.ts'
import { openHistory } from './history.ts'
import type { HistoryDeps, HistoryState, SignedBy } from './known.ts'
import { type Hash, openTreeHasher, type TreeHasher } from './merkle.ts'
import type { VerifierKey, VerifyEd25519 } from './note.ts'
import { isEqual, readHash } from './text.ts'

export type FedEntry = StoredEntry | LostEntry

export interface StoredEntry {
  readonly index: number
  readonly octets: Uint8Array
  /** As it is stored, where it is: then an entry that was altered is named, and not only the span it is in. */
  readonly leaf?: Uint8Array
}

/** Of which only the leaf is left: the tree goes on with it. */
export interface LostEntry {
  readonly index: number
  readonly octets: undefined
  readonly leaf: Uint8Array
}

export interface RollVerifierDeps extends HistoryDeps {
  readonly keys: { readonly roll: readonly VerifierKey[]; readonly witnesses?: readonly VerifierKey[] }
  readonly verify: VerifyEd25519
  /** Whether each certificate's signature is by the key in its issuer's. */
  readonly verifyCertificates: (signed: readonly SignedBy[]) => Promise<readonly boolean[]>
  /** Signed notes that were seen, of any sizes and in any order: the roll must have been, or become, each of them. */
  readonly checkpoints: readonly SeenNote[]
  /** Told of each finding as soon as it is there; those of signatures come later than others. */
  readonly tell: (finding: Finding) => void
  /** Told of each subtree that became complete, to be compared with stored tiles. */
  readonly completed?: (subtree: Subtree) => void
}

export interface SeenNote {
  readonly note: string | Uint8Array
  /** Where it is from: told with whatever is wrong with it. */
  readonly name?: string
}

/** JSON: a few kilobytes, and 32 octets for each serial, in strings of at most a megabyte. */
export interface VerifierState {
  readonly v: 1
  readonly size: number
  readonly time: string
  /** Null when entries were missing: then there is no root any more. */
  readonly tree: { readonly root: string; readonly tiles: readonly (readonly string[])[] } | null
  readonly history: HistoryState
}

export interface RollVerifier {
  /** The next entries. One call after the other: wait for each. Rejects only with what was passed in rejected. */
  add(entries: readonly FedEntry[]): Promise<void>
  /** The end: all that was fed is checked, and checkpoints beyond it are told of. The root is undefined when entries were missing. */
  finish(): Promise<{ readonly size: number; readonly root: Hash | undefined }>
  /** To go on from later, when all that was fed is checked. */
  save(): Promise<VerifierState>
}

export const openRollVerifier = async (deps: RollVerifierDeps, saved?: VerifierState): Promise<RollVerifier> => {
  const tell: TellOf = (index, code, message) => deps.tell({ index, code, message: printable(message) })
  const hasher = openTreeHasher(deps.sha256)
  const reader = openReader(deps, hasher, tell, saved)
  const signatures = openSignatures(deps.verifyCertificates, tell)
  const tree = await openTree(deps, hasher, tell, saved)
  return {
    add: async (entries) => {
      const signed: SignedEntry[] = []
      let leaves: Hash[] = []
      for (const entry of entries) {
        const next = tree.size + leaves.length
        if (entry.index < next) {
          tell(entry.index, 'entry.order', `entry ${next} was to come`)
          continue
        }
        if (entry.index > next) {
          tell(next, 'entry.order', `entries ${next} to ${entry.index - 1} are missing`)
          tree.grow(leaves)
          leaves = []
          tree.skipTo(entry.index)
        }
        const found = reader.read(entry)
        leaves.push(found.leaf)
        if (found.signed !== undefined) signed.push({ ...found.signed, index: entry.index })
      }
      tree.grow(leaves)
      await signatures.add(signed)
    },
    finish: async () => {
      await signatures.end()
      return tree.end()
    },
    save: async () => {
      await signatures.end()
      return { v: 1, ...tree.save(), ...reader.save() }
    },
  }
}

type TellOf = (index: number, code: FindingCode, message: string) => void
type SignedEntry = SignedBy & { readonly index: number }

/** Entries one by one: their form, and whether they follow from those before. */
const openReader = (deps: HistoryDeps, hasher: TreeHasher, tell: TellOf, saved?: VerifierState) => {
  const history = openHistory(deps, saved?.history)
  let time = saved?.time ?? ''
  const entryOf = (index: number, octets: Uint8Array): RollEntry | undefined => {
    try {
      return parseEntry(octets)
    } catch (error) {
      if (!isRollFault(error) || !isFindingCode(error.code)) throw error
      tell(index, error.code, error.detail)
      return undefined
    }
  }
  return {
    /** The leaf, and what is wrong with the entry. */
    read: (fed: FedEntry): { readonly leaf: Hash; readonly signed: SignedBy | undefined } => {
      const { index, octets, leaf: stored } = fed
      if (octets === undefined) {
        tell(index, 'entry.missing', 'only its leaf is there')
        return { leaf: fed.leaf, signed: undefined }
      }
      if (octets.length > maxEntryOctets) {
        tell(index, 'entry.size', `it has ${octets.length} octets`)
        return { leaf: deps.sha256(octets), signed: undefined }
      }
      const leaf = hasher.leaf(octets)
      if (stored !== undefined && !isEqual(leaf, stored))
        tell(index, 'entry.leaf', 'its leaf is not the one that is stored')
      const entry = entryOf(index, octets)
      if (entry === undefined) return { leaf, signed: undefined }
      // All times have one form, in which they sort as text.
      if (entry.time < time) tell(index, 'entry.time', `its time is ${entry.time}, after ${time}`)
      else time = entry.time
      return { leaf, signed: history.follow(entry, index, (code, message) => tell(index, code, message)) }
    },
    save: (): Pick<VerifierState, 'time' | 'history'> => ({ time, history: history.save() }),
  }
}

/** The tree over all leaves until now, compared with each checkpoint when it has that size. */
const openTree = async (deps: RollVerifierDeps, hasher: TreeHasher, tell: TellOf, saved?: VerifierState) => {
  let size = saved?.size ?? 0
  /** Undefined once leaves were missing. */
  let edge = saved ? loadEdge(saved, hasher) : emptyEdge(hasher)
  const ahead = await openCheckpoints(deps, size, tell)
  const compare = ({ size: at, root, name }: NamedCheckpoint): void => {
    if (edge === undefined)
      return tell(at, 'checkpoint.root', fromText('there is no root to compare with, since entries are missing', name))
    if (!isEqual(edge.root, root))
      tell(at, 'checkpoint.root', fromText(`the ${at} entries before it have the root ${edge.root.toBase64()}`, name))
  }
  const reach = (next: number): void => {
    size = next
    while (ahead[0] !== undefined && ahead[0].size <= next) compare(ahead.shift() as NamedCheckpoint)
  }
  reach(size)
  return {
    get size() {
      return size
    },
    /** Appends leaves as far as the next checkpoint, compares, and goes on. */
    grow: (leaves: readonly Hash[]): void => {
      for (let from = 0; from < leaves.length; ) {
        const next = Math.min(leaves.length, from + (ahead[0]?.size ?? Number.POSITIVE_INFINITY) - size)
        const batch = leaves.slice(from, next)
        if (edge !== undefined) {
          const extension = extend(edge, batch, hasher)
          edge = extension.edge
          for (const subtree of extension.completed) deps.completed?.(subtree)
        }
        from = next
        reach(size + batch.length)
      }
    },
    skipTo: (index: number): void => {
      edge = undefined
      reach(index)
    },
    end: () => {
      for (const { size: at, name } of ahead.splice(0))
        tell(at, 'checkpoint.beyond', fromText(`there are ${size} entries, and a checkpoint over ${at}`, name))
      return { size, root: edge?.root }
    },
    save: (): Pick<VerifierState, 'size' | 'tree'> => ({ size, tree: edge ? saveEdge(edge) : null }),
  }
}

type NamedCheckpoint = SignedCheckpoint & Pick<SeenNote, 'name'>

/** Those that are still ahead, smallest first; the others are told of, and what cannot be read. */
const openCheckpoints = async (
  { checkpoints, keys, verify }: RollVerifierDeps,
  size: number,
  tell: TellOf,
): Promise<NamedCheckpoint[]> => {
  const opened: NamedCheckpoint[] = []
  for (const { note, name } of checkpoints) {
    try {
      const checkpoint = await openCheckpoint(note, keys, verify)
      if (checkpoint.size >= size) opened.push({ ...checkpoint, ...(name !== undefined && { name }) })
      else tell(checkpoint.size, 'checkpoint.passed', fromText(`this verification goes on from ${size}`, name))
    } catch (error) {
      if (!isRollFault(error)) throw error
      tell(0, 'checkpoint.invalid', fromText(error.message, name))
    }
  }
  return opened.sort((a, b) => a.size - b.size)
}

/** What is wrong with a note, and where it is from. */
export const fromText = (message: string, name: string | undefined): string =>
  name === undefined ? message : `${message} (${name})`

/** Batches of signatures under way: the next entries are read meanwhile, as long as there are not too many. */
const openSignatures = (verifyCertificates: RollVerifierDeps['verifyCertificates'], tell: TellOf) => {
  const underWay: Promise<void>[] = []
  const check = async (signed: readonly SignedEntry[]): Promise<void> => {
    const indexes = signed.map(({ index }) => index)
    const valid = await verifyCertificates(signed)
    for (const [i, index] of indexes.entries())
      if (valid[i] !== true)
        tell(index, 'certificate.signature', 'the signature of the certificate is not by its issuer')
  }
  return {
    add: async (signed: readonly SignedEntry[]): Promise<void> => {
      if (signed.length === 0) return
      const checked = check(signed)
      // A rejection is waited for when its turn comes.
      checked.catch(() => {})
      underWay.push(checked)
      if (underWay.length > maxUnderWay) await underWay.shift()
    },
    end: async (): Promise<void> => {
      for (const checked of underWay.splice(0)) await checked
    },
  }
}

/** Names on a roll are anybody's words: what would move a cursor or turn a line around is not passed on, nor pages of it. */
const printable = (message: string): string => {
  const text = message.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd')
  return text.length <= maxMessage ? text : `${text.slice(0, maxMessage)}\u2026`
}

const saveEdge = (edge: Edge): VerifierState['tree'] => {
  const { root, tiles } = storeEdge(edge)
  return { root: root.toBase64(), tiles: tiles.map((hashes) => hashes.map((hash) => hash.toBase64())) }
}

const loadEdge = ({ size, tree }: VerifierState, hasher: TreeHasher): Edge | undefined => {
  if (tree === null) return undefined
  const read = (text: string): Hash => readHash(text, 'edge.tiles', 'a hash')
  return openEdge({ size, root: read(tree.root), tiles: tree.tiles.map((hashes) => hashes.map(read)) }, hasher)
}

const maxUnderWay = 4
const maxMessage = 300
const maxEntryOctets = 65_535

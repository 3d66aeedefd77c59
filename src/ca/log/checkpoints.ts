/**
 * Checkpoints and proofs: what the roll promises, signed. A checkpoint is signed over a head that was committed, never
 * before, and is kept outside of the database before anybody sees it. Ed25519 gives the same signature each time, so every
 * replica makes the same note of the same head, and a signature that did not come may be asked for again.
 */

import { isProblem, Problem } from '../../errors.ts'
import type { SigningKey } from '../../keys/signing-key.ts'
import { openBatch } from '../../lib/batch.ts'
import { withDeadline } from '../../lib/timeout.ts'
import { type Checkpoint, encodeCheckpoint } from '../../tlog/checkpoint.ts'
import { isRollFault, RollFault } from '../../tlog/fault.ts'
import { type Hash, inclusionProof, type ReadTile, type TreeHasher, verifyInclusion } from '../../tlog/merkle.ts'
import { encodeNote, type VerifierKey } from '../../tlog/note.ts'
import type { Proof } from '../../tlog/proof.ts'
import { hashesPerTile, parseTile } from '../../tlog/tiles.ts'
import type { CheckSignature } from '../../x509/csr.ts'
import type { Enrolled, RollHead } from '../issuance/recorder.ts'

/** Where the last checkpoint is kept outside of the database. */
export interface Anchor {
  /** Durable when it resolves, as far as its settings promise. An older one than the last changes nothing. */
  write(checkpoint: Checkpoint): Promise<void>
}

export interface Published extends Checkpoint {
  /** The signed note. */
  readonly note: string
}

export interface Checkpoints {
  /** What verifies the notes. */
  readonly key: VerifierKey
  /** Why nothing can be signed. Where nothing is known, the newest is signed once more, which gives the same signature. */
  probe(): Promise<string | undefined>
  /** Throws what keeps checkpoints from being made, while it does. */
  assertAvailable(): void
  /** The newest that this instance has signed, with so many entries at least if there are as many. Signs one where there is none. */
  newest(atLeast?: number): Promise<Published>
  /** What is shown to those who follow the roll: with cosignatures where they are fresh. Never smaller than before. */
  shown(): Promise<Published>
  /** What goes with an entry: against the head of its own batch, or else against the newest. */
  proofOf(enrolled: Enrolled): Promise<Proof>
  /** The same for any entry. Throws `roll.not_found` beyond the end. */
  proofAt(index: number): Promise<Proof>
  /** Signs this head, together with all who wait for it. */
  sign(head: RollHead): Promise<Published>
  /** Signs the head as it is now, whoever moved it. */
  follow(): Promise<void>
  /** Signs what was seen last, where any was signed before: a start that came to nothing has not touched the key. */
  end(seen: RollHead): Promise<void>
}

export interface CheckpointsDeps {
  readonly verifierKey: VerifierKey
  readonly key: SigningKey
  readonly verify: CheckSignature
  readonly anchor: Anchor
  /** The head as it is now, after everything that was seen before. */
  readonly head: () => Promise<RollHead>
  readonly readTile: ReadTile
  readonly hasher: TreeHasher
  /** The newest checkpoint with cosignatures, unless it is old. */
  readonly cosigned: () => Published | undefined
  /** Within which a signature must come, tries of it included. */
  readonly deadlineMs: number
  readonly sleep: (milliseconds: number) => Promise<void>
}

export const openCheckpoints = (deps: CheckpointsDeps): Checkpoints => {
  const { verifierKey, anchor, head, readTile, hasher } = deps
  const origin = verifierKey.name
  let newest: Published | undefined
  let fault: Problem | undefined

  const publish = async (heads: readonly RollHead[]): Promise<readonly Published[]> => {
    // A whole batch of certificates waits for the same head: it is signed once.
    const distinct = new Map(heads.map((one) => [keyOf(one), { origin, size: one.size, root: one.root }]))
    const checkpoints = [...distinct.values()]
    const last = checkpoints.reduce((a, b) => (b.size > a.size ? b : a))
    try {
      const [notes] = await Promise.all([signAll(deps, checkpoints), anchor.write(last).catch(unanchored)])
      fault = undefined
      const published = new Map(
        [...distinct].map(([key, checkpoint], i) => [key, { ...checkpoint, note: notes[i] as string }]),
      )
      for (const one of published.values()) if (newest === undefined || one.size > newest.size) newest = one
      return heads.map((one) => published.get(keyOf(one)) as Published)
    } catch (error) {
      if (error instanceof Problem) fault = error
      throw error
    }
  }
  const batch = openBatch({ run: publish, max: 256, lanes: 1 })

  /** Records that are not those of before take nothing: whoever asks next is told so before an intent is recorded. */
  const look = async (): Promise<RollHead> => {
    try {
      return await head()
    } catch (error) {
      if (isProblem(error, 'roll.inconsistent')) fault = error
      throw error
    }
  }
  const follow = async (): Promise<Published> => {
    const now = await look()
    // Whoever cannot sign must find out when it can again.
    return newest && newest.size >= now.size && !fault ? newest : batch.add(now)
  }
  const lookFor = openLooks(follow, () => deps.sleep(newest ? lookEveryMs : 0))
  const proofAt = async (index: number): Promise<Proof> => {
    const at = newest && newest.size > index ? newest : await follow()
    if (at.size <= index) throw new Problem('roll.not_found', `The roll has no entry ${index}.`)
    const hashes = await proofIn(at, index, { readTile, hasher }).catch((error: unknown) => {
      throw isRollFault(error) ? notWhole(index, error) : error
    })
    return { index, hashes, checkpoint: at.note }
  }
  /** One for all who ask: behind a key that hangs there would be ever more, before what is to be issued. */
  let trial: Promise<Problem | undefined> | undefined
  const tryNewest = (checkpoint: Checkpoint): Promise<Problem | undefined> => {
    trial ??= tryOut(deps, checkpoint).finally(() => {
      trial = undefined
    })
    return trial
  }
  let shown: Published | undefined
  return {
    key: verifierKey,
    probe: async () => {
      const found = fault ?? (newest && (await tryNewest(newest)))
      return found && reasonOf(found)
    },
    assertAvailable: () => {
      if (fault) throw fault
    },
    newest: async (atLeast = 0) => (newest && newest.size >= atLeast ? newest : await lookFor(atLeast)),
    shown: async () => {
      const next = deps.cosigned() ?? newest ?? (await follow())
      // A cosigned one is a little behind; who has seen a larger one waits for the next.
      if (shown === undefined || next.size >= shown.size) shown = next
      return shown
    },
    proofOf: async ({ index, inclusion }) => {
      if (inclusion === undefined) return proofAt(index)
      const { note } = await batch.add(inclusion.head)
      return { index, hashes: inclusion.hashes, checkpoint: note }
    },
    proofAt,
    sign: batch.add,
    follow: async () => void (await follow()),
    end: async (seen) => {
      if (newest && newest.size < seen.size) await batch.add(seen)
    },
  }
}

/** A look for all who ask, and a pause after it before the next: however many ask, the records are looked at now and then. */
const openLooks = (look: () => Promise<Published>, pause: () => Promise<void>) => {
  let last: { readonly found: Promise<Published>; readonly over: Promise<void> } | undefined
  const lookForAll = (): Promise<Published> => {
    if (last) return last.found
    const found = look()
    const rest = async (): Promise<void> => {
      await pause()
      last = undefined
    }
    last = { found, over: found.then(rest, rest) }
    return found
  }
  // For those who have seen more at another replica. What was found before they asked may be of before that.
  return async (atLeast: number): Promise<Published> => {
    const earlier = last
    const found = await lookForAll()
    if (earlier === undefined || found.size >= atLeast) return found
    await earlier.over
    return lookForAll()
  }
}

/** What is stored of the tree may be damaged: nothing is handed out that does not lead to the checkpoint. */
const proofIn = async (
  { size, root }: Checkpoint,
  index: number,
  { readTile, hasher }: Pick<CheckpointsDeps, 'readTile' | 'hasher'>,
): Promise<readonly Hash[]> => {
  const own = Math.floor(index / hashesPerTile)
  const width = Math.min(hashesPerTile, size - own * hashesPerTile)
  // The tile of the leaf is that of its siblings as well: it is read once.
  const octets = await readTile({ level: 0, index: own, width })
  const read: ReadTile = (tile) => (tile.level === 0 && tile.index === own ? Promise.resolve(octets) : readTile(tile))
  const proof = await inclusionProof(index, size, read, hasher)
  const leaf = parseTile(octets, width)[index % hashesPerTile] as Hash
  if (verifyInclusion({ leaf, index, size, proof, root }, hasher)) return proof
  throw new RollFault('proof.inclusion', `the stored tree does not lead from entry ${index} to the root`)
}

const keyOf = ({ size, root }: RollHead): string => `${size} ${root.toBase64()}`

const notWhole = (index: number, cause: Error): Problem =>
  new Problem('roll.inconsistent', `The records lack what leads from entry ${index} to the checkpoint.`, {
    retryAfter: 60,
    cause,
  })

/** For operators: what the answer to whoever asks for a certificate leaves out. */
const reasonOf = ({ detail, cause }: Problem): string =>
  cause instanceof Error ? `${detail.replace(/\.$/, '')}: ${cause.message}` : detail

/** Each text is signed until it is, within the deadline: the same text gives the same signature. */
const signAll = async (deps: CheckpointsDeps, checkpoints: readonly Checkpoint[]): Promise<readonly string[]> => {
  const { key, verifierKey, verify, deadlineMs, sleep } = deps
  const texts = checkpoints.map(encodeCheckpoint)
  const messages = texts.map((text) => Buffer.from(text))
  const until = performance.now() + deadlineMs
  for (;;) {
    const left = until - performance.now()
    const answer = await withDeadline(key.sign(messages), Math.max(1, left))
    const signatures = answer === 'late' ? [] : answer.filter((one) => Buffer.isBuffer(one))
    if (signatures.length === messages.length) {
      await assertValid({ key, verify }, messages, signatures)
      return texts.map((text, i) => noteOf(verifierKey, text, signatures[i] as Buffer))
    }
    if (until - performance.now() < retryMs) {
      const cause = answer === 'late' ? undefined : answer.find((one) => !Buffer.isBuffer(one))
      throw unsigned(cause)
    }
    await sleep(retryMs)
  }
}

/**
 * Undefined where it signs. It has as long as any signature: a module that was late for less would be taken for one that hangs, and
 * started again, with the keys of issuers in it.
 */
const tryOut = async (deps: CheckpointsDeps, checkpoint: Checkpoint): Promise<Problem | undefined> => {
  const message = Buffer.from(encodeCheckpoint(checkpoint))
  const answer = await withDeadline(deps.key.sign([message]), deps.deadlineMs)
  const signature = answer === 'late' ? undefined : answer[0]
  if (!Buffer.isBuffer(signature)) return unsigned(signature)
  return assertValid(deps, [message], [signature]).then(
    () => undefined,
    (error: Problem) => error,
  )
}

const unsigned = (cause: unknown): Problem =>
  new Problem('key.unavailable', "The roll's key did not sign the checkpoint.", { retryAfter: 2, cause })

/** A wrong signature would be in every proof, for ever. */
const assertValid = async (
  { key: { spki, algorithm }, verify }: Pick<CheckpointsDeps, 'key' | 'verify'>,
  messages: readonly Buffer[],
  signatures: readonly Buffer[],
): Promise<void> => {
  const checks = messages.map((message, i) =>
    verify({ spki, message, signature: signatures[i] as Buffer, algorithm, keep: true }),
  )
  if ((await Promise.all(checks)).every((valid) => valid)) return
  throw new Problem('key.bad_signature', "The roll's key signs wrongly; no checkpoint was handed out.", {
    retryAfter: 5,
  })
}

const noteOf = ({ name, id }: VerifierKey, text: string, octets: Hash): string =>
  encodeNote({ text, signatures: [{ name, id, octets }] })

const unanchored = (cause: unknown): never => {
  throw new Problem('roll.unanchored', 'The last checkpoint could not be kept outside of the database.', {
    retryAfter: 5,
    cause,
  })
}

const retryMs = 50
const lookEveryMs = 100

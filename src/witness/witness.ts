/**
 * A witness (c2sp.org/tlog-witness): it cosigns a checkpoint of a roll that it knows, if that has grown out of the one that
 * it has cosigned before, and so never two that do not follow from each other. What it checks and what it keeps are one
 * step: one request after the other.
 */
import { openCheckpoint, parseCheckpoint, type SignedCheckpoint } from '../tlog/checkpoint.ts'
import { type FaultCode, isRollFault } from '../tlog/fault.ts'
import { consistencyLength, type TreeHasher, verifyConsistency } from '../tlog/merkle.ts'
import {
  encodeSignatures,
  type NoteSigner,
  parseNote,
  signText,
  type VerifierKey,
  type VerifyEd25519,
} from '../tlog/note.ts'
import { isEqual } from '../tlog/text.ts'
import { type AddCheckpoint, parseAddCheckpoint } from '../tlog/witness.ts'
import type { WitnessState } from './state.ts'

export interface WitnessDeps {
  /** Keys of the rolls that it knows: each is for the origin of its name. */
  readonly logs: readonly VerifierKey[]
  readonly signer: Omit<NoteSigner, 'time'>
  readonly state: WitnessState
  readonly hasher: TreeHasher
  readonly verify: VerifyEd25519
  /** Seconds since 1970. */
  readonly now: () => number
}

export interface WitnessAnswer {
  readonly status: 200 | 400 | 403 | 404 | 409 | 422 | 503
  readonly body: string
  /** Of the body; text where there is none. */
  readonly type?: string
  /** Seconds. */
  readonly retryAfter?: number
}

export interface WitnessService {
  /** What `POST /add-checkpoint` is answered with. Rejects only where nothing could be kept: then nothing was cosigned. */
  add(body: Uint8Array): Promise<WitnessAnswer>
}

export const openWitness = (deps: WitnessDeps): WitnessService => {
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0
  return {
    add: async (body) => {
      const asked = read(deps, body)
      if ('status' in asked) return asked
      if (waiting >= mostWaiting) return busy
      waiting += 1
      const next = last.then(() => add(deps, asked))
      last = next.catch(() => {})
      return next.finally(() => {
        waiting -= 1
      })
    },
  }
}

/** A signature is looked at only when its turn has come. */
const add = async (deps: WitnessDeps, asked: Asked): Promise<WitnessAnswer> => {
  const opened = await verified(asked, deps.verify)
  if ('status' in opened) return opened
  const { origin, size, root } = opened
  const known = deps.state.last(origin) ?? { size: 0, root: deps.hasher.empty }
  if (asked.old !== known.size || (size === known.size && size > 0 && !isEqual(root, known.root)))
    return conflict(known.size)
  const claim = { from: known.size, to: size, fromRoot: known.root, toRoot: root, proof: asked.proof }
  if (!verifyConsistency(claim, deps.hasher)) return refuse(422, 'the proof of consistency does not hold')
  // What it has seen already is kept already, and asking for it again costs nobody a disk.
  if (size > known.size) await deps.state.keep({ origin, size, root })
  const { text } = parseNote(asked.checkpoint)
  return { status: 200, body: encodeSignatures([await signText(text, { ...deps.signer, time: deps.now() })]) }
}

interface Asked extends AddCheckpoint {
  /** Of the roll. */
  readonly keys: readonly VerifierKey[]
}

/** What costs next to nothing to see, of whoever asks: before anything waits, or a signature is verified. */
const read = ({ logs }: WitnessDeps, body: Uint8Array): Asked | WitnessAnswer => {
  try {
    const asked = parseAddCheckpoint(body)
    const { text } = parseNote(asked.checkpoint)
    const [origin] = text.split('\n', 1)
    const keys = logs.filter(({ name }) => name === origin)
    if (keys.length === 0) return refuse(404, 'this witness does not know the roll')
    const { size } = parseCheckpoint(text)
    if (asked.old > size) return refuse(400, 'the old size is larger than that of the checkpoint')
    if (asked.proof.length !== consistencyLength(asked.old, size))
      return refuse(422, 'the proof of consistency is not as long as that of these sizes')
    return { ...asked, keys }
  } catch (error) {
    if (!isRollFault(error)) throw error
    return refuse(400, error.detail)
  }
}

/** A key that signs something else, or not at all, is no key of the roll; a text that is none is malformed. */
const verified = async (
  { checkpoint, keys: roll }: Asked,
  verify: VerifyEd25519,
): Promise<SignedCheckpoint | WitnessAnswer> => {
  try {
    return await openCheckpoint(checkpoint, { roll }, verify)
  } catch (error) {
    if (!isRollFault(error)) throw error
    return refuse(forbidden.has(error.code) ? 403 : 400, error.detail)
  }
}

const forbidden: ReadonlySet<FaultCode> = new Set(['note.unsigned', 'note.signature', 'checkpoint.origin'])

const conflict = (size: number): WitnessAnswer => ({ status: 409, body: `${size}\n`, type: 'text/x.tlog.size' })
const refuse = (status: 400 | 403 | 404 | 422, reason: string): WitnessAnswer => ({ status, body: `${reason}\n` })

/** Each is a sync of the disk at most: some seconds of them. */
const mostWaiting = 64
const busy: WitnessAnswer = { status: 503, body: 'too many ask at once\n', retryAfter: 5 }

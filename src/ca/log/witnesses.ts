/**
 * Witnesses: others who look at each checkpoint of the roll, and sign that it has grown out of the one that they saw before
 * (c2sp.org/tlog-witness). They are asked beside issuing, and nothing waits for them. One that disagrees has seen another
 * roll of ours: that is told loudly, and stops nothing, since it may as well be the one who is wrong.
 */

import type { Log } from '../../log.ts'
import { isRollFault, RollFault } from '../../tlog/fault.ts'
import type { Hash } from '../../tlog/merkle.ts'
import {
  encodeSignatures,
  type NoteSignature,
  parseNote,
  parseSignatures,
  type VerifierKey,
  type VerifyEd25519,
  verifyNote,
} from '../../tlog/note.ts'
import { encodeAddCheckpoint, parseKnownSize } from '../../tlog/witness.ts'
import type { Published } from './checkpoints.ts'

export interface Witness {
  /** `/add-checkpoint` is below it; without a slash at its end. */
  readonly url: string
  readonly key: VerifierKey
}

export interface Cosigned extends Published {
  /** Milliseconds, by a clock that nobody sets. */
  readonly at: number
}

export interface WitnessFigures {
  readonly witness: string
  /** Seconds since 1970, as it says itself, and never in the future; undefined before its first. */
  readonly cosignedAt: number | undefined
  readonly failures: number
  /** It has seen another roll, and has cosigned nothing of this one since. */
  readonly disagrees: boolean
}

export interface Witnesses {
  /** Asks each for the newest checkpoint. Never rejects for what a witness does. */
  ask(): Promise<void>
  /** The newest checkpoint with cosignatures. */
  newest(): Cosigned | undefined
  /** The same while it may be shown in place of a newer one that nobody else has seen. */
  fresh(): Cosigned | undefined
  figures(): readonly WitnessFigures[]
  /** Which of them have seen another roll, if any. */
  warning(): string | undefined
}

export interface WitnessesDeps {
  readonly witnesses: readonly Witness[]
  /** Signed, over the head as it is now. */
  readonly checkpoint: () => Promise<Published>
  /** That the roll of one size has grown out of that of another. */
  readonly proof: (from: number, to: number) => Promise<readonly Hash[]>
  /** Rejects where there is no answer in time. */
  readonly post: (url: string, body: string) => Promise<{ readonly status: number; readonly text: string }>
  readonly verify: VerifyEd25519
  /** Seconds since 1970. */
  readonly now: () => number
  readonly elapsedMs?: () => number
  readonly log: Log
}

export const openWitnesses = (deps: WitnessesDeps): Witnesses => {
  const { elapsedMs = () => performance.now() } = deps
  const asked = deps.witnesses.map(openAsked)
  let newest: (Cosigned & { readonly count: number }) | undefined
  return {
    ask: async () => {
      if (asked.length === 0) return
      const checkpoint = await deps.checkpoint()
      if (checkpoint.size === 0) return
      const answers = await Promise.all(asked.map((one) => askOne(deps, one, checkpoint)))
      const signatures = answers.filter((answer) => answer !== undefined)
      const at = elapsedMs()
      // Fewer than before are better than none only when those of before are old.
      if (signatures.length === 0 || (newest && signatures.length < newest.count && at - newest.at < lastingMs)) return
      const note = `${checkpoint.note}${encodeSignatures(signatures)}`
      newest = { ...checkpoint, note, at, count: signatures.length }
    },
    newest: () => newest,
    fresh: () => (newest && elapsedMs() - newest.at < freshMs ? newest : undefined),
    figures: () =>
      asked.map(({ witness, cosignedAt, failures, disagrees }) => ({
        witness: witness.key.name,
        ...{ cosignedAt, failures, disagrees },
      })),
    warning: () => {
      const others = asked.filter(({ disagrees }) => disagrees).map(({ witness }) => witness.key.name)
      return others.length === 0 ? undefined : `another roll of ours was seen by ${others.join(' and ')}`
    },
  }
}

/** What is known of one. */
interface Asked {
  readonly witness: Witness
  /** That it has cosigned last, as far as it told. */
  size: number
  /** How often in a row it knew more than there is here. */
  ahead: number
  cosignedAt: number | undefined
  failures: number
  disagrees: boolean
}

const openAsked = (witness: Witness): Asked => ({
  witness,
  size: 0,
  ahead: 0,
  cosignedAt: undefined,
  failures: 0,
  disagrees: false,
})

const askOne = async (deps: WitnessesDeps, asked: Asked, checkpoint: Published): Promise<NoteSignature | undefined> => {
  const { log } = deps
  const witness = asked.witness.key.name
  try {
    const signature = await obtain(deps, asked, checkpoint)
    // That it is ahead takes nothing back: of two rolls, it may have cosigned more of the other just now.
    if (signature) asked.disagrees = false
    return signature
  } catch (err) {
    asked.failures += 1
    if (err instanceof Disagreement) {
      asked.disagrees = true
      log.error({ event: 'witness.disagrees', witness, size: checkpoint.size, err }, 'a witness has seen another roll')
    } else log.warn({ event: 'witness.failed', witness, err }, 'a witness has not cosigned')
    return undefined
  }
}

/** Undefined where another replica has got further just now. */
const obtain = async (deps: WitnessesDeps, asked: Asked, checkpoint: Published): Promise<NoteSignature | undefined> => {
  const { url, key } = asked.witness
  for (let tries = 0; tries < 3; tries += 1) {
    const old = asked.size
    if (old > checkpoint.size) return isAhead(deps, asked)
    const proof = await deps.proof(old, checkpoint.size)
    const body = encodeAddCheckpoint({ old, proof, checkpoint: checkpoint.note })
    const { status, text } = await deps.post(`${url}/add-checkpoint`, body)
    if (status === 200) {
      const signature = await readCosignature(text, checkpoint, key, deps.verify)
      asked.size = checkpoint.size
      asked.ahead = 0
      // One whose clock is ahead would not be missed for as long as that.
      asked.cosignedAt = Math.min(signature.time ?? Number.POSITIVE_INFINITY, deps.now())
      return signature.signature
    }
    if (status === 422) throw new Disagreement('it says that the checkpoint does not go on from what it has seen')
    if (status !== 409) throw new Error(`it answered ${status}`)
    const known = parseKnownSize(text)
    if (known === old && known === checkpoint.size) throw new Disagreement('it has seen another root of this size')
    if (known === old) throw new Error('it answered 409 to the size that it asked for')
    asked.size = known
  }
  throw new Error('its size changed each time')
}

/** Of a busy roll it may know more each time, if it takes its time and others ask as well: as much as there is by now. */
const isAhead = async (deps: WitnessesDeps, asked: Asked): Promise<undefined> => {
  const said = asked.size
  const { size } = await deps.checkpoint()
  if (said <= size) {
    asked.ahead = 0
    return undefined
  }
  asked.ahead += 1
  // What it said may have been wrong, or of before a recovery: it is asked again.
  asked.size = 0
  if (asked.ahead > patience) throw new Disagreement(`it has cosigned ${said} entries, and there are ${size}`)
  return undefined
}

const readCosignature = async (
  text: string,
  { note }: Published,
  key: VerifierKey,
  verify: VerifyEd25519,
): Promise<{ readonly signature: NoteSignature; readonly time: number | undefined }> => {
  try {
    const signatures = parseSignatures(text)
    const signature = signatures.find(({ name, id }) => name === key.name && id === key.id)
    const [signed] = await verifyNote({ text: parseNote(note).text, signatures }, [key], verify)
    if (!signature || !signed) throw new RollFault('note.unsigned', 'none of its signatures is its own')
    return { signature, time: signed.time }
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Error(`its cosignature does not hold: ${error.message}`)
  }
}

class Disagreement extends Error {}

const lastingMs = 60_000
/** What a cosigned checkpoint may be old, to be shown. */
const freshMs = 20_000
/** Rounds: replicas are a second apart. */
const patience = 3

/**
 * What a witness has cosigned last of each roll: a file that is replaced as a whole, durable before a cosignature is handed
 * out. It is all that a witness is worth, so it belongs to one process, and is never guessed at.
 */
import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

import { type Checkpoint, encodeCheckpoint, parseCheckpoint } from '../tlog/checkpoint.ts'
import { isRollFault } from '../tlog/fault.ts'

export interface WitnessState {
  /** Undefined for a roll of which nothing was ever cosigned. */
  last(origin: string): Checkpoint | undefined
  /** Durable when it resolves. One call after the other. */
  keep(checkpoint: Checkpoint): Promise<void>
}

/** Throws a sentence where the file is not as it was written, or is not there: of a new witness it is empty. */
export const openWitnessState = async (path: string): Promise<WitnessState> => {
  let text = await readText(path)
  if (text === undefined) throw new Error(forgotten(path))
  const known = readState(path, text)
  // What was put in its place when the one before was killed may not last yet: what is known already is cosigned without a write.
  await syncFolder(dirname(path))
  /** Of a write that failed, perhaps after it was in its place. */
  let uncertain: string | undefined
  return {
    last: (origin) => known.get(origin),
    keep: async (checkpoint) => {
      const there = await readText(path)
      if (there !== undefined && there === uncertain) text = there
      if (there !== text) throw new Error(`${path} was changed by somebody else`)
      const next = new Map(known).set(checkpoint.origin, checkpoint)
      const written = [...next.values()].map((one) => `${encodeCheckpoint(one)}\n`).join('')
      uncertain = written
      await replace(path, written)
      text = written
      known.set(checkpoint.origin, checkpoint)
    },
  }
}

const forgotten = (path: string): string =>
  `${path} is not there, though the key of this witness is: what it has cosigned is forgotten, and it would cosign a fork. Bring the newest file back; if it is lost, give the witness a new name and a new key (docs/witness.md). Only one that has never cosigned begins with an empty file.`

const readText = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })

/** Checkpoints without their signatures, each with an empty line behind it. */
const readState = (path: string, text: string): Map<string, Checkpoint> => {
  const parts = text.split('\n\n')
  try {
    if (parts.pop() !== '') throw new Error('it ends within a checkpoint')
    const checkpoints = parts.map((part) => parseCheckpoint(`${part}\n`))
    const known = new Map(checkpoints.map((one) => [one.origin, one]))
    if (known.size !== checkpoints.length) throw new Error('it has two checkpoints of one roll')
    return known
  } catch (error) {
    const reason = isRollFault(error) ? error.detail : (error as Error).message
    throw new Error(
      `${path} is damaged: ${reason}. It is what keeps this witness from cosigning a fork; see docs/witness.md.`,
    )
  }
}

const replace = async (path: string, text: string): Promise<void> => {
  const draft = `${path}.new`
  const file = await open(draft, 'w', 0o600)
  await file
    .writeFile(text)
    .then(() => file.datasync())
    .finally(() => file.close())
  await rename(draft, path)
  await syncFolder(dirname(path))
}

const syncFolder = async (path: string): Promise<void> => {
  const folder = await open(path, 'r')
  await folder.sync().finally(() => folder.close())
}

/**
 * What a verification remembers until the next: the state of the verifier, and every checkpoint that was ever seen, in a
 * folder. The state moves on only when nothing was found; checkpoints are kept whatever was found, since they are evidence.
 */
import { hash } from 'node:crypto'
import { open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { Failure } from '../lib/failure.ts'
import { makeFolder } from '../lib/fs.ts'
import { parseCheckpoint } from '../tlog/checkpoint.ts'
import { parseNote } from '../tlog/note.ts'
import type { VerifierState } from '../tlog/verify.ts'

export interface GivenNote {
  readonly note: Buffer
  /** The file that it is in, where it is in one. */
  readonly name?: string
}

export interface SeenCheckpoint extends GivenNote {
  readonly size: number
}

export interface StateFolder {
  readonly state: VerifierState | undefined
  /** Of all sizes. */
  readonly seen: readonly SeenCheckpoint[]
  see(note: Buffer): Promise<void>
  save(state: VerifierState): Promise<void>
}

/** Throws a usage failure for what cannot be read: a state that is damaged is not begun anew without being told so. */
export const openStateFolder = async (folder: string): Promise<StateFolder> => {
  const checkpoints = join(folder, 'checkpoints')
  await makeFolder(checkpoints).catch(({ code }: NodeJS.ErrnoException) => {
    throw new Failure('usage', `${folder} cannot be written (${code}); --state names a folder.`)
  })
  const names = (await readdir(checkpoints)).filter((name) => !name.endsWith('.new'))
  return {
    state: await readState(join(folder, 'state')),
    seen: await Promise.all(names.map((name) => seenIn(join(checkpoints, name)))),
    see: (note) => writeWhole(join(checkpoints, hash('sha256', note).slice(0, 32)), [note]),
    save: (state) => writeWhole(join(folder, 'state'), linesOf(state)),
  }
}

const seenIn = async (name: string): Promise<SeenCheckpoint> => ({ ...seenOf(await readFile(name)), name })

/** The size it says; whether it is signed is for the verifier to find. */
export const seenOf = (note: Buffer): SeenCheckpoint => {
  try {
    return { size: parseCheckpoint(parseNote(note).text).size, note }
  } catch {
    return { size: 0, note }
  }
}

/** In one piece or not at all, also when the machine stops. Rejects with a `Failure` that names the file. */
export const writeWhole = async (path: string, parts: Iterable<string | Uint8Array>): Promise<void> => {
  try {
    await makeFolder(dirname(path))
    await writeBeside(`${path}.new`, parts)
    await rename(`${path}.new`, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new Failure('usage', `${path} cannot be written (${code}); what was there is kept.`)
  }
}

/** What is not whole is not left there to take the room that was missing. */
const writeBeside = async (path: string, parts: Iterable<string | Uint8Array>): Promise<void> => {
  const file = await open(path, 'w')
  try {
    // From where the last one ended.
    for (const part of parts) await file.writeFile(part)
    await file.datasync()
  } catch (error) {
    await rm(path, { force: true })
    throw error
  } finally {
    await file.close()
  }
}

/** A line of its own for each piece of the serials: no string grows with the roll. */
function* linesOf({ history: { serials, ...history }, ...state }: VerifierState): Generator<string> {
  yield `${JSON.stringify({ ...state, history, pieces: serials.length })}\n`
  for (const piece of serials) yield `${piece}\n`
}

const readState = async (path: string): Promise<VerifierState | undefined> => {
  const file = await open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new Failure('usage', `The state ${path} cannot be read (${error.code}).`)
  })
  if (file === undefined) return undefined
  const lines: string[] = []
  for await (const line of file.readLines()) lines.push(line)
  try {
    const { pieces, ...state } = JSON.parse(lines.shift() as string)
    if (state.v === 1 && pieces === lines.length) return { ...state, history: { ...state.history, serials: lines } }
  } catch {
    // Told below.
  }
  throw new Failure('usage', `${path} is damaged: verify from the start with another --state.`)
}

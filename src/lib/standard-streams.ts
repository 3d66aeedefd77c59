/**
 * What a command prints goes to somebody who may stop reading, or to a disk that may be full. Neither ends what it does; whoever
 * asked for what was printed learns by the exit code that it is not whole.
 */
import { writeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Writable } from 'node:stream'

import { Failure } from './failure.ts'

export interface StandardStreams {
  /** Why not all of standard output is where it belongs. */
  fault(): Failure | undefined
}

/** For commands whose answer is on standard output, before anything is printed. */
export const guardStreams = (): StandardStreams => {
  let broken: NodeJS.ErrnoException | undefined
  if (isFile(process.stdout))
    writeAllOf(process.stdout, (error) => {
      broken ??= error
    })
  // Whoever has read enough of a pipe, as `head` has, misses nothing.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  return {
    fault: () => broken && new Failure('usage', `Standard output cannot be written (${broken.code}); it is not whole.`),
  }
}

/** For the lines of a log, which goes on when there is room again: one that was broken off spoils none after it. */
export const openLines = (): ((line: string) => void) => {
  let isTorn = false
  return (line) => {
    if (!isFile(process.stdout)) return void process.stdout.write(line)
    const octets = Buffer.from(isTorn ? `\n${line}` : line)
    try {
      writeWhole(octets, (at) => {
        isTorn = octets[at - 1] !== lineEnd
      })
    } catch {
      // What it would tell stands in the notes as well.
    }
  }
}

/** Or a device; of a pipe or a terminal Node has a socket. */
const isFile = (stream: Writable): boolean => !(stream instanceof Socket)

/** Node's stream of a file takes the part that a disk had room for as the whole. */
const writeAllOf = (stream: Writable, onFault: (error: Error) => void): void => {
  stream._write = (chunk: Buffer, _encoding, done) => {
    try {
      writeWhole(chunk)
      done()
    } catch (error) {
      onFault(error as Error)
      done(error as Error)
    }
  }
}

/** `written` is told how much of it is there. */
const writeWhole = (octets: Buffer, written?: (at: number) => void): void => {
  for (let at = 0; at < octets.length; written?.(at)) at += writeSync(standardOutput, octets, at)
}

const standardOutput = 1
const lineEnd = 0x0a

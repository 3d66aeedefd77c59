/**
 * The log of a process that serves: lines to standard output or standard error. Whoever reads them may stall or go away, and the
 * disk that they go to may be full. That stops neither the service nor its end, and takes bounded memory; lines that had no room are
 * counted, and told once others are taken again.
 */
import { constants, openSync, write, writeSync } from 'node:fs'
import { isatty } from 'node:tty'

import { type Logger, pino } from 'pino'

import { type Log, logOptions } from '../log.ts'

export type ServiceLog = Logger & Required<Pick<Log, 'stalledSeconds'>>

export interface Place {
  readonly fd: number
  /** Lines go out together: a write for each costs 16 µs of every certificate (measured). A kill loses those of this time. */
  readonly gatherMs: number
}

export const openServiceLog = (level: string, place: Place): ServiceLog => {
  // Without a listener an error of these ends the process. It also has Node open them: pipes do not block from then on.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  const lines = openLines(place, (lost) =>
    log.warn({ event: 'log.lost', lines: lost }, 'lines had no room while nobody took any'),
  )
  process.on('exit', lines.flush)
  const log = pino(logOptions(level), lines)
  return Object.assign(log, { stalledSeconds: lines.stalledSeconds })
}

/** `tellLost` is told of how many lines were lost, when there is room again, and writes another one. */
const openLines = ({ fd: named, gatherMs }: Place, tellLost: (lines: number) => void) => {
  const fd = unblocked(named)
  let waiting: string[] = []
  let waitingLength = 0
  let underWay = Buffer.alloc(0)
  let isWriting = false
  let isDue = false
  let lost = 0
  let movedAt = 0
  let patienceMs = firstRetryMs

  const held = (): number => underWay.length + waitingLength
  const later = (ms: number): void => {
    if (isDue) return
    isDue = true
    setTimeout(() => {
      isDue = false
      put()
    }, ms).unref()
  }
  const take = (): void => {
    if (underWay.length > 0 || waitingLength === 0) return
    underWay = Buffer.from(waiting.join(''))
    waiting = []
    waitingLength = 0
  }
  const moved = (octets: number): void => {
    underWay = underWay.subarray(octets)
    patienceMs = firstRetryMs
    movedAt = performance.now()
    if (lost === 0 || underWay.length > 0) return
    const lines = lost
    lost = 0
    tellLost(lines)
  }
  const put = (): void => {
    take()
    if (isWriting || underWay.length === 0) return
    isWriting = true
    write(fd, underWay, (error, octets) => {
      isWriting = false
      // Whatever it is may pass: a reader comes back, a disk is given room. The rest of a line that was broken off is kept.
      if (error) {
        later(patienceMs)
        patienceMs = Math.min(patienceMs * 2, mostRetryMs)
        return
      }
      moved(octets)
      if (underWay.length > 0 || waitingLength >= enough) put()
      else if (waitingLength > 0) later(gatherMs)
    })
  }
  return {
    write: (line: string): void => {
      if (held() + line.length > mostHeld) {
        lost += 1
        return
      }
      if (held() === 0) movedAt = performance.now()
      waiting.push(line)
      waitingLength += line.length
      // What is under way, or waits to be tried again, is put first.
      if (underWay.length > 0) return
      if (waitingLength >= enough) put()
      else later(gatherMs)
    },
    stalledSeconds: (): number => (held() === 0 ? 0 : (performance.now() - movedAt) / 1000),
    /** At the end of the process, when nothing can be waited for any more but by force. */
    flush: (): void => {
      // How much of what is being written will be there, nobody learns.
      if (isWriting) underWay = Buffer.alloc(0)
      const until = performance.now() + flushMs
      for (take(); underWay.length > 0 && performance.now() < until; take())
        try {
          moved(writeSync(fd, underWay))
        } catch {
          Atomics.wait(pause, 0, 0, flushRetryMs)
        }
    },
  }
}

/** Node has terminals block, where whoever writes, and the end of the process with him, waits for one that stands still. */
const unblocked = (fd: number): number => {
  try {
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants
    return isatty(fd) ? openSync(`/dev/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY) : fd
  } catch {
    // As the terminal of somebody else.
    return fd
  }
}

/** A batch that need not wait for more, in characters. */
const enough = 4096
/** Some 16,000 lines. */
const mostHeld = 4_194_304
/** A pipe holds 64 KiB: its reader, who may be only behind by that, gets no more each time. */
const firstRetryMs = 1
const mostRetryMs = 100
const flushMs = 500
const flushRetryMs = 2
const pause = new Int32Array(new SharedArrayBuffer(4))

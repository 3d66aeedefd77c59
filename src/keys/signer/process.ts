/** One signer process as a partner in talk: questions, answers, what it says unasked, and its end. */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'

import type { Log } from '../../log.ts'
import { type KeyLoad, noLoad } from '../key-load.ts'
import { openQuestions } from './questions.ts'
import { answers, decodeJson, openSignerStream, type SaidRecord, type SignerRecord } from './stream.ts'

export interface SignerProcessDeps {
  readonly log: Log
  readonly script: string
  readonly env: Readonly<Record<string, string | undefined>>
  /** Which signer it is, for the log. */
  readonly place: string
  /** For what waits outside of the event loop: a session of a token holds one. */
  readonly threads: number
  /** It answers what it was asked until now, and then ends: nothing more should be asked. */
  readonly leaving: (reason: string) => void
  /** Told once, with the reason. Every question was answered before, with undefined. */
  readonly ended: (reason: string) => void
}

export interface SignerProcess {
  /** Undefined when the process ended first, or was silent for so long that it was killed. */
  ask(kind: number, body: SaidRecord['body'], patienceMs: number): Promise<SignerRecord | undefined>
  /** Wants no answer. */
  say(kind: number, body: Buffer): void
  /** Why it could not begin; undefined as far as is known. */
  readonly unfit: string | undefined
  /** Why it ended, or is about to: nothing that is asked from then on reaches it. */
  readonly reason: string | undefined
  load(): KeyLoad
  /** Lets it finish what it has, and waits. */
  end(): Promise<void>
}

export const openSignerProcess = (deps: SignerProcessDeps): SignerProcess => {
  try {
    return talkTo(startProcess(deps), deps)
  } catch (error) {
    return stillborn((error as Error).message, deps.ended)
  }
}

/** Throws where the system has no room for it, of descriptors or memory: of those lacks no event tells, or not all. */
const startProcess = ({ script, env, threads }: SignerProcessDeps): ChildProcess => {
  const child = spawn(process.execPath, [...flags, script], {
    env: { ...env, UV_THREADPOOL_SIZE: String(threads) },
    // A module that prints does not print into our log, nor into what a command answers.
    stdio: ['ignore', process.stderr.fd, 'inherit', 'pipe'],
  })
  if (child.stdio !== undefined) return child
  // Told once more, later.
  child.on('error', () => {})
  throw new Error('no file descriptor is left for a signer process')
}

/** One that never was: it ends as soon as whoever started it has it. */
const stillborn = (reason: string, ended: SignerProcessDeps['ended']): SignerProcess => {
  setImmediate(ended, reason)
  return {
    ask: async () => undefined,
    say: () => {},
    reason,
    unfit: undefined,
    load: () => noLoad,
    end: async () => {},
  }
}

const talkTo = (child: ChildProcess, { log, place, leaving, ended }: SignerProcessDeps): SignerProcess => {
  let load = noLoad
  let unfit: string | undefined
  let why: string | undefined
  let over = false

  const kill = (reason: string): void => {
    why ??= reason
    child.kill('SIGKILL')
  }
  const questions = openQuestions((patienceMs) => {
    if (child.killed) return
    log.error({ event: 'signer.silent', place, patienceMs }, 'a signer process does not answer, and is killed')
    kill(`no answer within ${patienceMs} ms`)
  })
  const unasked: Readonly<Record<number, (body: Buffer) => void>> = {
    [answers.unfit]: (body) => {
      unfit = body.toString('utf8')
    },
    [answers.leaving]: (body) => {
      why = body.toString('utf8')
      leaving(why)
      // So that it knows what was our last word, and answers all before that.
      void stream.end()
    },
    [answers.load]: (body) => {
      load = decodeJson(body) as KeyLoad
    },
  }
  const socket = socketOf(child)
  const stream = openSignerStream(socket, (record) => {
    if (!questions.answer(record)) unasked[record.kind]?.(record.body)
  })
  socket.on('error', (error) => {
    log.warn({ event: 'signer.socket', place, err: error }, 'the socket of a signer process broke')
    child.kill('SIGKILL')
  })
  const exited = new Promise<void>((resolve) => {
    const finish = (reason: string): void => {
      if (over) return
      over = true
      why ??= reason
      questions.end()
      socket.destroy()
      ended(unfit ?? why)
      resolve()
    }
    child.once('error', (error) => finish(error.message))
    // `close`, not `exit`: answers may still lie in the socket.
    child.once('close', (code, signal) => finish(signal ? `killed by ${signal}` : `exit code ${code}`))
  })

  return {
    ask: (kind, body, patienceMs) => {
      if (over) return Promise.resolve(undefined)
      return new Promise((resolve) => stream.say({ id: questions.add(resolve, patienceMs), kind, body }))
    },
    say: (kind, body) => {
      if (!over) stream.say({ id: 0, kind, body })
    },
    get reason() {
      return unfit ?? why
    },
    get unfit() {
      return unfit
    },
    load: () => load,
    end: async () => {
      if (!over) void stream.end()
      const timer = setTimeout(() => child.kill('SIGKILL'), endWithinMs)
      await exited
      clearTimeout(timer)
    },
  }
}

const socketOf = (child: ChildProcess): Socket => child.stdio[3] as unknown as Socket

/** Little is kept in it: small heaps. */
const flags = ['--disable-proto=delete', '--disable-sigusr1', '--max-semi-space-size=1', '--max-old-space-size=128']
const endWithinMs = 5_000

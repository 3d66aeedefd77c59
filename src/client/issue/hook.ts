/** Telling those who use a certificate that there is a new one: by a command of theirs. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'

import { Failure } from '../../lib/failure.ts'
import { visible } from '../../lib/output.ts'

export class ExecFailure extends Failure {
  /** Without what the command has printed, which may be secret. */
  readonly brief: string

  constructor(failure: string, said: string) {
    const brief = visible(failure)
    const detail = said === '' ? brief : `${brief}: ${visible(said)}`
    super('later', sentenceOf(detail), { code: 'exec.failed', detail, retryable: true })
    this.brief = sentenceOf(brief)
  }
}

const sentenceOf = (detail: string): string =>
  `The new certificate is in its place, but --exec failed: ${detail}\nThe same command tries it again.`

/**
 * Runs it to its end. Resolves to what can be tried again when it did not succeed, or took longer than `longestMs`; then it is
 * ended with all that it has started, and not waited for any more where it runs as somebody whose processes we cannot end. It
 * gets no token of ours. What it leaves running when it succeeds goes on, and is not waited for.
 */
export const tellBy = async (
  [program = '', ...args]: readonly string[],
  signal: AbortSignal | undefined,
  longestMs = usualMs,
): Promise<Failure | undefined> => {
  const { CHANCERY_TOKEN: _token, ...env } = process.env
  // A group of its own, so that all of it can be ended.
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-longestText)
    })
  const closed = once(child, 'close').catch(() => {})
  const interrupts = openInterrupts()
  const ending = AbortSignal.any([AbortSignal.timeout(longestMs), interrupts.signal, ...(signal ? [signal] : [])])
  const left = Promise.withResolvers<string>()
  const end = (): void => void endAll(child).then(left.resolve)
  ending.addEventListener('abort', end, { once: true })
  if (ending.aborted) end()
  const failure = await Promise.race([endOf(child), left.promise])
  ending.removeEventListener('abort', end)
  interrupts.close()
  // Whatever it has started may hold the other ends of the pipes for as long as it likes.
  await Promise.race([closed, wait(lastWordsMs, undefined, { ref: false })])
  child.stdout.destroy()
  child.stderr.destroy()
  child.unref()
  if (failure === undefined) return undefined
  return new ExecFailure(`${program} ${failure}`, said.trim())
}

/** Of the command itself: undefined where it succeeded. */
const endOf = (child: ChildProcess): Promise<string | undefined> =>
  new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, killer) =>
      resolve(code === 0 ? undefined : killer ? `was ended by ${killer}` : `ended with ${code}`),
    )
  })

/** What does not end by itself when it is asked to is ended a little later. Resolves to what is said where even that was in vain. */
const endAll = async (child: ChildProcess): Promise<string> => {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    signalGroup(child, signal)
    await wait(graceMs, undefined, { ref: false })
  }
  return 'was to end and goes on: it cannot be ended by who runs this'
}

const signalGroup = ({ pid }: ChildProcess, signal: NodeJS.Signals): void => {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch (error) {
    // All of it has ended, or is another user's, as under sudo.
    if (!['ESRCH', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

/** A terminal sends its signals to our group alone. */
const openInterrupts = (): { readonly signal: AbortSignal; close(): void } => {
  const interrupted = new AbortController()
  const interrupt = (): void => interrupted.abort()
  for (const name of interrupts) process.on(name, interrupt)
  return {
    signal: interrupted.signal,
    close: () => {
      for (const name of interrupts) process.off(name, interrupt)
    },
  }
}

const interrupts = ['SIGINT', 'SIGTERM'] as const
/** Milliseconds. */
const usualMs = 60_000
const graceMs = 3_000
const lastWordsMs = 200
const longestText = 2_000

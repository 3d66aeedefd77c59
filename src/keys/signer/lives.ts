/**
 * The processes of one place, one after the other: started when somebody asks or as long as it is wanted, after a pause
 * that grows while starts end badly.
 */
import { addLoads, afterEnd, type KeyLoad, noLoad } from '../key-load.ts'
import { type Life, type LifeDeps, openLife } from './life.ts'

export interface LivesDeps extends Omit<LifeDeps, 'leaving' | 'ended'> {
  /** Whether the next is started though nobody asks for it. */
  readonly isWanted: () => boolean
}

export interface Lives {
  /** The process that takes questions, where there is one. */
  readonly now: Life | undefined
  /** That, or the next. Rejects after `close`. */
  next(): Promise<Life>
  /** Why there is none. */
  readonly reason: string
  /** Of all that there were. */
  load(): KeyLoad
  /** Ends the one that there is, and waits. */
  dismiss(): Promise<void>
  /** No other is started, and whoever waits for one is told. */
  close(): Promise<void>
}

export const openLives = ({ isWanted, ...deps }: LivesDeps): Lives => {
  const { log, place } = deps
  let isClosed = false
  let restart: NodeJS.Timeout | undefined
  let pauseMs = firstPauseMs
  let notBefore = 0
  let reason = ''
  /** The process that is there; and as long as it takes questions. */
  let current: Life | undefined
  let now: Life | undefined
  let awaited: PromiseWithResolvers<Life> | undefined
  /** Of the processes that there were. */
  let past = noLoad

  const startAgain = (): void => {
    if (current === undefined && !isClosed) restart ??= setTimeout(start, Math.max(0, notBefore - performance.now()))
  }
  const start = (): void => {
    restart = undefined
    let isDismissed = false
    const started = openLife({
      ...deps,
      leaving: (why) => {
        now = undefined
        reason = why
      },
      ended: (why, didWell) => {
        past = addLoads(past, afterEnd(started.load()))
        current = undefined
        now = undefined
        if (isDismissed) reason = 'nobody had a key of it'
        else ended(why, didWell)
        if (awaited || isWanted()) startAgain()
      },
    })
    current = {
      ...started,
      end: () => {
        isDismissed = true
        return started.end()
      },
    }
    now = started
    awaited?.resolve(started)
    awaited = undefined
  }
  const ended = (why: string, didWell: boolean): void => {
    if (didWell) pauseMs = firstPauseMs
    reason = why
    log.error({ event: 'signer.ended', place, reason, pauseMs }, 'a signer process ended')
    notBefore = performance.now() + pauseMs
    pauseMs = Math.min(pauseMs * 2, longestPauseMs)
  }
  const dismiss = async (): Promise<void> => {
    now = undefined
    await current?.end()
  }

  return {
    get now() {
      return now
    },
    next: async () => {
      if (isClosed) throw new Error(closedMessage)
      if (now) return now
      awaited ??= Promise.withResolvers()
      startAgain()
      return awaited.promise
    },
    get reason() {
      return reason
    },
    load: () => addLoads(past, current?.load() ?? noLoad),
    dismiss,
    close: () => {
      isClosed = true
      clearTimeout(restart)
      awaited?.reject(new Error(closedMessage))
      return dismiss()
    },
  }
}

export const closedMessage = 'The signer processes are closed.'
const firstPauseMs = 100
const longestPauseMs = 2_000

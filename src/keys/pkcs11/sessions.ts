/**
 * Sessions of one token: each does one operation at a time, whoever comes first is served first, and no more wait than
 * the bound says. A session that failed is closed, and another opened when it is needed. The token forgets the login with
 * its last session: that one is closed after another was opened, where the token allows it. Fewer are used at a time where
 * the token was seen to do one operation after another, and slower than it is asked.
 */
import type { Handle } from 'pkcs11js'

import type { KeyLoad } from '../key-load.ts'
import { judgeFailure, sessionCount } from './return-values.ts'

export interface SessionsOptions {
  /** At the most. Fewer where the token does not give as many: asked again after a while, since others may have had them. */
  readonly size: number
  /** How many may wait. */
  readonly bound: number
  /** Open already. */
  readonly first: readonly Handle[]
  readonly open: () => Handle
  readonly close: (session: Handle) => void
  /** Milliseconds that only grow; injected for tests. */
  readonly now?: () => number
}

export interface Sessions {
  /** A session for one operation, or why there is none within the time. */
  take(withinMs: number): Promise<Handle | 'late' | 'full'>
  /** After an operation that ended well. */
  give(session: Handle): void
  /** One that was not used. */
  giveBack(session: Handle): void
  /** After one that did not: the session is not used again. */
  discard(session: Handle): void
  /** An operation hangs in it: neither used again nor closed, and what it held of the size stays held. */
  abandon(session: Handle): void
  /** No more at a time than this from now on; one more after each while. */
  narrow(to: number): void
  /** Nobody waits for longer than this from now on, and nobody is given a session after it. */
  hurry(withinMs: number): void
  /** As many as there ever are at the same time. */
  readonly most: number
  /** How many operations have ended well. */
  readonly ended: number
  readonly load: Omit<KeyLoad, 'failures'>
}

interface Waiter {
  readonly serve: (session: Handle) => void
  readonly fail: (error: unknown) => void
  readonly giveUp: () => void
  readonly timer: NodeJS.Timeout
}

export const openSessions = ({
  size: most,
  bound,
  first,
  open,
  close,
  now = () => performance.now(),
}: SessionsOptions): Sessions => {
  const idle: Handle[] = [...first]
  const waiting: Waiter[] = []
  const waits = { count: 0, seconds: 0 }
  let size = most
  let fullUntil = 0
  let wide = most
  let widerAt = 0
  let ended = 0
  let inUse = 0
  let isOver = false

  /** Undefined where the token gives no more: then those there are have to do. */
  const another = (): Handle | undefined => {
    try {
      return open()
    } catch (error) {
      if (judgeFailure(error).code !== sessionCount || inUse === 0) throw error
      size = inUse
      fullUntil = now() + askAgainMs
      return undefined
    }
  }
  const next = (): Handle | undefined => {
    if (now() >= fullUntil) size = most
    if (wide < most && now() >= widerAt) narrow(wide + 1)
    return inUse < Math.min(size, wide) ? (idle.pop() ?? another()) : undefined
  }
  const narrow = (to: number): void => {
    wide = Math.max(1, Math.min(to, most))
    widerAt = now() + askAgainMs
  }
  const closeQuietly = (session: Handle): void => {
    try {
      close(session)
    } catch {
      // It is of no use either way.
    }
  }
  /** Before the last one goes: one that keeps the login. Where the token gives none, whoever comes next finds out. */
  const keepLogin = (): void => {
    if (inUse + idle.length > 0 || most === 1) return
    try {
      idle.push(open())
    } catch {
      // One was all that it allows.
    }
  }

  const serve = (): void => {
    for (let waiter = waiting[0]; waiter; waiter = waiting[0]) {
      try {
        const session = next()
        if (session === undefined) return
        inUse += 1
        waiter.serve(session)
      } catch (error) {
        waiter.fail(error)
      }
      clearTimeout(waiter.timer)
      waiting.shift()
    }
  }

  const giveBack = (session: Handle): void => {
    inUse -= 1
    idle.push(session)
    serve()
  }

  return {
    take: async (withinMs) => {
      if (isOver) return 'late'
      const session = waiting.length === 0 ? next() : undefined
      if (session !== undefined) {
        inUse += 1
        waits.count += 1
        return session
      }
      if (waiting.length >= bound) return 'full'
      const start = performance.now()
      const outcome = await new Promise<Handle | 'late'>((resolve, reject) => {
        const timer = setTimeout(() => {
          waiting.splice(waiting.indexOf(waiter), 1)
          resolve('late')
        }, withinMs)
        const waiter: Waiter = { serve: resolve, fail: reject, giveUp: () => resolve('late'), timer }
        waiting.push(waiter)
      })
      waits.count += 1
      waits.seconds += (performance.now() - start) / 1000
      return outcome
    },
    give: (session) => {
      ended += 1
      giveBack(session)
    },
    giveBack,
    discard: (session) => {
      inUse -= 1
      keepLogin()
      closeQuietly(session)
      serve()
    },
    abandon: () => {},
    narrow,
    hurry: (withinMs) => {
      setTimeout(() => {
        isOver = true
        for (const { giveUp, timer } of waiting.splice(0)) {
          clearTimeout(timer)
          giveUp()
        }
      }, withinMs)
    },
    most,
    get ended() {
      return ended
    },
    get load() {
      return { inUse, waiting: waiting.length, waits: { ...waits } }
    },
  }
}

const askAgainMs = 30_000

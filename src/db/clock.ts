/**
 * The database's clock as this process sees it. Event times are the database's, so replicas whose clocks differ a
 * little never disagree; issuing stops when they differ too much to be trusted. What else happens meanwhile is dated by the
 * earlier of the two: nothing on the roll is ever dated before what stands there, so one event of tomorrow would hold up
 * issuing until then, however soon the clock is mended.
 */
import { Problem } from '../errors.ts'

export interface DatabaseClock {
  /** What the database's clock says now, as far as we know. */
  now(): Date
  /** When something happens: the database's time, and no more than the tolerance ahead of ours. */
  eventTime(): Date
  /** Told of each reading, and of the milliseconds from when it was asked for to now, by a clock that nobody sets. */
  observe(databaseNow: Date, tookMs: number): void
  /** Told of the time of the newest event that was seen. */
  observeEvent(time: Date): void
  readonly toleranceMs: number
  /** Undefined, or the reason why no certificate may be dated by these clocks. */
  fault(): string | undefined
  /** When the database's clock was read last, by ours; where never, since when it could have been. */
  readAt(): Date
  /** Throws `clock.skewed`. */
  assertSane(): void
}

export const databaseClock = (clock: () => Date, toleranceMs: number): DatabaseClock => {
  /** Ours minus the database's. */
  let skewMs = 0
  let readAt = clock()
  let lastEvent = new Date(0)
  const now = (): Date => new Date(clock().getTime() - skewMs)

  const fault = (): string | undefined => {
    if (Math.abs(skewMs) > toleranceMs) return `our clock is ${describe(skewMs)} the database's`
    const behind = lastEvent.getTime() - now().getTime()
    if (behind > toleranceMs) return `the database's clock is ${describe(-behind)} the last event on the roll`
    return undefined
  }

  return {
    toleranceMs,
    now,
    eventTime: () => new Date(clock().getTime() - Math.max(skewMs, -toleranceMs)),
    readAt: () => readAt,
    observe: (databaseNow, tookMs) => {
      readAt = clock()
      const skew = readAt.getTime() - databaseNow.getTime()
      // It was read at some time in between, and a commit that its disk holds up, or SIGSTOP, makes us hear of it late: what was
      // known before holds as far as it can.
      skewMs = Math.min(skew, Math.max(skew - tookMs, skewMs))
    },
    observeEvent: (time) => {
      if (time > lastEvent) lastEvent = time
    },
    fault,
    assertSane: () => {
      const reason = fault()
      if (reason !== undefined)
        throw new Problem('clock.skewed', `Nothing is issued, revoked or decided while ${reason}.`, { retryAfter: 30 })
    },
  }
}

const describe = (milliseconds: number): string =>
  `${(Math.abs(milliseconds) / 1000).toFixed(1)} s ${milliseconds > 0 ? 'ahead of' : 'behind'}`

/**
 * Until when what is kept of a kind was as the API server has it. A stream that is open counts as now, however idle: the server
 * says nothing where nothing happens. What was listed once may be years old where a right, a definition or a version has gone.
 */
import type { Log } from '../../log.ts'

export interface Currency {
  /** Milliseconds since it was current last, 0 while a stream is open; since the start where it has never been. */
  readonly behindMs: number
  /** It was listed, or the stream has told something. */
  renew(): void
  /** The answer to a watch has begun. */
  begin(): void
  /** It has ended, in whatever way. */
  end(): void
  /** It could not be listed or watched. */
  fail(err: unknown): void
}

export interface CurrencyDeps {
  /** The plural name. */
  readonly resource: string
  readonly log: Log
  /** Milliseconds that only go forward. */
  readonly now: () => number
}

export const openCurrency = ({ resource, log, now }: CurrencyDeps): Currency => {
  let currentAt = now()
  /** A stream has begun; and it is one that was not turned away at once. */
  const stream = { isThere: false, isOpen: false }
  let settling: NodeJS.Timeout | undefined
  let isToldStale = false
  const behindMs = (): number => (stream.isOpen ? 0 : now() - currentAt)
  const renew = (): void => {
    const seconds = Math.round(behindMs() / 1_000)
    currentAt = now()
    stream.isOpen = stream.isThere
    if (!isToldStale) return
    isToldStale = false
    log.warn({ event: 'watch.current', resource, seconds }, 'the objects are seen again')
  }
  return {
    get behindMs() {
      return behindMs()
    },
    renew,
    begin: () => {
      stream.isThere = true
      settling = setTimeout(renew, settleMs).unref()
    },
    end: () => {
      clearTimeout(settling)
      if (stream.isOpen) currentAt = now()
      stream.isThere = stream.isOpen = false
    },
    fail: (err) => {
      if (isToldStale || !isStale(behindMs())) return
      isToldStale = true
      const seconds = Math.round(behindMs() / 1_000)
      log.warn({ event: 'watch.stale', resource, seconds, err }, 'the objects have not been seen for minutes')
    },
  }
}

export const isStale = (behindMs: number): boolean => behindMs > staleAfterMs

/**
 * Milliseconds. The only API server of a cluster is away for a minute or two while it is upgraded, and a minute is the longest
 * pause between two tries: neither is worth an instance that is not ready.
 */
const staleAfterMs = 180_000
/** A watch may be answered with 200, and end with an error or with nothing as soon: that is one that is turned away. */
export const settleMs = 1_000

/**
 * Who takes copies of the roll: whoever reads its bundles of entries has all that there is, as by an export, but in as many
 * requests as there are bundles. They are one row when the first is asked for and one when no more are.
 */
import type { Access } from '../ca/access/access-log.ts'
import type { Log } from '../log.ts'
import { withinDeadline } from './deadline.ts'

export interface CopiesDeps {
  readonly record: (access: Access) => Promise<string>
  readonly log: Log
  /** Milliseconds of a clock that is never set. */
  readonly now: () => number
}

/** Entries of a roll of this size. */
export interface Copied {
  readonly from: number
  readonly before: number
  readonly size: number
}

export interface Copies {
  /**
   * Before they are sent. Never rejects: a roll is exported above all where the database is in trouble, and then the log has it,
   * as of a search.
   */
  note(principal: string, copied: Copied): Promise<void>
  /** Ends what nobody has gone on with for a minute, and what has gone on for an hour. */
  sweep(): Promise<void>
  /** Ends all, and waits for those that are being ended. */
  close(): Promise<void>
}

interface Copy {
  readonly began: number
  /** The row that began it; null where that could not be written. */
  readonly row: Promise<string | null>
  last: number
  span: Copied
  entries: number
}

export const openCopies = ({ record, log, now }: CopiesDeps): Copies => {
  const copies = new Map<string, Copy>()
  const ending = new Set<Promise<void>>()

  const write = async (access: Access): Promise<string | null> => {
    try {
      return await withinDeadline(record(access), noteMs)
    } catch (error) {
      log.error({ event: 'access.unrecorded', ...access, err: error }, 'a copy of the roll could not be recorded')
      return null
    }
  }

  const begin = (principal: string, span: Copied): Copy => {
    const row = write({ ...told(principal, span), act: 'began', rows: null, export: null })
    return { began: now(), row, last: now(), span, entries: 0 }
  }

  const writeEnd = async (principal: string, copy: Copy): Promise<void> => {
    const row = await copy.row
    if (row === null) return
    await write({ ...told(principal, copy.span), act: 'completed', rows: copy.entries, export: row })
  }

  const end = (principal: string, copy: Copy): void => {
    copies.delete(principal)
    const written = writeEnd(principal, copy).finally(() => ending.delete(written))
    ending.add(written)
  }

  const endThose = async (isOver: (copy: Copy) => boolean): Promise<void> => {
    for (const [principal, copy] of copies) if (isOver(copy)) end(principal, copy)
    await Promise.all(ending)
  }

  return {
    note: async (principal, copied) => {
      let copy = copies.get(principal)
      if (!copy) {
        copy = begin(principal, copied)
        copies.set(principal, copy)
      }
      copy.last = now()
      copy.entries += copied.before - copied.from
      copy.span = {
        from: Math.min(copy.span.from, copied.from),
        before: Math.max(copy.span.before, copied.before),
        size: Math.max(copy.span.size, copied.size),
      }
      const row = await copy.row
      // The next one tries again, but not each of thousands.
      if (row === null && now() - copy.began > retryMs && copies.get(principal) === copy) copies.delete(principal)
    },
    sweep: () => endThose(({ began, last }) => now() - last >= idleMs || now() - began >= longestMs),
    close: () => endThose(() => true),
  }
}

/** In the words of a search of events. */
const told = (principal: string, { from, before, size }: Copied): Omit<Access, 'act' | 'rows' | 'export'> => ({
  principal,
  records: 'events',
  filter: { fromIndex: String(from), beforeIndex: String(before) },
  continues: false,
  format: 'tiles',
  size,
})

/** Milliseconds until the log has it. */
const noteMs = 2_000
const retryMs = 10_000
const idleMs = 60_000
const longestMs = 3_600_000

/**
 * Writing on the roll. The head's row orders all writers of all replicas: whoever moves it owns the indexes in
 * between, and nobody else can. Every entry goes through here.
 */
import type { Enrolled } from '../ca/recorder.ts'
import type { RollEvent } from '../roll/entries.ts'
import type { DatabaseClock } from './clock.ts'
import type { Database, Queryable, Result } from './database.ts'

/** How events become entries and certificates are put together: pure, and passed in. */
export interface EntryCodec {
  /** The entry's exact text at this time, and the hash of its leaf. */
  entry(event: RollEvent, time: Date): { readonly text: string; readonly leafHash: Buffer }
  certificate(tbs: Buffer, signature: Buffer): Buffer
}

export interface Head {
  /** The next index. */
  readonly size: number
  /** Of the last event; never goes back. */
  readonly time: Date
}

/** Where a batch is to be written, and when. */
export interface Place extends Head {
  /** How far the time may lie ahead of the database's clock: beyond, the head does not move. */
  readonly toleranceMs: number
}

/** What a statement that moves the head answers with: 0 when the head was not where it was believed to be. */
export interface HeadMoved {
  readonly moved: number
  readonly now: Date
}

export interface Change<T> {
  readonly events: readonly RollEvent[]
  readonly result: T
}

export interface RollWriter {
  /**
   * Appends a batch by one statement that moves the head with a compare-and-set and inserts what hangs on it. The head
   * is remembered from the last batch; where another replica has moved it, the batch is written again under its lock,
   * so every batch gets its turn. Durable when it resolves.
   */
  append(
    events: readonly RollEvent[],
    write: (db: Queryable, place: Place, leaves: readonly Buffer[]) => Promise<Result<HeadMoved>>,
  ): Promise<readonly Enrolled[]>
  /**
   * Makes a change and appends what it says of itself, in one transaction under the head's lock; `index` is where its
   * first event will be. What takes long and needs no order goes into `prepare`: the same transaction, before the lock.
   */
  change<T>(
    make: (tx: Queryable, time: Date, index: number) => Promise<Change<T>>,
    prepare?: (tx: Queryable) => Promise<void>,
  ): Promise<T>
  /** Undefined, or why nothing can be appended. */
  head(): Promise<Head>
}

export const openRollWriter = (db: Database, codec: EntryCodec, clock: DatabaseClock): RollWriter => {
  let known: Head | undefined

  const encode = (events: readonly RollEvent[], time: Date): Buffer[] =>
    events.map((event) => codec.entry(event, time).leafHash)

  /** Event time is the database's clock, but never before the last event. */
  const eventTime = (head: Head): Date => new Date(Math.max(clock.now().getTime(), head.time.getTime()))

  const tryAppend = async (
    events: readonly RollEvent[],
    write: Parameters<RollWriter['append']>[1],
    at: { readonly db: Queryable; readonly head: Head },
  ): Promise<readonly Enrolled[] | undefined> => {
    const time = eventTime(at.head)
    const leaves = encode(events, time)
    const {
      rows: [answer],
    } = await write(at.db, { size: at.head.size, time, toleranceMs: clock.toleranceMs }, leaves)
    if (answer) clock.observe(answer.now)
    if (answer?.moved !== 1) return undefined
    known = { size: at.head.size + events.length, time }
    return leaves.map((leafHash, i) => ({ index: at.head.size + i, leafHash }))
  }

  const appendUnderLock = (
    events: readonly RollEvent[],
    write: Parameters<RollWriter['append']>[1],
  ): Promise<readonly Enrolled[]> =>
    db.transaction(async (tx) => {
      const head = await lockHead(tx)
      // The head did not move where we believed it to be, or our time was not the database's: its clock was just read.
      clock.assertSane()
      const written = await tryAppend(events, write, { db: tx, head })
      if (!written) throw new Error('the head of the roll moved under its lock')
      return written
    })

  /** A head remembered from a transaction that failed is not the head. */
  const forgetting = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      known = undefined
      throw error
    }
  }

  const lockHead = async (tx: Queryable): Promise<Head> => {
    const {
      rows: [row],
    } = await tx.query<HeadRow>(lockHeadStatement, [])
    if (!row) throw new Error('the roll has no head')
    return see(row)
  }

  const see = (row: HeadRow): Head => {
    clock.observe(row.now)
    clock.observeEvent(row.time)
    return { size: row.size, time: row.time }
  }

  return {
    append: (events, write) =>
      forgetting(async () => {
        const written = known && (await tryAppend(events, write, { db, head: known }))
        return written ?? (await appendUnderLock(events, write))
      }),
    change: (make, prepare) =>
      forgetting(async () => {
        const { result, head } = await db.transaction(async (tx) => {
          await prepare?.(tx)
          const before = await lockHead(tx)
          const time = eventTime(before)
          const { events, result } = await make(tx, time, before.size)
          const entries = events.map((event, i) => ({ index: before.size + i, event, ...codec.entry(event, time) }))
          if (entries.length > 0)
            await tx.query(insertEntriesStatement, [
              JSON.stringify(entries.map((e) => bodyOf(e))),
              entries.length,
              time.toISOString(),
            ])
          return { result, head: entries.length > 0 ? { size: before.size + entries.length, time } : before }
        })
        known = head
        return result
      }),
    head: async () => {
      const {
        rows: [row],
      } = await db.query<HeadRow>(selectHeadStatement, [])
      if (!row) throw new Error('the roll has no head')
      return see(row)
    },
  }
}

interface HeadRow {
  readonly size: number
  readonly time: Date
  readonly now: Date
}

const selectHeadStatement = {
  name: 'select_head',
  text: 'select size, time, clock_timestamp() as now from roll where id = 1',
}
const lockHeadStatement = {
  name: 'lock_head',
  text: 'select size, time, clock_timestamp() as now from roll where id = 1 for update',
}

const insertEntriesStatement = {
  name: 'insert_entries',
  text: `
    with head as (
      update roll set size = size + $2::bigint, time = $3::timestamptz where id = 1
    )
    insert into entries (index, type, time, leaf_hash, serial, body)
    select index, type, $3::timestamptz, decode(leaf, 'hex'), decode(serial, 'hex'), body
    from json_to_recordset($1::json) as r (index bigint, type text, leaf text, serial text, body text)`,
}

const bodyOf = ({
  index,
  event,
  text,
  leafHash,
}: {
  index: number
  event: RollEvent
  text: string
  leafHash: Buffer
}): object => ({
  index,
  type: event.type,
  leaf: leafHash.toString('hex'),
  serial: 'serial' in event ? event.serial : null,
  body: text,
})

/**
 * Writing on the roll. The head's row orders all writers of all replicas: whoever moves it owns the indexes in
 * between, and nobody else can. Every entry goes through here, and makes the tree grow with it.
 */
import type { Enrolled, RollHead } from '../ca/issuance/recorder.ts'
import type { RollEvent } from '../tlog/entries.ts'
import { type Edge, type Extension, extend } from '../tlog/frontier.ts'
import type { TreeHasher } from '../tlog/merkle.ts'
import type { DatabaseClock } from './clock.ts'
import { openTrail } from './consistency.ts'
import type { Database, Queryable, Result } from './database.ts'

/** How events become entries and certificates are put together: pure, and passed in. */
export interface EntryCodec {
  /** The entry's exact text at this time, and the hash of its leaf. */
  entry(event: RollEvent, time: Date): { readonly text: string; readonly leafHash: Buffer }
  certificate(tbs: Buffer, signature: Buffer): Buffer
  readonly hasher: TreeHasher
}

export interface Head extends RollHead {
  readonly root: Buffer
  /** Of the last event; never goes back. */
  readonly time: Date
}

/** Where a batch is to be written, when, and what becomes of the tree. */
export interface Place extends Head {
  /** How far the time may lie ahead of the database's clock: beyond, the head does not move. */
  readonly toleranceMs: number
  readonly grown: Grown
}

/** As parameters of a statement. */
export interface Grown {
  readonly root: Buffer
  /** A JSON array of `{level, index, hash}`. */
  readonly subtrees: string
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
  /**
   * For changes that are judged by their time as well as dated by it: what the database says of a time, and what is dated by the
   * earlier of two clocks, would disagree. Throws `clock.skewed`; within `make`, both have just been read.
   */
  assertClock(): void
  /** Of an event that would be appended now; both clocks have just been read. */
  time(): Promise<Date>
  /** The head as it is now, after what was seen before. Throws `roll.inconsistent`. */
  head(): Promise<Head>
  /** The newest head that was seen, with all that was written here. */
  seen(): RollHead
}

/** `first` is a head that was seen before, and is kept elsewhere. */
export const openRollWriter = (db: Database, codec: EntryCodec, clock: DatabaseClock, first?: RollHead): RollWriter => {
  const { hasher } = codec
  /** Where the head is believed to be. */
  let known: Head | undefined
  const trail = openTrail(hasher, first)

  /** Never before the last event. */
  const eventTime = (head: Head): Date => new Date(Math.max(clock.eventTime().getTime(), head.time.getTime()))

  const tryAppend = async (
    events: readonly RollEvent[],
    write: Parameters<RollWriter['append']>[1],
    at: Tip & { readonly db: Queryable },
  ): Promise<Appended | undefined> => {
    const time = eventTime(at.head)
    const leaves = events.map((event) => codec.entry(event, time).leafHash)
    const grown = extend(at.edge, leaves, hasher)
    const place = { ...at.head, time, toleranceMs: clock.toleranceMs, grown: parametersOf(grown) }
    const asked = performance.now()
    const answer = (await write(at.db, place, leaves)).rows[0]
    if (answer) clock.observe(answer.now, performance.now() - asked)
    if (answer?.moved !== 1) return undefined
    return { head: { size: grown.edge.size, root: place.grown.root, time }, edge: grown.edge, grown, leaves }
  }

  /** Of what was committed, and not before. */
  const remember = ({ head, edge }: Tip): void => {
    known = head
    trail.remember(edge)
  }

  const appendUnderLock = (
    events: readonly RollEvent[],
    write: Parameters<RollWriter['append']>[1],
  ): Promise<Appended> =>
    db.transaction(async (tx) => {
      const locked = await look(tx, lockHeadStatement)
      // The head did not move where we believed it to be, or our time was not the database's: its clock was just read.
      clock.assertSane()
      const written = await tryAppend(events, write, { db: tx, ...locked })
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

  /** A head that everything leads to that was seen before. */
  const look = async (on: Queryable, statement: typeof selectHeadStatement): Promise<Tip> => {
    const before = trail.seen
    const head = await readHead(on, statement)
    return { head, edge: await trail.edgeAt(on, head, before) }
  }

  const readHead = async (on: Queryable, statement: typeof selectHeadStatement): Promise<Head> => {
    const asked = performance.now()
    const row = (await on.query<HeadRow>(statement, [])).rows[0]
    if (!row) throw new Error('the roll has no head')
    clock.observe(row.now, performance.now() - asked)
    clock.observeEvent(row.time)
    return { size: row.size, root: row.root, time: row.time }
  }

  /** What a change says of itself, after the head that it has locked. */
  const insert = async (tx: Queryable, events: readonly RollEvent[], before: Tip, time: Date): Promise<Tip> => {
    const entries = events.map((event) => ({ event, ...codec.entry(event, time) }))
    const leaves = entries.map(({ leafHash }) => leafHash)
    const grown = extend(before.edge, leaves, hasher)
    const { root, subtrees } = parametersOf(grown)
    const rows = entries.map(({ event, text, leafHash }, i) => ({
      index: before.head.size + i,
      type: event.type,
      leaf: leafHash.toString('hex'),
      serial: 'serial' in event ? event.serial : null,
      body: text,
    }))
    await tx.query(insertEntriesStatement, [JSON.stringify(rows), rows.length, time.toISOString(), root, subtrees])
    return { head: { size: grown.edge.size, root, time }, edge: grown.edge }
  }

  return {
    append: (events, write) =>
      forgetting(async () => {
        // Both are of the same batch, or the head is looked up.
        const { edge } = trail
        const at = known && edge?.size === known.size ? { db, head: known, edge } : undefined
        const appended = (at && (await tryAppend(events, write, at))) ?? (await appendUnderLock(events, write))
        remember(appended)
        return enrolledOf(appended)
      }),
    change: (make, prepare) =>
      forgetting(async () => {
        const { result, tip } = await db.transaction(async (tx) => {
          await prepare?.(tx)
          const before = await look(tx, lockHeadStatement)
          const time = eventTime(before.head)
          const { events, result } = await make(tx, time, before.head.size)
          return { result, tip: events.length === 0 ? before : await insert(tx, events, before, time) }
        })
        remember(tip)
        return result
      }),
    assertClock: clock.assertSane,
    time: async () => eventTime(await readHead(db, selectHeadStatement)),
    head: async () => (await look(db, selectHeadStatement)).head,
    seen: () => trail.seen,
  }
}

/** A head, and the edge of the tree under it. */
interface Tip {
  readonly head: Head
  readonly edge: Edge
}

interface Appended extends Tip {
  readonly grown: Extension
  readonly leaves: readonly Buffer[]
}

const enrolledOf = ({ head, grown, leaves }: Appended): readonly Enrolled[] =>
  leaves.map((leafHash, i) => {
    const index = head.size - leaves.length + i
    return { index, leafHash, inclusion: { head, hashes: grown.proof(index) } }
  })

const parametersOf = ({ edge, completed }: Extension): Grown => ({
  root: Buffer.from(edge.root),
  subtrees: JSON.stringify(
    completed.map(({ hash, ...place }) => ({ ...place, hash: Buffer.from(hash).toString('hex') })),
  ),
})

interface HeadRow {
  readonly size: number
  readonly root: Buffer
  readonly time: Date
  readonly now: Date
}

const selectHeadStatement = {
  name: 'select_head',
  text: 'select size, root, time, clock_timestamp() as now from roll where id = 1',
}
const lockHeadStatement = {
  name: 'lock_head',
  // The clock is read when the row is ours, and not before the wait for it.
  text: `with head as materialized (select size, root, time from roll where id = 1 for update)
    select size, root, time, clock_timestamp() as now from head`,
}

const insertEntriesStatement = {
  name: 'insert_entries',
  text: `
    with head as (
      update roll set size = size + $2::bigint, time = $3::timestamptz, root = $4::bytea where id = 1
    ), subtree as (
      insert into subtrees (level, index, hash)
      select level, index, decode(hash, 'hex')
      from json_to_recordset($5::json) as r (level smallint, index bigint, hash text)
    )
    insert into entries (index, type, time, leaf_hash, serial, body)
    select index, type, $3::timestamptz, decode(leaf, 'hex'), decode(serial, 'hex'), body
    from json_to_recordset($1::json) as r (index bigint, type text, leaf text, serial text, body text)`,
}

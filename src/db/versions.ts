/** Documents in immutable versions, by name: every one ever applied in the database, the newest of each in memory. */
import type { Precondition } from '../ca/policies.ts'
import { Problem, type ProblemCode } from '../errors.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import { openComplaint } from '../lib/log-throttle.ts'
import type { Log } from '../log.ts'
import type { RollEvent } from '../tlog/entries.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './log.ts'

/** What was read from a document. */
interface Read {
  readonly name: string
  readonly version: number
  readonly sha256: string
  readonly document: object
}

export interface Version<T> {
  readonly value: T
  readonly createdAt: Date
  readonly createdBy: string
}

/** What is stored was valid when it was written: nothing starts where later rules are asked of it as well. */
export type Parse<T> = (document: unknown, version: number) => T

/** What is particular to one kind of document. */
export interface VersionKind<T extends Read> {
  readonly statements: VersionStatements
  /** For sentences: `profile`. */
  readonly title: string
  readonly missing: ProblemCode
  /** From what was written, or from what is stored. Throws for a document that is not valid. */
  readonly parse: Parse<T>
  /** The column that this kind has beside the others. */
  readonly column: (value: T) => string
  /** Within the transaction, before a version is made; throws. */
  readonly assertFits: (tx: Queryable, value: T) => Promise<void>
  readonly event: (value: T, by: string) => RollEvent
}

export interface Put<T> {
  readonly stored: Version<T>
  /** Else it was there already, word for word. */
  readonly created: boolean
}

export interface VersionsDeps<T extends Read> {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
  readonly kind: VersionKind<T>
}

export interface Versions<T> {
  /** From memory, at most two seconds old, and at once after a change made here. */
  current(name: string): T | undefined
  newest(): IterableIterator<Version<T>>
  list(): Promise<readonly Version<T>[]>
  versions(name: string): Promise<readonly Version<T>[]>
  read(name: string, version?: number): Promise<Version<T>>
  put(document: unknown, by: string, precondition: Precondition): Promise<Put<T>>
  /** All or none, by one change of the roll: each change waits for the disk. */
  putAll(documents: readonly unknown[], by: string, precondition: Precondition): Promise<readonly Put<T>[]>
  /** Reads what other replicas have changed; resolves when memory is as new as the database was. */
  refresh(): Promise<void>
  close(): void
}

/** Opened means loaded. The newest versions are read again each second. */
export const openVersions = async <T extends Read>({ db, roll, log, kind }: VersionsDeps<T>): Promise<Versions<T>> => {
  const newest = new Map<string, Version<T>>()
  const { statements } = kind

  const versionOf = (row: VersionRow): Version<T> => ({
    value: kind.parse(JSON.parse(row.document), row.version),
    createdAt: row.created_at,
    createdBy: row.created_by,
  })

  const refresh = async (): Promise<void> => {
    const [unread] = await follow()
    if (unread) throw unread
  }

  /** Resolves to what is wrong with those that cannot be read. */
  const follow = async (): Promise<readonly Error[]> => {
    const held = JSON.stringify([...newest].map(([name, { value }]) => ({ name, version: value.version })))
    const { rows } = await db.query<VersionRow>(statements.newer, [held])
    return rows.flatMap((row) => holdRow(row) ?? [])
  }

  /**
   * One that only a newer Chancery beside this one can read keeps nobody from following the others. It is nobody's fault who
   * asks, so it is no problem of theirs.
   */
  const holdRow = (row: VersionRow): Error | undefined => {
    try {
      hold(versionOf(row))
      return undefined
    } catch (cause) {
      return new Error(`version ${row.version} of the ${kind.title} ${row.name} cannot be read by this Chancery`, {
        cause,
      })
    }
  }

  /** An answer that was read before another change was made may come after it: memory never goes back. */
  const hold = (stored: Version<T>): void => {
    const { name, version } = stored.value
    if (version > (newest.get(name)?.value.version ?? 0)) newest.set(name, stored)
  }

  const putAll: Versions<T>['putAll'] = async (documents, by, precondition) => {
    const firsts = documents.map((document) => kind.parse(document, 1))
    const outcomes = await roll.change(async (tx) => {
      const events: RollEvent[] = []
      const result: Put<T>[] = []
      for (const [i, first] of firsts.entries()) {
        const outcome = await putOne(tx, { document: documents[i], first, by }, precondition)
        if (outcome.created) events.push(kind.event(outcome.stored.value, by))
        result.push(outcome)
      }
      return { events, result }
    })
    for (const { stored } of outcomes) hold(stored)
    return outcomes
  }

  const putOne = async (
    tx: Queryable,
    { document, first, by }: { readonly document: unknown; readonly first: T; readonly by: string },
    precondition: Precondition,
  ): Promise<Put<T>> => {
    const { name } = first
    const row = (await tx.query<VersionRow>(statements.one, [name, null])).rows[0]
    assertPrecondition(`The ${kind.title} ${JSON.stringify(name)}`, row, precondition)
    const value = row ? kind.parse(document, row.version + 1) : first
    if (row && row.sha256.toString('hex') === value.sha256) return { stored: versionOf(row), created: false }
    return { stored: await insert(kind, tx, value, by), created: true }
  }

  const missing = (name: string, version?: number): Problem =>
    new Problem(
      kind.missing,
      `There is no ${kind.title} ${JSON.stringify(name)}${version === undefined ? '' : ` of version ${version}`}.`,
    )

  await refresh()
  const complaint = openComplaint()
  const look = (): Promise<unknown> =>
    refresh().then(complaint.end, (err: unknown) =>
      complaint.tell(String(err), () =>
        log.warn({ event: 'policies.stale', kind: kind.title, err }, 'documents could not be refreshed'),
      ),
    )
  const timer = setInterval(() => void look(), refreshMs)
  timer.unref()

  return {
    current: (name) => newest.get(name)?.value,
    newest: () => newest.values(),
    // Those that can be read: of the others the log tells.
    list: async () => {
      await follow()
      return [...newest.values()].sort((a, b) => (a.value.name < b.value.name ? -1 : 1))
    },
    versions: async (name) => {
      const { rows } = await db.query<VersionRow>(statements.all, [name])
      if (rows.length === 0) throw missing(name)
      return rows.map(versionOf)
    },
    read: async (name, version) => {
      const row = (await db.query<VersionRow>(statements.one, [name, version ?? null])).rows[0]
      if (row) return versionOf(row)
      throw missing(name, version)
    },
    put: async (document, by, precondition) => {
      const [outcome] = await putAll([document], by, precondition)
      return outcome as Put<T>
    },
    putAll,
    refresh,
    close: () => clearInterval(timer),
  }
}

/** What all kinds have in common, each version as those who use that kind know it. */
export const shownBy = <T, Shown>(versions: Versions<T>, show: (version: Version<T>) => Shown) => ({
  list: async () => (await versions.list()).map(show),
  versions: async (name: string) => (await versions.versions(name)).map(show),
  read: async (name: string, version?: number) => show(await versions.read(name, version)),
  put: async (document: unknown, by: string, precondition: Precondition) => {
    const { stored, created } = await versions.put(document, by, precondition)
    return { stored: show(stored), created }
  },
  refresh: versions.refresh,
  close: versions.close,
})

const insert = async <T extends Read>(
  kind: VersionKind<T>,
  tx: Queryable,
  value: T,
  by: string,
): Promise<Version<T>> => {
  await kind.assertFits(tx, value)
  const { name, version, sha256, document } = value
  const { rows } = await tx.query<VersionRow>(kind.statements.insert, [
    name,
    version,
    Buffer.from(sha256, 'hex'),
    kind.column(value),
    canonicalJson(document),
    by,
  ])
  if (!rows[0]) throw new Error(`a ${kind.title} was not inserted`)
  return { value, createdAt: rows[0].created_at, createdBy: by }
}

/** Under the roll's lock, so that of those who saw the same version only one changes it. */
const assertPrecondition = (
  what: string,
  row: VersionRow | undefined,
  { ifMatch, ifNoneMatch }: Precondition,
): void => {
  const fail = (reason: string): never => {
    throw new Problem('precondition.failed', `${what} ${reason}.`)
  }
  if (ifNoneMatch === '*' && row) fail('exists')
  if (ifMatch !== undefined && !row) fail('does not exist')
  if (ifMatch !== undefined && ifMatch !== '*' && row && !ifMatch.includes(row.sha256.toString('hex')))
    fail('is not the one that the change was made from')
}

interface VersionRow {
  readonly name: string
  readonly version: number
  readonly sha256: Buffer
  readonly document: string
  readonly created_at: Date
  readonly created_by: string
}

interface VersionStatements {
  readonly newer: { readonly name: string; readonly text: string }
  readonly one: { readonly text: string }
  readonly all: { readonly text: string }
  readonly insert: { readonly text: string }
}

/** Of a table with these columns, and one that only this kind has. Both names are constants of ours. */
export const versionStatements = (table: string, column: string): VersionStatements => {
  const columns = 'name, version, sha256, document, created_at, created_by'
  return {
    newer: {
      name: `select_newer_${table}`,
      text: `
    with held as (select * from json_to_recordset($1::json) as h (name text, version integer)),
    newest as (select distinct on (name) ${columns} from ${table} order by name, version desc)
    select n.* from newest n left join held h using (name) where h.version is null or h.version < n.version`,
    },
    one: {
      text: `select ${columns} from ${table} where name = $1 and ($2::integer is null or version = $2) order by version desc limit 1`,
    },
    all: { text: `select ${columns} from ${table} where name = $1 order by version desc` },
    insert: {
      text: `insert into ${table} (name, version, sha256, ${column}, document, created_by) values ($1, $2, $3, $4, $5, $6) returning ${columns}`,
    },
  }
}

const refreshMs = 1_000

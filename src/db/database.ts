/**
 * The one door to PostgreSQL: a pool, statements, transactions, and errors that say whether to try again.
 *
 * Behind a transaction pooler a connection is ours for one transaction only. Nothing here needs more than that once
 * `preparedStatements` is off: then neither named statements nor start-up settings are sent, and the timeouts below
 * have to be set on the role (`alter role chancery set statement_timeout = '10s'`, …) by whoever runs the pooler. Each
 * statement is planned anew there.
 */
import pg from 'pg'

import type { Log } from '../log.ts'
import { answerTimedOut, causeOf, isPasswordFault, isSpent, isTransient, sqlState, unavailable } from './errors.ts'
import { firstWords, genericPlans, keptPlans, ourWords, sessionTimeouts } from './session-settings.ts'
import { openFewConnections, shortageOf, unreachedDetail } from './shortages.ts'
import { types } from './types.ts'
import { Client, type SessionConfig } from './wire.ts'

/** SQL with $1, $2 … Named ones are parsed once a connection: a name always means the same text. */
export interface Statement {
  readonly text: string
  readonly name?: string
  /**
   * Said of a statement whose generic plan, for any values, is as good as one for its own. Outside of a transaction, and where
   * there are connections enough, it has one of those that are kept for issuing, and is planned there once. Else
   * PostgreSQL decides by what it believes that either would cost, and plans batches of one row anew each time (1.1 of 2.7 ms
   * of an issuance).
   */
  readonly pool?: 'issuing'
}

export interface Result<Row> {
  readonly rows: readonly Row[]
  /** Rows returned, or touched where none are returned. */
  readonly rowCount: number
}

export interface Queryable {
  /**
   * Runs one statement, durable when it resolves (outside of `transaction`). `int8` comes as a number, which is
   * asserted to be a safe one; `timestamptz` as a Date; `bytea` as a Buffer. Rejects with `db.unavailable` where the
   * same call may succeed later, and with pg's own error for the rest: see `sqlState`.
   */
  query<Row = Readonly<Record<string, unknown>>>(
    statement: Statement,
    values?: readonly unknown[],
  ): Promise<Result<Row>>
}

export interface Database extends Queryable {
  /**
   * Runs `work` between begin and commit (read committed) and resolves when the commit is acknowledged; rolls back
   * if `work` rejects. Where `isConnectionLoss(error)`, the outcome of the commit is unknown: look before answering.
   */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  /** The same on a connection of its own, which the pool does not lack: for work that waits for others than the database. */
  apart<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  /** Connections, and how many callers wait for one. */
  readonly load: { readonly total: number; readonly idle: number; readonly waiting: number }
  /** Waits for what is under way, then closes every connection. */
  close(): Promise<void>
}

export interface DatabaseOptions {
  /** `postgresql://…`; `sslmode=verify-full` and `sslrootcert=` are honoured; `options=` come after our own, and win. */
  readonly url: string
  /** The same URL with the password that its file has now: asked for where the server turns ours down. */
  readonly renewedUrl?: (() => Promise<string>) | undefined
  /** Connections at most: of eight and more, a quarter, up to four, for issuing. */
  readonly max: number
  readonly log: Log
  /** Shown in pg_stat_activity. */
  readonly applicationName: string
  /** Told of every statement that may wait for the server: its name, `commit`, or `other`; and by what it failed. */
  readonly observe?: (statement: string, seconds: number, failed: boolean, error?: unknown) => void
  /** Off behind a transaction pooler; default on. */
  readonly preparedStatements?: boolean
  /** For who reads all there is, and waits as long as that takes: no timeouts but that of connecting. */
  readonly patient?: boolean
  /** Milliseconds. The last resort against a server that answers no more; default 15 s, longer than any timeout of its own. */
  readonly answerTimeout?: number
}

/** Opens the pool. Connects on first use: an unreachable server is the first statement's `db.unavailable`. */
export const openDatabase = (options: DatabaseOptions): Database => {
  const { observe = () => {}, answerTimeout = 15_000 } = options
  const how = { prepared: options.preparedStatements ?? true, ...(options.patient ? {} : { answerTimeout }) }
  const connections = openConnections(options, how)
  const timed = timedBy(observe)

  const runOn = <Row>(client: pg.ClientBase, statement: Statement, values?: readonly unknown[]): Promise<Result<Row>> =>
    timed(statement.name ?? 'other', () => run<Row>(client, how, statement, values))

  const transact = async <T>(
    client: pg.ClientBase,
    work: (tx: Queryable) => Promise<T>,
    release: (broken: boolean) => unknown,
  ): Promise<T> => {
    let broken = true
    try {
      await run(client, how, begin)
      const value = await work({ query: (statement, values) => runOn(client, statement, values) })
      await timed('commit', () => runCommit(client, how))
      broken = false
      return value
    } catch (error) {
      // Where the rollback fails as well, the connection goes, and its transaction with it.
      if (!isSpent(error))
        broken = await run(client, how, rollback).then(
          () => false,
          () => true,
        )
      throw error
    } finally {
      release(broken)
    }
  }

  return {
    query: async <Row>(statement: Statement, values?: readonly unknown[]) => {
      const client = await (statement.pool ? connections.connectForIssuing() : connections.connect())
      try {
        const result = await runOn<Row>(client, statement, values)
        client.release()
        return result
      } catch (error) {
        client.release(isSpent(error))
        throw error
      }
    },

    transaction: async (work) => {
      const client = await connections.connect()
      return transact(client, work, (broken) => client.release(broken))
    },

    apart: async (work) => {
      const client = await connections.connectApart()
      return transact(client, work, () => endOf(client))
    },

    get load() {
      const load = { total: 0, idle: 0, waiting: 0 }
      for (const { totalCount, idleCount, waitingCount } of connections.pools) {
        load.total += totalCount
        load.idle += idleCount
        load.waiting += waitingCount
      }
      return load
    },

    close: async () => void (await Promise.all([...connections.pools].map((one) => one.end()))),
  }
}

type Observe = NonNullable<DatabaseOptions['observe']>

const timedBy =
  (observe: Observe) =>
  async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const start = performance.now()
    const tell = (failed: boolean, error?: unknown): void =>
      observe(name, (performance.now() - start) / 1000, failed, error)
    try {
      const result = await work()
      tell(false)
      return result
    } catch (error) {
      tell(true, error)
      throw error
    }
  }

/** Connections in pools, by the kind of work; where the server turns our password down, with the one that its file has now. */
const openConnections = (options: DatabaseOptions, how: How) => {
  const hasSettings = how.prepared && !options.patient
  // With pg's own error where it fails, as of connecting: a pooler may find its server only now.
  const onConnect = async (client: pg.ClientBase): Promise<void> => void (await ask(client, firstWords, how))
  const connection = {
    connectionString: options.url,
    application_name: options.applicationName,
    types,
    keepAlive: true,
    keepAliveInitialDelayMillis,
    connectionTimeoutMillis,
    ...(hasSettings ? { ...sessionTimeouts, sessionOptions: `${ourWords} ${keptPlans}`, onConnect } : {}),
  }
  const tellFew = openFewConnections(options.log)
  const openPool = (config: SessionConfig & pg.PoolConfig): pg.Pool => poolOf({ ...connection, ...config }, options.log)
  const issuingMax = hasSettings ? issuingOf(options.max) : 0
  const pool = openPool({ max: options.max - issuingMax })
  // The last of its connections stays open.
  const issuing = issuingMax > 0 ? openPool({ max: issuingMax, min: 1, sessionOptions: genericPlans }) : pool
  const pools = new Set([pool, issuing])

  const takePassword = async (): Promise<void> => {
    try {
      const url = await options.renewedUrl?.()
      if (url !== undefined)
        for (const { options } of [...pools, { options: connection }]) options.connectionString = url
    } catch (error) {
      // Not the error itself: that of a URL has the URL in it.
      options.log.warn({ event: 'database.password', reason: (error as Error).message }, 'no password was read again')
    }
  }

  const reach = async <Client>(open: () => Promise<Client>): Promise<Client> => {
    const tried = connection.connectionString
    try {
      return await open()
    } catch (cause) {
      if (isPasswordFault(cause)) await takePassword()
      if (tried !== connection.connectionString) return reach(open)
      throw unavailable(unreachedDetail(cause as NodeJS.ErrnoException), cause)
    }
  }
  const connect = (from: pg.Pool = pool): Promise<pg.PoolClient> => reach(() => from.connect())
  /** Where the server has none left for a pool of its own, the connections of all else are better than none, and it is told. */
  const connectForIssuing = (): Promise<pg.PoolClient> =>
    connect(issuing).catch((error: unknown) => {
      if (issuing === pool || !tellFew(sqlState(error), causeOf(error))) throw error
      return connect()
    })

  return {
    connect,
    connectForIssuing,
    /** One that no pool has. */
    connectApart: (): Promise<pg.Client> => reach(() => openClient(connection)),
    pools: pools as ReadonlySet<pg.Pool>,
  }
}

const poolOf = (config: pg.PoolConfig, log: Log): pg.Pool => {
  const opened = new pg.Pool({ ...config, Client, idleTimeoutMillis })
  // An idle connection that dies is replaced; without a listener it would take the process along.
  opened.on('error', (error) => log.warn({ event: 'database.lost', err: error }, 'lost an idle connection'))
  // One that dies while in use fails its statement, and is emitted as well.
  opened.on('connect', (client) => client.on('error', () => {}))
  return opened
}

/** As a pool opens one. */
const openClient = async (config: SessionConfig & Pick<pg.PoolConfig, 'onConnect'>): Promise<pg.Client> => {
  const client = new Client(config)
  client.on('error', () => {})
  try {
    await client.connect()
    await config.onConnect?.(client)
    return client
  } catch (cause) {
    await endOf(client)
    throw cause
  }
}

const endOf = (client: pg.Client): Promise<void> => client.end().catch(() => {})

interface How {
  readonly prepared: boolean
  /** None: as long as it takes. */
  readonly answerTimeout?: number
}

const run = async <Row>(
  client: pg.ClientBase,
  how: How,
  { text, name }: Statement,
  values: readonly unknown[] = [],
): Promise<Result<Row>> => {
  try {
    const named = how.prepared && name !== undefined ? { name } : {}
    const { rows, rowCount } = await ask(client, { text, values: [...values], ...named }, how)
    return { rows: rows as readonly Row[], rowCount: rowCount ?? 0 }
  } catch (error) {
    throw failureOf(error)
  }
}

/** A commit of a transaction in which a statement failed is answered with ROLLBACK, and no error. */
const runCommit = async (client: pg.ClientBase, how: How): Promise<void> => {
  try {
    const { command } = await ask(client, { text: 'commit' }, how)
    if (command !== 'COMMIT') throw new Error('a statement of this transaction failed, and its error was passed over')
  } catch (error) {
    throw failureOf(error)
  }
}

const failureOf = (error: unknown): unknown => {
  // pg's own stack leads to the socket, not to who asked.
  if (error instanceof Error) Error.captureStackTrace(error, failureOf)
  return isTransient(error) ? unavailable(shortageOf(sqlState(error)) ?? 'The database did not finish.', error) : error
}

/**
 * By a callback that pg has from the first, and a timer of our own. A query whose callback is set later, as pg does for its
 * promises and its `query_timeout`, outlives the collections of the young heap with all of its rows and values: the old heap
 * was then collected for each hundred statements with a page of rows, instead of each thousand (pg 8.23, Node 26).
 * Whoever gets the timeout must not use the connection again.
 */
const ask = (
  client: pg.ClientBase,
  config: pg.QueryConfig<unknown[]>,
  { answerTimeout }: How,
): Promise<pg.QueryResult> =>
  new Promise((resolve, reject) => {
    const timer = answerTimeout && setTimeout(() => reject(new Error(answerTimedOut)), answerTimeout)
    client.query(config, (error, result) => {
      clearTimeout(timer)
      if (error) reject(error)
      else resolve(result)
    })
  })

const begin: Statement = { text: 'begin' }
const rollback: Statement = { text: 'rollback' }

const connectionTimeoutMillis = 5_000
const idleTimeoutMillis = 30_000
/**
 * Of one that nobody uses, after which the system asks whether the other end is there: ten times in as many seconds. As a name moves or a
 * path is lost, all that were open are gone in `answerTimeout`, and not one after the other as each is used. By default it is two hours.
 */
export const keepAliveInitialDelayMillis = 5_000

/**
 * Issuing has four statements under way at most: intents, a record, and two looks for requests that were there before. Intents
 * under limits wait for others, and do so on the connections of all else.
 */
const issuingOf = (max: number): number => (max < 8 ? 0 : Math.min(4, Math.floor(max / 4)))

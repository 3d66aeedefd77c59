/**
 * The embedded PostgreSQL: the real server, fsync on, from the binaries that npm brought.
 *
 * It is started detached, and shared by the Chancery processes over one data folder: the last one that leaves stops it. A process
 * that was killed leaves it running, and the next one adopts it. Two that start at once are told apart by the rename of a finished
 * cluster into its place, and by the server's own postmaster.pid.
 *
 * What lies in `<data>/postgres`: `cluster` (the server's data folder, or a link to it where the server runs under
 * an account that cannot reach `<data>`), `server.log`, and the passwords of the three roles, 0600.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'

import type { Log } from '../../log.ts'
import { assertSameMajor, findBinaries } from './binaries.ts'
import { type Home, loadHome, makeHome } from './home.ts'
import { bringUp, isAlive, type Postmaster, stopPostmaster } from './postmaster.ts'

export interface Embedded {
  /** Connects as the role that owns the database and migrates it. */
  readonly ownerUrl: string
  /** Connects as the role that serves. */
  readonly servingUrl: string
  /** The server was running already. */
  readonly adopted: boolean
  /** As whom it runs, for the log: "as uid 1000", "as root, mapped to nobody in a user namespace", … */
  readonly how: string
  /**
   * Stops the server (fast shutdown) unless somebody else has a connection to it: another Chancery, which holds one
   * as long as it lives, or an operator's client. Close your own pools first. Resolves to whether it was stopped.
   */
  stop(): Promise<boolean>
}

export interface EmbeddedOptions {
  /** Chancery's data folder; made if missing (0700). */
  readonly dataDir: string
  readonly log: Log
}

/**
 * Brings up the embedded PostgreSQL over `<dataDir>/postgres` and resolves when it answers queries: about a second
 * for a new folder, a third of one for a stopped server, a few milliseconds for a running one. Rejects with a plain
 * Error whose message is a sentence for the operator.
 */
export const openEmbedded = async ({ dataDir, log }: EmbeddedOptions): Promise<Embedded> => {
  const binaries = await findBinaries()
  const home = (await loadHome(dataDir, binaries)) ?? (await makeHome(dataDir, binaries, log))
  await assertSameMajor(home.cluster, home.account.binaries)

  const { postmaster, adopted, presence } = await attend(home)
  let stopping = false
  log.info(
    { event: 'embedded.ready', pid: postmaster.pid, adopted, how: home.account.how },
    adopted ? 'adopted the running embedded PostgreSQL' : 'started the embedded PostgreSQL',
  )

  return {
    ownerUrl: urlFor(home, postmaster, 'owner'),
    servingUrl: urlFor(home, postmaster, 'serving'),
    adopted,
    how: home.account.how,
    stop: async () => {
      if (stopping) return false
      stopping = true
      hold(presence, true)
      const last = await isLast(presence)
      if (last) await stopPostmaster(home, postmaster)
      await presence.end().catch(() => {})
      if (!last) {
        log.info({ event: 'embedded.left' }, 'left the embedded PostgreSQL running, if others are connected to it')
        return false
      }
      await gone(postmaster, home)
      log.info({ event: 'embedded.stopped' }, 'stopped the embedded PostgreSQL')
      return true
    },
  }
}

interface Attendance {
  readonly postmaster: Postmaster
  readonly adopted: boolean
  /** A connection held as long as this process uses the server: it is how others know. Never keeps the process up. */
  readonly presence: pg.Client
}

/** A server that runs, and a connection to it. A server that is shutting down as we come is waited out. */
const attend = async (home: Home): Promise<Attendance> => {
  const end = performance.now() + patience
  for (;;) {
    const { postmaster, adopted } = await bringUp(home)
    const presence = new pg.Client({
      connectionString: urlFor(home, postmaster, 'serving'),
      application_name: 'chancery presence',
      connectionTimeoutMillis: 5_000,
      keepAlive: true,
      // Whatever the role says: it is idle all the time.
      options: '-c idle_session_timeout=0',
    })
    presence.on('error', () => {})
    try {
      await presence.connect()
      hold(presence, false)
      return { postmaster, adopted, presence }
    } catch (cause) {
      await presence.end().catch(() => {})
      if (performance.now() > end || isPassword(cause)) throw new Error(refusedSentence(home), { cause })
      await sleep(50)
    }
  }
}

/** Whether an idle connection keeps the process up. Known to pg, not to its types. */
const hold = (client: pg.Client, on: boolean): void => {
  const { ref, unref } = client as pg.Client & { ref(): void; unref(): void }
  ;(on ? ref : unref).call(client)
}

const isPassword = (error: unknown): boolean => (error as { code?: string }).code === '28P01'

const refusedSentence = (home: Home): string =>
  `The embedded PostgreSQL runs but refuses our connection; see ${home.log}, and the passwords beside it.`

const roles = { owner: 'chancery_owner', serving: 'chancery' } as const

/** Everything is named in the URL, so that no PG* variable of the environment has a say. */
const urlFor = (home: Home, postmaster: Postmaster, as: keyof typeof roles): string => {
  const host = encodeURIComponent(postmaster.socketFolder)
  return `postgresql://${roles[as]}:${home.passwords[as]}@/chancery?host=${host}&port=5432&sslmode=disable`
}

/**
 * Is nobody else connected? Asked under an advisory lock, held until our own connection ends, so that of two who
 * leave at once the second one sees that the first has left. Connections of ours that were closed a moment ago get
 * a second to vanish.
 */
const isLast = async (presence: pg.Client): Promise<boolean> => {
  try {
    await presence.query('select pg_advisory_lock($1)', [leavingLock])
    for (let tries = 0; tries < 20; tries += 1) {
      const { rows } = await presence.query<{ others: number }>(countOthers)
      if (rows[0]?.others === 0) return true
      await sleep(50)
    }
  } catch {
    // No connection: it is going down or gone, or being restarted by another. Not ours to stop.
  }
  return false
}

const countOthers = `
  select count(*)::int as others from pg_stat_activity
  where datid is not null and usesysid is not null and pid <> pg_backend_pid()`

const gone = async (postmaster: Postmaster, home: Home): Promise<void> => {
  const end = performance.now() + patience
  while (await isAlive(postmaster, home.cluster)) {
    if (performance.now() > end)
      throw new Error(`The embedded PostgreSQL (pid ${postmaster.pid}) does not stop; see ${home.log}.`)
    await sleep(10)
  }
}

/** Milliseconds to wait for a server to come or to go. */
const patience = 60_000
/** Any constant; "chan" in ASCII. */
const leavingLock = 0x6368616e

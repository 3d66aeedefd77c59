/** The running server: finding, starting and signalling it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { hash } from 'node:crypto'
import { lchown, link, lstat, mkdir, mkdtemp, open, readFile, readlink, rename, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { SettingFault } from '../../lib/setting-fault.ts'
import type { Log } from '../../log.ts'
import { faultOf } from './account.ts'
import { cleanEnvironment } from './binaries.ts'
import type { Home } from './home.ts'

/** What postmaster.pid says. */
export interface Postmaster {
  readonly pid: number
  readonly socketFolder: string
  readonly ready: boolean
}

/**
 * A server that says it is ready: the one that runs, or one that is started now. Waits for one that is starting,
 * recovering or stopping. Rejects with a sentence and the end of the server's log if it does not come up.
 */
export const bringUp = async (home: Home, log: Log): Promise<{ postmaster: Postmaster; adopted: boolean }> => {
  let mine: ChildProcess | undefined
  const begun = performance.now()
  let failures = 0
  let noticeAt = begun + noticeAfter
  const sent = new Set<number>()
  for (;;) {
    const seen = await readPostmaster(home.cluster)
    if (seen !== undefined && (await isAlive(seen, home.cluster))) {
      const isHere = seen.ready && (await hasSocket(seen))
      if (isHere) return { postmaster: seen, adopted: seen.pid !== mine?.pid }
      if (seen.ready && !sent.has(seen.pid)) {
        // Its folder was moved while it ran, with the socket in it, or somebody took that away: nobody reaches it any more.
        log.info(
          { event: 'embedded.moved', pid: seen.pid },
          'ending the embedded PostgreSQL, whose socket is gone, as after its folder was moved',
        )
        sent.add(seen.pid)
        await stopPostmaster(home, seen)
      }
    } else if (mine === undefined) {
      await clearStale(home.cluster)
      mine = await start(home)
    } else if (hasEnded(mine)) {
      // Another was quicker, or backends of a killed server are still dying: look again before giving up.
      const words = await lastWords(home.log)
      if (++failures >= 3 && !(words.includes('shared memory block') && performance.now() - begun < dyingTime)) {
        throw faultOf(`The embedded PostgreSQL does not start. Its last words, from ${home.log}:\n${words}`)
      }
      await sleep(100 * failures)
      mine = undefined
      continue
    }
    if (performance.now() > noticeAt) {
      log.info({ event: 'embedded.waiting', log: home.log }, 'still waiting for the embedded PostgreSQL')
      noticeAt += noticeAfter
    }
    await sleep(10)
  }
}

/** Whether a server is there, whoever has started it. */
export const isUp = async (cluster: string): Promise<boolean> => {
  const seen = await readPostmaster(cluster)
  return seen !== undefined && isAlive(seen, cluster)
}

/** Is this process really the server over this cluster? A pid alone proves nothing: it may have been given again. */
export const isAlive = async ({ pid }: Pick<Postmaster, 'pid'>, cluster: string): Promise<boolean> => {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  if (process.platform === 'linux') {
    try {
      // The server works in its data folder; a zombie has none.
      return (await readlink(`/proc/${pid}/cwd`)) === cluster
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    }
  }
  const command = await promisify(execFile)('ps', ['-o', 'command=', '-p', String(pid)]).catch(() => ({ stdout: '' }))
  return command.stdout.includes('postgres') && command.stdout.includes(cluster)
}

/**
 * As it sees the folder itself, too: one whose temporary folder is another than ours (`PrivateTmp` of systemd) is in use there,
 * and two that end each other's never stop. Where nobody lets us look, it is not ours to end.
 */
const hasSocket = async ({ pid, socketFolder }: Postmaster): Promise<boolean> => {
  const path = join(socketFolder, '.s.PGSQL.5432')
  for (const place of [path, `/proc/${pid}/root${path}`]) {
    const code = await stat(place).then(
      () => 'there',
      (error: NodeJS.ErrnoException) => error.code,
    )
    if (code !== 'ENOENT' && code !== 'ENOTDIR') return true
  }
  return false
}

/** By SIGINT, a fast shutdown: transactions are rolled back, a checkpoint is written. */
export const stopPostmaster = async (home: Home, postmaster: Postmaster): Promise<void> => {
  if (await isAlive(postmaster, home.cluster)) process.kill(postmaster.pid, 'SIGINT')
}

/** Undefined where there is none, or not yet a whole one. Lines: pid, folder, start, port, socket folder, address, key, status. */
const readPostmaster = async (cluster: string): Promise<Postmaster | undefined> => {
  const text = await readFile(join(cluster, pidFile), 'utf8').catch(() => '')
  const lines = text.split('\n')
  const pid = Number(lines[0])
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  return { pid, socketFolder: lines[4] ?? '', ready: lines[7]?.trim() === 'ready' }
}

/**
 * Takes away a postmaster.pid that the server would respect for ever: one whose pid now belongs to somebody else, or
 * one without a pid. (One whose process is gone the server handles itself.) Renamed first and judged then, so that
 * the file of a server that another Chancery started this very moment is put back.
 */
const clearStale = async (cluster: string): Promise<void> => {
  const path = join(cluster, pidFile)
  const aside = `${path}.stale-${process.pid}`
  if (!(await isStale(path, cluster))) return
  await rename(path, aside).catch(() => {})
  if (!(await isStale(aside, cluster))) await link(aside, path).catch(() => {})
  await rm(aside, { force: true })
}

const isStale = async (path: string, cluster: string): Promise<boolean> => {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  if (text === undefined) return false
  const pid = Number.parseInt(text, 10)
  if (pid > 0) return !(await isAlive({ pid }, cluster))
  // Without a pid: being written, or left by a full disk; and the clock may have been set back since.
  const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }))
  return Math.abs(Date.now() - mtimeMs) > writingTime
}

/** Started in a session of its own: a Ctrl-C in our terminal is not for it, and it outlives us. */
const start = async (home: Home): Promise<ChildProcess> => {
  const { account } = home
  const socketFolder = await makeSocketFolder(home)
  await rm(join(socketFolder, '.s.PGSQL.5432.lock'), { force: true })
  await rotate(home.log)
  const log = await open(home.log, 'a', 0o600)
  const settings = Object.entries({ ...serverSettings, unix_socket_directories: socketFolder })
  const [program = '', ...args] = [
    ...account.wrapper,
    account.binaries.postgres,
    '-D',
    home.cluster,
    ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ]
  const child = spawn(program, args, {
    cwd: '/',
    detached: true,
    env: cleanEnvironment(),
    ...account.identity,
    stdio: ['ignore', log.fd, log.fd],
  })
  child.on('error', () => {})
  child.unref()
  await log.close()
  return child
}

const hasEnded = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null || child.pid === undefined

/** Beside the cluster; or, where that path is too long for a socket, a short one in the system's temporary folder. */
const makeSocketFolder = async ({ cluster, account }: Home): Promise<string> => {
  const { uid = process.geteuid?.() ?? 0, gid = process.getegid?.() ?? 0 } = account.identity
  const near = join(dirname(cluster), 'run')
  const short = join(tmpdir(), `chancery-${hash('sha256', cluster).slice(0, 12)}`)
  const wanted = fits(near) ? near : short
  await mkdir(wanted, { mode: 0o700 }).catch(() => {})
  let folder = wanted
  const found = await lstat(wanted)
  const ours =
    found.isDirectory() && (found.uid === uid || found.uid === process.geteuid?.()) && (found.mode & 0o077) === 0
  // Somebody else's: in a shared folder anybody may have been there first.
  if (!ours) folder = await mkdtemp(join(tmpdir(), 'chancery-'))
  if (!fits(folder))
    throw new SettingFault(`The path ${folder} is too long for a Unix socket; set TMPDIR to a short one.`)
  if (account.identity.uid !== undefined) await lchown(folder, uid, gid)
  return folder
}

const fits = (folder: string): boolean => Buffer.byteLength(`${folder}/.s.PGSQL.5432`) <= longestSocketPath

const rotate = async (path: string): Promise<void> => {
  const { size } = await stat(path).catch(() => ({ size: 0 }))
  if (size > largestLog) await rename(path, `${path}.1`)
}

const lastWords = async (path: string): Promise<string> => {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.trimEnd().split('\n').slice(-8).join('\n')
}

const pidFile = 'postmaster.pid'
/** Octets that macOS allows; Linux allows 107. */
const longestSocketPath = 103
const largestLog = 8 * 1024 * 1024
/** Milliseconds that backends of a killed server may take to die. */
const dyingTime = 15_000
const noticeAfter = 5_000
const writingTime = 2_000

/**
 * On the command line, where neither a file nor `alter system` overrides them. Durability is spelled out although it
 * is the default: what is acknowledged here is handed to somebody as a certificate.
 */
const serverSettings = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  port: '5432',
  // A slot that nobody uses costs some 20 KB; tests and benchmarks bring many instances to one server.
  max_connections: '250',
  fsync: 'on',
  // Serials are random: after each checkpoint every page of their indexes is written whole once more.
  max_wal_size: '2GB',
  checkpoint_timeout: '15min',
  // No statement of ours is worth compiling.
  jit: 'off',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  log_checkpoints: 'off',
  log_line_prefix: '%m [%p] %q%u@%d ',
  // A failing statement's text may hold what does not belong into a log.
  log_min_error_statement: 'panic',
  log_timezone: 'UTC',
  timezone: 'UTC',
} as const

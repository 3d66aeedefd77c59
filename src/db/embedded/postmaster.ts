/** The running server: finding, starting and signalling it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { hash } from 'node:crypto'
import { lchown, lstat, mkdir, mkdtemp, open, readFile, readlink, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { SettingFault } from '../../lib/setting-fault.ts'
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
 * A server that reports ready: the one that runs, or one that is started now. Waits for one that is starting, recovering or
 * stopping. Rejects with the end of the server's log if it does not come up.
 */
export const bringUp = async (home: Home): Promise<{ postmaster: Postmaster; adopted: boolean }> => {
  let mine: ChildProcess | undefined
  let failures = 0
  for (;;) {
    const seen = await readPostmaster(home.cluster)
    if (seen !== undefined && (await isAlive(seen, home.cluster))) {
      if (seen.ready) return { postmaster: seen, adopted: seen.pid !== mine?.pid }
    } else if (mine === undefined) {
      // The server takes any process with this pid for another server.
      if (seen !== undefined && isProcess(seen.pid)) await rm(join(home.cluster, pidFile), { force: true })
      mine = await start(home)
    } else if (hasEnded(mine)) {
      // Another process was quicker, or backends of a killed server are still ending: look again before giving up.
      failures += 1
      if (failures === mostFailures) {
        const words = await lastWords(home.log)
        throw faultOf(`The embedded PostgreSQL does not start. Its last words, from ${home.log}:\n${words}`)
      }
      await sleep(100 * failures)
      mine = undefined
    }
    await sleep(10)
  }
}

/** Is this process really the server over this cluster? A pid alone proves nothing: it may have been given again. */
export const isAlive = async ({ pid }: Pick<Postmaster, 'pid'>, cluster: string): Promise<boolean> => {
  if (!isProcess(pid)) return false
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

const isProcess = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
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

/** Started in a session of its own: a Ctrl-C in our terminal is not for it, and it outlives us. */
const start = async (home: Home): Promise<ChildProcess> => {
  const { account } = home
  const socketFolder = await makeSocketFolder(home)
  await rm(join(socketFolder, '.s.PGSQL.5432.lock'), { force: true })
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
  const found = await lstat(wanted)
  const isOwn = found.uid === uid || found.uid === process.geteuid?.()
  const isOurs = found.isDirectory() && isOwn && (found.mode & 0o077) === 0
  // Another account may have made it first in a shared folder.
  const folder = isOurs ? wanted : await mkdtemp(join(tmpdir(), 'chancery-'))
  if (!fits(folder))
    throw new SettingFault(`The path ${folder} is too long for a Unix socket; set TMPDIR to a short one.`)
  if (account.identity.uid !== undefined) await lchown(folder, uid, gid)
  return folder
}

const fits = (folder: string): boolean => Buffer.byteLength(`${folder}/.s.PGSQL.5432`) <= longestSocketPath

const lastWords = async (path: string): Promise<string> => {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.trimEnd().split('\n').slice(-8).join('\n')
}

const pidFile = 'postmaster.pid'
/** Octets that macOS allows; Linux allows 107. */
const longestSocketPath = 103
/** Some 12 s. */
const mostFailures = 15

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

/** Who used the processors, from /proc: by thread for the service, by process for PostgreSQL and the peer. Linux only. */
import { readdirSync, readFileSync } from 'node:fs'

/** Processor seconds so far. */
export interface Processors {
  /** The service's main thread; a peer's whole process. */
  readonly main: number
  /** Our verifying thread, and Node's thread pool, which runs what is asynchronous in node:crypto and the file system. */
  readonly pool: number
  /** Processes that the service has started: its signers. */
  readonly signer: number
  /** The other threads of the service: garbage collection, compiler. */
  readonly engine: number
  readonly postgres: number
  /** Everything that ran on this machine, the kernel's own work included. */
  readonly machine: number
}

export const readProcessors = (pid: number, postmaster: number, isNode: boolean): Processors => {
  const threads = isNode ? threadsOf(pid) : [{ id: pid, name: '', seconds: secondsOf(`/proc/${pid}`) }]
  const sum = (pick: (thread: Thread) => boolean): number =>
    threads.filter(pick).reduce((total, { seconds }) => total + seconds, 0)
  const isPool = ({ name }: Thread): boolean => poolNames.includes(name)
  const isMain = ({ id }: Thread): boolean => id === pid
  return {
    main: sum(isMain),
    pool: sum(isPool),
    signer: isNode ? childrenOf(pid).reduce((total, each) => total + secondsOf(`/proc/${each}`), 0) : 0,
    engine: sum((thread) => !isMain(thread) && !isPool(thread)),
    postgres: serverProcesses(postmaster).reduce(
      (total, each) => total + secondsOf(`/proc/${each}`) + (each === postmaster ? secondsOfEnded(each) : 0),
      0,
    ),
    machine: machineSeconds(),
  }
}

/** What was used between two readings. */
export const between = (before: Processors, after: Processors): Processors => ({
  main: after.main - before.main,
  pool: after.pool - before.pool,
  signer: after.signer - before.signer,
  engine: after.engine - before.engine,
  postgres: after.postgres - before.postgres,
  machine: after.machine - before.machine,
})

/** The server's process and its children. */
export const serverProcesses = (postmaster: number): number[] => [postmaster, ...childrenOf(postmaster)]

export const childrenOf = (parent: number): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => Number(statOf(`/proc/${pid}`)[1]) === parent)

interface Thread {
  readonly id: number
  readonly name: string
  readonly seconds: number
}

const threadsOf = (pid: number): Thread[] =>
  readdirSync(`/proc/${pid}/task`).map((id) => ({
    id: Number(id),
    name: readText(`/proc/${pid}/task/${id}/comm`).trim(),
    seconds: secondsOf(`/proc/${pid}/task/${id}`),
  }))

/** Of user and system time; 0 for what has ended. */
const secondsOf = (path: string): number => {
  const fields = statOf(path)
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / ticksPerSecond
}

/** Of the children that have ended: cfssl opens a new connection for most requests, and each is a process there. */
const secondsOfEnded = (pid: number): number => {
  const fields = statOf(`/proc/${pid}`)
  return (Number(fields[13] ?? 0) + Number(fields[14] ?? 0)) / ticksPerSecond
}

/** The fields of `stat` after the command's name, which may hold anything: state, parent, … (proc_pid_stat(5)). */
const statOf = (path: string): string[] => {
  const text = readText(`${path}/stat`)
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

const machineSeconds = (): number => {
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (readText('/proc/stat').split('\n')[0] ?? '')
    .split(/\s+/)
    .map(Number)
  return (user + nice + system + irq + softirq) / ticksPerSecond
}

/** Empty where there is no such file: not every system has a /proc. */
export const readText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** As Node 26 names its threads. */
const poolNames = ['WorkerThread', 'libuv-worker']
/** USER_HZ, the same on every Linux that Node runs on. */
const ticksPerSecond = 100

/** Memory from smaps_rollup: proportional set size, in which what processes share is counted once. Linux only. */
import { readFileSync } from 'node:fs'

import { childrenOf, serverProcesses } from './processors.ts'

/** MiB. */
export interface Memory {
  /** The service and its signers, or the peer. */
  readonly service: number
  /** PostgreSQL's processes, without the buffers that they share. */
  readonly postgres: number
  /** PostgreSQL's shared buffers, as far as they were touched: a cache of 128 MB by default. */
  readonly buffers: number
}

/** Of a target and the server that it records in, if any. `others`: backends that serve somebody else. */
export const readMemory = (pid: number, postmaster: number | undefined, others: ReadonlySet<number>): Memory => {
  const server = postmaster === undefined ? [] : serverProcesses(postmaster).filter((each) => !others.has(each))
  const parts = server.map(readParts)
  const sum = (pick: (part: Parts) => number): number => parts.reduce((total, part) => total + pick(part), 0)
  return {
    service: [pid, ...childrenOf(pid)].reduce((total, each) => total + readParts(each).all, 0),
    postgres: sum(({ all, shared }) => all - shared),
    buffers: sum(({ shared }) => shared),
  }
}

interface Parts {
  readonly all: number
  readonly shared: number
}

const readParts = (pid: number): Parts => {
  let text = ''
  try {
    text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  } catch {
    // It has ended.
  }
  const mebibytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) / 1024
  return { all: mebibytes('Pss'), shared: mebibytes('Pss_Shmem') }
}

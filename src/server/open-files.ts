/** How many files the system lets this process have open, of which sockets are the most. */
import { readFileSync } from 'node:fs'

import type { Log } from '../log.ts'

export interface SocketsAsked {
  /** On each of the two listeners. */
  readonly connections: number
  /** Connections to the database. */
  readonly poolSize: number
}

/**
 * Sockets of each listener that leave the database, keys and files what they need, whoever takes all of these: without a file to
 * spare nobody is answered, and no look at it either.
 */
export const socketsFor = (asked: SocketsAsked, log: Log, allowed = openFilesAllowed()): number => {
  const room = Math.floor((allowed - asked.poolSize - ownFiles) / listeners)
  const connections = Math.min(asked.connections, Math.max(room, fewest))
  if (connections < asked.connections)
    log.warn(
      { event: 'sockets.few', openFiles: allowed, connections },
      'this process may not open as many files as CHANCERY_CONNECTIONS needs: each listener takes fewer sockets',
    )
  return connections
}

/** Node has raised it as far as it may be raised. Without a bound where the system does not tell. */
const openFilesAllowed = (): number => {
  try {
    const told = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
    return told === undefined ? Number.POSITIVE_INFINITY : Number(told)
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

const listeners = 2
/** Some 35 after the start; identity providers, witnesses and further signers come to these. */
const ownFiles = 96
const fewest = 16

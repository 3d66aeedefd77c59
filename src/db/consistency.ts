/**
 * Where the roll has been seen to be. Whatever head was seen once must be part of every later one: the tree is followed
 * leaf by leaf, or by a proof where many were missed. A database that was set back, or that is another one, is told from
 * the right one before anything is written to it.
 */
import type { RollHead } from '../ca/issuance/recorder.ts'
import { Problem } from '../errors.ts'
import { isRollFault, RollFault } from '../tlog/fault.ts'
import { type Edge, emptyEdge, extend } from '../tlog/frontier.ts'
import { judgeGrowth, type ReadTile, type TreeHasher } from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import type { Queryable } from './database.ts'
import { readEdge, readHashes, tileReader } from './tree.ts'

export interface Trail {
  /** The newest head that was seen. */
  readonly seen: RollHead
  /** Of the newest head whose tree was followed. */
  readonly edge: Edge | undefined
  /**
   * The edge of a head that was read, in which everything is that was seen before it was read. Throws `roll.inconsistent`
   * where it is not.
   */
  edgeAt(on: Queryable, head: RollHead, before: RollHead): Promise<Edge>
  /** Told of what we have committed ourselves. */
  remember(edge: Edge): void
}

export const openTrail = (hasher: TreeHasher, first?: RollHead): Trail => {
  let seen: RollHead = first ?? emptyEdge(hasher)
  let edge: Edge | undefined
  const remember = (next: Edge): void => {
    if (next.size < seen.size) return
    seen = next
    edge = next
  }
  const nextEdge = async (on: Queryable, head: RollHead, before: RollHead): Promise<Edge> => {
    const isNear = edge && head.size > edge.size && head.size - edge.size <= nearEntries
    // We may have gone on ourselves meanwhile.
    const from = edge && edge.size <= head.size ? edge : before
    // Leaves that do not lead to the head may be another roll's, or damaged: the tree tells which.
    return (isNear ? await follow(on, edge as Edge, head, hasher) : undefined) ?? leap(on, head, from, hasher)
  }
  return {
    get seen() {
      return seen
    },
    get edge() {
      return edge
    },
    edgeAt: async (on, head, before) => {
      if (head.size < before.size) throw rolledBack(head, before)
      if (edge?.size === head.size && isEqual(head.root, edge.root)) return edge
      try {
        const next = await nextEdge(on, head, before)
        remember(next)
        return next
      } catch (error) {
        throw isRollFault(error) ? damaged(head, error) : error
      }
    },
    remember,
  }
}

/** Undefined where the leaves behind the edge do not lead to the head. */
const follow = async (on: Queryable, from: Edge, head: RollHead, hasher: TreeHasher): Promise<Edge | undefined> => {
  const leaves = await readHashes(on, { level: 0, from: from.size, count: head.size - from.size })
  const next = extend(from, leaves, hasher).edge
  return isEqual(head.root, next.root) ? next : undefined
}

const leap = async (on: Queryable, head: RollHead, before: RollHead, hasher: TreeHasher): Promise<Edge> => {
  const next = await readEdge(on, head, hasher)
  const roots = { from: before.size, to: head.size, fromRoot: before.root, toRoot: head.root }
  const growth = await judgeGrowth(roots, inTurn(tileReader(on)), hasher)
  if (growth === 'forked') throw forked(head, before)
  if (growth === 'damaged') throw new RollFault('edge.tiles', `${before.size} entries do not lead to its root`)
  return next
}

/** A transaction has one connection, which takes nothing more after a failure: then nothing more is read. */
const inTurn = (read: ReadTile): ReadTile => {
  let last: Promise<unknown> = Promise.resolve()
  return (tile) => {
    const next = last.then(() => read(tile))
    last = next
    next.catch(() => {})
    return next
  }
}

const inconsistent = (detail: string, cause?: unknown): Problem =>
  new Problem('roll.inconsistent', `${detail} Nothing is written before that is mended (docs/roll.md).`, {
    retryAfter: 60,
    ...(cause !== undefined && { cause }),
  })

const rolledBack = (head: RollHead, seen: RollHead): Problem =>
  inconsistent(
    `The database's roll ends at ${head.size}, but ${seen.size} entries were seen before: ${rangeOf(head.size, seen.size)} missing. Restore the database to its newest state with PostgreSQL's point-in-time recovery, or give the entries up with "chancery roll succeed".`,
  )

const forked = (head: RollHead, seen: RollHead): Problem =>
  inconsistent(
    `The database's roll of ${head.size} entries does not go on from the ${seen.size} that were seen before.`,
  )

const damaged = (head: RollHead, cause: Error): Problem =>
  inconsistent(`The stored tree of the database's ${head.size} entries is damaged: ${cause.message}.`, cause)

const rangeOf = (from: number, to: number): string =>
  to - from === 1 ? `entry ${from} is` : `entries ${from} to ${to - 1} are`

/** Beyond, tiles and a proof are less to read. */
const nearEntries = 2_048

/**
 * `chancery roll recover`: a database that was restored from an older backup is brought to where its roll was, from
 * exported tiles. All of it is verified before anything is written, and nothing is written that is not on the roll.
 */

import { readKeys } from '../auditor/keys.ts'
import { openSource } from '../auditor/source.ts'
import { seenOf } from '../auditor/state.ts'
import { type BundledEntries, openTileReader, readEntries } from '../auditor/tiles.ts'
import type { RollHead } from '../ca/issuance/recorder.ts'
import type { Config } from '../config/config.ts'
import type { Database } from '../db/database.ts'
import { todoOf } from '../db/log-effects.ts'
import { readStanding } from '../db/log-opening.ts'
import { isServed, type RecoveredEntry, type RecoveryDeps, recoverEntries, rehearse } from '../db/log-recovery.ts'
import { readEdge, readHashes, tileReader } from '../db/tree.ts'
import { verifyEd25519 } from '../keys/note-signatures.ts'
import { Failure } from '../lib/failure.ts'
import { countText, type Progress } from '../lib/progress.ts'
import type { Log } from '../log.ts'
import { codec } from '../server/codec.ts'
import { readAnchor } from '../server/log-checks.ts'
import { type Checkpoint, openCheckpoint } from '../tlog/checkpoint.ts'
import { isRollFault } from '../tlog/fault.ts'
import { parseEntry } from '../tlog/forms.ts'
import { type Edge, emptyEdge, extend } from '../tlog/frontier.ts'
import { type Hash, readRoot } from '../tlog/merkle.ts'
import { isEqual } from '../tlog/text.ts'
import { explainRecords } from './database-fault.ts'
import { openSources, type SourceFiles, type Sources } from './log-sources.ts'
import { withDatabase } from './with-records.ts'

export interface RecoverOptions extends SourceFiles {
  readonly from: string
  /** Of the roll, where the records have none yet. */
  readonly key?: string | undefined
  /** Put them back in one transaction that is taken back. */
  readonly check: boolean
}

export interface Recovery {
  readonly origin: string
  /** The database's roll ended here. */
  readonly from: number
  /** The roll of the folder ends here. */
  readonly to: number
  /** What is to be done by hand, in sentences. */
  readonly byHand: readonly string[]
  /** Seen once, and not in the folder: up to here. */
  readonly missingUntil?: number
}

export const runRecover = (
  config: Config,
  log: Log,
  options: RecoverOptions,
  progress: Pick<Progress, 'update' | 'tell'>,
): Promise<Recovery> =>
  withDatabase(config, log, async (db) => {
    if (await isServed(db))
      throw new Failure('conflict', 'Chancery runs on this database: stop every instance, and then recover.')
    const folder = await openRollFolder(options.from)
    const checkpoint = await readCheckpoint(db, folder, options)
    const seen = await readAnchor(config).catch(explainRecords)
    if (seen && seen.origin !== checkpoint.origin)
      throw new Failure(
        'usage',
        `${options.from} holds the roll ${checkpoint.origin}, but ${config.roll.anchor} is of ${seen.origin}.`,
      )
    const edge = await readDatabaseEdge(db)
    if (seen && seen.size <= edge.size) await assertBeginning(db, seen, config.roll.anchor as string)
    const found = { origin: checkpoint.origin, from: edge.size, to: checkpoint.size }
    const end = Math.max(edge.size, checkpoint.size)
    const missing = seen && seen.size > end ? { missingUntil: seen.size } : {}
    if (edge.size >= checkpoint.size) {
      await assertBeginning(db, checkpoint, options.from)
      return { ...found, byHand: [], ...missing }
    }
    const sources = await openSources(db, config, options)
    const verified = { folder, checkpoint, seen, anchor: config.roll.anchor, edge, sources }
    const { byHand, roots } = await verify(db, verified, progress)
    for (const sentence of byHand) progress.tell(`By hand: ${sentence}`)
    const putBack = (records: RecoveryDeps['db']) => write(records, { ...verified, roots }, progress)
    // Only putting them back shows that the records take them.
    await (options.check ? rehearse(db, putBack) : putBack(db))
    return { ...found, byHand, ...missing }
  })

export const recoveryText = ({ origin, from, to, byHand, missingUntil }: Recovery, check: boolean): string => {
  const what = to <= from ? 'Nothing in the folder is missing in the records' : missingText(to - from, check)
  return [
    `${what}: the roll ${origin} ends at ${countText(check ? from : Math.max(from, to))}.`,
    ...(byHand.length === 0 ? [] : ['Not on the roll, and so to be done again by hand:']),
    ...byHand.map((sentence) => `  - ${sentence}`),
    ...(missingUntil === undefined ? [] : [beyondText(Math.max(from, to), missingUntil)]),
  ].join('\n')
}

const missingText = (count: number, check: boolean): string =>
  `${countText(count)} ${count === 1 ? 'entry' : 'entries'} ${check ? 'would be' : count === 1 ? 'was' : 'were'} put back`

const beyondText = (from: number, to: number): string =>
  `Entries ${from} to ${to - 1} are still missing: they were seen once, and the folder does not have them. Bring a folder that does; where they are lost for good, see "chancery roll succeed".`

// What is there ---------------------------------------------------------------------------------------------------------

interface RollFolder {
  readonly path: string
  /** The signed note. */
  readonly note: Buffer
  /** Entries of a roll of this size from an index on, bundle by bundle. Throws where one is missing or is none. */
  entries(from: number, size: number): AsyncGenerator<BundledEntries, void>
}

const openRollFolder = async (path: string): Promise<RollFolder> => {
  const source = await openSource(path, {})
  const note = await source.read('checkpoint')
  if (note === undefined) throw new Failure('usage', `${path} is no folder of an exported roll: it has no checkpoint.`)
  const tiles = openTileReader(source, seenOf(note).size)
  const unreadable = (message: string, index: number) =>
    new Failure('usage', `${path}: ${message}, with entries ${index} and up.`)
  return { path, note, entries: (from, to) => readEntries(tiles, { from, to }, unreadable) }
}

const readCheckpoint = async (
  db: Database,
  { path, note }: RollFolder,
  { key }: Pick<RecoverOptions, 'key'>,
): Promise<Checkpoint> => {
  const text = key ?? (await readStanding(db)).opened?.key
  if (text === undefined)
    throw new Failure(
      'usage',
      'The records do not say by whom checkpoints are signed: give the key of the roll with --key.',
    )
  const keys = await readKeys([text])
  try {
    return await openCheckpoint(note, keys, verifyEd25519)
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Failure('usage', `The checkpoint in ${path} is none of this roll: ${error.detail}.`)
  }
}

const readDatabaseEdge = async (db: Database): Promise<Edge> => {
  const { rows } = await db.query<RollHead>({ text: 'select size, root from roll where id = 1' })
  try {
    return await readEdge(db, rows[0] as RollHead, codec.hasher)
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Failure('usage', `The tree in the records is damaged: ${error.detail}. Restore another backup.`)
  }
}

const assertBeginning = async (db: Database, { size, root }: Checkpoint, from: string): Promise<void> => {
  if (!isEqual(await readRoot(size, tileReader(db), codec.hasher), root))
    throw new Failure(
      'usage',
      `The roll in the records does not go on from the ${size} entries of ${from}: these are two rolls. ${whichIsRight}`,
    )
}

// Verifying -------------------------------------------------------------------------------------------------------------

interface Verified {
  readonly folder: RollFolder
  readonly checkpoint: Checkpoint
  readonly seen: Checkpoint | undefined
  /** Where that is kept. */
  readonly anchor: string | undefined
  readonly edge: Edge
  readonly sources: Sources
}

interface Judged {
  /** What is left to people. */
  readonly byHand: readonly string[]
  /** Of the tree after each bundle. */
  readonly roots: readonly Hash[]
}

/** The entries lead from the records' tree to the checkpoint, through the one that was seen. */
const verify = async (db: Database, verified: Verified, progress: Pick<Progress, 'update'>): Promise<Judged> => {
  const { folder, checkpoint, seen, edge: start, sources } = verified
  const roots: Hash[] = []
  const todos = new Map<string, string | null>()
  const created: string[] = []
  let edge = start
  for await (const bundle of folder.entries(start.size, checkpoint.size)) {
    const entries = parseEntries(bundle)
    for (const { entry } of entries) {
      sources.learn(entry)
      if (entry.type === 'issuer.created') created.push(entry.issuer)
      if (entry.type === 'certificate.issued') sources.readCertificate(Buffer.from(entry.certificate, 'base64'))
      const todo = todoOf(entry, sources)
      if (todo) todos.set(todo.about, todo.todo)
    }
    const next = follow(edge, entries, seen)
    if (next === undefined) throw await otherRoll(db, verified)
    edge = next
    roots.push(edge.root)
    progress.update(edge.size - start.size, 2 * (checkpoint.size - start.size))
  }
  if (!isEqual(edge.root, checkpoint.root)) throw await otherRoll(db, verified)
  const unknown = created.filter((name) => !sources.issuer(name))
  if (unknown.length > 0)
    throw new Failure(
      'usage',
      `The issuer ${unknown[0]} was created after the backup, and its chain or the place of its key is not known: give the certificates above it, its root too, with --chain.`,
    )
  return { byHand: [...todos.values()].filter((todo) => todo !== null), roots }
}

/** The tree after these entries. Undefined where it is not what was seen. */
const follow = (edge: Edge, entries: readonly RecoveredEntry[], seen: Checkpoint | undefined): Edge | undefined => {
  const leaves = entries.map(({ leaf }) => leaf)
  if (seen === undefined || seen.size <= edge.size || seen.size > edge.size + leaves.length)
    return extend(edge, leaves, codec.hasher).edge
  const cut = seen.size - edge.size
  const there = extend(edge, leaves.slice(0, cut), codec.hasher).edge
  return isEqual(there.root, seen.root) ? extend(there, leaves.slice(cut), codec.hasher).edge : undefined
}

const parseEntries = ({ index: first, entries }: BundledEntries): readonly RecoveredEntry[] =>
  entries.map((one, i) => {
    const index = first + i
    try {
      return { index, entry: parseEntry(one), text: Buffer.from(one).toString('utf8'), leaf: leafOf(one) }
    } catch (error) {
      if (!isRollFault(error)) throw error
      const newer = isRollFault(error, 'entry.type') ? ' Recover with the version of Chancery that wrote it.' : ''
      throw new Failure('usage', `Entry ${index} of the folder cannot be read: ${error.detail}.${newer}`)
    }
  })

/**
 * The records and what the folder has beyond them do not lead to what was signed or seen. Whether it is damaged, only all of the folder
 * tells. Of two rolls that are whole, nobody knows here which is right: an anchor is written by whatever was served.
 */
const otherRoll = async (db: Database, { folder, checkpoint, seen, anchor, edge }: Verified): Promise<Failure> => {
  if (!(await leadsTo(folder, checkpoint)))
    return new Failure('usage', 'The entries of the folder are not those of its checkpoint: it is damaged, or torn.')
  // What the records hold of what was seen has been compared already.
  const isBeyond = seen !== undefined && seen.size > edge.size && seen.size <= checkpoint.size
  if (isBeyond && !(await leadsTo(folder, seen)))
    return new Failure(
      'usage',
      `The ${seen.size} entries of the folder are not those that were seen here: ${folder.path} and ${anchor} are of two rolls. ${whichIsRight}`,
    )
  const at = await firstOther(db, folder, edge.size)
  if (at === undefined)
    return new Failure(
      'usage',
      'The tree in the records is damaged: its leaves are those of the folder, and it is not. Restore another backup.',
    )
  const told = `The records have gone on by themselves since entry ${at}: these are two rolls, and neither follows from the other.`
  const isOfRecords = seen !== undefined && seen.size > at && seen.size <= edge.size
  return new Failure(
    'usage',
    `${told} ${isOfRecords ? `${anchor} agrees with the records. ${whichIsRight}` : 'Restore the backup once more, and recover before anything is served (docs/roll.md).'}`,
  )
}

const leadsTo = async (folder: RollFolder, { size, root }: Checkpoint): Promise<boolean> => {
  let edge = emptyEdge(codec.hasher)
  for await (const { entries } of folder.entries(0, size)) edge = extend(edge, entries.map(leafOf), codec.hasher).edge
  return isEqual(edge.root, root)
}

const firstOther = async (db: Database, folder: RollFolder, size: number): Promise<number | undefined> => {
  for await (const { index, entries } of folder.entries(0, size)) {
    const stored = await readHashes(db, { level: 0, from: index, count: entries.length })
    const at = entries.findIndex((entry, i) => !isEqual(leafOf(entry), stored[i] ?? codec.hasher.empty))
    if (at >= 0) return index + at
  }
  return undefined
}

const whichIsRight =
  'A checkpoint that others have kept (auditors, witnesses) says which is right. If the folder: restore the backup once more, keep an anchor that is not of it elsewhere, and recover before anything is served (docs/roll.md).'

const leafOf = (entry: Uint8Array): Hash => codec.hasher.leaf(entry)

// Writing ---------------------------------------------------------------------------------------------------------------

/** Reads the folder once more: all of it would be too much to keep. */
const write = async (
  db: RecoveryDeps['db'],
  { folder, checkpoint, edge: start, sources, roots }: Verified & Pick<Judged, 'roots'>,
  progress: Pick<Progress, 'update'>,
): Promise<void> => {
  const total = checkpoint.size - start.size
  let edge = start
  let read = 0
  for await (const bundle of folder.entries(start.size, checkpoint.size)) {
    const entries = parseEntries(bundle)
    assertSame(edge, entries, roots[read++], folder)
    const isLast = edge.size + entries.length === checkpoint.size
    edge = await recoverEntries({ db, hasher: codec.hasher, sources }, edge, entries, isLast)
    progress.update(total + edge.size - start.size, 2 * total)
  }
}

/** What was judged is what is written. */
const assertSame = (
  edge: Edge,
  entries: readonly RecoveredEntry[],
  root: Hash | undefined,
  { path }: RollFolder,
): void => {
  const leaves = entries.map(({ leaf }) => leaf)
  if (root !== undefined && isEqual(extend(edge, leaves, codec.hasher).edge.root, root)) return
  throw new Failure(
    'usage',
    `${path} has changed since it was verified: of entries ${edge.size} to ${edge.size + leaves.length - 1} and up nothing was written. Run it again when nobody writes there.`,
  )
}

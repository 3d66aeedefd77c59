/**
 * The roll put together: its name, its key, where its last checkpoint is kept outside of the database, and what signs. What
 * the records say of all this outweighs the settings, which are for the first start.
 */

import { setTimeout as sleep } from 'node:timers/promises'

import { type Checkpoints, openCheckpoints } from '../ca/log/checkpoints.ts'
import { openWitnesses, type Witnesses } from '../ca/log/witnesses.ts'
import { own } from '../ca/own.ts'
import type { Config } from '../config/config.ts'
import { readDatabaseId, readStanding } from '../db/log-opening.ts'
import { tileReader } from '../db/tree.ts'
import { isInToken, type Keyring } from '../keys/keyring.ts'
import { ed25519SpkiStart, verifyEd25519 } from '../keys/note-signatures.ts'
import { KeyExists, TokenFault } from '../keys/pkcs11/token-fault.ts'
import type { SigningKey } from '../keys/signing-key.ts'
import { checkOne } from '../keys/verifier-batch.ts'
import { openParts } from '../lib/disposer.ts'
import { blameSetting, SettingFault } from '../lib/setting-fault.ts'
import { sha256 } from '../lib/sha256.ts'
import { withDeadline } from '../lib/timeout.ts'
import type { Log } from '../log.ts'
import type { Checkpoint } from '../tlog/checkpoint.ts'
import type { DatabaseAdopted } from '../tlog/entries.ts'
import { consistencyProof } from '../tlog/merkle.ts'
import { encodeVerifierKey, makeVerifierKey, parseVerifierKey } from '../tlog/note.ts'
import { type KeyKind, signatureAlgorithm } from '../x509/algorithms.ts'
import { codec } from './codec.ts'
import { openLazily } from './lazy-key.ts'
import { type AnchorFile, openAnchorFile } from './pinned-checkpoint.ts'
import type { Stores } from './stores.ts'
import { post } from './witness-client.ts'

/** What there is when it is opened for the first time is seen from then on: the next start must find it. */
const openAnchor = async (
  { roll: { anchor, anchorEveryMs } }: Config,
  log: Log,
  head: () => Promise<Checkpoint>,
): Promise<AnchorFile | undefined> => {
  if (anchor === undefined) return undefined
  const failed = (err: unknown): void =>
    log.error({ event: 'roll.unanchored', err }, 'the last checkpoint could not be kept')
  return openParts(async (parts) => {
    const file = await openAnchorFile({ path: anchor, everyMs: anchorEveryMs, failed }).catch(
      blameSetting('CHANCERY_ROLL_ANCHOR'),
    )
    parts.add(file.close)
    if (file.found === undefined) await file.write(await head()).catch(failed)
    return file
  })
}

/**
 * Earlier versions put on record which server it is, and not which of its databases, so that a copy beside it could be served by the
 * same keys: the first start of this one adds that.
 */
const recordDatabase = async ({ db, roll, log }: Pick<Stores, 'db' | 'roll' | 'log'>): Promise<void> => {
  const { database: before } = await readStanding(db)
  if (!before || before.includes('/')) return
  const database = await readDatabaseId(db)
  const reason = 'which database of the server it is was not on record'
  const event: DatabaseAdopted = { type: 'database.adopted', database, before, reason, by: own.principal }
  await roll.change(async () => ({ events: [event], result: undefined }))
  log.info({ event: 'roll.database', database }, 'which database the records are in is on record')
}

/** Gives the roll its name and its key where it has none. Of several that start at once one comes after the other. */
export const openRollForTheFirstTime = async (
  stores: Stores,
  keys: Pick<Keyring, 'open' | 'create'>,
): Promise<void> => {
  const { db, config, roll, log } = stores
  if ((await readStanding(db)).opened) return recordDatabase(stores)
  const origin = firstOrigin(config)
  const key = await rollKeyOf(keys, config, origin)
  const event = {
    type: 'roll.opened',
    origin,
    key,
    database: await readDatabaseId(db),
    succeeds: null,
    by: own.principal,
  } as const
  await roll.change(async () => ({ events: [event], result: undefined }))
  log.info({ event: 'roll.opened', origin, key: event.key }, 'the roll has its name and its key')
}

/** What the roll is called from its first start on. */
export const firstOrigin = ({ names, roll: { origin } }: Pick<Config, 'names' | 'roll'>): string =>
  origin ?? `${names[0]?.value ?? 'localhost'}/roll`

/** As those who verify a roll of this name are given its key, which is made where there is none. */
export const rollKeyOf = async (
  keys: Pick<Keyring, 'open' | 'create'>,
  { roll: { key: uri } }: Pick<Config, 'roll'>,
  origin: string,
): Promise<string> => {
  const key = await openOrCreate(keys, uri, 'ed25519').catch(tellOtherPlaces(uri))
  await key.close()
  if (key.algorithm.id !== ed25519.id)
    return blameSetting('CHANCERY_ROLL_KEY')(
      new Error(
        `${uri} is not an Ed25519 key, which checkpoints are signed with; name another, which is made where it is missing.`,
      ),
    )
  const publicKey = key.spki.subarray(ed25519SpkiStart.length)
  return encodeVerifierKey(makeVerifierKey({ name: origin, type: 'ed25519', publicKey }, sha256))
}

/** Most tokens make keys for issuers, and some of them none for the roll. What may pass is told as it is. */
const tellOtherPlaces =
  (uri: string) =>
  (error: unknown): never => {
    if (!(error instanceof TokenFault) || error.remedy !== 'request' || !isInToken(uri)) throw error
    const advice =
      'That is the key of the roll, an Ed25519 one: CHANCERY_ROLL_KEY may name one in a file, as it does by default, or in another token.'
    throw new SettingFault(error.message, { cause: error, advice })
  }

/**
 * By one at a time, so that nobody makes it in between. Of one that is there and does not open, the reason is told, and not that
 * none is made in its place.
 */
export const openOrCreate = (keys: Pick<Keyring, 'open' | 'create'>, uri: string, kind: KeyKind): Promise<SigningKey> =>
  keys.open(uri).catch((unopened: Error) =>
    keys.create(uri, kind).catch((error: Error) => {
      throw error instanceof KeyExists ? unopened : error
    }),
  )

export interface RollSide {
  readonly checkpoints: Checkpoints
  readonly witnesses: Witnesses
  /** Why its key did not open last. */
  keyFault(): string | undefined
  close(): Promise<void>
}

/** What signs for the roll. Its key is opened when it is first needed, and again when that failed. */
export const openRollSide = (
  stores: Pick<Stores, 'db' | 'roll' | 'config' | 'log'>,
  keys: Pick<Keyring, 'open'>,
): Promise<RollSide> =>
  openParts(async (parts) => {
    const { db, roll, config, log } = stores
    const { opened } = await readStanding(db)
    if (!opened) throw new Error('The roll has no name and no key yet.')
    const verifierKey = parseVerifierKey(opened.key, sha256)
    const key = openLazily({
      keys,
      uri: config.roll.key,
      spki: Buffer.concat([ed25519SpkiStart, verifierKey.publicKey]),
      algorithm: ed25519,
      log,
      now: () => performance.now(),
    })
    const anchor = await openAnchor(config, log, async () => ({ origin: verifierKey.name, ...(await roll.head()) }))
    if (anchor) parts.add(anchor.close)
    parts.add(key.close)
    // They are asked about checkpoints, which show what they have answered.
    let witnesses: Witnesses | undefined
    const checkpoints = openCheckpoints({
      verifierKey,
      key,
      // One for each batch, here and now: handing it to another thread would keep the whole batch waiting for longer.
      verify: async (check) => checkOne(check),
      anchor: anchor ?? { write: async () => {} },
      head: roll.head,
      readTile: tileReader(db),
      hasher: codec.hasher,
      cosigned: () => witnesses?.fresh(),
      deadlineMs: config.limits.signingDeadlineMs,
      sleep,
    })
    // Nobody waits for the checkpoint of a list, and whoever restores a backup of before it must be told of it all the same. The
    // database is not asked: it may be away, and one that hangs would have to be waited for.
    parts.add(() => withDeadline(checkpoints.end(roll.seen()), lastSignatureMs).catch(() => {}))
    witnesses = witnessesOf(stores, checkpoints)
    return { checkpoints, witnesses, keyFault: key.fault, close: parts.close }
  })

const witnessesOf = ({ db, config, log }: Pick<Stores, 'db' | 'config' | 'log'>, checkpoints: Checkpoints): Witnesses =>
  openWitnesses({
    witnesses: config.roll.witnesses.map(({ key, url }) => ({ url, key: parseVerifierKey(key, sha256) })),
    checkpoint: async () => {
      await checkpoints.follow()
      return checkpoints.newest()
    },
    proof: (from, to) => consistencyProof(from, to, tileReader(db), codec.hasher),
    post,
    verify: verifyEd25519,
    now: () => Math.floor(Date.now() / 1_000),
    log,
  })

const ed25519 = signatureAlgorithm('ed25519')
/** A key that hangs keeps nothing from being closed. */
const lastSignatureMs = 2_000

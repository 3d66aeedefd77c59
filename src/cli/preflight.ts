/** Whether an installation is fit for production, beyond what its settings show by themselves. */
import { existsSync } from 'node:fs'
import { access, constants, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { assertNameConstraints } from '../ca/issuance/name-constraints.ts'
import { waysUp } from '../ca/issuers/bundle.ts'
import type { IssuerRow } from '../ca/issuers/issuer.ts'
import { byRank, signerAmong } from '../ca/issuers/issuers.ts'
import { own } from '../ca/own.ts'
import { endingAmong, endingText, linksOf, revokedBy, rootCrlMarginMs } from '../ca/revocation/crl-import.ts'
import { type Config, isLoopback } from '../config/config.ts'
import { readImportedCrls } from '../db/crls.ts'
import type { Database } from '../db/database.ts'
import { loadIssuers } from '../db/issuers.ts'
import { readStanding } from '../db/log-opening.ts'
import { countHoldingReported } from '../db/revocations.ts'
import { databaseFaults } from '../db/safety.ts'
import { isProblem } from '../errors.ts'
import { isInToken, type Keyring } from '../keys/keyring.ts'
import { ed25519SpkiStart } from '../keys/note-signatures.ts'
import { sha256 } from '../lib/sha256.ts'
import { hasEnded } from '../policy/validity.ts'
import { firstOrigin } from '../server/log.ts'
import { readAnchorFile } from '../server/pinned-checkpoint.ts'
import { listsText } from '../tlog/entries.ts'
import { parseVerifierKey } from '../tlog/note.ts'
import { parseAnchor, parseCertificate, type TbsFacts } from '../x509/certificate.ts'
import { parsePublicKey } from '../x509/keys.ts'
import type { Name } from '../x509/names.ts'

/** What production refuses to start with: each a clause without its full stop. Reads only. */
export const unsafe = async (config: Config, db: Database): Promise<readonly string[]> => {
  const { dataDir } = config
  const rootKey = join(dataDir, 'offline-root')
  return [
    ...(await openFolder(dataDir)),
    ...(existsSync(rootKey) ? [`a root's key is within reach, in ${rootKey}: take it offline`] : []),
    ...(await unseenRoll(config, db)),
    ...(await fixedAnchor(config)),
    ...(await issuerFaults(config, db)),
    ...(await databaseFaults(db)),
  ]
}

/** What an operator should know before, although production starts with it. */
export const unwise = async (
  config: Config,
  db: Database,
  keys: Pick<Keyring, 'open'>,
  now: Date,
): Promise<readonly string[]> => {
  const {
    dataDir,
    names,
    keys: { allowSoftware },
    roll: { allowUnseen, anchor, key: rollKey },
  } = config
  const token = join(dataDir, 'admin.token')
  return [
    ...(existsSync(token) ? [`the first administrator's token lies in ${token}: keep it elsewhere`] : []),
    ...(allowUnseen
      ? [
          'CHANCERY_ALLOW_UNSEEN_ROLL is set, so that a replica without an anchor takes an older database for the right one: take it out once each replica has started',
        ]
      : []),
    ...(anchor === undefined
      ? ['CHANCERY_ROLL_ANCHOR is none, so that only a witness tells an older database from the right one: name a file']
      : []),
    ...(await nameless(config, db)),
    ...(await standing(db, now)),
    ...(await otherwiseCut(db)),
    ...(await refusedOwnNames(db, names, now)),
    ...(await revokedAbove(db)),
    ...(await endingAbove(db, now)),
    ...(await holdingReported(db, now)),
    ...(allowSoftware ? await inFiles(db) : []),
    // All at once: each is waited for twice ten seconds where its module hangs.
    ...(await Promise.all([unopened(db, keys), unopenedRoll(db, keys, rollKey)])).flat(),
  ]
}

/** Before the first start, which makes it, there is none. */
const openFolder = async (dataDir: string): Promise<readonly string[]> => {
  const found = await stat(dataDir).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  return found && (found.mode & 0o077) !== 0 ? [`others may enter the data folder ${dataDir}: chmod 700 it`] : []
}

/** Two rolls of one name cannot be told apart by it, and no setting changes it later. */
const nameless = async (config: Config, db: Database): Promise<readonly string[]> => {
  const origin = firstOrigin(config)
  if (!isLoopback(origin.split('/', 1)[0] ?? '') || (await readStanding(db)).opened) return []
  return [
    `the first start calls the roll ${origin} for good, which is the name of no installation: set CHANCERY_NAMES before, first the name by which clients reach the API, or CHANCERY_ROLL_ORIGIN`,
  ]
}

/** Where nothing was kept of a roll, a database that was set back looks like any other. */
const unseenRoll = async ({ roll: { anchor, allowUnseen } }: Config, db: Database): Promise<readonly string[]> => {
  if (anchor === undefined || allowUnseen || (await readAnchorFile(anchor)) !== undefined) return []
  const { opened } = await readStanding(db)
  if (!opened) return []
  return [
    `no checkpoint of the roll ${opened.origin} was kept here (${anchor}), so that an older database could not be told from the right one: bring the file back, or, on a new replica or after its disk was lost, make sure of the database and set CHANCERY_ALLOW_UNSEEN_ROLL=yes for one start`,
  ]
}

/** Each checkpoint replaces the file, so that its folder has to be writable. A missing one is made. */
const fixedAnchor = async ({ roll: { anchor } }: Config): Promise<readonly string[]> => {
  if (anchor === undefined) return []
  const code = await access(dirname(anchor), constants.W_OK).catch((error: NodeJS.ErrnoException) => error.code)
  if (code === undefined || code === 'ENOENT') return []
  return [`the anchor ${anchor} cannot be written (${code}): let it be, or name another file by CHANCERY_ROLL_ANCHOR`]
}

/**
 * Every issuer in the records has a key that is opened here: a root's has no business online. And what an issuer writes
 * into certificates was fixed when it was made, whatever the settings say today.
 */
const issuerFaults = async ({ keys }: Config, db: Database): Promise<readonly string[]> =>
  (await inUse(db)).flatMap(({ name, certificate, publicUrl, keyUri }) => {
    const { issuer, subjectDer } = parseCertificate(certificate).facts
    return [
      // Whatever modules the settings name: this key is in none of them.
      ...(isInToken(keyUri) || keys.allowSoftware
        ? []
        : [
            `the key of the issuer ${name} is in a file (${keyUri}): bring one with its key in a token, or set CHANCERY_ALLOW_SOFTWARE_KEYS=yes`,
          ]),
      ...(issuer.equals(subjectDer) ? [`the issuer ${name} is a root, and its key is recorded here`] : []),
      ...(isLoopback(new URL(publicUrl).hostname)
        ? [`the issuer ${name} writes ${publicUrl} into every certificate, which is this machine only`]
        : []),
    ]
  })

/** Whether each authority can issue, and for how long. */
const standing = async (db: Database, now: Date): Promise<readonly string[]> => {
  const issuers = await inUse(db)
  const authorities = [...new Set(['default', ...issuers.map(({ authority }) => authority)])]
  const idle = authorities.filter((name) => !issuers.some((i) => i.authority === name && i.state === 'active'))
  const soon = new Date(now.getTime() + soonMs)
  return [
    ...idle.map((name) => `no issuer of the authority ${name} is active`),
    ...issuers
      .filter(({ state }) => state === 'active')
      .map(({ name, certificate }) => ({ name, notAfter: parseCertificate(certificate).facts.notAfter }))
      .filter(({ notAfter }) => notAfter < soon)
      .map(({ name, notAfter }) =>
        hasEnded(notAfter, now)
          ? `the issuer ${name} expired at ${notAfter.toISOString()}, and its authority issues nothing: bring and activate another one, or halt it`
          : `the issuer ${name} expires within ninety days: bring the next one`,
      ),
  ]
}

/** Nothing is taken over from the issuer before, and whoever fetches lists, or takes none of a part, is set up by one number. */
const otherwiseCut = async (db: Database): Promise<readonly string[]> => {
  const issuers = (await inUse(db)).filter(({ state }) => state !== 'crl-only')
  return [...Map.groupBy(issuers, ({ authority }) => authority)]
    .filter(([, mine]) => new Set(mine.map(({ shards }) => shards)).size > 1)
    .map(([authority, mine]) => {
      const each = mine.map(({ name, shards }) => `${name} has ${listsText(shards)}`).join(', ')
      return `issuers of the authority ${authority} have different numbers of lists (${each}): make sure that its relying parties take both kinds, and fetch all of each (…/crl/NAME/ has their names)`
    })
}

/** An issuer may be kept from the names of the service that it signs for, and signs for others all the same. */
const refusedOwnNames = async (db: Database, names: Config['names'], now: Date): Promise<readonly string[]> => {
  const active = (await inUse(db)).filter(({ state, authority }) => state === 'active' && authority === own.authority)
  const signer = signerAmong(active.map(signingOf).sort(byRank), own.keyType, now)
  // One way up on which all of them are permitted is enough, as for whatever is issued.
  const refused = signer?.ways.map((way) => names.filter((name) => !isPermitted(name, way)).map(({ value }) => value))
  if (!signer || refused?.some((values) => values.length === 0)) return []
  return [
    `the name constraints of the issuer ${signer.name} refuse ${refused?.[0]?.join(', ')} of CHANCERY_NAMES, so that the API is served under a stand-in: leave out what is not needed, or bring an issuer that may certify it`,
  ]
}

const signingOf = (issuer: IssuerRow) => {
  const facts = parseAnchor(issuer.certificate)
  return {
    name: issuer.name,
    keyType: parsePublicKey(facts.spki).algorithm.id,
    bounds: { notAfter: facts.notAfter },
    ways: waysUp(issuer).map((way) => [facts, ...way.map(parseAnchor)]),
  }
}

const isPermitted = (name: Name, chain: readonly TbsFacts[]): boolean => {
  try {
    assertNameConstraints({ names: [name], subject: [] }, chain)
    return true
  } catch (error) {
    if (isProblem(error, 'san.forbidden')) return false
    throw error
  }
}

/** Whoever reads lists takes nothing of what they sign, and they sign until somebody halts them. */
const revokedAbove = async (db: Database): Promise<readonly string[]> => {
  const signing = (await inUse(db)).filter(({ state }) => state !== 'crl-only')
  return revokedBy(await readImportedCrls(db), linksOf(signing.map(lineOf))).map(
    (name) =>
      `a CA above has revoked the issuer ${name}, which may sign yet: chancery issuer halt ${name} --reason TEXT`,
  )
}

/** As readiness says it. */
const endingAbove = async (db: Database, now: Date): Promise<readonly string[]> => {
  const links = linksOf((await inUse(db)).map(lineOf))
  const text = endingText(endingAmong(await readImportedCrls(db), links, { now, withinMs: rootCrlMarginMs }), now)
  return text === undefined ? [] : [text]
}

const lineOf = (issuer: IssuerRow) => ({
  name: issuer.name,
  facts: parseAnchor(issuer.certificate),
  ways: waysUp(issuer).map((way) => way.map(parseAnchor)),
})

/** Whoever has reported a key need know of one certificate only, and sees no others. */
const holdingReported = async (db: Database, now: Date): Promise<readonly string[]> => {
  const { certificates, keys, key } = await countHoldingReported(db, now)
  if (key === null) return []
  const others = keys === 1 ? '' : `, and the same for ${keys - 1} other keys`
  return [
    `${certificates === 1 ? 'a certificate is valid whose key was' : `${certificates} certificates are valid whose keys were`} reported as compromised: chancery revoke-many --key ${key} --reason keyCompromise${others}`,
  ]
}

const inFiles = async (db: Database): Promise<readonly string[]> =>
  (await inUse(db))
    .filter(({ keyUri }) => !isInToken(keyUri))
    .map(({ name, keyUri }) => `the key of the issuer ${name} is in a file (${keyUri})`)

const unopened = async (db: Database, keys: Pick<Keyring, 'open'>): Promise<readonly string[]> => {
  const tries = (await inUse(db)).map(async ({ name, keyUri, certificate }) => {
    try {
      const key = await keys.open(keyUri)
      await key.close()
      return key.spki.equals(parseCertificate(certificate).facts.spki)
        ? []
        : [`the key at ${keyUri} is not the one of the issuer ${name}, which signs nothing without that`]
    } catch (error) {
      return [`the key of the issuer ${name} does not open: ${reasonOf(error)}`]
    }
  })
  return (await Promise.all(tries)).flat()
}

/** Before the first start there is none. */
const unopenedRoll = async (db: Database, keys: Pick<Keyring, 'open'>, uri: string): Promise<readonly string[]> => {
  const { opened } = await readStanding(db)
  if (!opened) return []
  try {
    const key = await keys.open(uri)
    await key.close()
    const spki = Buffer.concat([ed25519SpkiStart, parseVerifierKey(opened.key, sha256).publicKey])
    return key.spki.equals(spki)
      ? []
      : [`the key at ${uri} is not the one of the roll on record: nothing is issued without that`]
  } catch (error) {
    return [`the key of the roll does not open, and nothing is issued without it: ${reasonOf(error)}`]
  }
}

const reasonOf = (error: unknown): string => (error as Error).message.replace(/\.$/, '')

const inUse = async (db: Database) => (await loadIssuers(db)).filter(({ state }) => state !== 'retired')

const soonMs = 90 * 86_400_000

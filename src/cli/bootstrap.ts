/**
 * What a new data folder and a new database need before they can serve: in development a whole hierarchy, the seeded
 * profiles and an administrator; in production only what no caller could make: our own profile and a first
 * administrator's token. Safe to run again and by several at once: what is there is left alone.
 */
import { hash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { newSerial } from '../ca/issuance/serial.ts'
import { encodeRootCrlTbs, seal, signIntermediate, signRoot } from '../ca/issuers/ceremony.ts'
import { isOwnProfile, own } from '../ca/own.ts'
import type { Config } from '../config/config.ts'
import { inTurn } from '../db/advisory-lock.ts'
import { openImportStore } from '../db/crls.ts'
import { loadIssuers, recordIssuer } from '../db/issuers.ts'
import { isProblem } from '../errors.ts'
import type { Keyring } from '../keys/keyring.ts'
import { readPrivateFile, writePrivateFile } from '../keys/private-file.ts'
import type { SigningKey } from '../keys/signing-key.ts'
import { Failure } from '../lib/failure.ts'
import { makeFolder } from '../lib/fs.ts'
import { loadSeedDocument, seedNames } from '../policy/seeds.ts'
import { providePassphrase, rootKey } from '../server/keys.ts'
import { openOrCreate, openRollForTheFirstTime } from '../server/log.ts'
import { ownProfile } from '../server/own-certificates.ts'
import type { Stores } from '../server/stores.ts'
import { defaultShards } from '../tlog/entries.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { parseCrl } from '../x509/crl.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { encodePem } from '../x509/pem.ts'

/** Makes what is missing. One of several that start at once does it; the others wait, and find it done. */
export const bootstrap = async (stores: Stores, keys: Keyring): Promise<void> => {
  const { config, policies } = stores
  await alone(stores, async () => {
    // What another one has made meanwhile is not in our memory yet.
    await policies.refresh()
    await providePassphrase(stores)
    await openRollForTheFirstTime(stores, keys)
    if (config.mode === 'development') await makeHierarchy(stores, keys)
    await putProfiles(stores)
    await makeAdmin(stores)
  })
}

/** Making keys takes its time, and needs connections of its own. */
const alone = ({ db }: Pick<Stores, 'db'>, work: () => Promise<void>): Promise<void> =>
  db.apart(async (tx) => {
    await inTurn(tx, bootstrapLock)
    await work()
  })

// The development hierarchy ---------------------------------------------------------------------------------------------

/** A root whose key is set apart, and below it an intermediate for each authority: Kubernetes trusts them for different things. */
const makeHierarchy = async (stores: Stores, keys: Keyring): Promise<void> => {
  const known = new Set((await loadIssuers(stores.db)).map(({ name }) => name))
  const missing = authorities.filter((name) => !known.has(name))
  // Another root than theirs, made where theirs is not, would be above none of them; and theirs signs nothing while its key is offline.
  const isHere = [rootPath(stores.config), rootKeyPath(stores.config)].every((path) => existsSync(path))
  const due = missing.length > 0 || isHere ? await dueRootCrl(stores) : undefined
  if (missing.length === 0 && due === undefined) return
  const root = await openRoot(stores, keys)
  await makeIntermediates(stores, keys, root, missing)
  if (due) await makeRootCrl(stores, root, due)
  // The root's key is not needed before another intermediate or CRL is due.
  await root.key.close()
}

interface Root {
  readonly key: SigningKey
  readonly certificate: Buffer
}

const makeIntermediates = async (
  stores: Stores,
  keys: Keyring,
  root: Root,
  missing: readonly string[],
): Promise<void> => {
  const { db, roll, config, clock, random, log } = stores
  for (const authority of missing) {
    const keyUri = intermediateKey(config, authority)
    const key = await openOrCreate(keys, keyUri, 'ec-p256')
    const certificate = await signIntermediate(root.key, root.certificate, {
      subject: [organization, { type: 'commonName', value: `Chancery Development ${authority}` }],
      serial: newSerial(random),
      spki: key.spki,
      crlUrl: rootCrlUrl(config),
      ...validity(clock(), intermediateDays),
    })
    const row = {
      name: authority,
      authority,
      state: 'active',
      certificate,
      chain: [root.certificate],
      keyUri,
      keySha256: parsePublicKey(key.spki).sha256.toString('hex'),
      publicUrl: config.publicUrl,
      shards: defaultShards,
    } as const
    await recordIssuer(roll, row, own.principal)
    log.info({ event: 'hierarchy.intermediate', authority }, 'made a development intermediate')
  }
  await makeFolder(join(config.dataDir, 'bundles'), 0o700)
  for (const row of await loadIssuers(db)) {
    const bundle = [row.certificate, ...row.chain].map((der) => encodePem('CERTIFICATE', der)).join('')
    await writeFile(join(config.dataDir, 'bundles', `${row.name}.pem`), bundle, { mode: 0o600 })
  }
}

/** What the root's next list follows. */
interface DueCrl {
  readonly number: bigint
  /** DER. */
  readonly previous?: Buffer
}

/** The root's list that must be made now, if one must: there is none, or it has half of its time left. */
const dueRootCrl = async ({ db, roll, config, clock }: Stores): Promise<DueCrl | undefined> => {
  const certificate = await readPrivateFile(rootPath(config)).catch(() => undefined)
  if (!certificate) return { number: 1n }
  const signer = hash('sha256', parseCertificate(certificate).facts.spki)
  const last = (await openImportStore({ db, roll }).newest()).find((list) => list.signer === signer)
  if (!last) return { number: 1n }
  const half = (last.thisUpdate.getTime() + last.nextUpdate.getTime()) / 2
  return half < clock().getTime() ? { number: last.number + 1n, previous: last.der } : undefined
}

/** Of an offline root, a ceremony makes it and an operator brings it: here both are at hand. */
const makeRootCrl = async (
  { db, roll, clock, log }: Stores,
  { key, certificate }: Root,
  { number, previous }: DueCrl,
): Promise<void> => {
  const thisUpdate = new Date(Math.floor(clock().getTime() / 1000) * 1000 - 60_000)
  const nextUpdate = new Date(thisUpdate.getTime() + rootCrlDays * 86_400_000)
  // An imported CRL may revoke certificates: they stay revoked.
  const revoked = previous ? parseCrl(previous).revoked : []
  const input = { number, thisUpdate, nextUpdate, revoked, ...(previous && { previous }) }
  const der = await seal(key, encodeRootCrlTbs(key, certificate, input))
  const list = { signer: hash('sha256', key.spki), number, thisUpdate, nextUpdate, der }
  const told = { issuer: own.authority, revoked: revoked.length, sha256: hash('sha256', der), by: own.principal }
  await openImportStore({ db, roll }).add({ ...list, ...told }, () => true)
  log.info(
    { event: 'hierarchy.crl', number: String(number) },
    "made the development root's list of what it has revoked",
  )
}

const rootCrlUrl = ({ publicUrl }: Config): string => `${publicUrl}/crl/root.crl`
const rootPath = ({ dataDir }: Config): string => join(dataDir, 'offline-root', 'root.der')
const rootKeyPath = ({ dataDir }: Config): string => join(dataDir, rootKey.slice('file:'.length))

const openRoot = async ({ config, clock, random, log }: Stores, keys: Keyring): Promise<Root> => {
  const folder = join(config.dataDir, 'offline-root')
  const path = rootPath(config)
  const found = await readPrivateFile(path).catch(() => undefined)
  if (found && !existsSync(rootKeyPath(config))) throw rootKeyAway(config)
  const key = await openOrCreate(keys, rootKey, 'ec-p256')
  const certificate =
    found ??
    (await signRoot(key, {
      subject: [organization, { type: 'commonName', value: 'Chancery Development Root' }],
      serial: newSerial(random),
      ...validity(clock(), rootDays),
    }))
  if (!found) {
    await writePrivateFile(path, certificate)
    log.info({ event: 'hierarchy.root', folder }, 'made a development root; its key is set apart')
  }
  await writePrivateFile(join(config.dataDir, 'root.pem'), encodePem('CERTIFICATE', certificate))
  return { key, certificate }
}

/** Another one in its place would be of no root, and in the way of who puts it back. */
const rootKeyAway = (config: Config): Failure =>
  new Failure(
    'missing',
    `${rootPath(config)} is to sign an issuer, and its key is not here: put it back at ${rootKeyPath(config)} for this start, or move that folder away, and another root is made.`,
  )

const intermediateKey = ({ keys: { developmentToken } }: Config, authority: string): string => {
  if (developmentToken === undefined) return `file:keys/${authority}.pem`
  const [token, query] = developmentToken.split('?')
  return `${token};object=${authority}${query ? `?${query}` : ''}`
}

const validity = (now: Date, days: number): { notBefore: Date; notAfter: Date } => {
  const start = Math.floor(now.getTime() / 1000) * 1000 - 300_000
  return { notBefore: new Date(start), notAfter: new Date(start + days * 86_400_000 - 1000) }
}

// Profiles and the first administrator ----------------------------------------------------------------------------------

const putProfiles = async (stores: Stores): Promise<void> => {
  const { policies, records, config } = stores
  const known = await records.authorities()
  // Those that are there already are not even read.
  const missing = config.mode === 'development' ? seedNames().filter((name) => !policies.current(name)) : []
  if (missing.length > 0) await policies.putAll(missing.map(loadSeedDocument), own.principal, { ifNoneMatch: '*' })
  // Our own changes with the configured names; without its authority we can't serve at all, and say so when we try.
  if (known.includes(own.authority)) await policies.put(ownProfile(config, own.authority), own.principal, {})
}

/** Without any administrator: makes the principal `admin`, whose token is written once. */
const makeAdmin = async ({ access, policies, config, log }: Stores): Promise<void> => {
  const grants = await access.listGrants()
  if (grants.some(({ role }) => role === 'admin')) return
  const by = own.principal
  const principal = 'admin'
  await access.createPrincipal(principal, by).catch((error: unknown) => {
    if (!isProblem(error, 'state.exists')) throw error
  })
  const { secret } = await access.createToken({ principal, label: 'first administrator', expiresAt: null }, by)
  const path = join(config.dataDir, 'admin.token')
  await writePrivateFile(path, `${secret}\n`)
  if (config.mode === 'development') {
    const profiles = (await policies.list()).map(({ profile }) => profile.name).filter((name) => !isOwnProfile(name))
    await access.createGrant({ principal, role: 'requester', profiles, names: null, revoke: true }, by)
    for (const role of ['operator', 'auditor'] as const)
      await access.createGrant({ principal, role, profiles: null, names: null, revoke: false }, by)
  }
  await access.createGrant({ principal, role: 'admin', profiles: null, names: null, revoke: false }, by)
  log.info({ event: 'bootstrap.admin', path }, 'made the first administrator')
}

const authorities = ['default', 'kubernetes', 'etcd', 'front-proxy'] as const
const organization = { type: 'organization', value: 'Chancery Development' } as const
const rootDays = 3650
const rootCrlDays = 180
const intermediateDays = 1825
const bootstrapLock = 4_711_000_001

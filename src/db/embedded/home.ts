/** `<data>/postgres`: made whole or not at all. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, open, readdir, readFile, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'

import { makeFolder, syncFolder } from '../../lib/fs.ts'
import { SettingFault } from '../../lib/setting-fault.ts'
import type { Log } from '../../log.ts'
import { type Account, accountOf, decideAccount, runAs } from './account.ts'
import type { Binaries } from './binaries.ts'

export interface Home {
  /** The server's data folder, links resolved: what the server calls it, too. */
  readonly cluster: string
  readonly log: string
  readonly passwords: Readonly<Record<PasswordOf, string>>
  readonly account: Account
}

export type PasswordOf = 'superuser' | 'owner' | 'serving'

/** What is there, or undefined where nothing was made yet. Rejects with a sentence where something else is there. */
export const loadHome = async (dataDir: string, binaries: Binaries): Promise<Home | undefined> => {
  const folder = join(resolve(dataDir), 'postgres')
  const entries = await entriesOf(folder)
  if (entries.length === 0) return undefined
  let cluster: string
  try {
    cluster = await realpath(join(folder, 'cluster'))
    await stat(join(cluster, 'PG_VERSION'))
  } catch (cause) {
    throw new SettingFault(
      `${folder} exists but holds no PostgreSQL data folder that we can read; move it away, or bring back its "cluster".`,
      { cause: cause as Error },
    )
  }
  const [superuser, owner, serving] = await Promise.all([
    loadPassword(folder, 'superuser'),
    loadPassword(folder, 'owner'),
    loadPassword(folder, 'serving'),
  ])
  return {
    cluster,
    log: join(folder, 'server.log'),
    passwords: { superuser, owner, serving },
    account: await accountOf(cluster, binaries),
  }
}

/**
 * Makes the cluster, its roles and its database in a temporary folder and renames that into its place, which is
 * durable when this resolves. A crash on the way leaves a folder that the next start clears away. Of two who do
 * this at once, one rename succeeds; the other throws its own away and takes what is there.
 */
export const makeHome = async (dataDir: string, binaries: Binaries, log: Log): Promise<Home> => {
  const parent = resolve(dataDir)
  const folder = join(parent, 'postgres')
  await makeFolder(parent, 0o700)
  await clearHalfMade(parent)

  const half = await mkdtemp(join(parent, `${prefix}`))
  let elsewhere: string | undefined
  try {
    const account = await decideAccount(half, binaries, log)
    elsewhere = account.elsewhere
    log.info(
      { event: 'embedded.initialise', folder: elsewhere ?? folder, how: account.how },
      'making the embedded PostgreSQL’s data folder',
    )
    const cluster = join(elsewhere ?? half, 'cluster')
    if (elsewhere !== undefined) await symlink(cluster, join(half, 'cluster'))
    await initialise(cluster, account, await makePasswords(half))
    await syncFolder(half)
    await rename(half, folder)
    await syncFolder(parent)
  } catch (error) {
    await rm(half, { recursive: true, force: true })
    if (elsewhere !== undefined) await rm(elsewhere, { recursive: true, force: true })
    if (!taken.has((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
  const home = await loadHome(parent, binaries)
  if (home === undefined) throw new Error(`${folder} vanished while it was being made.`)
  return home
}

const initialise = async (cluster: string, account: Account, passwords: Home['passwords']): Promise<void> => {
  const { initdb, postgres } = account.binaries
  await runAs(account, [initdb, '--pgdata', cluster, ...initdbOptions])
  await writeFile(join(cluster, 'pg_hba.conf'), 'local all all scram-sha-256\n')
  // A single-user backend: the roles get their passwords before anybody can connect without one.
  await runAs(
    account,
    [postgres, '--single', '-j', '-D', cluster, '-c', 'exit_on_error=on', 'postgres'],
    setUpSql(passwords),
  )
}

/** Statements end with a semicolon and an empty line. The passwords are base64url: nothing to quote. */
const setUpSql = (passwords: Home['passwords']): string =>
  [
    `alter role postgres password '${passwords.superuser}'`,
    `create role chancery_owner login password '${passwords.owner}'`,
    `create role chancery login password '${passwords.serving}'`,
    'create database chancery owner chancery_owner',
    'revoke all on database chancery, postgres, template1 from public',
    'grant connect on database chancery to chancery',
  ]
    .map((statement) => `${statement};\n\n`)
    .join('')

const makePasswords = async (folder: string): Promise<Home['passwords']> => {
  const passwords = { superuser: makePassword(), owner: makePassword(), serving: makePassword() }
  for (const [who, password] of Object.entries(passwords)) {
    const file = await open(join(folder, `${who}.password`), 'wx', 0o600)
    await file.writeFile(`${password}\n`)
    await file.sync()
    await file.close()
  }
  return passwords
}

const makePassword = (): string => randomBytes(24).toString('base64url')

const loadPassword = async (folder: string, who: PasswordOf): Promise<string> => {
  const path = join(folder, `${who}.password`)
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new SettingFault(
      `${path} is missing, and nobody gets into the embedded PostgreSQL beside it without it: bring it back, from the backup of that folder.`,
      { cause },
    )
  })
  return text.trim()
}

/** Folders of starts that were killed on the way: making a cluster takes a second. */
const clearHalfMade = async (parent: string): Promise<void> => {
  for (const name of await entriesOf(parent)) {
    const path = join(parent, name)
    if (!name.startsWith(prefix) || Date.now() - (await stat(path)).mtimeMs < abandonedAfter) continue
    const elsewhere = await realpath(join(path, 'cluster')).catch(() => path)
    if (!elsewhere.startsWith(path)) await rm(dirname(elsewhere), { recursive: true, force: true })
    await rm(path, { recursive: true, force: true })
  }
}

const entriesOf = async (folder: string): Promise<readonly string[]> => {
  try {
    return await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

const prefix = 'postgres.new-'
/** Milliseconds. */
const abandonedAfter = 600_000
/** What rename says when the place is taken. */
const taken: ReadonlySet<string> = new Set(['ENOTEMPTY', 'EEXIST'])
/** Nobody may connect until pg_hba.conf and the passwords are written. */
const initdbOptions = [
  '--username=postgres',
  '--auth=reject',
  '--encoding=UTF8',
  '--locale-provider=builtin',
  '--builtin-locale=C.UTF-8',
  '--locale=C',
  '--data-checksums',
] as const

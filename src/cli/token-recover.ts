/**
 * `chancery token recover`: the way in when every token of every administrator is lost. Whoever runs it beside the database, as
 * the service's own role and on its data folder, could write what it writes; this way it is on the roll, with who did it, and ends
 * soon.
 */
import { lstat, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'

import type { Access, Role, Token } from '../ca/access/access.ts'
import { own } from '../ca/own.ts'
import type { Config } from '../config/config.ts'
import { openAccess } from '../db/access.ts'
import type { Database } from '../db/database.ts'
import { isSecret } from '../db/secrets.ts'
import { isProblem } from '../errors.ts'
import { pooledRandom, timeOrderedIds } from '../keys/random.ts'
import { Failure } from '../lib/failure.ts'
import { visible } from '../lib/output.ts'
import type { Log } from '../log.ts'
import { parseDuration } from '../policy/duration.ts'
import { keepSecret } from './secret-file.ts'
import { operator, withRecords } from './with-records.ts'

export interface TokenRecoverOptions {
  /** Whose: may be left out where there is one administrator. */
  readonly principal?: string | undefined
  /** How long it works: `1h`. */
  readonly duration: string
  /** Default: `admin.token` in the data folder, where commands look for it. */
  readonly out?: string | undefined
}

export interface RecoveredToken {
  readonly principal: string
  /** What the principal may act as. */
  readonly roles: readonly Role[]
  readonly token: string
  readonly expiresAt: string
  readonly by: string
  /** Where its secret is, and nowhere else. */
  readonly file: string
  /** Of administrators, and not lost by what the records know: those that were made before. */
  readonly working: readonly WorkingToken[]
}

type WorkingToken = Pick<Token, 'id' | 'principal' | 'label'> & { readonly expiresAt: string | null }

export const runTokenRecover = async (
  config: Config,
  log: Log,
  options: TokenRecoverOptions,
): Promise<RecoveredToken> => {
  const seconds = secondsOf(options.duration)
  const file = resolve(options.out ?? join(config.dataDir, 'admin.token'))
  return withRecords(config, log, async ({ db, roll }) => {
    const clock = (): Date => new Date()
    const random = pooledRandom()
    const access = openAccess({ db, roll, log, clock, random, newId: timeOrderedIds(clock, random) })
    const before = await readPlace(access, file)
    const chosen = choose(await administrators(access), options.principal)
    const { expiresAt, ...made } = await keepSecret(
      { file, before },
      {
        make: () => make({ db, access }, chosen, seconds),
        withdraw: ({ token, by }) => access.revokeToken(token, by),
      },
    )
    return { ...made, expiresAt: expiresAt.toISOString(), file }
  })
}

interface Reached {
  readonly db: Database
  readonly access: Access
}

/** Nothing is asked of the records after it, so that one that is made is kept. */
const make = async ({ db, access }: Reached, { principal, isNew }: Chosen, seconds: number) => {
  const by = operator()
  if (isNew) await makeAdministrator(access, principal, by)
  const working = await workingTokens(db, access)
  const roles = [...new Set((await access.listGrants(principal)).map(({ role }) => role))]
  const expiresAt = await after(db, seconds)
  const { id: token, secret } = await access.createToken({ principal, label, expiresAt }, by)
  return { principal, roles, token, secret, expiresAt, by, working }
}

export const recoveredTokenText = (recovered: RecoveredToken): string => {
  const { principal, roles, token, expiresAt, by, file, working } = recovered
  return [
    `${file} lets its bearer in as ${principal}, who may act as ${roles.join(', ')}, until ${expiresAt}.`,
    `It is the token ${token}, on the roll as made by ${by}.`,
    `Make one with it that lasts: chancery token create ${principal} --label TEXT --token-file ${file}`,
    ...(working.length === 0 ? [] : ['Then revoke, with chancery token revoke ID, which of these is lost:']),
    ...working.map(
      ({ id, principal: of, label: what, expiresAt: until }) =>
        `  ${id} of ${of}, ${JSON.stringify(what)}, ${until === null ? 'without an end' : `until ${until}`}`,
    ),
  ]
    .map(visible)
    .join('\n')
}

const secondsOf = (text: string): number => {
  const seconds = /^\d{1,6}[smhd]$/.test(text) ? parseDuration(text) : Number.NaN
  if (seconds >= leastSeconds && seconds <= mostSeconds) return seconds
  throw new Failure('usage', `--duration ${text} is not a time from 1m to 24h, like 30m or 2h.`)
}

// Whom it lets in -------------------------------------------------------------------------------------------------------

/** Who is open, and may act as one. */
const administrators = async (access: Access): Promise<readonly string[]> => {
  const open = new Set((await access.listPrincipals()).filter((one) => !one.disabledAt).map(({ name }) => name))
  const granted = (await access.listGrants()).filter(({ role }) => role === 'admin').map(({ principal }) => principal)
  return [...new Set(granted)].filter((name) => open.has(name)).sort()
}

interface Chosen {
  readonly principal: string
  readonly isNew: boolean
}

/** Where there are administrators, nobody else becomes one by this. */
const choose = (names: readonly string[], wanted: string | undefined): Chosen => {
  if (names.length === 0) return { principal: wanted ?? first, isNew: true }
  const principal = wanted ?? (names.length === 1 ? names[0] : undefined)
  const told = `${names.length === 1 ? 'The administrator is' : 'The administrators are'} ${names.join(', ')}`
  if (principal === undefined) throw new Failure('usage', `${told}: say whose token is to be made.`)
  if (names.includes(principal)) return { principal, isNew: false }
  throw new Failure('usage', `${principal} is no administrator. ${told}.`)
}

/** As at the first start, when nobody can administer. */
const makeAdministrator = async (access: Access, principal: string, by: string): Promise<void> => {
  if (principal === own.principal) throw new Failure('usage', `${principal} is the service itself: name another one.`)
  try {
    if (principal === first) await access.createPrincipal(principal, by).catch(unlessThere)
    await access.createGrant({ principal, role: 'admin', profiles: null, names: null, revoke: false }, by)
  } catch (error) {
    if (!isProblem(error, 'principal.disabled') && !isProblem(error, 'principal.not_found')) throw error
    throw new Failure('usage', `Nobody is an administrator any more. ${error.detail} Name another principal.`)
  }
}

const unlessThere = (error: unknown): void => {
  if (!isProblem(error, 'state.exists')) throw error
}

// What it is ------------------------------------------------------------------------------------------------------------

/** By the clock that says whether it has ended. */
const after = async (db: Database, seconds: number): Promise<Date> => {
  const { rows } = await db.query<{ until: Date }>(selectAfter, [seconds])
  return rows[0]?.until as Date
}

const workingTokens = async (db: Database, access: Access): Promise<readonly WorkingToken[]> => {
  const names = await administrators(access)
  const now = await after(db, 0)
  return (await access.listTokens())
    .filter(({ principal, revokedAt }) => names.includes(principal) && !revokedAt)
    .filter(({ expiresAt }) => expiresAt === null || expiresAt > now)
    .map(({ id, principal, label: what, expiresAt }) => ({
      id,
      principal,
      label: what,
      expiresAt: expiresAt?.toISOString() ?? null,
    }))
}

/** What is there; undefined where nothing is. A token that works is not lost, or is somebody else's, and what is none stays as well. */
const readPlace = async (access: Access, file: string): Promise<string | undefined> => {
  const there = await readThere(file).catch((error: NodeJS.ErrnoException) => {
    if (error instanceof Failure) throw error
    if (error.code === 'ENOENT') return undefined
    throw new Failure('usage', `${file} cannot be read (${error.code}): name another file by --out.`)
  })
  const secret = there?.trim() ?? ''
  if (secret !== '') await assertLost(access, file, secret)
  return there
}

/** Of a link, a device or a pipe it would be the name that is replaced: as root, /dev/stdout and /dev/null themselves. */
const readThere = async (file: string): Promise<string> => {
  const found = await lstat(file)
  if (!found.isFile() && !found.isDirectory())
    throw new Failure('usage', `${file} is there and no plain file: name another one by --out.`)
  return readFile(file, 'utf8')
}

const assertLost = async (access: Access, file: string, secret: string): Promise<void> => {
  if (!isSecret(secret))
    throw new Failure('usage', `${file} is there and holds something else than a token: name another file by --out.`)
  const caller = await access.authenticate(secret).catch((error: unknown) => {
    if (!isProblem(error, 'auth.invalid')) throw error
  })
  if (!caller) return
  throw new Failure(
    'conflict',
    caller.grants.some(({ role }) => role === 'admin')
      ? `Nothing is lost: the token in ${file} works, as that of ${caller.principal}. Use it with --token-file ${file}`
      : `The token in ${file} works, as that of ${caller.principal}, who is no administrator: name another file by --out.`,
  )
}

const selectAfter = {
  text: 'select clock_timestamp() + make_interval(secs => $1::double precision) as until',
}

const first = 'admin'
const label = 'recovered'
const leastSeconds = 60
const mostSeconds = 86_400

/** Principals, grants and tokens. Rows are only ever added; what ends one is a row too. */
import { hash } from 'node:crypto'

import type { Access, Caller, Grant, NewGrant, Principal, Role, Token } from '../ca/access.ts'
import { canonicalJson } from '../canonical.ts'
import { Problem } from '../errors.ts'
import type { NameRules } from '../policy/names.ts'
import type { RollEvent } from '../roll/entries.ts'
import type { Log } from '../telemetry.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './roll.ts'

export interface AccessDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
  readonly clock: () => Date
  readonly random: (octets: number) => Buffer
  readonly newId: () => string
}

export const openAccess = (deps: AccessDeps): Access => {
  const { db, roll, newId } = deps
  const callers = openCallers(deps)

  /** Every change forgets who was known, so that it holds here at once. */
  const change = async <T>(
    make: (tx: Queryable) => Promise<{ readonly events: readonly RollEvent[]; readonly result: T }>,
  ): Promise<T> => {
    const result = await roll.change(make)
    callers.forget()
    return result
  }

  return {
    authenticate: callers.authenticate,

    createPrincipal: (name, by) =>
      change(async (tx) => {
        const {
          rows: [row],
        } = await tx.query<PrincipalRow>(insertPrincipal, [name, by])
        if (!row) {
          await assertOpen(tx, name)
          throw new Problem('state.exists', `The principal ${JSON.stringify(name)} exists.`)
        }
        return { result: principalOf(row), events: [{ type: 'principal.created', principal: name, by }] }
      }),
    listPrincipals: async () => (await db.query<PrincipalRow>(selectPrincipals, [null])).rows.map(principalOf),
    readPrincipal: (name) => readPrincipal(db, name),
    disablePrincipal: (name, by) =>
      change(async (tx) => {
        const { disabledAt } = await readPrincipal(tx, name)
        if (disabledAt) return { result: undefined, events: [] }
        await keepingAdmin(tx, () => tx.query(insertPrincipalClosure, [name, by]))
        return { result: undefined, events: [{ type: 'principal.disabled', principal: name, by }] }
      }),

    createGrant: (grant, by) =>
      change<{ grant: Grant; created: boolean }>(async (tx) => {
        await assertOpen(tx, grant.principal)
        const held = (await tx.query<GrantRow>(selectGrants, [grant.principal])).rows.map(grantOf)
        const same = held.find((other) => contentOf(other) === contentOf(grant))
        if (same) return { result: { grant: same, created: false }, events: [] }
        const {
          rows: [row],
        } = await tx.query<GrantRow>(insertGrant, [
          newId(),
          grant.principal,
          grant.role,
          grant.profiles,
          grant.names && JSON.stringify(grant.names),
          by,
        ])
        if (!row) throw new Error('a grant was not inserted')
        const made = grantOf(row)
        return { result: { grant: made, created: true }, events: [grantChanged('created', made, by)] }
      }),
    listGrants: async (principal) => (await db.query<GrantRow>(selectGrants, [principal ?? null])).rows.map(grantOf),
    revokeGrant: (id, by) =>
      change(async (tx) => {
        const {
          rows: [row],
        } = await tx.query<GrantRow & { revoked: boolean }>(selectGrant, [id])
        if (!row) throw new Problem('grant.not_found', `There is no grant ${id}.`)
        if (row.revoked) return { result: undefined, events: [] }
        await keepingAdmin(tx, () => tx.query(insertGrantRevocation, [id, by]))
        return { result: undefined, events: [grantChanged('revoked', grantOf(row), by)] }
      }),

    createToken: (token, by) =>
      change(async (tx) => {
        await assertOpen(tx, token.principal)
        const secret = newSecret(deps.random)
        const {
          rows: [row],
        } = await tx.query<TokenRow>(insertToken, [
          newId(),
          token.principal,
          token.label,
          hashSecret(secret),
          token.expiresAt,
          by,
        ])
        if (!row) throw new Error('a token was not inserted')
        return { result: { ...tokenOf(row), secret }, events: [tokenChanged('token.created', tokenOf(row), by)] }
      }),
    listTokens: async (principal) =>
      (await db.query<TokenRow>(selectTokens, [principal ?? null, null])).rows.map(tokenOf),
    revokeToken: (id, by) =>
      change(async (tx) => {
        const {
          rows: [row],
        } = await tx.query<TokenRow>(selectTokens, [null, id])
        if (!row) throw new Problem('token.not_found', `There is no token ${id}.`)
        if (row.revoked_at) return { result: undefined, events: [] }
        await keepingAdmin(tx, () => tx.query(insertTokenRevocation, [id, by]))
        return { result: undefined, events: [tokenChanged('token.revoked', tokenOf(row), by)] }
      }),
  }
}

// Authentication ------------------------------------------------------------------------------------------------------

/**
 * Who a token belongs to, remembered for two seconds: a revocation holds everywhere by then. Tokens are looked up by
 * the SHA-256 of the whole secret, so that nothing compares secrets and nothing matches by pattern.
 */
const openCallers = ({ db, log, clock }: AccessDeps) => {
  const known = new Map<string, Remembered>()
  /** Until when a token is known to be nobody's. Apart, so that a flood of made-up tokens throws no caller out. */
  const strangers = new Map<string, number>()
  const used = new Map<string, number>()
  /** Under way: who comes meanwhile waits for the same answer, so that a token's end of memory is one statement. */
  const looks = new Map<string, Promise<Remembered | undefined>>()

  const lookOnce = (id: string, digest: Buffer): Promise<Remembered | undefined> => {
    const looking: Promise<Remembered | undefined> = look(digest)
      .then((found) => {
        // What was to be forgotten meanwhile is not remembered.
        if (looks.get(id) !== looking) return found
        known.delete(id)
        if (found) put(known, maxKnownTokens, [id, found])
        else put(strangers, maxStrangers, [id, performance.now() + rememberMs])
        return found
      })
      .finally(() => looks.get(id) === looking && looks.delete(id))
    looks.set(id, looking)
    return looking
  }

  const look = async (digest: Buffer): Promise<Remembered | undefined> => {
    const {
      rows: [row],
    } = await db.query<CallerRow>(selectCaller, [digest])
    if (!row) return undefined
    void noteUse(row.token)
    const { principal, token, grants, lives_ms: lives } = row
    return {
      caller: { principal, token, grants: grants.map(grantOf) },
      until: performance.now() + Math.min(rememberMs, lives ?? rememberMs),
    }
  }

  /** A convenience for those who clean up tokens; once a minute and token is enough. */
  const noteUse = async (token: string): Promise<void> => {
    const minute = Math.floor(clock().getTime() / 60_000)
    if (used.get(token) === minute) return
    used.set(token, minute)
    await db
      .query(upsertTokenUse, [token])
      .catch((error: unknown) => log.debug({ event: 'token.use_unrecorded', err: error }))
  }

  return {
    forget: (): void => {
      known.clear()
      strangers.clear()
      looks.clear()
    },
    authenticate: async (secret: string): Promise<Caller> => {
      if (secret.length !== secretLength) throw unknownToken()
      const digest = hashSecret(secret)
      const id = digest.toString('latin1')
      const remembered = known.get(id)
      if (remembered && remembered.until > performance.now()) return remembered.caller
      if ((strangers.get(id) ?? 0) > performance.now() || !isSecret(secret)) throw unknownToken()
      const found = await (looks.get(id) ?? lookOnce(id, digest))
      if (!found) throw unknownToken()
      return found.caller
    },
  }
}

/** A full map starts anew: all that is lost is a look-up. */
const put = <V>(map: Map<string, V>, max: number, [key, value]: readonly [string, V]): void => {
  if (map.size >= max && !map.has(key)) map.clear()
  map.set(key, value)
}

/** Until then (`performance.now()`), and never beyond the life of the token. */
interface Remembered {
  readonly caller: Caller
  readonly until: number
}

/** One answer for every reason, so that it tells nothing. */
const unknownToken = (): Problem => new Problem('auth.invalid', 'This token is unknown, expired or revoked.')

/** `chy_`, 256 random bits, and a checksum that tells a torn token from a wrong one and lets scanners find leaks. */
export const newSecret = (random: (octets: number) => Buffer): string => {
  const body = random(32).toString('base64url')
  return `${secretPrefix}${body}${checksum(body)}`
}

export const isSecret = (text: string): boolean => {
  if (text.length !== secretLength || !text.startsWith(secretPrefix)) return false
  const body = text.slice(secretPrefix.length, -checksumLength)
  return checksum(body) === text.slice(-checksumLength)
}

const hashSecret = (secret: string): Buffer => hash('sha256', secret, 'buffer')
const checksum = (body: string): string => hash('sha256', secretPrefix + body, 'base64url').slice(0, checksumLength)

// Guards --------------------------------------------------------------------------------------------------------------

const readPrincipal = async (db: Queryable, name: string): Promise<Principal> => {
  const {
    rows: [row],
  } = await db.query<PrincipalRow>(selectPrincipals, [name])
  if (!row) throw new Problem('principal.not_found', `There is no principal ${JSON.stringify(name)}.`)
  return principalOf(row)
}

const assertOpen = async (tx: Queryable, name: string): Promise<void> => {
  const { disabledAt } = await readPrincipal(tx, name)
  if (disabledAt) throw new Problem('principal.disabled', `The principal ${JSON.stringify(name)} is disabled for good.`)
}

/**
 * Refuses what takes an administrator's token or right away unless another stays whose token lasts. Under the roll's
 * lock, so that two changes at once cannot both believe that the other admin stays. What concerns no administrator is
 * never refused.
 */
const keepingAdmin = async (tx: Queryable, change: () => Promise<unknown>): Promise<void> => {
  const before = await readAdmins(tx)
  await change()
  const after = await readAdmins(tx)
  if (after.working < before.working && after.lasting === 0)
    throw new Problem(
      'profile.lockout',
      `No administrator would be left with a token that works for more than ${lastingDays} days: make one first.`,
    )
}

const readAdmins = async (tx: Queryable): Promise<Admins> => {
  const {
    rows: [row],
  } = await tx.query<Admins>(countAdmins, [lastingDays])
  if (!row) throw new Error('a count gave no row')
  return row
}

/** Tokens that may administer: that work now, and that still will when somebody gets round to it. */
interface Admins {
  readonly working: number
  readonly lasting: number
}

// Rows ----------------------------------------------------------------------------------------------------------------

interface PrincipalRow {
  readonly name: string
  readonly created_at: Date
  readonly created_by: string
  readonly closed_at: Date | null
}

const principalOf = (row: PrincipalRow): Principal => ({
  name: row.name,
  createdAt: row.created_at,
  createdBy: row.created_by,
  disabledAt: row.closed_at,
})

interface GrantRow {
  readonly id: string
  readonly principal: string
  readonly role: Role
  readonly profiles: readonly string[] | null
  readonly names: NameRules | null
  readonly created_at: Date | string
  readonly created_by: string
}

const grantOf = (row: GrantRow): Grant => ({
  id: row.id,
  principal: row.principal,
  role: row.role,
  profiles: row.profiles,
  names: row.names,
  createdAt: new Date(row.created_at),
  createdBy: row.created_by,
})

/** What one principal's grant allows: the order of its profiles means nothing. */
const contentOf = ({ role, profiles, names }: NewGrant): string =>
  canonicalJson({ role, profiles: profiles && [...profiles].sort(), names })

const grantChanged = (
  change: 'created' | 'revoked',
  { id, principal, role, profiles, names }: Grant,
  by: string,
): RollEvent => ({
  type: 'grant.changed',
  change,
  grant: id,
  principal,
  role,
  profiles,
  names,
  by,
})

interface TokenRow {
  readonly id: string
  readonly principal: string
  readonly label: string
  readonly created_at: Date
  readonly created_by: string
  readonly expires_at: Date | null
  readonly revoked_at: Date | null
  readonly used_at: Date | null
}

const tokenOf = (row: TokenRow): Token => ({
  id: row.id,
  principal: row.principal,
  label: row.label,
  createdAt: row.created_at,
  createdBy: row.created_by,
  expiresAt: row.expires_at,
  revokedAt: row.revoked_at,
  lastUsedAt: row.used_at,
})

const tokenChanged = (type: 'token.created' | 'token.revoked', token: Token, by: string): RollEvent => ({
  type,
  token: token.id,
  principal: token.principal,
  label: token.label,
  expires: token.expiresAt?.toISOString() ?? null,
  by,
})

interface CallerRow {
  readonly token: string
  readonly principal: string
  readonly grants: readonly GrantRow[]
  readonly lives_ms: number | null
}

// Statements ------------------------------------------------------------------------------------------------------------

const insertPrincipal = {
  text: `insert into principals (name, created_by) values ($1, $2) on conflict (name) do nothing
    returning name, created_at, created_by, null::timestamptz as closed_at`,
}
const selectPrincipals = {
  text: `select p.name, p.created_at, p.created_by, c.closed_at
    from principals p left join principal_closures c on c.principal = p.name
    where $1::text is null or p.name = $1 order by p.name`,
}
const insertPrincipalClosure = { text: 'insert into principal_closures (principal, closed_by) values ($1, $2)' }

const insertGrant = {
  text: `insert into grants (id, principal, role, profiles, names, created_by) values ($1, $2, $3, $4::text[], $5::jsonb, $6)
    returning id, principal, role, profiles, names, created_at, created_by`,
}
const selectGrants = {
  text: `select id, principal, role, profiles, names, created_at, created_by from grants g
    where ($1::text is null or principal = $1) and not exists (select from grant_revocations r where r.grant_id = g.id)
    order by principal, created_at, id`,
}
const selectGrant = {
  text: `select g.*, exists (select from grant_revocations r where r.grant_id = g.id) as revoked from grants g where id = $1::uuid`,
}
const insertGrantRevocation = { text: 'insert into grant_revocations (grant_id, revoked_by) values ($1::uuid, $2)' }

const insertToken = {
  text: `insert into tokens (id, principal, label, sha256, expires_at, created_by) values ($1, $2, $3, $4, $5, $6)
    returning id, principal, label, created_at, created_by, expires_at, null::timestamptz as revoked_at, null::timestamptz as used_at`,
}
const selectTokens = {
  text: `select t.id, t.principal, t.label, t.created_at, t.created_by, t.expires_at, r.revoked_at, u.used_at
    from tokens t left join token_revocations r on r.token = t.id left join token_uses u on u.token = t.id
    where ($1::text is null or t.principal = $1) and ($2::uuid is null or t.id = $2::uuid)
    order by t.principal, t.created_at, t.id`,
}
const insertTokenRevocation = { text: 'insert into token_revocations (token, revoked_by) values ($1::uuid, $2)' }
const upsertTokenUse = {
  text: `insert into token_uses (token, used_at) values ($1::uuid, date_trunc('minute', now()))
    on conflict (token) do update set used_at = excluded.used_at`,
}

const selectCaller = {
  name: 'select_caller',
  text: `
    select t.id as token, t.principal, coalesce((
      select json_agg(json_build_object('id', g.id, 'principal', g.principal, 'role', g.role, 'profiles', g.profiles,
        'names', g.names, 'created_at', g.created_at, 'created_by', g.created_by) order by g.created_at, g.id)
      from grants g where g.principal = t.principal
        and not exists (select from grant_revocations r where r.grant_id = g.id)), '[]') as grants,
      (extract(epoch from t.expires_at - now()) * 1000)::double precision as lives_ms
    from tokens t
    where t.sha256 = $1 and (t.expires_at is null or t.expires_at > now())
      and not exists (select from token_revocations r where r.token = t.id)
      and not exists (select from principal_closures c where c.principal = t.principal)`,
}

/** Tokens of principals that can act as admin: open and granted. */
const countAdmins = {
  text: `
    select count(distinct t.id)::integer as working,
      count(distinct t.id) filter (where t.expires_at is null
        or t.expires_at > now() + make_interval(days => $1::integer))::integer as lasting
    from grants g join tokens t on t.principal = g.principal
    where g.role = 'admin'
      and not exists (select from grant_revocations r where r.grant_id = g.id)
      and not exists (select from principal_closures c where c.principal = g.principal)
      and not exists (select from token_revocations r where r.token = t.id)
      and (t.expires_at is null or t.expires_at > now())`,
}

const secretPrefix = 'chy_'
const checksumLength = 6
const secretLength = secretPrefix.length + 43 + checksumLength
const rememberMs = 2_000
const maxKnownTokens = 10_000
const maxStrangers = 1_000
/** Long enough that whoever is warned of a token's end finds somebody who can make the next one. */
const lastingDays = 30

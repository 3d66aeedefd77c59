/** Principals, grants and tokens. Rows are only ever added; what ends one is a row too. */
import type { Access, Grant, NewGrant, Principal, Token } from '../ca/access/access.ts'
import { isProblem, Problem } from '../errors.ts'
import { canonicalJson, type Unset } from '../lib/canonical-json.ts'
import type { RollEvent } from '../tlog/entries.ts'
import { type CallersDeps, openCallers } from './callers.ts'
import { credentialCalls } from './credentials.ts'
import type { Queryable } from './database.ts'
import { type GrantRow, grantOf } from './grants.ts'
import type { RollWriter } from './log.ts'
import { assertOpen, type Change, listPrincipals, type PrincipalRow, principalOf, readPrincipal } from './principals.ts'
import { hashSecret, newSecret } from './secrets.ts'

export interface AccessDeps extends CallersDeps {
  readonly roll: RollWriter
  readonly random: (octets: number) => Buffer
  readonly newId: () => string
}

export const openAccess = (deps: AccessDeps): Access => {
  const { db, roll, newId } = deps
  const callers = openCallers(deps)

  /** Every change forgets who was known, so that it holds here at once. */
  const change: Change = async (make) => {
    const result = await roll.change(make)
    callers.forget()
    return result
  }

  /** It takes nothing from anybody, so that nobody who is known need be forgotten. */
  const createPrincipal: Access['createPrincipal'] = (name, by) =>
    roll.change<Principal>(async (tx) => {
      const row = (await tx.query<PrincipalRow>(insertPrincipal, [name, by])).rows[0]
      if (!row) {
        await assertOpen(tx, name)
        throw new Problem('state.exists', `The principal ${JSON.stringify(name)} exists.`)
      }
      return { result: principalOf(row), events: [{ type: 'principal.created', principal: name, by }] }
    })

  return {
    authenticate: callers.authenticate,
    callerNamed: (name, by) =>
      callers.callerNamed(name, async () => {
        await createPrincipal(name, by).catch((error: unknown) => {
          // Another replica was there first.
          if (!isProblem(error, 'state.exists')) throw error
        })
      }),
    authenticateCertificate: callers.authenticateCertificate,
    ...credentialCalls({ db, change, newId }),

    createPrincipal,
    listPrincipals: () => listPrincipals(db),
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
        const { rows } = await tx.query<GrantRow>(insertGrant, [
          newId(),
          grant.principal,
          grant.role,
          grant.profiles,
          grant.names && JSON.stringify(grant.names),
          grant.revoke,
          grant.limits && JSON.stringify(grant.limits),
          grant.onBehalfOf && JSON.stringify(grant.onBehalfOf),
          by,
          grant.sharedKeys ?? false,
        ])
        if (!rows[0]) throw new Error('a grant was not inserted')
        const made = grantOf(rows[0])
        return { result: { grant: made, created: true }, events: [grantChanged('created', made, by)] }
      }),
    listGrants: async (principal) => (await db.query<GrantRow>(selectGrants, [principal ?? null])).rows.map(grantOf),
    revokeGrant: (id, by) =>
      change(async (tx) => {
        const row = (await tx.query<GrantRow & { revoked: boolean }>(selectGrant, [id])).rows[0]
        if (!row) throw new Problem('grant.not_found', `There is no grant ${id}.`)
        if (row.revoked) return { result: undefined, events: [] }
        await keepingAdmin(tx, () => tx.query(insertGrantRevocation, [id, by]))
        return { result: undefined, events: [grantChanged('revoked', grantOf(row), by)] }
      }),

    createToken: (token, by) =>
      change(async (tx) => {
        await assertOpen(tx, token.principal)
        const secret = newSecret(deps.random)
        const { rows } = await tx.query<TokenRow>(insertToken, [
          newId(),
          token.principal,
          token.label,
          hashSecret(secret),
          token.expiresAt,
          by,
        ])
        if (!rows[0]) throw new Error('a token was not inserted')
        const made = tokenOf(rows[0])
        return { result: { ...made, secret }, events: [tokenChanged('token.created', made, by)] }
      }),
    listTokens: async (principal) =>
      (await db.query<TokenRow>(selectTokens, [principal ?? null, null])).rows.map(tokenOf),
    revokeToken: (id, by) =>
      change(async (tx) => {
        const row = (await tx.query<TokenRow>(selectTokens, [null, id])).rows[0]
        if (!row) throw new Problem('token.not_found', `There is no token ${id}.`)
        if (row.revoked_at) return { result: undefined, events: [] }
        await keepingAdmin(tx, () => tx.query(insertTokenRevocation, [id, by]))
        return { result: undefined, events: [tokenChanged('token.revoked', tokenOf(row), by)] }
      }),
  }
}

// Guards --------------------------------------------------------------------------------------------------------------

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
  const row = (await tx.query<Admins>(countAdmins, [lastingDays])).rows[0]
  if (!row) throw new Error('a count gave no row')
  return row
}

/** Tokens that may administer: that work now, and that still will when somebody gets round to it. */
interface Admins {
  readonly working: number
  readonly lasting: number
}

// Rows ----------------------------------------------------------------------------------------------------------------

/** What one principal's grant allows: the order of its profiles means nothing. */
const contentOf = ({
  role,
  profiles,
  names,
  revoke,
  limits = null,
  onBehalfOf = null,
  sharedKeys = false,
}: Unset<NewGrant>): string =>
  canonicalJson({ role, profiles: profiles && [...profiles].sort(), names, revoke, limits, onBehalfOf, sharedKeys })

const grantChanged = (
  change: 'created' | 'revoked',
  { id, principal, role, profiles, names, revoke, limits, onBehalfOf, sharedKeys }: Grant,
  by: string,
): RollEvent => ({
  type: 'grant.changed',
  change,
  grant: id,
  principal,
  role,
  profiles,
  names,
  revoke,
  limits: limits ? { ...limits } : null,
  onBehalfOf: onBehalfOf ? { ...onBehalfOf } : null,
  sharedKeys: sharedKeys ?? false,
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

// Statements ------------------------------------------------------------------------------------------------------------

const insertPrincipal = {
  text: `insert into principals (name, created_by) values ($1, $2) on conflict (name) do nothing
    returning name, created_at, created_by, null::timestamptz as closed_at`,
}
const insertPrincipalClosure = { text: 'insert into principal_closures (principal, closed_by) values ($1, $2)' }

const insertGrant = {
  text: `insert into grants (id, principal, role, profiles, names, revoke, limits, on_behalf_of, created_by, shared_keys)
    values ($1, $2, $3, $4::text[], $5::jsonb, $6, $7::jsonb, $8::jsonb, $9, $10)
    returning id, principal, role, profiles, names, revoke, limits, on_behalf_of, shared_keys, created_at, created_by`,
}
const selectGrants = {
  text: `select id, principal, role, profiles, names, revoke, limits, on_behalf_of, shared_keys, created_at, created_by from grants g
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

/** Long enough that whoever is warned of a token's end finds somebody who can make the next one. */
const lastingDays = 30

/** Who calls: tokens to principals with their grants. */
import type { Caller, Grant, Role } from '../ca/access.ts'
import { Problem } from '../errors.ts'
import type { NameRules } from '../policy/names.ts'
import type { Log } from '../telemetry.ts'
import type { Database } from './database.ts'
import { hashSecret, isSecret, secretLength } from './secrets.ts'

export interface CallersDeps {
  readonly db: Database
  readonly log: Log
  readonly clock: () => Date
}

/**
 * Who a token belongs to, remembered for two seconds: a revocation holds everywhere by then. Tokens are looked up by
 * the SHA-256 of the whole secret, so that nothing compares secrets and nothing matches by pattern.
 */
export const openCallers = ({ db, log, clock }: CallersDeps) => {
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

export interface GrantRow {
  readonly id: string
  readonly principal: string
  readonly role: Role
  readonly profiles: readonly string[] | null
  readonly names: NameRules | null
  readonly revoke: boolean
  readonly created_at: Date | string
  readonly created_by: string
}

export const grantOf = (row: GrantRow): Grant => ({
  id: row.id,
  principal: row.principal,
  role: row.role,
  profiles: row.profiles,
  names: row.names,
  revoke: row.revoke,
  createdAt: new Date(row.created_at),
  createdBy: row.created_by,
})

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

interface CallerRow {
  readonly token: string
  readonly principal: string
  readonly grants: readonly GrantRow[]
  readonly lives_ms: number | null
}

const upsertTokenUse = {
  text: `insert into token_uses (token, used_at) values ($1::uuid, date_trunc('minute', now()))
    on conflict (token) do update set used_at = excluded.used_at`,
}

const selectCaller = {
  name: 'select_caller',
  text: `
    select t.id as token, t.principal, coalesce((
      select json_agg(json_build_object('id', g.id, 'principal', g.principal, 'role', g.role, 'profiles', g.profiles,
        'names', g.names, 'revoke', g.revoke, 'created_at', g.created_at, 'created_by', g.created_by) order by g.created_at, g.id)
      from grants g where g.principal = t.principal
        and not exists (select from grant_revocations r where r.grant_id = g.id)), '[]') as grants,
      (extract(epoch from t.expires_at - now()) * 1000)::double precision as lives_ms
    from tokens t
    where t.sha256 = $1 and (t.expires_at is null or t.expires_at > now())
      and not exists (select from token_revocations r where r.token = t.id)
      and not exists (select from principal_closures c where c.principal = t.principal)`,
}

const rememberMs = 2_000
const maxKnownTokens = 10_000
const maxStrangers = 1_000

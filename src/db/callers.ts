/** Who calls: what was shown, to principals with their grants. */
import { hash } from 'node:crypto'

import type { Caller, ClientCertificate } from '../ca/access/access.ts'
import { Problem } from '../errors.ts'
import type { Log } from '../log.ts'
import { type Found, openMemory } from './caller-cache.ts'
import { findHolders } from './credentials.ts'
import type { Database } from './database.ts'
import { type GrantRow, grantOf, grantsOf } from './grants.ts'
import { hashSecret, isSecret, secretLength } from './secrets.ts'

export interface CallersDeps {
  readonly db: Database
  readonly log: Log
  readonly clock: () => Date
}

/**
 * Who shows a token or a certificate, remembered for two seconds: a revocation holds everywhere by then. Both are looked
 * up by SHA-256 of the whole, so that nothing compares secrets and nothing matches by pattern.
 */
export const openCallers = ({ db, log, clock }: CallersDeps) => {
  const tokens = openMemory<Caller>()
  const certificates = openMemory<Caller>()
  const principals = openMemory<NamedCaller>()
  let noted = { minute: 0, tokens: new Set<string>() }

  const lookForToken = async (digest: Buffer): Promise<Found<Caller>> => {
    const row = (await db.query<CallerRow>(selectCaller, [digest])).rows[0]
    if (!row) throw unknownToken()
    void noteUse(row.token)
    const { principal, token, grants, lives_ms: lives } = row
    return {
      value: { principal, proof: { kind: 'token', token }, grants: grants.map(grantOf) },
      livesMs: lives ?? Number.POSITIVE_INFINITY,
    }
  }

  /** A convenience for those who clean up tokens; once a minute and token is enough. */
  const noteUse = async (token: string): Promise<void> => {
    const minute = Math.floor(clock().getTime() / 60_000)
    if (noted.minute !== minute) noted = { minute, tokens: new Set() }
    if (noted.tokens.has(token)) return
    noted.tokens.add(token)
    await db
      .query(upsertTokenUse, [token])
      .catch((error: unknown) => log.debug({ event: 'token.use_unrecorded', err: error }))
  }

  const lookForCertificate = async (certificate: ClientCertificate): Promise<Found<Caller>> => {
    const holders = await findHolders(db, certificate)
    const [holder] = holders
    if (!holder) throw unmapped('certificate.unmapped', 'This certificate is tied to no principal that is open.')
    // Which of them wins must not depend on the order of rows.
    if (holders.some(({ principal }) => principal !== holder.principal))
      throw unmapped('certificate.several', 'This certificate is tied to more than one principal.')
    const { principal, credential, grants } = holder
    return {
      value: { principal, proof: { kind: 'certificate', credential, certificate }, grants: grants.map(grantOf) },
      livesMs: certificate.notAfter.getTime() - clock().getTime(),
    }
  }

  const lookForPrincipal = async (name: string, create: () => Promise<unknown>): Promise<Found<NamedCaller>> => {
    const read = async () => (await db.query<NamedRow>(selectNamed, [name])).rows[0]
    let row = await read()
    if (!row) {
      await create()
      row = await read()
    }
    if (!row || row.is_closed) throw unmapped('principal.closed', 'The principal of these credentials is closed.')
    return { value: { principal: name, grants: row.grants.map(grantOf) }, livesMs: Number.POSITIVE_INFINITY }
  }

  return {
    forget: (): void => {
      tokens.forget()
      certificates.forget()
      principals.forget()
    },
    authenticate: async (secret: string): Promise<Caller> => {
      if (secret.length !== secretLength) throw unknownToken()
      const digest = hashSecret(secret)
      const id = digest.toString('latin1')
      const found = tokens.find(id)
      if (found) return found
      if (!isSecret(secret)) throw unknownToken()
      return tokens.look(id, () => lookForToken(digest))
    },
    /** `create` makes one of that name, if there is none. */
    callerNamed: async (name: string, create: () => Promise<unknown>): Promise<NamedCaller> =>
      principals.find(name) ?? principals.look(name, () => lookForPrincipal(name, create)),
    authenticateCertificate: async (
      der: Buffer,
      judge: (der: Buffer) => Promise<ClientCertificate>,
    ): Promise<Caller> => {
      const id = hash('sha256', der, 'latin1')
      return certificates.find(id) ?? certificates.look(id, async () => lookForCertificate(await judge(der)))
    },
  }
}

/** One answer for every reason, so that it tells nothing. */
const unknownToken = (): Problem =>
  new Problem('auth.invalid', 'This token is unknown, expired or revoked.', { reason: 'token.unknown' })

const unmapped = (reason: string, detail: string): Problem => new Problem('auth.unmapped', detail, { reason })

type NamedCaller = Pick<Caller, 'principal' | 'grants'>

interface NamedRow {
  readonly is_closed: boolean
  readonly grants: readonly GrantRow[]
}

const selectNamed = {
  name: 'select_named_caller',
  text: `
    select exists (select from principal_closures c where c.principal = p.name) as is_closed,
      ${grantsOf('p.name')} as grants
    from principals p where p.name = $1`,
}

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
    select t.id as token, t.principal, ${grantsOf('t.principal')} as grants,
      (extract(epoch from t.expires_at - now()) * 1000)::double precision as lives_ms
    from tokens t
    where t.sha256 = $1 and (t.expires_at is null or t.expires_at > now())
      and not exists (select from token_revocations r where r.token = t.id)
      and not exists (select from principal_closures c where c.principal = t.principal)`,
}

/** What ties client certificates to principals. Rows are only ever added; what ends one is a row too. */
import type { Access, ClientCertificate, Credential, CredentialMatch, NewCredential } from '../ca/access/access.ts'
import { Problem } from '../errors.ts'
import type { RollEvent } from '../tlog/entries.ts'
import type { Database, Queryable } from './database.ts'
import { type GrantRow, grantsOf } from './grants.ts'
import { assertOpen, type Change } from './principals.ts'

export interface CredentialDeps {
  readonly db: Database
  readonly change: Change
  readonly newId: () => string
}

type Calls = Pick<Access, 'createCredential' | 'listCredentials' | 'revokeCredential'>

export const credentialCalls = ({ db, change, newId }: CredentialDeps): Calls => ({
  createCredential: (credential, by) =>
    change<Awaited<ReturnType<Calls['createCredential']>>>(async (tx) => {
      await assertOpen(tx, credential.principal)
      const held = await readHeld(tx, credential)
      if (held) return { result: { credential: held, created: false }, events: [] }
      const { kind, value, issuer } = columnsOf(credential.match)
      const { rows } = await tx.query<CredentialRow>(insertCredential, [
        newId(),
        credential.principal,
        credential.label,
        kind,
        value,
        issuer,
        by,
      ])
      if (!rows[0]) throw new Error('a credential was not inserted')
      const made = credentialOf(rows[0])
      return { result: { credential: made, created: true }, events: [changed('credential.created', made, by)] }
    }),
  listCredentials: async (principal) =>
    (await db.query<CredentialRow>(selectCredentials, [principal ?? null, null])).rows.map(credentialOf),
  revokeCredential: (id, by) =>
    change(async (tx) => {
      const row = (await tx.query<CredentialRow>(selectCredentials, [null, id])).rows[0]
      if (!row) throw new Problem('credential.not_found', `There is no credential ${id}.`)
      if (row.revoked_at) return { result: undefined, events: [] }
      await tx.query(insertCredentialRevocation, [id, by])
      return { result: undefined, events: [changed('credential.revoked', credentialOf(row), by)] }
    }),
})

export interface HolderRow {
  readonly credential: string
  readonly principal: string
  readonly grants: readonly GrantRow[]
}

/** Whose the certificate is, by everything that it may be recognised by. */
export const findHolders = async (db: Database, certificate: ClientCertificate): Promise<readonly HolderRow[]> => {
  const { fingerprint, spiffeId, subject, issuer } = certificate
  const id = spiffeId === null ? null : Buffer.from(spiffeId)
  return (await db.query<HolderRow>(selectHolders, [fingerprint, id, subject, issuer])).rows
}

/** The principal's own that says the same; throws where another has it. */
const readHeld = async (tx: Queryable, { principal, match }: NewCredential): Promise<Credential | undefined> => {
  const { kind, value, issuer } = columnsOf(match)
  const { rows } = await tx.query<CredentialRow>(selectHeld, [kind, value, issuer])
  const other = rows.find((row) => row.principal !== principal)
  if (other) throw new Problem('state.exists', `This is tied to the principal ${JSON.stringify(other.principal)}.`)
  return rows[0] && credentialOf(rows[0])
}

interface Columns {
  readonly kind: CredentialMatch['kind']
  readonly value: Buffer
  readonly issuer: Buffer | null
}

interface CredentialRow extends Columns {
  readonly id: string
  readonly principal: string
  readonly label: string
  readonly created_at: Date
  readonly created_by: string
  readonly revoked_at: Date | null
}

const columnsOf = (match: CredentialMatch): Columns => {
  const { kind } = match
  if (kind === 'fingerprint') return { kind, value: match.sha256, issuer: null }
  if (kind === 'spiffe') return { kind, value: Buffer.from(match.id), issuer: null }
  return { kind, value: match.subject, issuer: match.issuer }
}

const matchOf = ({ kind, value, issuer }: Columns): CredentialMatch => {
  if (kind === 'fingerprint') return { kind, sha256: value }
  if (kind === 'spiffe') return { kind, id: value.toString() }
  return { kind, subject: value, issuer: issuer ?? Buffer.alloc(0) }
}

const credentialOf = (row: CredentialRow): Credential => ({
  id: row.id,
  principal: row.principal,
  label: row.label,
  match: matchOf(row),
  createdAt: row.created_at,
  createdBy: row.created_by,
  revokedAt: row.revoked_at,
})

const changed = (
  type: 'credential.created' | 'credential.revoked',
  { id, principal, label, match }: Credential,
  by: string,
): RollEvent => ({
  type,
  credential: id,
  principal,
  label,
  fingerprint: match.kind === 'fingerprint' ? match.sha256.toString('hex') : null,
  spiffe: match.kind === 'spiffe' ? match.id : null,
  subject:
    match.kind === 'subject'
      ? { name: match.subject.toString('base64'), issuer: match.issuer.toString('base64') }
      : null,
  by,
})

const isLive = `not exists (select from credential_revocations r where r.credential = c.id)
      and not exists (select from principal_closures p where p.principal = c.principal)`

const selectHolders = {
  name: 'select_holders',
  text: `
    select c.id as credential, c.principal, ${grantsOf('c.principal')} as grants
    from credentials c
    where c.value in ($1, $2, $3)
      and ((c.kind = 'fingerprint' and c.value = $1) or (c.kind = 'spiffe' and c.value = $2)
        or (c.kind = 'subject' and c.value = $3 and c.issuer = $4))
      and ${isLive}
    order by c.created_at, c.id`,
}

const selectHeld = {
  text: `
    select c.*, null::timestamptz as revoked_at from credentials c
    where c.kind = $1 and c.value = $2 and c.issuer is not distinct from $3::bytea and ${isLive}
    order by c.created_at, c.id`,
}

const insertCredential = {
  text: `insert into credentials (id, principal, label, kind, value, issuer, created_by) values ($1, $2, $3, $4, $5, $6, $7)
    returning *, null::timestamptz as revoked_at`,
}
const selectCredentials = {
  text: `select c.*, r.revoked_at from credentials c left join credential_revocations r on r.credential = c.id
    where ($1::text is null or c.principal = $1) and ($2::uuid is null or c.id = $2::uuid)
    order by c.principal, c.created_at, c.id`,
}
const insertCredentialRevocation = {
  text: 'insert into credential_revocations (credential, revoked_by) values ($1::uuid, $2)',
}

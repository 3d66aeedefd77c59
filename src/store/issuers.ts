/** Authorities and issuers in the records. */
import type { IssuerRow } from '../ca/issuer.ts'
import type { IssuerRecord } from '../ca/records.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './roll.ts'

export interface StoredIssuer {
  readonly name: string
  readonly authority: string
  readonly state: IssuerRecord['state']
  readonly certificate: Buffer
  readonly chain: readonly Buffer[]
  readonly key_uri: string
  readonly public_url: string
  readonly shards: number
}

/** With the newest state of each, in the order of their creation. */
export const selectIssuers = {
  text: `
    select i.*, (select s.state from issuer_states s where s.issuer = i.name order by s.id desc limit 1) as state
    from issuers i order by i.created_at, i.name`,
}

export const issuerRowOf = (row: StoredIssuer): IssuerRow => ({
  name: row.name,
  authority: row.authority,
  state: row.state,
  certificate: row.certificate,
  chain: row.chain,
  keyUri: row.key_uri,
  publicUrl: row.public_url,
  shards: row.shards,
})

export const loadIssuers = async (db: Database): Promise<readonly IssuerRow[]> =>
  (await db.query<StoredIssuer>(selectIssuers)).rows.map(issuerRowOf)

/** Adds an issuer, and its authority if it is new, with an event. Durable when it resolves; false when it was there. */
export const recordIssuer = (roll: RollWriter, row: IssuerRow, by: string): Promise<boolean> =>
  roll.change(async (tx) => {
    await tx.query(insertAuthority, [row.authority])
    const { rows } = await tx.query(insertIssuer, [
      row.name,
      row.authority,
      row.certificate,
      row.chain,
      row.keyUri,
      row.publicUrl,
      row.shards,
    ])
    if (rows.length === 0) return { events: [], result: false }
    await recordState(tx, row)
    const { name: issuer, authority, state } = row
    return {
      events: [
        { type: 'issuer.created', issuer, authority, certificate: row.certificate.toString('base64'), state, by },
      ],
      result: true,
    }
  })

const recordState = (tx: Queryable, { name, state }: IssuerRow) => tx.query(insertState, [name, state])

const insertAuthority = { text: 'insert into authorities (name) values ($1) on conflict (name) do nothing' }
const insertIssuer = {
  text: `insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
    values ($1, $2, $3, $4::bytea[], $5, $6, $7) on conflict (name) do nothing returning name`,
}
const insertState = { text: 'insert into issuer_states (issuer, state) values ($1, $2)' }

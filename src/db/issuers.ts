/** Authorities and issuers in the records. */
import { hash } from 'node:crypto'

import type { IssuerRow } from '../ca/issuers/issuer.ts'
import type { IssuerStore, NewIssuer } from '../ca/issuers/life.ts'
import type { IssuerState } from '../ca/records.ts'
import type { IssuerChained, IssuerMoved, IssuerRelocated, IssuerRequested } from '../tlog/entries.ts'
import { inTurn } from './advisory-lock.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './log.ts'
import { judgedBy } from './revocations.ts'
import { isLivingAt } from './validity.ts'

export interface StoredIssuer {
  /** The ways up that were brought later, hexadecimal. */
  readonly chains: readonly (readonly string[])[] | null
  readonly name: string
  readonly authority: string
  readonly state: IssuerState
  readonly since: Date
  readonly certificate: Buffer
  readonly chain: readonly Buffer[]
  readonly key_uri: string
  /** Where that was corrected last; null where it never was. */
  readonly newest_key_uri: string | null
  readonly public_url: string
  readonly shards: number
}

/** With the newest state of each, in the order of their creation. */
export const selectIssuers = {
  text: `
    select i.*, s.state, s.at as since, (
      select key_uri from issuer_key_uris u where u.issuer = i.name order by u.entry desc limit 1
    ) as newest_key_uri, (
      select json_agg((
        select json_agg(encode(der, 'hex') order by n) from unnest(c.chain) with ordinality as u (der, n)
      ) order by c.place)
      from issuer_chains c
      where c.issuer = i.name and c.entry = (select max(entry) from issuer_chains where issuer = i.name)
    ) as chains
    from issuers i cross join lateral
      (select state, at from issuer_states where issuer = i.name order by id desc limit 1) s
    order by i.created_at, i.name`,
}

export const issuerRowOf = (row: StoredIssuer): IssuerRow => {
  const [chain = row.chain, ...otherChains] = (row.chains ?? []).map((way) => way.map((der) => Buffer.from(der, 'hex')))
  return {
    name: row.name,
    authority: row.authority,
    state: row.state,
    since: row.since,
    certificate: row.certificate,
    chain,
    otherChains,
    keyUri: row.newest_key_uri ?? row.key_uri,
    publicUrl: row.public_url,
    shards: row.shards,
  }
}

export const loadIssuers = async (db: Database): Promise<readonly IssuerRow[]> =>
  (await db.query<StoredIssuer>(selectIssuers)).rows.map(issuerRowOf)

export interface IssuerStoreDeps {
  readonly db: Database
  readonly roll: RollWriter
  /** The longest validity, in seconds, that a profile document ever allowed. */
  readonly longestValidity: (document: string) => number
}

export const openIssuerStore = (deps: IssuerStoreDeps): IssuerStore => {
  const { db, roll } = deps
  // What was said of a document never changes, and reading one takes half a millisecond: bundles are asked for often.
  const validities = new Map<string, number>()
  const longestValidity = (document: string): number => {
    const validity = validities.get(document) ?? deps.longestValidity(document)
    validities.set(document, validity)
    return validity
  }
  return {
    issuers: () => loadIssuers(db),
    requests: async () =>
      (await db.query<StoredRequest>(selectRequests)).rows.map((row) => ({
        name: row.name,
        authority: row.authority,
        keyUri: row.key_uri,
        csr: row.csr,
        createdAt: row.created_at,
        createdBy: row.created_by,
      })),
    inTurn: async <T>(keyName: string, work: () => Promise<T>) => {
      const begun: Promise<T>[] = []
      const turn = db.apart(async (tx) => {
        await inTurn(tx, turnOf(keyName), longestMaking)
        begun.push(work())
        await begun[0]
      })
      // What the work wrote is durable by itself: that the turn's own connection was lost meanwhile takes nothing of it back.
      await turn.catch((error: unknown) => begun[0] ?? Promise.reject(error))
      return begun[0] as Promise<T>
    },
    addRequest: ({ name, authority, keyUri, csr, createdBy: by }, spki) =>
      roll.change(async (tx) => {
        if (!(await isKeyOf(tx, spki, name))) return { events: [], result: false }
        const { rows } = await tx.query(insertRequest, [name, authority, keyUri, csr, by])
        if (rows.length === 0) return { events: [], result: false }
        await tx.query(insertKey, [spki, name])
        const event: IssuerRequested = { type: 'issuer.requested', issuer: name, authority, key: keyUri, spki, by }
        return { events: [event], result: true }
      }),
    addIssuer: (row, by) => recordIssuer(roll, row, by),
    addChains: ({ name, authority, certificate }, chains, by) =>
      roll.change(async (tx, _time, entry) => {
        for (const [place, chain] of chains.entries()) await tx.query(insertChain, [entry, place, name, chain])
        const digests = chains.map((chain) => [certificate, ...chain].map((der) => hash('sha256', der)))
        const event: IssuerChained = { type: 'issuer.chained', issuer: name, authority, chains: digests, by }
        return { events: [event], result: undefined }
      }),
    isKeyUriOfOther: async (uri, name) => (await db.query(selectOther, [uri, name])).rows.length > 0,
    relocate: ({ name: issuer, authority, keyUri: key }, spki, { by, reason }) =>
      roll.change(async (tx, _time, entry) => {
        const { rows } = await tx.query<{ key_uri: string }>(selectKeyUri, [issuer])
        const before = rows[0]?.key_uri
        if (before === undefined) throw new Error(`there is no key of ${issuer} on record`)
        if (before === key) return { events: [], result: before }
        await tx.query(insertKeyUri, [entry, issuer, key])
        const event: IssuerRelocated = {
          ...{ type: 'issuer.relocated', issuer, authority },
          ...{ key, before, spki, reason, by },
        }
        return { events: [event], result: before }
      }),
    move: (decide, { by, reason }) =>
      roll.change(async (tx, time) => {
        const now = judgedBy(roll, time)
        // What was under way when the issuer could still sign is in the records before anybody looks at them.
        await tx.query(waitForIntents)
        const rows = (await tx.query<StoredIssuer>(selectIssuers)).rows.map(issuerRowOf)
        const decided = await decide({ issuers: rows, now, living: (issuer) => livingOf(tx, issuer, now()) })
        for (const { issuer, to } of decided) await tx.query(insertState, [issuer.name, to, by, reason])
        const events = decided.map(
          ({ issuer: { name, authority, state }, type }): IssuerMoved => ({
            type,
            issuer: name,
            authority,
            from: state,
            reason,
            by,
          }),
        )
        return { events, result: undefined }
      }),
    longestValidity: (authority) => longestOf({ ...deps, longestValidity }, authority),
  }
}

/** Any number, as long as it is this name's own. */
const turnOf = (keyName: string): number => hash('sha256', `key\0${keyName}`, 'buffer').readUIntBE(0, 6)

/** Longer than it takes to make a key: a process that was stopped in its turn loses it. */
const longestMaking = '10min'

const livingOf = async (tx: Queryable, issuer: string, now: Date): Promise<boolean | Date> => {
  const [row] = (await tx.query<{ living: boolean; until: Date | null }>(selectLiving, [issuer, now])).rows
  return row?.until ?? row?.living !== false
}

const longestOf = async ({ db, longestValidity }: IssuerStoreDeps, authority: string): Promise<number> => {
  const { rows } = await db.query<{ document: string }>(selectDocumentsOf, [authority])
  return Math.max(0, ...rows.map(({ document }) => longestValidity(document)))
}

interface StoredRequest {
  readonly name: string
  readonly authority: string
  readonly key_uri: string
  readonly csr: Buffer
  readonly created_at: Date
  readonly created_by: string
}

/** Differs after each move of any issuer, each of its ways up, and each place of its key. */
export const issuersVersion = async (db: Database): Promise<string> =>
  (await db.query<{ version: string }>(selectVersion)).rows[0]?.version ?? ''

/**
 * Adds an issuer, and its authority if it is new, with an event. Durable when it resolves; false when its name, its
 * certificate or its key is that of one that is, was, or is to be.
 */
export const recordIssuer = (roll: RollWriter, row: NewIssuer, by: string): Promise<boolean> =>
  roll.change(async (tx) => {
    if (!(await isKeyOf(tx, row.keySha256, row.name))) return { events: [], result: false }
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
    await tx.query(insertKey, [row.keySha256, row.name])
    await tx.query(insertState, [row.name, row.state, by, null])
    const { name: issuer, authority, state, shards } = row
    const certificate = row.certificate.toString('base64')
    return { events: [{ type: 'issuer.created', issuer, authority, certificate, state, shards, by }], result: true }
  })

/** Under the head's lock: two that come at once come one after the other. */
const isKeyOf = async (tx: Queryable, sha256: string, issuer: string): Promise<boolean> =>
  (await tx.query<{ issuer: string }>(selectKey, [sha256])).rows.every((row) => row.issuer === issuer)

const insertAuthority = { text: 'insert into authorities (name) values ($1) on conflict (name) do nothing' }
const insertIssuer = {
  text: `insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
    values ($1, $2, $3, $4::bytea[], $5, $6, $7) on conflict do nothing returning name`,
}
const insertChain = {
  text: 'insert into issuer_chains (entry, place, issuer, chain) values ($1, $2, $3, $4::bytea[])',
}
const insertState = { text: 'insert into issuer_states (issuer, state, by, reason) values ($1, $2, $3, $4)' }
const selectVersion = {
  name: 'select_issuers_version',
  text: `
    select concat_ws(' ', (select max(id) from issuer_states), (select entry from issuer_chains order by entry desc limit 1),
      (select 'key ' || entry from issuer_key_uris order by entry desc limit 1)) as version`,
}
const selectRequests = {
  text: `
    select name, authority, csr, created_at, created_by, coalesce(
      (select u.key_uri from issuer_key_uris u where u.issuer = name order by u.entry desc limit 1), key_uri) as key_uri
    from issuer_requests order by created_at, name`,
}
/** The newest before those that came with the issuer, or with the request for it. */
const selectKeyUri = {
  text: `
    select coalesce(
      (select key_uri from issuer_key_uris where issuer = $1 order by entry desc limit 1),
      (select key_uri from issuers where name = $1),
      (select key_uri from issuer_requests where name = $1)) as key_uri`,
}
const selectOther = {
  text: `
    select from (
      select name, key_uri from issuers union all select name, key_uri from issuer_requests
      union all select issuer, key_uri from issuer_key_uris) places
    where key_uri = $1 and name <> $2 limit 1`,
}
const insertKeyUri = { text: 'insert into issuer_key_uris (entry, issuer, key_uri) values ($1, $2, $3)' }
const insertRequest = {
  text: `insert into issuer_requests (name, authority, key_uri, csr, created_by) values ($1, $2, $3, $4, $5)
    on conflict do nothing returning name`,
}
const selectKey = { text: `select issuer from issuer_keys where key_sha256 = decode($1, 'hex')` }
const insertKey = {
  text: `insert into issuer_keys (key_sha256, issuer) values (decode($1, 'hex'), $2) on conflict do nothing`,
}
const selectDocumentsOf = {
  text: 'select document from profiles where authority = $1',
}

/** As the trigger on `issuer_states` does it: migrations/0010. */
const waitForIntents = { text: 'select pg_advisory_xact_lock(4711000004)' }

/**
 * The certificate that lives longest is the last of its index: by `exists`, the planner would read the whole table to find
 * one that it takes to be frequent. What was abandoned may have been signed, and so may what has no outcome yet: all before
 * `reconciled` have one, but for what was committed late (open-intents.ts looks back as far). What a clock has dated ahead that was
 * set back since counts as well: the span has no end, but a bound, for the planner takes a span without one to be a third of all, and
 * joined to the outcomes it would read these as a whole, while nobody may record an intent.
 */
export const selectLiving = {
  text: `
    with span as materialized (
      select until - interval '90 seconds' as since, timestamptz 'infinity' as until from reconciled where id = 1
    ), last as materialized (
      select max(not_after) as at from outcomes where kind = 'certificate' and issuer = $1
    )
    select (select at from last where ${isLivingAt('at', '$2::timestamptz')}) as until,
      exists (select from last where ${isLivingAt('at', '$2::timestamptz')})
      or exists (select from revocations where issuer = $1 and change = 'abandoned' and ${isLivingAt('not_after', '$2::timestamptz')})
      or exists (select from intents i where i.issuer = $1
        and i.created_at >= (select since from span) and i.created_at <= (select until from span)
        and (select true from outcomes o where o.serial = i.serial limit 1) is null) as living`,
}

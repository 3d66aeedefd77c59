/** Requests that people must approve, in the records: each step a row and an event, under the head of the roll. */
import type { Grant } from '../ca/access.ts'
import type {
  ApprovalRequest,
  ApprovalStore,
  Asked,
  Ending,
  OpenRequest,
  Proposal,
  ProposedRequest,
  RequestFilter,
  RequestState,
  Sight,
  Vouched,
} from '../ca/approvals.ts'
import type { PlanDocument } from '../ca/draft.ts'
import type { IssueInput } from '../ca/issuance.ts'
import type { Page, PageRequest } from '../ca/records.ts'
import { canonicalJson } from '../canonical.ts'
import { Problem } from '../errors.ts'
import type { RequestExpired, RequestFailed } from '../roll/entries.ts'
import type { Database, Queryable } from './database.ts'
import { type GrantRow, grantOf, grantsOf } from './grants.ts'
import { conditionsOf, isWhole, openParameters, pageOf, readCursor, writeCursor } from './pages.ts'
import type { RollWriter } from './roll.ts'

export interface ApprovalStoreDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly newId: () => string
  /** Told of each request that is new. */
  readonly proposed: () => void
}

export const openApprovalStore = (deps: ApprovalStoreDeps): ApprovalStore => {
  const { db, roll } = deps
  /** No request from before this entry is open, or will be. */
  let settled = 0
  return {
    find: (principal, key) => findProposed(db, principal, key),
    propose: async (proposal) => {
      const { isNew, ...proposed } = await propose(deps, proposal)
      if (isNew) deps.proposed()
      return proposed
    },
    read: (id) => readRequest(db, id),
    list: (sight, filter, page) => listRequests(db, { sight, filter, page }),
    decide: (id, event, judge) =>
      roll.change(async (tx, time, index) => {
        judge(await requestIn(tx, id))
        const { plan: _, type, by, reason } = event
        if (type === 'request.approved') await tx.query(insertApproval, [id, by, index, time, reason])
        else await tx.query(insertEnd, [id, 'rejected', index, time, by, null, reason])
        return { events: [event], result: await requestIn(tx, id) }
      }),
    asked: async (id) => {
      const { rows } = await db.query<AskRow>(selectAsk, [id])
      return rows[0] && askedOf(rows[0])
    },
    holds: async ({ provider, version }) =>
      (await db.query<{ newest: number | null }>(selectNewestProvider, [provider])).rows[0]?.newest === version,
    grantsOf: async (principal) => {
      const { rows } = await db.query<{ grants: readonly GrantRow[] }>(selectGrants, [principal])
      return rows[0]?.grants.map((row): Grant => grantOf(row))
    },
    end: (id, ending) => endRequest(roll, id, ending),
    endIssued: async (id, serial) => {
      await db.query(insertIssued, [id, Buffer.from(serial, 'hex')])
    },
    open: async () => {
      const { rows } = await db.query<OpenRow>(selectOpen, [settled])
      settled = rows[0]?.settled ?? settled
      return rows.flatMap((row) => (row.id === null ? [] : openOf(row)))
    },
  }
}

// Proposing -----------------------------------------------------------------------------------------------------------

const propose = (
  { roll, newId }: ApprovalStoreDeps,
  proposal: Proposal,
): Promise<ProposedRequest & { readonly isNew: boolean }> =>
  roll.change<ProposedRequest & { readonly isNew: boolean }>(async (tx, time, index) => {
    const { principal, digest, profile, plan, decided, approvals } = proposal
    const id = newId()
    // Whoever gave no key gets one, so that the certificate has one.
    const key = proposal.key ?? `request:${id}`
    const known = await findProposed(tx, principal, key)
    if (known) return { events: [], result: { ...known, isNew: false } }
    await assertRoom(tx, principal)
    const expires = new Date(time.getTime() + approvals.expires * 1000)
    const event = {
      type: 'request.created',
      id,
      principal,
      profile,
      request: digest.toString('hex'),
      plan: plan.toString('hex'),
      decided: { ...decided },
      required: approvals.required,
      expires: expires.toISOString(),
    } as const
    await tx.query(insertRequest, [
      ...[id, index, principal, key, digest, profile.name, profile.version, JSON.stringify(askOf(proposal))],
      ...[canonicalJson(decided), plan, approvals.required, time, expires],
    ])
    return { events: [event], result: { request: await requestIn(tx, id), digest, isNew: true } }
  })

/** People have to look at each: whoever floods them is stopped before they are. */
const assertRoom = async (tx: Queryable, principal: string): Promise<void> => {
  const { rows } = await tx.query<{ count: number }>(countOpen, [principal, mostOpen])
  if ((rows[0]?.count ?? 0) < mostOpen) return
  throw new Problem('approval.too_many', `${mostOpen} of your requests wait for approval.`, { retryAfter: 60 })
}

interface Kept {
  readonly input: Omit<IssueInput, 'csr' | 'idempotencyKey' | 'issuer'> & { readonly csr: string }
  readonly vouched: Vouched | null
}

const askOf = ({ input: { csr, idempotencyKey: _key, issuer: _issuer, ...rest }, vouched }: Asked): Kept => ({
  input: { ...rest, csr: csr.toString('base64') },
  vouched,
})

interface AskRow {
  readonly ask: Kept | null
  readonly idempotency_key: string | null
}

const askedOf = ({ ask, idempotency_key: key }: AskRow): Asked | undefined => {
  if (ask === null || key === null) return undefined
  const { input, vouched } = ask
  return {
    input: { ...input, csr: Buffer.from(input.csr, 'base64'), idempotencyKey: key },
    vouched: vouched && {
      ...vouched,
      grants: vouched.grants.map((grant) => ({ ...grant, createdAt: new Date(grant.createdAt) })),
    },
  }
}

// Ending --------------------------------------------------------------------------------------------------------------

const endRequest = (roll: RollWriter, id: string, ending: Ending): Promise<boolean> =>
  roll.change(async (tx, time, index) => {
    const request = await requestIn(tx, id)
    const { rows } = await tx.query<{ open: boolean }>(selectUnderWay, [id])
    if (request.end !== null || rows[0]?.open !== false) return { events: [], result: false }
    const { digest: plan } = request
    const { code, reason } = ending.kind === 'failed' ? ending : { code: null, reason: null }
    const event: RequestExpired | RequestFailed =
      ending.kind === 'failed'
        ? { type: 'request.failed', id, plan, code: ending.code, reason: ending.reason }
        : { type: 'request.expired', id, plan }
    await tx.query(insertEnd, [id, ending.kind, index, time, null, code, reason])
    return { events: [event], result: true }
  })

// Reading -------------------------------------------------------------------------------------------------------------

interface RequestOfRow {
  readonly id: string
  readonly entry: number
  readonly principal: string
  readonly digest: Buffer
  readonly profile: string
  readonly profile_version: number
  readonly decided: string
  readonly plan: Buffer
  readonly required: number
  readonly created_at: Date
  readonly expires_at: Date
  readonly approvals: readonly { readonly principal: string; readonly at: string; reason: string; entry: number }[]
  readonly state: RequestState
  readonly ended_at: Date | null
  readonly ended_by: string | null
  readonly code: string | null
  readonly reason: string | null
  readonly serial: Buffer | null
}

const requestOf = (row: RequestOfRow): ApprovalRequest => ({
  id: row.id,
  index: row.entry,
  principal: row.principal,
  profile: { name: row.profile, version: row.profile_version },
  state: row.state,
  plan: JSON.parse(row.decided) as PlanDocument,
  digest: row.plan.toString('hex'),
  required: row.required,
  approvals: row.approvals.map(({ principal, at, reason, entry }) => ({
    principal,
    at: new Date(at),
    reason,
    index: entry,
  })),
  createdAt: row.created_at,
  expiresAt: row.expires_at,
  end: row.ended_at && { at: row.ended_at, by: row.ended_by, code: row.code, reason: row.reason },
  serial: row.serial?.toString('hex') ?? null,
})

const readRequest = async (db: Queryable, id: string): Promise<ApprovalRequest | undefined> => {
  const { rows } = await db.query<RequestOfRow>(selectRequest, [id])
  return rows[0] && requestOf(rows[0])
}

const requestIn = async (tx: Queryable, id: string): Promise<ApprovalRequest> => {
  const request = await readRequest(tx, id)
  if (request) return request
  throw new Problem('approval.not_found', `There is no request ${id}.`)
}

const findProposed = async (db: Queryable, principal: string, key: string): Promise<ProposedRequest | undefined> => {
  const { rows } = await db.query<RequestOfRow>(selectByKey, [principal, key])
  return rows[0] && { request: requestOf(rows[0]), digest: rows[0].digest }
}

interface Listing {
  readonly sight: Sight
  readonly filter: RequestFilter
  readonly page: PageRequest
}

const listRequests = async (
  db: Queryable,
  { sight, filter, page: { limit, cursor } }: Listing,
): Promise<Page<ApprovalRequest>> => {
  const tag = { list: 'requests', ...filter }
  const after = readCursor(cursor, tag, [isWhole])
  const { p, values } = openParameters()
  const conditions = conditionsOf<RequestFilter>(
    { state: (state, p) => `q.state = ${p(state)}`, profile: (profile, p) => `q.profile = ${p(profile)}` },
    filter,
    p,
  )
  if (sight) conditions.push(`(q.principal = ${p(sight.principal)} or q.profile = any (${p(sight.profiles)}::text[]))`)
  if (after) conditions.push(`q.entry < ${p(after[0])}::bigint`)
  // What waits is not older than requests may wait.
  if (filter.state === 'pending') conditions.push(`q.expires_at > clock_timestamp()`)
  const where = conditions.length > 0 ? `where ${conditions.join(' and ')}` : ''
  const text = `select * from (${requests}) q ${where} order by q.entry desc limit ${p(limit + 1)}`
  const { rows } = await db.query<RequestOfRow>({ text }, values)
  return pageOf(rows, limit, { item: requestOf, cursor: (row) => writeCursor([row.entry], tag) })
}

interface OpenRow {
  readonly id: string | null
  readonly created_at: Date
  readonly is_approved: boolean
  readonly is_lost: boolean
  readonly is_due: boolean
  readonly settled: number
}

const openOf = (row: OpenRow): OpenRequest => ({
  id: row.id as string,
  createdAt: row.created_at,
  isApproved: row.is_approved,
  isLost: row.is_lost,
  isDue: row.is_due,
})

// Statements ----------------------------------------------------------------------------------------------------------

/** With what it has become: an end, a certificate, or neither, and then whether enough have approved it. */
const requests = `
    select r.id, r.entry, r.principal, r.digest, r.profile, r.profile_version, r.decided, r.plan, r.required, r.created_at,
      r.expires_at, a.approvals, c.serial, e.by as ended_by, e.code, e.reason, coalesce(e.at, c.at) as ended_at,
      case when e.kind is not null then e.kind when c.serial is not null then 'issued'
        when a.count >= r.required then 'approved' when r.expires_at <= clock_timestamp() then 'expired'
        else 'pending' end as state
    from approval_requests r
    cross join lateral (
      select count(*) as count, coalesce(json_agg(json_build_object('principal', principal, 'at', at, 'reason', reason,
        'entry', entry) order by entry), '[]') as approvals
      from approvals where request = r.id
    ) a
    left join lateral (
      select o.serial, o.at from intents i join outcomes o on o.serial = i.serial
      where i.approval = r.id and o.kind = 'certificate' limit 1
    ) c on true
    left join approval_ends e on e.request = r.id`

const selectRequest = { name: 'select_request', text: `${requests} where r.id = $1::uuid` }
const selectByKey = {
  name: 'select_request_by_key',
  text: `${requests} where r.principal = $1 and r.idempotency_key = $2`,
}
const selectAsk = {
  name: 'select_request_ask',
  text: 'select ask, idempotency_key from approval_requests where id = $1::uuid',
}
const selectNewestProvider = {
  name: 'select_newest_provider',
  text: 'select max(version) as newest from identity_providers where name = $1',
}
/** None for whoever is closed. */
const selectGrants = {
  name: 'select_grants_for_approval',
  text: `
    select ${grantsOf('p.name')} as grants from principals p
    where p.name = $1 and not exists (select from principal_closures c where c.principal = p.name)`,
}
const insertRequest = {
  name: 'insert_approval_request',
  text: `
    insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided, plan,
      required, created_at, expires_at)
    values ($1::uuid, $2, $3, $4, $5, $6, $7, $8::json, $9, $10, $11, $12, $13)`,
}
const insertApproval = {
  name: 'insert_approval',
  text: 'insert into approvals (request, principal, entry, at, reason) values ($1::uuid, $2, $3, $4, $5)',
}
const insertEnd = {
  name: 'insert_approval_end',
  text: `
    insert into approval_ends (request, kind, entry, at, by, code, reason) values ($1::uuid, $2, $3, $4, $5, $6, $7)`,
}
const insertIssued = {
  name: 'insert_approval_issued',
  text: `
    insert into approval_ends (request, kind, serial, at) values ($1::uuid, 'issued', $2, clock_timestamp())
    on conflict (request) do nothing`,
}
const countOpen = {
  name: 'count_open_requests',
  text: `
    select count(*)::integer as count from (
      select from approval_requests r
      where r.principal = $1 and r.expires_at > clock_timestamp()
        and not exists (select from approval_ends e where e.request = r.id)
      limit $2::integer
    ) open`,
}
/** Whether it has become a certificate, or an intent of it may still do so. */
const selectUnderWay = {
  name: 'select_request_under_way',
  text: `
    select exists (select from intents i left join outcomes o on o.serial = i.serial
      where i.approval = $1::uuid and (o.serial is null or o.kind = 'certificate')) as open`,
}
/** With the entry before which all have ended, in a row of its own where none is open. */
const selectOpen = {
  name: 'select_open_requests',
  text: `
    with open as materialized (
      select r.id, r.entry, r.created_at, r.expires_at <= clock_timestamp() as is_due, r.ask is null as is_lost,
        r.required <= (select count(*) from approvals a where a.request = r.id) as is_approved
      from approval_requests r
      where r.entry >= $1::bigint and not exists (select from approval_ends e where e.request = r.id)
    ), until as (
      select coalesce((select min(entry) from open), (select max(entry) + 1 from approval_requests), 0) as settled
    )
    select open.id, open.created_at, open.is_due, open.is_approved, open.is_lost, until.settled
    from until left join open on true order by open.entry`,
}

/** Of one principal. */
const mostOpen = 100

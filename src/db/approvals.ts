/** Requests that people must approve, in the records: each step a row and an event, under the head of the roll. */
import type { Grant } from '../ca/access/access.ts'
import type {
  ApprovalFigures,
  ApprovalStore,
  Asked,
  Decision,
  DueRequest,
  Ending,
  Proposal,
  ProposedRequest,
  Vouched,
} from '../ca/approvals/approvals.ts'
import type { IssueInput } from '../ca/issuance/issuance.ts'
import { Problem } from '../errors.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import type { RequestDecided, RequestExpired, RequestFailed } from '../tlog/entries.ts'
import { findProposed, listRequests, readRequest, requestIn } from './approval-requests.ts'
import type { Database, Queryable } from './database.ts'
import { constraintOf } from './errors.ts'
import { type GrantRow, grantOf, grantsOf } from './grants.ts'
import type { RollWriter } from './log.ts'
import { judgedBy } from './revocations.ts'

export interface ApprovalStoreDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly newId: () => string
  /** Told of each request that is new. */
  readonly proposed: () => void
}

export const openApprovalStore = (deps: ApprovalStoreDeps): ApprovalStore => {
  const { db, roll } = deps
  return {
    find: (principal, key) => findProposed(db, principal, key),
    propose: async (proposal) => {
      const { isNew, ...proposed } = await propose(deps, proposal)
      if (isNew) deps.proposed()
      return proposed
    },
    read: (id) => readRequest(db, id),
    list: (sight, filter, page) => listRequests(db, { sight, filter, page }),
    decide: (id, event, judge) => decideRequest(roll, { id, event, judge }),
    now: async () => judgedBy(roll, await roll.time()),
    asked: async (id) => {
      const { rows } = await db.query<AskRow>(selectAsk, [id])
      if (!rows[0]) throw new Error(`there is no request ${id}`)
      return askedOf(rows[0])
    },
    holds: async ({ provider, version }) =>
      (await db.query<{ newest: number | null }>(selectNewestProvider, [provider])).rows[0]?.newest === version,
    grantsOf: (principal) => grantsIn(db, principal),
    end: (id, ending) => endRequest(roll, id, ending),
    endIssued: async (id, serial) => {
      const { rowCount } = await db.query(insertIssued, [id, Buffer.from(serial, 'hex')])
      // There is nothing more to do about it, wherever it stands.
      if (rowCount === 0) await db.query(postpone, [id, null, null])
    },
    due: async () => {
      const { rows } = await db.query<DueRow>(selectDue, [mostDue])
      return rows.map(dueOf)
    },
    postpone: async (id, why) => {
      await db.query(postpone, [id, why?.code ?? null, why?.detail ?? null])
    },
    figures: async () => {
      const { rows } = await db.query<ApprovalFigures>(selectFigures, [mostCounted])
      return rows[0] ?? { pending: 0, approved: 0, oldest: null }
    },
  }
}

// Proposing -----------------------------------------------------------------------------------------------------------

type Proposed = ProposedRequest & { readonly isNew: boolean }

const propose = async ({ db, roll, newId }: ApprovalStoreDeps, proposal: Proposal): Promise<Proposed> => {
  const { principal } = proposal
  const known = async (on: Queryable, key: string): Promise<Proposed | undefined> => {
    const found = await findProposed(on, principal, key)
    return found && { ...found, isNew: false }
  }
  const id = newId()
  // Whoever gave no key gets one, so that the certificate has one.
  const key = proposal.key ?? `request:${id}`
  // What comes to nothing keeps nobody from the head of the roll.
  const before = await known(db, key)
  if (before) return before
  await assertRoom(db, principal)
  try {
    return await roll.change<Proposed>(async (tx, time, index) => {
      const meanwhile = await known(tx, key)
      if (meanwhile) return { events: [], result: meanwhile }
      roll.assertClock()
      await assertRoom(tx, principal)
      return insertProposal(tx, proposal, { id, key, time, index })
    })
  } catch (error) {
    if (constraintOf(error) !== 'requests_not_direct') throw error
    throw new Problem(
      'idempotency.reused',
      'Under this Idempotency-Key something was tried before the profile wanted approvals.',
    )
  }
}

interface Place {
  readonly id: string
  readonly key: string
  readonly time: Date
  readonly index: number
}

const insertProposal = async (tx: Queryable, proposal: Proposal, { id, key, time, index }: Place) => {
  const { principal, digest, profile, plan, decided, approvals } = proposal
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
}

/**
 * People have to look at each: whoever floods them is stopped before they are, also who takes back what was asked only to ask
 * again.
 */
const assertRoom = async (on: Queryable, principal: string): Promise<void> => {
  const { rows } = await on.query<{ count: number }>(countOpen, [principal, mostOpen])
  if ((rows[0]?.count ?? 0) < mostOpen) return
  throw new Problem(
    'approval.too_many',
    `${mostOpen} of your requests wait for approval, or were withdrawn within the hour.`,
    { retryAfter: 60 },
  )
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
  readonly ask: Kept
  readonly idempotency_key: string
}

const askedOf = ({ ask: { input, vouched }, idempotency_key: key }: AskRow): Asked => {
  return {
    input: { ...input, csr: Buffer.from(input.csr, 'base64'), idempotencyKey: key },
    vouched: vouched && {
      ...vouched,
      grants: vouched.grants.map((grant) => ({ ...grant, createdAt: new Date(grant.createdAt) })),
    },
  }
}

// Deciding and ending -------------------------------------------------------------------------------------------------

const decideRequest = (roll: RollWriter, { id, event, judge }: Decision) =>
  roll.change(async (tx, time, index) => {
    const { plan: _, type, by, reason } = event
    const request = await requestIn(tx, id)
    // Grants change under the head as well: what holds here holds at this place of the roll.
    judge(request, (await grantsIn(tx, by)) ?? [], judgedBy(roll, time))
    roll.assertClock()
    const kind = endOf[type]
    if (kind === undefined) await tx.query(insertApproval, [id, by, index, time, reason])
    else {
      await assertNotUnderWay(tx, id)
      await tx.query(insertEnd, [id, kind, index, time, by, null, reason])
    }
    return { events: [event], result: await requestIn(tx, id) }
  })

const endOf: { readonly [T in RequestDecided['type']]: string | undefined } = {
  'request.approved': undefined,
  'request.rejected': 'rejected',
  'request.withdrawn': 'withdrawn',
}

const assertNotUnderWay = async (tx: Queryable, id: string): Promise<void> => {
  if (await isUnderWay(tx, id)) throw new Problem('approval.closed', 'This request is being issued.')
}

/** From now until the end of the transaction nobody records an intent for it. */
const isUnderWay = async (tx: Queryable, id: string): Promise<boolean> => {
  await tx.query(lockRequest, [id])
  const { rows } = await tx.query<{ open: boolean }>(selectUnderWay, [id])
  return rows[0]?.open !== false
}

const endRequest = (roll: RollWriter, id: string, ending: Ending): Promise<boolean> =>
  roll.change(async (tx, time, index) => {
    const { end, digest: plan, expiresAt } = await requestIn(tx, id)
    // The clock by which it was due may have been set back since.
    const isEarly = ending.kind === 'expired' && time < expiresAt
    if (isEarly || end !== null || (await isUnderWay(tx, id))) return { events: [], result: false }
    const { code, reason } = ending.kind === 'failed' ? ending : { code: null, reason: null }
    const event: RequestExpired | RequestFailed =
      ending.kind === 'failed'
        ? { type: 'request.failed', id, plan, code: ending.code, reason: ending.reason }
        : { type: 'request.expired', id, plan }
    await tx.query(insertEnd, [id, ending.kind, index, time, null, code, reason])
    return { events: [event], result: true }
  })

/**
 * Ends those that were asked for between two entries and have not ended, where what people have said of them may be lost: some of
 * them, since each takes a lock of the server until the end of the transaction. Gives their events, of which `index` is where
 * the first will be, and from where the next ones are, if there are more. One that has become a certificate is left.
 */
export const failOpenRequests = async (
  tx: Queryable,
  { time, index }: Pick<Place, 'time' | 'index'>,
  { from, before }: { readonly from: number; readonly before: number },
  { code, reason }: { readonly code: string; readonly reason: string },
): Promise<{ readonly events: readonly RequestFailed[]; readonly next: number | undefined }> => {
  const { rows } = await tx.query<OpenRow>(selectOpen, [from, before, mostFailed])
  const events: RequestFailed[] = []
  for (const { id, plan } of rows) {
    if (await isUnderWay(tx, id)) continue
    await tx.query(insertEnd, [id, 'failed', index + events.length, time, null, code, reason])
    events.push({ type: 'request.failed', id, plan, code, reason })
  }
  const last = rows[mostFailed - 1]
  return { events, next: last && last.entry + 1 }
}

interface OpenRow {
  readonly id: string
  readonly plan: string
  readonly entry: number
}

const grantsIn = async (on: Queryable, principal: string): Promise<readonly Grant[] | undefined> => {
  const { rows } = await on.query<{ grants: readonly GrantRow[] }>(selectGrants, [principal])
  return rows[0]?.grants.map((row): Grant => grantOf(row))
}

interface DueRow {
  readonly id: string
  readonly is_approved: boolean
  readonly is_due: boolean
}

const dueOf = (row: DueRow): DueRequest => ({
  id: row.id,
  isApproved: row.is_approved,
  isDue: row.is_due,
})

// Statements ----------------------------------------------------------------------------------------------------------

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
    select count(*)::integer as count from unnest(array['pending', 'approved', 'withdrawn']) as stands (state)
    cross join lateral (
      select * from approval_standings s where s.state = stands.state and s.principal between $1 and $1
      order by s.principal, s.entry desc limit $2::integer
    ) s
    where case s.state when 'withdrawn' then s.ended_at > clock_timestamp() - interval '1 hour'
      else s.expires_at > clock_timestamp() end`,
}
const lockRequest = { name: 'lock_approval', text: 'select lock_approval($1::uuid)' }
/** Whether it has become a certificate, or an intent of it may still do so. */
const selectUnderWay = {
  name: 'select_request_under_way',
  text: `
    select exists (select from intents i left join outcomes o on o.serial = i.serial
      where i.approval = $1::uuid and (o.serial is null or o.kind = 'certificate')) as open`,
}
const postpone = { name: 'postpone_request', text: 'select postpone_request($1::uuid, $2, $3)' }
const selectOpen = {
  text: `
    select r.id, encode(r.plan, 'hex') as plan, s.entry
    from approval_standings s join approval_requests r on r.id = s.request
    where s.state in ('pending', 'approved') and s.entry >= $1::bigint and s.entry < $2::bigint
    order by s.entry limit $3::integer`,
}
/**
 * Where there is something to do, the longest due first. What is approved is never put off by more than a minute: where it is, the
 * clock that said so was set back since, and would keep it for as long as that was ahead. (By `=`, the planner would read all that
 * waits for people along `look_at`.)
 */
const selectDue = {
  name: 'select_due_requests',
  text: `
    with n as materialized (select approval_time() as time), looked as (
      (select * from approval_standings s
        where s.state in ('pending', 'approved') and s.look_at <= (select time from n)
        order by s.look_at limit $1::integer)
      union all
      (select * from approval_standings s
        where s.state between 'approved' and 'approved' and s.look_at > (select time from n) + interval '2 minutes'
        order by s.state, s.entry desc limit $1::integer)
    )
    select s.request as id, s.state = 'approved' as is_approved, r.expires_at <= n.time as is_due
    from looked s join approval_requests r on r.id = s.request cross join n
    order by s.look_at limit $1::integer`,
}
/** No more of a state than somebody would look at, each from one end of an index. */
const selectFigures = {
  name: 'select_request_figures',
  text: `
    select (select count(*) from (select from approval_standings where state = 'pending' limit $1::integer) s)::integer as pending,
      (select count(*) from (select from approval_standings where state = 'approved' limit $1::integer) s)::integer as approved,
      (select created_at from approval_requests where entry = least(
        (select entry from approval_standings where state = 'pending' order by entry limit 1),
        (select entry from approval_standings where state = 'approved' order by entry limit 1))) as oldest`,
}

/** Of one principal. */
const mostOpen = 100
/** In one transaction, of which the server keeps some thousands of locks for all that there are. */
const mostFailed = 500
/** Carried out or ended by one look. */
const mostDue = 100
/** Of a state, for metrics. */
const mostCounted = 10_000

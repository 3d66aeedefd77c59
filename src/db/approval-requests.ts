/** Requests that people must approve, as they are read: with what each has become, by id, by key, and in lists. */

import type { ProposedRequest, RequestFilter, Sight } from '../ca/approvals/approvals.ts'
import type { ApprovalRequest, Obstacle, PlanDocument, RequestState } from '../ca/approvals/request.ts'
import type { Page, PageRequest } from '../ca/records.ts'
import { Problem } from '../errors.ts'
import type { Queryable } from './database.ts'
import { isWhole, openParameters, type Parameter, pageOf, readCursor, writeCursor } from './search/pages.ts'

export const readRequest = async (db: Queryable, id: string): Promise<ApprovalRequest | undefined> => {
  const { rows } = await db.query<RequestOfRow>(selectRequest, [id])
  return rows[0] && requestOf(rows[0])
}

/** Throws `approval.not_found`. */
export const requestIn = async (tx: Queryable, id: string): Promise<ApprovalRequest> => {
  const request = await readRequest(tx, id)
  if (request) return request
  throw new Problem('approval.not_found', `There is no request ${id}.`)
}

export const findProposed = async (
  db: Queryable,
  principal: string,
  key: string,
): Promise<ProposedRequest | undefined> => {
  const { rows } = await db.query<RequestOfRow>(selectByKey, [principal, key])
  return rows[0] && { request: requestOf(rows[0]), digest: rows[0].digest }
}

export interface Listing {
  readonly sight: Sight
  readonly filter: RequestFilter
  readonly page: PageRequest
}

export const listRequests = async (
  db: Queryable,
  { sight, filter, page: { limit, cursor } }: Listing,
): Promise<Page<ApprovalRequest>> => {
  const tag = { list: 'requests', ...filter }
  const after = readCursor(cursor, tag, [isWhole])
  const { text, values } = listStatement({ sight, filter, after: after?.[0] as number | undefined, limit: limit + 1 })
  const { rows } = await db.query<RequestOfRow>({ text }, values)
  return pageOf(rows, limit, { item: requestOf, cursor: (row) => writeCursor([row.entry], tag) })
}

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
  readonly tried_at: Date | null
  readonly look_at: Date | null
  readonly obstacle: string | null
  readonly obstacle_detail: string | null
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
  obstacle: obstacleOf(row),
})

const obstacleOf = (row: RequestOfRow): Obstacle | null => {
  const { state, tried_at: at, obstacle: code, obstacle_detail: detail, look_at: tryAt } = row
  if (at === null || code === null || state === 'issued') return null
  return { at, code, detail: detail ?? '', tryAt: state === 'approved' ? tryAt : null }
}

// Statements ----------------------------------------------------------------------------------------------------------

/**
 * With what it has become: an end, a certificate, or neither, and then whether enough have approved it. That is worked out
 * from the records themselves; `approval_standings` only says where to look.
 */
const requests = `
    select r.id, r.entry, r.principal, r.digest, r.profile, r.profile_version, r.decided, r.plan, r.required, r.created_at,
      r.expires_at, a.approvals, c.serial, e.by as ended_by, e.code, e.reason, coalesce(e.at, c.at) as ended_at,
      case when e.kind is not null then e.kind when c.serial is not null then 'issued'
        when a.count >= r.required then 'approved' when r.expires_at <= (select approval_time()) then 'expired'
        else 'pending' end as state,
      t.tried_at, t.look_at, t.code as obstacle, t.detail as obstacle_detail
    from approval_requests r
    cross join lateral (
      select count(*) filter (where principal <> r.principal) as count,
        coalesce(json_agg(json_build_object('principal', principal, 'at', at, 'reason', reason, 'entry', entry)
          order by entry), '[]') as approvals
      from approvals where request = r.id
    ) a
    left join lateral (
      select o.serial, o.at from intents i join outcomes o on o.serial = i.serial
      where i.approval = r.id and o.kind = 'certificate' limit 1
    ) c on true
    left join approval_ends e on e.request = r.id
    left join approval_standings t on t.request = r.id`

const selectRequest = { name: 'select_request', text: `${requests} where r.id = $1::uuid` }
const selectByKey = {
  name: 'select_request_by_key',
  text: `${requests} where r.principal = $1 and r.idempotency_key = $2`,
}

/** What a state may stand as: whatever is over or issued is so before its row says it. */
const standsAs: { readonly [S in RequestState]: readonly string[] } = {
  pending: ['pending'],
  approved: ['approved'],
  issued: ['issued', 'approved'],
  rejected: ['rejected'],
  withdrawn: ['withdrawn'],
  expired: ['expired', 'pending'],
  failed: ['failed'],
}

interface ListQuestion {
  readonly sight: Sight
  readonly filter: RequestFilter
  /** The entry behind which it goes on. */
  readonly after: number | undefined
  readonly limit: number
}

/**
 * Whose requests, by which states: for each the newest from its own index, as many as fit a page, so that a few among very
 * many are found as fast as all. (A state that is worked out is looked at for each row that stands as it may.)
 */
const listStatement = ({ sight, filter, after, limit }: ListQuestion): { text: string; values: unknown[] } => {
  const { values, p } = openParameters()
  const most = p(limit)
  const state = filter.state === undefined ? undefined : p(filter.state)
  const from = state ? `unnest(${p(standsAs[filter.state as RequestState])}::text[]) as stands (state) cross join` : ''
  const walk = ({ along, conditions: ofScope = [] }: Scope): string => {
    const conditions = [
      ...ofScope,
      ...(state ? [`s.state = stands.state`, `q.state = ${state}`] : []),
      ...(filter.state === 'pending' || filter.state === 'expired'
        ? [`(s.state <> 'pending' or (s.expires_at <= (select approval_time())) = (${state} = 'expired'))`]
        : []),
      ...(after === undefined ? [] : [`s.entry < ${p(after)}::bigint`]),
    ]
    const where = conditions.length === 0 ? '' : `where ${conditions.join(' and ')}`
    const [table, id] = state ? ['approval_standings', 's.request'] : ['approval_requests', 's.id']
    return `select q.* from ${table} s cross join lateral (${requests} where r.id = ${id}) q
      ${where} order by ${along ? `s.${along}, ` : ''}s.entry desc limit ${most}`
  }
  const branches = scopesOf(sight, filter.profile, p).map(
    (scope) => `select q.* from ${from} ${scope.each ?? ''} lateral (${walk(scope)}) q`,
  )
  const text = `
    select * from (select distinct on (entry) * from (${branches.join('\n    union all\n')}) found) q
    order by entry desc limit ${most}`
  return { text, values }
}

interface Scope {
  /** What is walked once for each of these; ends in a join. */
  readonly each?: string
  /** The column that leads the index. */
  readonly along?: 'principal' | 'profile'
  readonly conditions?: readonly string[]
}

const scopesOf = (sight: Sight, profile: string | undefined, p: Parameter): readonly Scope[] => {
  const ofProfiles = (profiles: readonly string[]): Scope => ({
    each: `unnest(${p([...new Set(profiles)])}::text[]) as of (profile) cross join`,
    along: 'profile',
    conditions: [only('profile', 'of.profile')],
  })
  if (sight === null) return [profile === undefined ? {} : ofProfiles([profile])]
  const own = only('principal', p(sight.principal))
  return [
    { along: 'principal', conditions: [own, ...(profile === undefined ? [] : [`s.profile = ${p(profile)}`])] },
    ofProfiles(sight.profiles.filter((name) => profile === undefined || name === profile)),
  ]
}

/**
 * By `=`, the planner would walk all of the roll's order wherever it expects many of one, as after a few of them have made
 * nearly all; by a range, only an index that begins with the column is in the order that is asked for.
 */
const only = (column: string, value: string): string => `s.${column} between ${value} and ${value}`

/** The search for events, oldest first. An issuance's entry is not stored but put together again from the records. */
import type { Count, EventFilter, EventRecord, Start, Walk } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import { type AnyCertificateIssued, issuedBy } from '../../tlog/entries.ts'
import { readStoredOrigin } from '../origins.ts'
import type { RecordsDeps, SearchDeps } from './certificate-rows.ts'
import { countable, countRows, mostRows, openWalkOf, type Way } from './cursors.ts'
import { issuedAlong } from './index-scans.ts'
import {
  type Begun,
  beginSearch,
  type Conditions,
  conditionsOf,
  isStorable,
  isWhole,
  type Keyset,
  openParameters,
  type Parameter,
} from './pages.ts'

/** Octets as the text that they are told as: as Buffers in between, reading a row would take twice as long (measured). */
interface EventRow {
  readonly index: number
  readonly time: Date
  /** Hex, as `serial`, `plan` and `digest` are. */
  readonly leaf_hash: string
  readonly body: string | null
  readonly serial: string | null
  /** Base64 in lines, as `signature` is. */
  readonly tbs: string | null
  readonly signature: string | null
  readonly plan: string
  readonly approval: string | null
  readonly issuer: string
  readonly profile: string
  readonly profile_version: number
  readonly principal: string
  readonly digest: string
  readonly replaces: string | null
  readonly origin: string | null
}

export const walkEvents = async (
  deps: SearchDeps,
  filter: EventFilter,
  start: Start = {},
): Promise<Walk<EventRecord>> => {
  const span = { after: filter.after, before: filter.before }
  const search = { records: 'events', filter, start }
  const found = await beginSearch(deps.db, { ...search, span }, [isWhole])
  const begun: Begun = {
    ...found,
    low: Math.max(found.low, filter.fromIndex ?? 0),
    high: Math.min(found.high, filter.beforeIndex ?? found.high),
  }
  return openWalkOf({
    begun,
    search,
    range: { from: begun.low, before: begun.high },
    way: alongRoll(deps, filter, begun),
    item: (row) => ({
      index: row.index,
      leafHash: row.leaf_hash,
      entry: row.body ?? rebuild(deps, row),
    }),
    count: () => countEvents(deps, filter, begun),
  })
}

/** What is left to be looked at in each candidate `e`, whichever list it is on. */
const conditions: Conditions<EventFilter> = {
  type: (value, p) => `e.type = ${p(value)}`,
  serial: () => undefined,
  principal: (value, p) => {
    const principal = p(value)
    return `case when e.body is null
      then exists (select from intents i where i.serial = e.serial and i.principal = ${principal})
      else ${principal} in (e.body::jsonb->>'principal', e.body::jsonb->>'by') end`
  },
  by: (value, p) => `e.body::jsonb->>'by' = ${p(value)}`,
  after: () => undefined,
  before: () => undefined,
  fromIndex: () => undefined,
  beforeIndex: () => undefined,
}

const alongRoll = ({ db, candidates }: SearchDeps, filter: EventFilter, begun: Begun): Way<EventRow> => {
  // What no record can hold finds none.
  if (Object.values(filter).some((value) => typeof value === 'string' && !isStorable(value))) return nowhere
  const listed = (after: Keyset | undefined, p: Parameter): readonly List[] =>
    listsOf(
      filter,
      { low: after ? Math.max(begun.low, Number(after[0]) + 1) : begun.low, high: begun.high },
      candidates,
      p,
    )
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const lists = listed(after, p)
      // Of each list as many as there may be in all; the oldest of these.
      const found = lists.map((list) =>
        ofEach(list, `${lookedAt(list, filter, p)} order by ${list.order} limit ${limit}`),
      )
      const text = `${withSkips(lists)}
        select e.index, e.time, encode(e.leaf_hash, 'hex') as leaf_hash, e.body, encode(e.serial, 'hex') as serial,
          encode(i.tbs, 'base64') as tbs, encode(o.signature, 'base64') as signature, encode(i.plan, 'hex') as plan, i.issuer,
          i.profile, i.profile_version, i.principal, encode(i.digest, 'hex') as digest,
          encode(i.replaces, 'hex') as replaces, i.approval, i.origin
        from (select distinct index from (${found.join(' union all ')}) these order by index limit ${limit}) page
          cross join lateral (select * from entries where index = page.index limit 1) e
          ${recordsOfIssuance}
        order by page.index`
      return (await db.query<EventRow>({ text }, values)).rows
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const lists = listed(after, p)
      const ends = lists.map((list) =>
        ofEach(list, `select q.index from ${list.each} order by ${list.order} offset ${candidates - 1} limit 1`),
      )
      const text = `${withSkips(lists)} select min(index) as index from (${ends.join(' union all ')}) ends`
      const { rows } = await db.query<{ index: number | null }>({ text }, values)
      const index = rows[0]?.index ?? null
      return index === null ? undefined : [index]
    },
    keysetOf: ({ index }) => [index],
    isMerged: isMerged(filter, candidates),
    isBehind: ({ index }, [stop]) => index > Number(stop),
  }
}

/** As long as nothing is passed by, and a page is shorter than what is looked at, no list stops before its page is full. */
const isMerged = (filter: EventFilter, candidates: number): boolean => {
  const { p } = openParameters()
  const lists = listsOf(filter, { low: 0, high: 0 }, 1, p)
  const isPassing = lists.some((list) => restBeside(list, filter, p).length > 0) || candidates < mostRows
  return isPassing && (lists.length > 1 || lists.some(({ skip }) => skip !== undefined))
}

/** Each looked up by its key: as a join over all of them, a page would read a table of middling size as a whole (measured). */
const recordsOfIssuance = `
  left join lateral (select * from intents where e.body is null and serial = e.serial limit 1) i on true
  left join lateral (select signature from outcomes where e.body is null and entry = e.index limit 1) o on true`

const nowhere: Way<EventRow> = {
  rows: async () => [],
  stop: async () => undefined,
  keysetOf: ({ index }) => [index],
}

// Lists -----------------------------------------------------------------------------------------------------------------

/** Indexes of entries along which to search. Several together hold all that is asked for, some of it perhaps twice. */
interface List {
  /** A CTE, where there is one list for each of its rows; they are `l`. */
  readonly skip?: { readonly name: string; readonly text: string }
  /** `q`, with an `index`. */
  readonly each: string
  readonly order: string
  readonly answers: readonly (keyof EventFilter)[]
}

interface Among {
  readonly low: number
  readonly high: number
}

const listsOf = (filter: EventFilter, among: Among, most: number, p: Parameter): readonly List[] => {
  const { serial, principal, by, type } = filter
  if (serial !== undefined) return [ofSerial(serial, among, most, p)]
  if (by !== undefined) return [ofPerson('by', by, { type, among, most, p })]
  if (principal !== undefined) {
    const person = { type, among, most, p }
    return [
      ...(type === undefined || type === issued ? [issuedTo(principal, among, most, p)] : []),
      ...(type === issued ? [] : [ofPerson('principal', principal, person), ofPerson('by', principal, person)]),
    ]
  }
  return [
    type === undefined
      ? ofAll(among, most, p)
      : type === issued
        ? ofIssued(among, most, p)
        : ofType(type, among, most, p),
  ]
}

const within = ({ low, high }: Among, column: string, p: Parameter): string =>
  `${column} >= ${p(low)}::bigint and ${column} < ${p(high)}::bigint`

const ofAll = (among: Among, most: number, p: Parameter): List => ({
  each: `(select index from entries where ${within(among, 'index', p)} order by index limit ${most}) q`,
  order: 'q.index',
  answers: [],
})

/** Nearly all there is: those of another type are passed by in their outcomes, not in the entries. */
const ofIssued = (among: Among, most: number, p: Parameter): List => ({
  each: `(select entry as index from outcomes where kind = 'certificate' and ${within(among, 'entry', p)}
    order by entry limit ${most}) q`,
  order: 'q.index',
  answers: ['type'],
})

const ofType = (type: string, { low, high }: Among, most: number, p: Parameter): List => {
  const place = p(type)
  return {
    each: `(select type, index from entries where type <> '${issued}' and (type, index) >= (${place}, ${p(low)}::bigint)
      and (type, index) < (${place}, ${p(high)}::bigint) order by type, index limit ${most}) q`,
    order: 'q.type, q.index',
    answers: ['type'],
  }
}

/** A few at most. */
const ofSerial = (serial: string, among: Among, most: number, p: Parameter): List => {
  const octets = `decode(${p(serial)}, 'hex')`
  return {
    each: `(select index from (select entry as index from outcomes where serial = ${octets}
        union select entry from revocations where serial = ${octets}) its
      where ${within(among, 'index', p)} order by index limit ${most}) q`,
    order: 'q.index',
    answers: ['serial'],
  }
}

const issuedTo = (principal: string, { low, high }: Among, most: number, p: Parameter): List => {
  const { lists, each } = issuedAlong(principal)({ low, high, size: high }, most, p)
  return {
    skip: { name: 'lists', text: lists },
    each: `(select c.principal, c.profile, c.issuer, c.entry as index from ${each}) q`,
    order: 'q.principal, q.profile, q.issuer, q.index',
    answers: ['principal', 'type'],
  }
}

/** What a body says of somebody, each type of event a list: along an index over both and then the entry, never by `=`. */
const ofPerson = (
  field: 'principal' | 'by',
  name: string,
  { type, among: { low, high }, most, p }: { type: string | undefined; among: Among; most: number; p: Parameter },
): List => {
  const person = `(body::jsonb->>'${field}')`
  const place = p(name)
  const said = `from entries where body::jsonb->>'${field}' is not null and ${person} <= ${place}`
  const its = type === undefined ? 'l.type' : p(type)
  const list: List = {
    each: `(select ${person} as person, type, index from entries where body::jsonb->>'${field}' is not null
      and (${person}, type, index) >= (${place}, ${its}, ${p(low)}::bigint) and (${person}, type, index) < (${place}, ${its}, ${p(high)}::bigint)
      order by ${person}, type, index limit ${most}) q`,
    order: 'q.person, q.type, q.index',
    answers: ['principal', 'by', 'type'].filter((one) => one === field || one === 'type') as List['answers'],
  }
  if (type !== undefined) return list
  const types = `types_${field}`
  const text = `${types} as (
      (select type ${said} and ${person} >= ${place} order by ${person}, type limit 1)
      union all
      select n.type from ${types} l cross join lateral (
        select type ${said} and (${person}, type) > (${place}, l.type) order by ${person}, type limit 1) n
    )`
  return { ...list, skip: { name: types, text } }
}

const withSkips = (lists: readonly List[]): string => {
  const skips = lists.flatMap(({ skip }) => (skip && skip.text !== '' ? [skip.text] : []))
  return skips.length === 0 ? '' : `with recursive ${skips.join(', ')}`
}

const ofEach = ({ skip }: List, text: string): string =>
  `select s.index from ${skip ? `${skip.name} l cross join lateral ` : ''}(${text}) s`

/** The limit keeps it a look-up for each, whatever the planner believes. */
const lookedAt = (list: List, filter: EventFilter, p: Parameter): string => {
  const rest = restBeside(list, filter, p)
  const looked = `cross join lateral (select from entries e where e.index = q.index and ${rest.join(' and ')} limit 1) e`
  return `select q.index from ${list.each} ${rest.length === 0 ? '' : looked}`
}

/** What a list leaves to be looked at. Those of a principal hold together all that names it or was done by it. */
const restBeside = ({ answers }: List, filter: EventFilter, p: Parameter): readonly string[] => {
  const isWhole = filter.by === undefined && filter.serial === undefined
  const rest = Object.entries(filter).filter(
    ([field]) => !answers.includes(field as keyof EventFilter) && !(field === 'principal' && isWhole),
  )
  return conditionsOf(conditions, Object.fromEntries(rest), p)
}

// Counting ----------------------------------------------------------------------------------------------------------------

const countEvents = async ({ db }: RecordsDeps, filter: EventFilter, begun: Begun): Promise<Count> => {
  const among = { low: begun.low, high: Math.max(begun.low, begun.high) }
  const { serial, principal, by, type } = filter
  // There are no gaps.
  if ([serial, principal, by, type].every((value) => value === undefined))
    return { rows: among.high - among.low, exact: true }
  if (Object.values(filter).some((value) => typeof value === 'string' && !isStorable(value)))
    return { rows: 0, exact: true }
  const exact = openParameters()
  const lists = listsOf(filter, among, countable + 1, exact.p)
  const looked = lists.map((list) => ofEach(list, `select q.index from ${list.each}`))
  const found = lists.map((list) => ofEach(list, lookedAt(list, filter, exact.p)))
  const text = `${withSkips(lists)} select (select count(*)::integer from (${looked.join(' union all ')}) l) as looked,
    (select count(distinct index)::integer from (${found.join(' union all ')}) f) as rows`
  const { p, values } = openParameters()
  const rest = [within(among, 'e.index', p), ...conditionsOf({ ...conditions, serial: ofThat }, filter, p)]
  return countRows(
    db,
    { text, values: exact.values },
    { text: `select from entries e where ${rest.join(' and ')}`, values },
  )
}

const ofThat = (value: string, p: Parameter): string => `e.serial = decode(${p(value)}, 'hex')`

/** Its leaf hash tells whether it is the same. */
const rebuild = ({ codec }: RecordsDeps, row: EventRow): string => {
  if (!row.serial || !row.tbs || !row.signature) throw altered(row.index, 'some of them are missing')
  // In the order of an entry: then it is written by one native call.
  const event: AnyCertificateIssued = {
    certificate: codec.certificate(octets(row.tbs), octets(row.signature)).toString('base64'),
    issuer: row.issuer,
    plan: row.plan,
    principal: row.principal,
    profile: { name: row.profile, version: row.profile_version },
    ...issuedBy({ ...row, origin: readStoredOrigin(row.origin) }),
    request: row.digest,
    serial: row.serial,
    type: issued,
  }
  const { text, leafHash } = codec.entry(event, row.time)
  if (leafHash.toString('hex') !== row.leaf_hash) throw altered(row.index, 'they no longer hash to its leaf')
  return text
}

/**
 * Whoever follows the roll is told which entry it is: nobody gets another one in its place. It does not pass by waiting, so that nothing
 * tries again for long, and alerts and the log tell it as they do a defect.
 */
const altered = (index: number, how: string): Problem => {
  const told = `The records of entry ${index} are not what was put on the roll: ${how}.`
  return new Problem('internal', `${told} "chancery roll verify --database" names what was altered (docs/roll.md).`, {
    cause: new Error(told),
  })
}

const octets = (base64: string): Buffer => Buffer.from(base64, 'base64')

const issued = 'certificate.issued'

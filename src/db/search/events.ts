/** The search for events, oldest first. An issuance's entry is not stored but put together again from the records. */
import type { EventFilter, EventRecord, Start, Walk } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import type { CertificateIssued } from '../../tlog/entries.ts'
import type { Database } from '../database.ts'
import type { EntryCodec } from '../log.ts'
import { readStoredOrigin } from '../origins.ts'
import { type Begun, beginSearch, isWhole, type Parameter, within } from './pages.ts'
import { openWalk } from './walk.ts'

export interface EventDeps {
  readonly db: Database
  readonly codec: EntryCodec
}

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
  { db, codec }: EventDeps,
  filter: EventFilter,
  start: Start = {},
): Promise<Walk<EventRecord>> => {
  const asking = { records: 'events', filter, start }
  const found = await beginSearch(db, { ...asking, span: { after: filter.after, before: filter.before } }, [isWhole])
  const begun: Begun = {
    ...found,
    low: Math.max(found.low, filter.fromIndex ?? 0),
    high: Math.min(found.high, filter.beforeIndex ?? found.high),
  }
  return openWalk<EventRow, EventRecord>({
    db,
    begun,
    asking,
    range: { from: begun.low, before: begun.high },
    page: (after, limit, p) => {
      const among = { low: after ? Math.max(begun.low, Number(after[0]) + 1) : begun.low, high: begun.high }
      const lists = listsOf(filter, among, p).map((list) => `(${list} order by index limit ${limit})`)
      return `
        select e.index, e.time, encode(e.leaf_hash, 'hex') as leaf_hash, e.body, encode(e.serial, 'hex') as serial,
          encode(i.tbs, 'base64') as tbs, encode(o.signature, 'base64') as signature, encode(i.plan, 'hex') as plan, i.issuer,
          i.profile, i.profile_version, i.principal, encode(i.digest, 'hex') as digest,
          encode(i.replaces, 'hex') as replaces, i.approval, i.origin
        from (select index from (${lists.join(' union ')}) lists order by index limit ${limit}) page
          cross join lateral (select * from entries where index = page.index limit 1) e
          ${recordsOfIssuance}
        order by page.index`
    },
    all: (p) => `select from (${listsOf(filter, begun, p).join(' union ')}) lists`,
    keysetOf: ({ index }) => [index],
    item: (row) => ({ index: row.index, leafHash: row.leaf_hash, entry: row.body ?? rebuild(codec, row) }),
  })
}

/** Each looked up by its key: as a join over all of them, a page would read a table of middling size as a whole (measured). */
const recordsOfIssuance = `
  left join lateral (select * from intents where e.body is null and serial = e.serial limit 1) i on true
  left join lateral (select signature from outcomes where e.body is null and entry = e.index limit 1) o on true`

/**
 * Selects of each `index` that is asked for. Issuances, nearly all there is, are found in their outcomes; what a body says of a
 * principal, by an index for each of its two fields.
 */
const listsOf = (
  { type, serial, principal, by }: EventFilter,
  among: Pick<Begun, 'low' | 'high'>,
  p: Parameter,
): readonly string[] => {
  if ([type, serial, principal, by].every((value) => value === undefined))
    return [`select index from entries where ${within('index', among, p)}`]
  const issuances = (): readonly string[] => [
    `select entry as index from outcomes where ${[
      "kind = 'certificate'",
      within('entry', among, p),
      ...(serial === undefined ? [] : [`serial = decode(${p(serial)}, 'hex')`]),
      ...(principal === undefined ? [] : [`principal = ${p(principal)}`]),
    ].join(' and ')}`,
  ]
  const others = (): readonly string[] => {
    const conditions = [
      within('index', among, p),
      ...(type === undefined ? [] : [`type <> '${issued}' and type = ${p(type)}`]),
      ...(by === undefined ? [] : [`body::jsonb->>'by' = ${p(by)}`]),
      ...(serial === undefined
        ? []
        : [`index in (select entry from revocations where serial = decode(${p(serial)}, 'hex'))`]),
    ].join(' and ')
    const fields =
      principal === undefined
        ? ['']
        : ['principal', 'by'].map((field) => ` and body::jsonb->>'${field}' = ${p(principal)}`)
    return fields.map((person) => `select index from entries where ${conditions}${person}`)
  }
  if (type === issued && by !== undefined) return ['select 0::bigint as index where false']
  return [...((type ?? issued) === issued && by === undefined ? issuances() : []), ...(type === issued ? [] : others())]
}

/** Its leaf hash tells whether it is the same. */
const rebuild = (codec: EntryCodec, row: EventRow): string => {
  if (!row.serial || !row.tbs || !row.signature) throw altered(row.index, 'some of them are missing')
  // In the order of an entry: then it is written by one native call.
  const event: CertificateIssued = {
    approval: row.approval,
    certificate: codec.certificate(octets(row.tbs), octets(row.signature)).toString('base64'),
    issuer: row.issuer,
    origin: readStoredOrigin(row.origin),
    plan: row.plan,
    principal: row.principal,
    profile: { name: row.profile, version: row.profile_version },
    replaces: row.replaces,
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

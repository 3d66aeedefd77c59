/** The orders in which certificates are found: along the roll, by name or by expiry, walked or put in order. */
import type { CertificateFilter, Count } from '../../ca/records.ts'
import { firstName, type NameRange } from '../names.ts'
import { newestRevocationAt } from '../revocations.ts'
import { hasEndedBy, isLivingAt } from '../validity.ts'
import { hasName, placesOf, type RecordsDeps, restOf, type SearchDeps } from './certificate-rows.ts'
import { intentBeside, namesIn, type TextRow, textColumns } from './certificate-text.ts'
import { mostRows, type Way } from './cursors.ts'
import { allOf, type Candidates, certificateAt, type Lead, lookedUp } from './index-scans.ts'
import { type Begun, type Keyset, openParameters, type Parameter } from './pages.ts'
import { isUsual } from './prepared.ts'

export interface Asked {
  readonly deps: SearchDeps
  readonly filter: CertificateFilter
  readonly begun: Begun
  /** What an exact name finds, as names are kept. */
  readonly names: readonly string[] | undefined
  /** Names below a suffix. */
  readonly range: NameRange | undefined
}

export const amongAll = ({ low, high, bounds }: Begun) => ({ low, high, size: bounds.size })

export const withLists = ({ lists }: Pick<Candidates, 'lists'>, ...more: readonly string[]): string => {
  const all = [lists, ...more].filter((one) => one !== '')
  return all.length === 0 ? '' : `with ${lists === '' ? '' : 'recursive '}${all.join(', ')}`
}

/** What a lead leaves to be looked at in each candidate. */
export const restBeside = ({ filter, names, begun }: Asked, lead: Lead, p: Parameter): string => {
  const answered = new Set(lead.answers)
  const left = Object.entries(filter).filter(([field]) => !answered.has(field as keyof CertificateFilter))
  const rest = restOf(Object.fromEntries(left), placesOf(begun.bounds, p), p)
  return (
    [
      // Before a certificate is fetched for it.
      ...(lead.isAcross ? [`q.entry >= ${p(begun.low)}::bigint and q.entry < ${p(begun.high)}::bigint`] : []),
      ...(rest === 'true' ? [] : [rest]),
      ...(names === undefined || lead.index === 'certificate_names_by_name' ? [] : [hasName(names, p)]),
    ].join(' and ') || 'true'
  )
}

interface Ordered {
  readonly by: string
  /** What tells the place of a row in it, beside its entry. */
  readonly column?: string
}

/** The rows of `page`, in the order that they have there. */
const complete = (page: string, { by: order, column }: Ordered, { begun }: Asked, p: Parameter): string => {
  const { size, time } = placesOf(begun.bounds, p)
  return `${page}
    select ${textColumns(time)}${column === undefined ? '' : `, ${column}`}
    from page c ${intentBeside} ${newestRevocationAt(size)}
    order by ${order}`
}

interface Reading {
  readonly text: string
  readonly values: readonly unknown[]
  readonly limit: number
}

const read = async ({ deps }: Asked, { text, values, limit }: Reading): Promise<readonly TextRow[]> =>
  (await deps.db.query<TextRow>(isUsual(limit) ? deps.shape(text) : { text }, values)).rows

// Along the roll --------------------------------------------------------------------------------------------------------

export const alongLead = (asked: Asked, lead: Lead): Way<TextRow> => {
  const { begun, deps } = asked
  const listed = (after: Keyset | undefined, p: Parameter): Candidates =>
    lead.candidates(
      { ...amongAll(begun), high: Math.min(begun.high, Number(after?.[0] ?? begun.high)) },
      deps.candidates,
      p,
    )
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const list = listed(after, p)
      // Of each list as many as there may be in all; the newest of these.
      const some = `select c.* from ${list.each} where ${restBeside(asked, lead, p)} order by ${list.order} limit ${limit}`
      const page = `page as (select c.* from ${allOf({ ...list, each: `(${some}) c` })}
        order by c.entry desc limit ${limit})`
      return read(asked, { text: complete(withLists(list, page), { by: 'c.entry desc' }, asked, p), values, limit })
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const list = listed(after, p)
      const last = list.keys
        ? `select q.entry from ${list.keys} order by ${list.order} offset ${deps.candidates - 1} limit 1`
        : `select c.entry from ${list.each} order by ${list.order} offset ${deps.candidates - 1} limit 1`
      const text = `${withLists(list)} select max(c.entry) as entry from ${allOf({ ...list, each: `(${last}) c` })}`
      const { rows } = await deps.db.query<{ entry: number | null }>(deps.shape(text), values)
      const entry = rows[0]?.entry ?? null
      return entry === null ? undefined : [entry]
    },
    keysetOf: ({ entry }) => [entry],
    isMerged: isMerged(asked, lead),
    isBehind: ({ entry }, [stop]) => entry < Number(stop),
  }
}

/** As long as nothing is passed by, and a page is shorter than what is looked at, no list stops before its page is full. */
const isMerged = (asked: Asked, lead: Lead): boolean => {
  const { p } = openParameters()
  const { deps, begun } = asked
  const isPassing = restBeside(asked, lead, p) !== 'true' || deps.candidates < mostRows
  return isPassing && lead.candidates(amongAll(begun), 1, p).lists !== ''
}

// By name -----------------------------------------------------------------------------------------------------------------

/** Of names, not of certificates: one with several in the range is there for each. */
export const byNames = (range: NameRange, after?: Keyset, columns = 'name, entry'): Lead => ({
  index: 'certificate_names_by_name',
  answers: [],
  isAcross: true,
  candidates: (_among, most, p) =>
    lookedUp(
      `(select ${columns} from certificate_names
        where name >= ${p(range.low)} and name < ${p(range.high)}${after ? behindName(after, p) : ''}
        order by name, entry desc limit ${most}) q`,
      'q.name, q.entry desc',
    ),
})

/** By name, and those of a name newest first; a certificate with several names in the range is found by the first of them. */
export const alongNames = (asked: Asked, range: NameRange): Way<TextRow> => {
  const listed = (after: Keyset | undefined, p: Parameter): Candidates =>
    byNames(range, after).candidates(amongAll(asked.begun), asked.deps.candidates, p)
  const named = rememberNames(asked.deps)
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const { each, order } = listed(after, p)
      const page = `with page as (
        select c.*, q.name from ${each} where ${restBeside(asked, byNames(range), p)} order by ${order} limit ${limit})`
      return read(asked, { text: complete(page, nameOrder, asked, p), values, limit })
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const { keys, order } = listed(after, p)
      const text = `select q.name, q.entry from ${keys} order by ${order} offset ${asked.deps.candidates - 1} limit 1`
      const { rows } = await asked.deps.db.query<{ name: string; entry: number }>(asked.deps.shape(text), values)
      return rows[0] && [rows[0].name, rows[0].entry]
    },
    keysetOf: nameKeyset,
    isBehind: ({ name = '', entry }, [last = '', at]) => name > last || (name === last && entry < Number(at)),
    isFound: (row) => row.name === firstName(named(row), range),
  }
}

const nameOrder: Ordered = { by: 'c.name, c.entry desc', column: 'c.name' }

const nameKeyset = ({ name, entry }: Pick<TextRow, 'name' | 'entry'>): Keyset => [name ?? '', entry]

/** The first condition is where the index is entered, the other what it passes by. */
const behindName = ([name, entry]: Keyset, p: Parameter): string => {
  const [last, at] = [p(name), `${p(entry)}::bigint`]
  return ` and name >= ${last} and (name > ${last} or entry < ${at})`
}

/** A certificate comes once for each of its names: it is read once for all that lie close together. */
const rememberNames = (deps: RecordsDeps) => {
  const known = new Map<number, TextRow['names']>()
  return (row: TextRow): NonNullable<TextRow['names']> => {
    const seen = known.get(row.entry)
    if (seen) row.names = seen
    const names = namesIn(row, deps)
    if (known.size >= remembered) known.clear()
    known.set(row.entry, names)
    return names
  }
}

/** A short list as a whole, by the first name of each: in indexes alone, until it is known which few are wanted. */
export const putByName = (asked: Asked, lead: Lead, range: NameRange): Way<TextRow> & Counted => ({
  rows: async (after, limit) => {
    const { p, values } = openParameters()
    const { lists, found } = named(asked, lead, range, p)
    const behind = after ? ` where ${behindFound(after, p)}` : ''
    const page = `page as (
      select c.*, f.name from (select * from ${found}${behind} order by name, entry desc limit ${limit}) f
      cross join lateral ${certificateAt('f.entry')} c)`
    return read(asked, { text: complete(withLists({ lists }, page), nameOrder, asked, p), values, limit })
  },
  stop: async () => undefined,
  keysetOf: nameKeyset,
  count: async () => {
    const { p, values } = openParameters()
    const { lists, found } = named(asked, lead, range, p)
    const text = `${withLists({ lists })} select count(*)::integer as rows from ${found}`
    const { rows } = await asked.deps.db.query<{ rows: number }>({ text }, values)
    return { rows: rows[0]?.rows ?? 0, exact: true }
  },
})

interface Counted {
  readonly count: () => Promise<Count>
}

/** Entries on the list with the first of their names in the range, `f`. */
const named = (asked: Asked, lead: Lead, range: NameRange, p: Parameter) => {
  const rest = restBeside(asked, lead, p)
  const { lists, ...list } = lead.candidates(amongAll(asked.begun), asked.deps.candidates, p)
  if (lead.isNamed)
    return { lists, found: `(select q.name, q.entry from ${rest === 'true' ? list.keys : list.each} where ${rest}) f` }
  const first = `(select n.name from certificate_names n where n.kind = 'dns' and n.entry = c.entry
    and n.name >= ${p(range.low)} and n.name < ${p(range.high)} order by n.name limit 1)`
  return {
    lists,
    found: `(select n.name, c.entry from ${allOf({ lists, ...list })} cross join lateral ${first} n where ${rest}) f`,
  }
}

const behindFound = ([name, entry]: Keyset, p: Parameter): string => {
  const last = p(name)
  return `(f.name > ${last} or (f.name = ${last} and f.entry < ${p(entry)}::bigint))`
}

/** The names in a range of all that is on a part of the roll. */
export const byNamesAlongRoll = (range: NameRange): Lead => ({
  index: 'certificate_names_by_entry',
  answers: [],
  isNamed: true,
  candidates: ({ low, high }, _most, p) =>
    lookedUp(
      `(select distinct on (n.entry) n.entry, n.name from certificate_names n
        where n.kind = 'dns' and n.entry >= ${p(low)}::bigint and n.entry < ${p(high)}::bigint
          and n.name >= ${p(range.low)} and n.name < ${p(range.high)}
        order by n.entry, n.name) q`,
      'q.entry',
    ),
})

// By expiry ---------------------------------------------------------------------------------------------------------------

/** Soonest first, and of those that expire together the one that was issued first. */
export const byExpiry = ({ filter, begun }: Asked, after?: Keyset): Lead => ({
  index: 'certificates_of_expiry',
  answers: ['expiresAfter', 'expiresBefore'],
  isAcross: true,
  candidates: (_among, most, p) =>
    lookedUp(
      `(select not_after, entry from outcomes
        where kind = 'certificate' and ${expiryOf(filter, begun, p).join(' and ')}${after ? behindExpiry(after, p) : ''}
        order by not_after, entry limit ${most}) q`,
      'q.not_after, q.entry',
    ),
})

export const alongExpiry = (asked: Asked): Way<TextRow> => {
  const listed = (after: Keyset | undefined, p: Parameter): Candidates =>
    byExpiry(asked, after).candidates(amongAll(asked.begun), asked.deps.candidates, p)
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const { each, order } = listed(after, p)
      const page = `with page as (
        select c.* from ${each} where ${restBeside(asked, byExpiry(asked), p)}
        order by ${order} limit ${limit})`
      return read(asked, { text: complete(page, expiryOrder, asked, p), values, limit })
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const { keys, order } = listed(after, p)
      const text = `select q.not_after, q.entry from ${keys} order by ${order} offset ${asked.deps.candidates - 1} limit 1`
      const { rows } = await asked.deps.db.query<{ not_after: Date; entry: number }>(asked.deps.shape(text), values)
      return rows[0] && expiryKeyset(rows[0])
    },
    keysetOf: expiryKeyset,
    isBehind: (row, [time = 0, at]) => {
      const [expires = 0] = expiryKeyset(row)
      return expires > time || (expires === time && row.entry > Number(at))
    },
  }
}

/** A short list as a whole. */
export const putByExpiry = (asked: Asked, lead: Lead): Way<TextRow> => ({
  rows: async (after, limit) => {
    const { p, values } = openParameters()
    const list = lead.candidates(amongAll(asked.begun), asked.deps.candidates, p)
    const behind = after ? behindExpiry(after, p, 'c.') : ''
    const page = `page as (select c.* from ${allOf(list)}
      where ${restBeside(asked, lead, p)}${behind} order by c.not_after, c.entry limit ${limit})`
    return read(asked, { text: complete(withLists(list, page), expiryOrder, asked, p), values, limit })
  },
  stop: async () => undefined,
  keysetOf: expiryKeyset,
})

const expiryOrder: Ordered = { by: 'c.not_after, c.entry', column: 'c.not_after' }

const expiryKeyset = ({ not_after, entry }: Pick<TextRow, 'not_after' | 'entry'>): Keyset => [
  not_after?.getTime() ?? 0,
  entry,
]

const behindExpiry = ([time, entry]: Keyset, p: Parameter, row = ''): string =>
  ` and (${row}not_after, ${row}entry) > (timestamptz 'epoch' + ${p(time)}::bigint * interval '1 ms', ${p(entry)}::bigint)`

/** Where its index is entered and left. */
const expiryOf = (
  { expiresAfter, expiresBefore, status }: CertificateFilter,
  { bounds: { time } }: Begun,
  p: Parameter,
): readonly string[] => {
  return [
    ...(expiresAfter ? [`not_after >= ${p(expiresAfter)}`] : []),
    ...(expiresBefore ? [`not_after < ${p(expiresBefore)}`] : []),
    ...(status === 'valid' ? [isLivingAt('not_after', `${p(time)}::timestamptz`)] : []),
    ...(status === 'expired' ? [hasEndedBy('not_after', `${p(time)}::timestamptz`)] : []),
  ]
}

const remembered = 2_000

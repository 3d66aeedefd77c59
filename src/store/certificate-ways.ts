/**
 * The way that a search for certificates takes. Its order follows from its filters alone: names below a suffix, expiry, or
 * the roll. Along the roll it is led by the list that is known to be shortest; along names and expiry it walks these, unless
 * some list is so short that it is better read as a whole, and put in order.
 *
 * A search is bound to a size of the roll, and what is on the roll never changes: so each page finds the same lists.
 */
import type { CertificateFilter, Count } from '../ca/records.ts'
import { allOf, byRevocation, byRoll, type Candidates, type Lead, leadsOf, lookedUp } from './certificate-leads.ts'
import {
  type CertificateRow,
  certificateColumns,
  hasName,
  namesIn,
  placesOf,
  type RecordsDeps,
  restOf,
  type SearchDeps,
  setConditions,
} from './certificates.ts'
import { firstName, type NameRange, nameRange } from './names.ts'
import { type Begun, isStorable, isWhole, type Keyset, openParameters, type Parameter, pageTurns } from './pages.ts'
import { newestRevocationAt } from './revocations.ts'
import { countable, countRows, mostRows, type Way } from './walks.ts'

export interface CertificateWay {
  readonly way: Way<CertificateRow>
  readonly count: () => Promise<Count>
}

interface Asked {
  readonly deps: SearchDeps
  readonly filter: CertificateFilter
  readonly begun: Begun
  /** An exact name, as it is kept. */
  readonly name: string | undefined
  /** Names below a suffix. */
  readonly range: NameRange | undefined
}

export const openCertificateWay = async (
  deps: SearchDeps,
  filter: CertificateFilter,
  begun: Begun,
): Promise<CertificateWay> => {
  // What no record can hold finds none.
  if (Object.values(filter).some((value) => typeof value === 'string' && !isStorable(value))) return nowhere
  const named = filter.name === undefined ? undefined : nameRange(filter.name)
  const isOne = named !== undefined && !isSuffix(named)
  const asked: Asked = { deps, filter, begun, name: isOne ? named.low : undefined, range: isOne ? undefined : named }
  const leads = leadsOf(filter, asked.name)
  const { range } = asked
  if (!range && !isByExpiry(filter)) {
    const [first = byRoll, ...others] = leads
    // What is revoked is looked at twice each to be counted: it leads where nothing else is short.
    const lead =
      others.length === 0
        ? first
        : ((await shortest(
            asked,
            leads.filter((one) => one !== byRevocation),
          )) ?? first)
    return { way: alongLead(asked, lead), count: () => countBy(asked, lead) }
  }
  const own = range ? byNames(range) : byExpiry(asked)
  const short = await muchShorter(asked, own, [...leads, ...shortRoll(asked)])
  if (!range)
    return short === undefined
      ? { way: alongExpiry(asked), count: () => countBy(asked, own) }
      : { way: putByExpiry(asked, short), count: () => countBy(asked, short) }
  if (!short) return { way: alongNames(asked, range), count: () => countNames(asked, range) }
  const way = putByName(asked, short, range)
  return { way, count: async () => ({ rows: (await way.rows(undefined, deps.candidates)).length, exact: true }) }
}

/** What the keyset of its pages is made of follows from a filter: see the ways. */
export const keysetShape = (filter: CertificateFilter): readonly ((part: unknown) => boolean)[] => {
  if (isStorable(filter.name) && isSuffix(nameRange(filter.name))) return [isStorable, isWhole]
  return isByExpiry(filter) ? [isWhole, isWhole] : [isWhole]
}

const isSuffix = ({ low, high }: NameRange): boolean => low !== high

/** Whether a search goes along expiry: what is said of it would leave little of a walk along the roll. */
const isByExpiry = (filter: CertificateFilter): boolean =>
  (filter.expiresAfter !== undefined ||
    filter.expiresBefore !== undefined ||
    filter.status === 'valid' ||
    filter.status === 'expired') &&
  [filter.serial, filter.key, filter.name, filter.subject, filter.revokedAfter, filter.revokedBefore].every(
    (value) => value === undefined,
  )

const nowhere: CertificateWay = {
  way: { rows: async () => [], stop: async () => undefined, keysetOf: ({ entry }) => [entry] },
  count: async () => ({ rows: 0, exact: true }),
}

/** The roll itself, where the span leaves little of it. */
const shortRoll = ({ begun: { low, high }, deps }: Asked): readonly Lead[] =>
  high - low <= deps.candidates ? [byRoll] : []

/** The shortest of these lists, unless none is short. */
const shortest = async (asked: Asked, leads: readonly Lead[]): Promise<Lead | undefined> => {
  const known = await lengthsOf(asked, leads)
  const least = Math.min(...known)
  return least > asked.deps.candidates ? undefined : leads[known.indexOf(least)]
}

/** The shortest, if it is short, and so much shorter than what would be walked that it is worth to be put in order. */
const muchShorter = async (asked: Asked, own: Lead, leads: readonly Lead[]): Promise<Lead | undefined> => {
  if (leads.length === 0) return undefined
  const [walked = 0, ...known] = await lengthsOf(asked, [own, ...leads])
  const least = Math.min(...known)
  return least * 10 > walked ? undefined : leads[known.indexOf(least)]
}

/** How long these lists are, up to what is short. One statement, by indexes alone. */
const lengthsOf = async ({ deps, begun }: Asked, leads: readonly Lead[]): Promise<readonly number[]> => {
  const { p, values } = openParameters()
  const lengths = leads.map((lead) => {
    const list = lead.candidates(amongAll(begun), deps.candidates + 1, p)
    return `(${withLists(list)} select count(*)::integer from (select from ${list.keys ?? allOf(list)} limit ${deps.candidates + 1}) few)`
  })
  const { rows } = await deps.db.query<{ lengths: readonly number[] }>(
    { text: `select array[${lengths.join(', ')}] as lengths` },
    values,
  )
  return rows[0]?.lengths ?? []
}

const amongAll = ({ low, high, bounds }: Begun) => ({ low, high, size: bounds.size })

const withLists = ({ lists }: Candidates, ...more: readonly string[]): string => {
  const all = [lists, ...more].filter((one) => one !== '')
  return all.length === 0 ? '' : `with ${lists === '' ? '' : 'recursive '}${all.join(', ')}`
}

/** What a lead leaves to be looked at in each candidate. */
const restBeside = ({ filter, name, begun }: Asked, lead: Lead, p: Parameter): string => {
  const answered = new Set(lead.answers)
  const left = Object.entries(filter).filter(([field]) => !answered.has(field as keyof CertificateFilter))
  const rest = restOf(Object.fromEntries(left), placesOf(begun.bounds, p), p)
  return (
    [
      // Before a certificate is fetched for it.
      ...(lead.isAcross ? [`q.entry >= ${p(begun.low)}::bigint and q.entry < ${p(begun.high)}::bigint`] : []),
      ...(rest === 'true' ? [] : [rest]),
      ...(name === undefined || lead.index === 'certificate_names_by_name' ? [] : [hasName(name, p)]),
    ].join(' and ') || 'true'
  )
}

/** The columns of `page`, its rows in the order that they have there. */
const complete = (page: string, order: string, { begun }: Asked, p: Parameter): string => {
  const { size, time } = placesOf(begun.bounds, p)
  return `${page}
    select ${certificateColumns(time)}, c.name
    from page c join intents i on i.serial = c.serial ${newestRevocationAt(size)}
    order by ${order}`
}

const read = async ({ deps }: Asked, text: string, values: readonly unknown[]): Promise<readonly CertificateRow[]> =>
  (await deps.db.query<CertificateRow>({ text }, values)).rows

// Along the roll --------------------------------------------------------------------------------------------------------

const alongLead = (asked: Asked, lead: Lead): Way<CertificateRow> => {
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
      const page = `page as (select c.*, null::text as name from ${allOf({ ...list, each: `(${some}) c` })}
        order by c.entry desc limit ${limit})`
      return read(asked, complete(withLists(list, page), 'c.entry desc', asked, p), values)
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const list = listed(after, p)
      const last = list.keys
        ? `select q.entry from ${list.keys} order by ${list.order} offset ${deps.candidates - 1} limit 1`
        : `select c.entry from ${list.each} order by ${list.order} offset ${deps.candidates - 1} limit 1`
      const text = `${withLists(list)} select max(c.entry) as entry from ${allOf({ ...list, each: `(${last}) c` })}`
      const { rows } = await deps.db.query<{ entry: number | null }>({ text }, values)
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
const byNames = (range: NameRange, after?: Keyset, columns = 'name, entry'): Lead => ({
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
const alongNames = (asked: Asked, range: NameRange): Way<CertificateRow> => {
  const listed = (after: Keyset | undefined, p: Parameter): Candidates =>
    byNames(range, after).candidates(amongAll(asked.begun), asked.deps.candidates, p)
  const named = rememberNames(asked.deps)
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const { each, order } = listed(after, p)
      const page = `with page as (
        select c.*, q.name from ${each} where ${restBeside(asked, byNames(range), p)} order by ${order} limit ${limit})`
      return read(asked, complete(page, 'c.name, c.entry desc', asked, p), values)
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const { keys, order } = listed(after, p)
      const text = `select q.name, q.entry from ${keys} order by ${order} offset ${asked.deps.candidates - 1} limit 1`
      const { rows } = await asked.deps.db.query<{ name: string; entry: number }>({ text }, values)
      return rows[0] && [rows[0].name, rows[0].entry]
    },
    keysetOf: ({ name, entry }) => [name ?? '', entry],
    isFound: (row) => row.name === firstName(named(row), range),
  }
}

/** The first condition is where the index is entered, the other what it passes by. */
const behindName = ([name, entry]: Keyset, p: Parameter): string => {
  const [last, at] = [p(name), `${p(entry)}::bigint`]
  return ` and name >= ${last} and (name > ${last} or entry < ${at})`
}

/** A certificate comes once for each of its names: it is read once for all that lie close together. */
const rememberNames = (deps: RecordsDeps) => {
  const known = new Map<number, CertificateRow['names']>()
  return (row: CertificateRow): NonNullable<CertificateRow['names']> => {
    const seen = known.get(row.entry)
    if (seen) row.names = seen
    const names = namesIn(row, deps)
    if (known.size >= remembered) known.clear()
    known.set(row.entry, names)
    return names
  }
}

type Put = CertificateRow & { readonly name: string }

/** A short list as a whole, by the first name of each. */
const putByName = (asked: Asked, lead: Lead, range: NameRange): Way<CertificateRow> => {
  const named = rememberNames(asked.deps)
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const list = lead.candidates(amongAll(asked.begun), asked.deps.candidates, p)
      const page = `page as (select c.*, null::text as name from ${allOf(list)} where ${restBeside(asked, lead, p)})`
      const rows = await read(asked, complete(withLists(list, page), 'c.entry desc', asked, p), values)
      const found: Put[] = []
      const turn = pageTurns()
      for (const row of rows) {
        await turn()
        const name = firstName(named(row), range)
        if (name !== '' && (!after || isBehindName([name, row.entry], after))) found.push({ ...row, name })
      }
      return found.sort((a, b) => (isBehindName([a.name, a.entry], [b.name, b.entry]) ? 1 : -1)).slice(0, limit)
    },
    stop: async () => undefined,
    keysetOf: ({ name, entry }) => [name ?? '', entry],
  }
}

const isBehindName = ([name, entry]: readonly [string, number], [last, at]: Keyset): boolean =>
  name > String(last) || (name === last && entry < Number(at))

// By expiry ---------------------------------------------------------------------------------------------------------------

/** Soonest first, and of those that expire together the one that was issued first. */
const byExpiry = ({ filter, begun }: Asked, after?: Keyset): Lead => ({
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

const alongExpiry = (asked: Asked): Way<CertificateRow> => {
  const listed = (after: Keyset | undefined, p: Parameter): Candidates =>
    byExpiry(asked, after).candidates(amongAll(asked.begun), asked.deps.candidates, p)
  return {
    rows: async (after, limit) => {
      const { p, values } = openParameters()
      const { each, order } = listed(after, p)
      const page = `with page as (
        select c.*, null::text as name from ${each} where ${restBeside(asked, byExpiry(asked), p)}
        order by ${order} limit ${limit})`
      return read(asked, complete(page, 'c.not_after, c.entry', asked, p), values)
    },
    stop: async (after) => {
      const { p, values } = openParameters()
      const { keys, order } = listed(after, p)
      const text = `select q.not_after, q.entry from ${keys} order by ${order} offset ${asked.deps.candidates - 1} limit 1`
      const { rows } = await asked.deps.db.query<{ not_after: Date; entry: number }>({ text }, values)
      return rows[0] && expiryKeyset(rows[0])
    },
    keysetOf: expiryKeyset,
  }
}

/** A short list as a whole. */
const putByExpiry = (asked: Asked, lead: Lead): Way<CertificateRow> => ({
  rows: async (after, limit) => {
    const { p, values } = openParameters()
    const list = lead.candidates(amongAll(asked.begun), asked.deps.candidates, p)
    const behind = after ? behindExpiry(after, p, 'c.') : ''
    const page = `page as (select c.*, null::text as name from ${allOf(list)}
      where ${restBeside(asked, lead, p)}${behind} order by c.not_after, c.entry limit ${limit})`
    return read(asked, complete(withLists(list, page), 'c.not_after, c.entry', asked, p), values)
  },
  stop: async () => undefined,
  keysetOf: expiryKeyset,
})

const expiryKeyset = ({ not_after, entry }: Pick<CertificateRow, 'not_after' | 'entry'>): Keyset => [
  not_after.getTime(),
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
    ...(status === 'valid' ? [`not_after >= ${p(time)}`] : []),
    ...(status === 'expired' ? [`not_after < ${p(time)}`] : []),
  ]
}

// Counting ----------------------------------------------------------------------------------------------------------------

/** Exact where the list is short. */
const countBy = (asked: Asked, lead: Lead): Promise<Count> => {
  const { p, values } = openParameters()
  const list = lead.candidates(amongAll(asked.begun), countable + 1, p)
  const rest = restBeside(asked, lead, p)
  const text = `${withLists(list)}
    select count(*)::integer as looked, (count(*) filter (where ${rest}))::integer as rows from ${allOf(list)}`
  return countRows(asked.deps.db, { text, values }, everything(asked))
}

const countNames = (asked: Asked, range: NameRange): Promise<Count> => {
  const { p, values } = openParameters()
  const names = byNames(range, undefined, 'name, entry, kind')
  const { each } = names.candidates(amongAll(asked.begun), countable + 1, p)
  const rest = restBeside(asked, names, p)
  const text = `
    select count(*)::integer as looked, (count(distinct q.entry) filter (where q.kind = 'dns' and ${rest}))::integer as rows
    from ${each}`
  return countRows(asked.deps.db, { text, values }, everything(asked))
}

const everything = ({ filter, begun }: Asked) => {
  const { p, values } = openParameters()
  return {
    text: `select from certificates c where ${setConditions(filter, begun.bounds.size, p).join(' and ')}`,
    values,
  }
}

const remembered = 2_000

/**
 * The lists along which certificates are searched, each by an index that ends in the entry. docs/auditing.md tells which
 * filters each of them answers by itself; what else is asked is looked at in each certificate on the list.
 */
import type { CertificateFilter } from '../../ca/records.ts'
import type { Parameter } from './pages.ts'

/** Entries among which to look, and the roll's size that the search is bound to. */
export interface Among {
  readonly low: number
  /** Itself left out. */
  readonly high: number
  readonly size: number
}

export interface Lead {
  readonly index: string
  /** Filters that it answers by itself. */
  readonly answers: readonly (keyof CertificateFilter)[]
  /**
   * Holds entries `q` of the whole roll, in another order than the roll's: those that are not asked for are passed by, and
   * count as looked at.
   */
  readonly isAcross?: boolean
  /** Holds the first name of each as well, `q.name`. */
  readonly isNamed?: boolean
  /** Its rows must be read for it to be counted; of the others an index alone tells. */
  readonly isHeavy?: boolean
  /** At most so many of each list. */
  candidates(among: Among, most: number, p: Parameter): Candidates
}

export interface Candidates {
  /** The CTE `lists`, where there are several. */
  readonly lists: string
  /** Rows `c` of outcomes: of the list `l`, where there are several. */
  readonly each: string
  /** What these are looked up by, `q`, where it is not they themselves: enough to know how many there are. */
  readonly keys?: string
  /** That they are in: within a list, newest first. */
  readonly order: string
}

/** Rows that are looked up one by one, by entries `q`. */
export const lookedUp = (keys: string, order: string): Candidates => ({
  lists: '',
  keys,
  each: `${keys} cross join lateral ${certificateAt('q.entry')} c`,
  order,
})

/** The rows `c` of all lists, in no order. */
export const allOf = ({ lists, each }: Candidates): string =>
  lists === '' ? each : `lists l cross join lateral (select c.* from ${each}) c`

/** What narrows most by its nature comes first: it leads where none is known to be short. */
export const leadsOf = (filter: CertificateFilter, names: readonly string[] | undefined): readonly Lead[] => {
  const { serial, row, key, subject, principal, profile, issuer, status, revokedAfter, revokedBefore } = filter
  if (serial !== undefined) return [bySerial(serial)]
  const leads: Lead[] = row === undefined ? [] : [byRow(row)]
  const isOfRevoked = status === 'revoked' || revokedAfter !== undefined || revokedBefore !== undefined
  if (isOfRevoked) leads.push(byRevocation)
  if (key !== undefined) leads.push(byKey(key, principal))
  if (names !== undefined) leads.push(byName(names))
  for (const lead of originLeads) {
    const value = filter[lead.answer]
    if (value !== undefined) leads.push(byOrigin(lead, value))
  }
  if (subject !== undefined && subject !== '') leads.push(bySubject(subject))
  if (principal !== undefined) leads.push(byPrincipal(principal, profile, issuer))
  else if (profile !== undefined) leads.push(byProfile(profile, issuer))
  else if (issuer !== undefined) leads.push(byIssuer(issuer))
  return leads
}

const bySerial = (serial: string): Lead => ({
  index: 'outcomes_pkey',
  answers: ['serial'],
  candidates: ({ low, high }, most, p) => ({
    lists: '',
    each: `(select * from outcomes where kind = 'certificate' and serial = decode(${p(serial)}, 'hex')
      and entry >= ${p(low)}::bigint and entry < ${p(high)}::bigint limit ${most}) c`,
    order: 'c.entry desc',
  }),
})

/** In no order: a row is short, but for those of thieves. */
const byRow = (row: string): Lead => ({
  index: 'intents_by_first',
  answers: ['row'],
  candidates: ({ low, high }, most, p) =>
    lookedUp(
      `(select o.entry from row_of(decode(${p(row)}, 'hex')) m (serial)
          cross join lateral (select entry from outcomes where serial = m.serial and kind = 'certificate' limit 1) o
        where o.entry >= ${p(low)}::bigint and o.entry < ${p(high)}::bigint order by o.entry desc limit ${most}) q`,
      'q.entry desc',
    ),
})

const byKey = (key: string, principal: string | undefined): Lead => ({
  index: 'certificates_of_key',
  answers: ['key', ...(principal === undefined ? [] : (['principal'] as const))],
  candidates: along(
    [
      { column: 'key_sha256', value: key, key: (place) => `decode(${place}, 'hex')` },
      { column: 'principal', value: principal },
    ],
    // The index's own condition, which rows that are compared do not imply.
    'key_sha256 is not null',
  ),
})

const byPrincipal = (principal: string, profile: string | undefined, issuer: string | undefined): Lead => ({
  index: 'certificates_of_principal',
  answers: ['principal', 'profile', 'issuer'],
  candidates: along([
    { column: 'principal', value: principal },
    { column: 'profile', value: profile },
    { column: 'issuer', value: issuer },
  ]),
})

const byProfile = (profile: string, issuer: string | undefined): Lead => ({
  index: 'certificates_of_profile',
  answers: ['profile', 'issuer'],
  candidates: along([
    { column: 'profile', value: profile },
    { column: 'issuer', value: issuer },
  ]),
})

const byIssuer = (issuer: string): Lead => ({
  index: 'certificates_along_issuer',
  answers: ['issuer'],
  candidates: along([{ column: 'issuer', value: issuer }]),
})

/** Its index holds the beginning of a subject; those without one are not in it. */
const bySubject = (subject: string): Lead => ({
  index: 'certificates_along_subject',
  isHeavy: true,
  answers: [...subject].length < 128 ? ['subject'] : [],
  candidates: along(
    [
      {
        column: 'subject',
        of: `left(subject, 128) collate "C"`,
        value: subject,
        key: (place) => `left(${place}, 128)`,
      },
    ],
    `subject <> ''`,
  ),
})

interface OriginLead {
  readonly answer: 'originObject' | 'originUser' | 'originNamespace'
  readonly column: string
  readonly index: string
}

/** Those of one object come before those of its user, and these before those of all in the namespace. */
const originLeads: readonly OriginLead[] = [
  { answer: 'originObject', column: 'origin_object', index: 'certificates_of_object' },
  { answer: 'originUser', column: 'origin_user', index: 'certificates_of_user' },
  { answer: 'originNamespace', column: 'origin_namespace', index: 'certificates_of_namespace' },
]

/** Whoever has asked for himself is in none of these indexes. */
const byOrigin = ({ answer, column, index }: OriginLead, value: string): Lead => ({
  index,
  answers: [answer],
  candidates: along([{ column, value }], `${column} is not null`),
})

/**
 * The lists of these names, each in order and no longer than what is asked for, and so merged. What has both names comes twice, one
 * behind the other: left out of one list, it would be looked for along all of that list.
 */
const byName = ([name = '', also]: readonly string[]): Lead => ({
  index: 'certificate_names_by_name',
  answers: [],
  candidates: ({ low, high }, most, p) => {
    const listOf = (one: string): string =>
      `(select entry from certificate_names n where name = ${p(one)} and entry >= ${p(low)}::bigint
        and entry < ${p(high)}::bigint order by name, entry desc limit ${most})`
    if (also === undefined) return lookedUp(`${listOf(name)} q`, 'q.entry desc')
    const both = `${listOf(name)} union all ${listOf(also)}`
    return lookedUp(`(select distinct entry from (${both}) n order by entry desc limit ${most}) q`, 'q.entry desc')
  },
})

export const byRevocation: Lead = {
  index: 'revocations_by_certificate',
  answers: [],
  candidates: ({ low, high, size }, most, p) =>
    lookedUp(
      `(select v.certificate as entry from revocations v
        where v.certificate >= ${p(low)}::bigint and v.certificate < ${p(high)}::bigint and v.entry < ${p(size)}::bigint
          and not exists (select from revocations n where n.serial = v.serial and n.entry > v.entry and n.entry < ${p(size)}::bigint)
        order by v.certificate desc limit ${most}) q`,
      'q.entry desc',
    ),
}

/** What was issued to a principal, oldest first. */
export const issuedAlong = (principal: string): Lead['candidates'] =>
  along(
    [
      { column: 'principal', value: principal },
      { column: 'profile', value: undefined },
      { column: 'issuer', value: undefined },
    ],
    '',
    'asc',
  )

/** All there is. */
export const byRoll: Lead = {
  index: 'outcomes_entry_key',
  answers: [],
  candidates: ({ low, high }, most, p) => ({
    lists: '',
    each: `(select * from outcomes where kind = 'certificate' and entry >= ${p(low)}::bigint and entry < ${p(high)}::bigint
      order by entry desc limit ${most}) c`,
    order: 'c.entry desc',
  }),
}

/** The limit keeps it a look-up for each, whatever the planner believes. */
export const certificateAt = (entry: string): string =>
  `(select * from outcomes where kind = 'certificate' and entry = ${entry} limit 1)`

interface Column {
  readonly column: string
  /** What its index is over, where that is not the column: it has this column's name with `_key` behind it in the list. */
  readonly of?: string
  /** Undefined: any, and each is a list of its own. */
  readonly value: string | undefined
  readonly key?: (place: string) => string
}

/**
 * An index over columns and then the entry. Where all are given, one list; else one for each that there is of the others.
 * Always between two of its rows and never by `=`: the planner would then take the roll's own order to be as good, and read
 * through all of the newer certificates whenever it guesses that one of the list's is to be found soon.
 */
const along =
  (columns: readonly Column[], also = '', direction: 'desc' | 'asc' = 'desc'): Lead['candidates'] =>
  ({ low, high }, most, p) => {
    const places = columns.map(({ value, key = (place) => place }) =>
      value === undefined ? undefined : key(`${p(value)}::text`),
    )
    const names = columns.map(({ column, of = column }) => of)
    // By these the planner knows that a list is in order: an expression that it does not hold it would work out, and sort by.
    const keysOf = columns.flatMap(({ column, of }) => (of === undefined ? [] : `, ${of} as ${column}_key`)).join('')
    const keys = places.map((place, i) => place ?? `l.${columns[i]?.column}`)
    const where = ["kind = 'certificate'", ...(also === '' ? [] : [also])].join(' and ')
    const rows = `select *${keysOf} from outcomes where ${where}
        and (${[...names, 'entry'].join(', ')}) >= (${[...keys, `${p(low)}::bigint`].join(', ')})
        and (${[...names, 'entry'].join(', ')}) < (${[...keys, `${p(high)}::bigint`].join(', ')})
      order by ${[...names, 'entry'].map((name) => `${name} ${direction}`).join(', ')} limit ${most}`
    const isOne = places.every((place) => place !== undefined)
    return {
      lists: isOne ? '' : listsOf(names, places, where),
      each: `(${rows}) c`,
      order: [...columns.map(({ column, of }) => `c.${column}${of === undefined ? '' : '_key'}`), 'c.entry']
        .map((name) => `${name} ${direction}`)
        .join(', '),
    }
  }

/** What there is of the columns that are not given, by skipping along the index from each to the next. */
const listsOf = (names: readonly string[], places: readonly (string | undefined)[], where: string): string => {
  const given = places.indexOf(undefined)
  const open = names.slice(given, places.lastIndexOf(undefined) + 1)
  const before = names.slice(0, given)
  const tuple = (parts: readonly (string | undefined)[]): string => `(${parts.join(', ')})`
  const order = [...before, ...open].join(', ')
  const within = `${where} and ${tuple(before)} <= ${tuple(places.slice(0, given))}`
  return `lists as (
      (select ${open.join(', ')} from outcomes where ${within} and ${tuple(before)} >= ${tuple(places.slice(0, given))}
        order by ${order} limit 1)
      union all
      select n.* from lists l cross join lateral (
        select ${open.join(', ')} from outcomes
        where ${within} and (${order}) > ${tuple([...places.slice(0, given), ...open.map((name) => `l.${name}`)])}
        order by ${order} limit 1) n
    )`
}

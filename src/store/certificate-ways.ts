/**
 * The way that a search for certificates takes. Its order follows from its filters alone: names below a suffix, expiry, or
 * the roll. Along the roll it is led by the list that is known to be shortest; along names and expiry it walks these, unless
 * some list is so short that it is better read as a whole, and put in order. `certificate-orders.ts` has the ways themselves.
 *
 * A search is bound to a size of the roll, and what is on the roll never changes: so each page finds the same lists.
 */
import type { CertificateFilter, Count } from '../ca/records.ts'
import { allOf, byRevocation, byRoll, type Lead, leadsOf } from './certificate-leads.ts'
import {
  type Asked,
  alongExpiry,
  alongLead,
  alongNames,
  amongAll,
  byExpiry,
  byNames,
  putByExpiry,
  putByName,
  restBeside,
  withLists,
} from './certificate-orders.ts'
import { type CertificateRow, type SearchDeps, setConditions } from './certificates.ts'
import { type NameRange, nameRange } from './names.ts'
import { type Begun, isStorable, isWhole, openParameters } from './pages.ts'
import { countable, countRows, type Way } from './walks.ts'

export interface CertificateWay {
  readonly way: Way<CertificateRow>
  readonly count: () => Promise<Count>
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
  [filter.serial, filter.row, filter.key, filter.name, filter.subject, filter.revokedAfter, filter.revokedBefore].every(
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

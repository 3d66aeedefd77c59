/**
 * The way that a search for certificates takes. Its order follows from its filters alone: names below a suffix, expiry, or
 * the roll. Along the roll it is led by the list that is known to be shortest; along names and expiry it walks these, unless
 * some list is so short that it is better read as a whole, and put in order. `certificate-orders.ts` has the ways themselves.
 *
 * A search is bound to a size of the roll, and what is on the roll never changes: so each page finds the same lists. What would be
 * walked along names or expiry grows meanwhile, and a list may come to be shorter: the page goes on by the same keyset on another way.
 */
import type { CertificateFilter, Count } from '../../ca/records.ts'
import { isOneName, keysFor, type NameRange, nameRange } from '../names.ts'
import { type SearchDeps, setConditions } from './certificate-rows.ts'
import type { TextRow } from './certificate-text.ts'
import { countable, countRows, type Way } from './cursors.ts'
import { allOf, byRevocation, byRoll, type Lead, leadsOf } from './index-scans.ts'
import {
  type Asked,
  alongExpiry,
  alongLead,
  alongNames,
  amongAll,
  byExpiry,
  byNames,
  byNamesAlongRoll,
  putByExpiry,
  putByName,
  restBeside,
  withLists,
} from './orders.ts'
import { type Begun, isStorable, isWhole, openParameters } from './pages.ts'
import { ownPlans, type Shape, unprepared } from './prepared.ts'

export interface CertificateWay {
  readonly way: Way<TextRow>
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
  const isOne = named !== undefined && isOneName(named)
  const asked: Asked = {
    deps: { ...deps, shape: shapeFor(filter, deps.shape) },
    filter,
    begun,
    names: isOne ? keysFor(named) : undefined,
    range: isOne ? undefined : named,
  }
  const leads = leadsOf(filter, asked.names)
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
  if (!range) {
    const own = byExpiry(asked)
    const short = await muchShorter(asked, own, [...leads, ...shortRoll(asked)])
    return short === undefined
      ? { way: alongExpiry(asked), count: () => countBy(asked, own) }
      : { way: putByExpiry(asked, short), count: () => countBy(asked, short) }
  }
  const short = await soonerPut(asked, range, leads)
  if (!short) return { way: alongNames(asked, range), count: () => countNames(asked, range) }
  const way = putByName(asked, short, range)
  return { way, count: way.count }
}

/** What the keyset of its pages is made of follows from a filter: see the ways. */
export const keysetShape = (filter: CertificateFilter): readonly ((part: unknown) => boolean)[] => {
  if (isStorable(filter.name) && !isOneName(nameRange(filter.name))) return [isStorable, isWhole]
  return isByExpiry(filter) ? [isWhole, isWhole] : [isWhole]
}

/** Whether a search goes along expiry: what is said of it would leave little of a walk along the roll. */
const isByExpiry = (filter: CertificateFilter): boolean =>
  (filter.expiresAfter !== undefined ||
    filter.expiresBefore !== undefined ||
    filter.status === 'valid' ||
    filter.status === 'expired') &&
  [filter.serial, filter.row, filter.key, filter.name, filter.subject, filter.revokedAfter, filter.revokedBefore].every(
    (value) => value === undefined,
  )

/**
 * Whether plans for any values are as good. Few have an origin or very many: such a plan may take its list to be longer than
 * the roll. And an issuer alone leads two indexes: it may take that of expiry, and put in order all that the issuer has issued.
 */
const shapeFor = (filter: CertificateFilter, shape: Shape): Shape => {
  if (isOfOrigin(filter)) return unprepared
  return isOfIssuerAlone(filter) ? ownPlans(shape) : shape
}

const isOfIssuerAlone = ({ issuer, principal, profile }: CertificateFilter): boolean =>
  issuer !== undefined && (principal ?? profile) === undefined

const isOfOrigin = ({ originNamespace, originUser, originObject }: CertificateFilter): boolean =>
  (originNamespace ?? originUser ?? originObject) !== undefined

const nowhere: CertificateWay = {
  way: { rows: async () => [], stop: async () => undefined, keysetOf: ({ entry }) => [entry] },
  count: async () => ({ rows: 0, exact: true }),
}

/** The roll itself, where the span leaves little of it. */
const shortRoll = ({ begun: { low, high }, deps }: Asked): readonly Lead[] =>
  high - low <= deps.candidates ? [byRoll] : []

/** The shortest of these lists, unless none is short. What is heavy is counted no further than it could be shorter. */
const shortest = async (asked: Asked, leads: readonly Lead[]): Promise<Lead | undefined> => {
  const { candidates } = asked.deps
  const heavy = leads.filter(({ isHeavy }) => isHeavy)
  let best: { readonly lead?: Lead | undefined; readonly length: number } = { length: candidates + 1 }
  for (const some of [leads.filter(({ isHeavy }) => !isHeavy), heavy]) {
    if (some.length === 0 || best.length <= shortEnough) continue
    const known = await lengthsOf(asked, some, Math.min(candidates, best.length))
    const length = Math.min(...known)
    if (length < best.length) best = { lead: some[known.indexOf(length)], length }
  }
  return best.lead
}

/**
 * What takes less time as a whole than a walk along the names that finds a page: a walk passes by whatever is not on the
 * list, and knows of each what an index says; on a list each name has to be looked up.
 */
const soonerPut = async (asked: Asked, range: NameRange, leads: readonly Lead[]): Promise<Lead | undefined> => {
  const { begun, deps } = asked
  const span = begun.high - begun.low
  const spanAtMost = deps.candidates * mostOfSpan
  // There is nothing that could be put in order.
  if (leads.length === 0 && span > spanAtMost) return undefined
  const [names = 0, ...known] = await lengthsOf(asked, [byNames(range), ...leads])
  const put = [
    ...leads.map((lead, i) => ({ lead, length: known[i] ?? 0, cost: lookUpCost, most: deps.candidates })),
    { lead: byNamesAlongRoll(range), length: span, cost: 1, most: spanAtMost },
  ]
  const sooner = put
    .filter(({ length, most }) => length <= most)
    .map((one) => ({ ...one, cost: one.length * one.cost }))
    .sort((a, b) => a.cost - b.cost)[0]
  if (sooner === undefined) return undefined
  return sooner.cost < walkUntilPage(asked, names, sooner.length) ? sooner.lead : undefined
}

/**
 * How many a walk passes by until a page is found of what is on a list of that length, wherever on the roll that is: all that
 * there are, where they are few.
 */
const walkUntilPage = ({ begun, deps }: Asked, walked: number, length: number): number =>
  Math.min(
    walked > deps.candidates ? Number.POSITIVE_INFINITY : walked,
    (pageOfWalk * begun.bounds.size) / Math.max(1, length),
  )

/**
 * The shortest, if it is short, and read as a whole sooner than a walk finds a page of it: else whoever has issued little would look
 * through what others have.
 */
const muchShorter = async (asked: Asked, own: Lead, leads: readonly Lead[]): Promise<Lead | undefined> => {
  if (leads.length === 0) return undefined
  const [walked = 0, ...known] = await lengthsOf(asked, [own, ...leads])
  const least = Math.min(...known)
  if (least > asked.deps.candidates || least >= walkUntilPage(asked, walked, least)) return undefined
  return leads[known.indexOf(least)]
}

/** How long these lists are, up to what is short. One statement, by indexes alone. */
const lengthsOf = async (
  { deps, begun }: Asked,
  leads: readonly Lead[],
  most = deps.candidates,
): Promise<readonly number[]> => {
  const { p, values } = openParameters()
  const lengths = leads.map((lead) => {
    const list = lead.candidates(amongAll(begun), most + 1, p)
    return `(${withLists(list)} select count(*)::integer from (select from ${list.keys ?? allOf(list)} limit ${most + 1}) few)`
  })
  const text = `select array[${lengths.join(', ')}] as lengths`
  // Another bound would be another shape.
  const statement = most === deps.candidates ? deps.shape(text) : { text }
  const { rows } = await deps.db.query<{ lengths: readonly number[] }>(statement, values)
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
    text: `select from certificates c where ${setConditions(filter, begun.bounds.size, p, keysFor).join(' and ')}`,
    values,
  }
}

/** Not worth a second look for a shorter one. */
const shortEnough = 1_000
/** To look up the name of one, where to pass by one in a walk is 1. */
const lookUpCost = 6
/** A list of names in the order of the roll is read at one go: it may be so many times longer than others. */
const mostOfSpan = 5
const pageOfWalk = 100

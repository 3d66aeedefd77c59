/** What is searched for, how long the answer takes as a client sees it, and by which plan it comes. */
import { Agent } from 'node:https'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

import type { CertificateFilter, EventFilter, OpenWalk } from '../../src/ca/records.ts'
import { openDatabase, type Statement } from '../../src/db/database.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { codec } from '../../src/server/codec.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { openExplaining } from '../../test/helpers/explain.ts'
import { quiet } from '../../test/helpers/log.ts'
import { call } from '../request.ts'
import type { Target } from '../targets/target.ts'
import { type Filled, nameOf, teamOf } from './fill.ts'

export interface SearchRow {
  readonly title: string
  /** Items on the page. */
  readonly found: number
  /** Milliseconds, as one client sees them who asks again when answered. */
  readonly p50: number
  readonly p99: number
  /** The last statement of the first page: each scan with the rows that it read. */
  readonly plan: string
}

export const measureSearches = async (
  target: Target,
  filled: Filled,
  tell: (line: string) => void,
): Promise<readonly SearchRow[]> => {
  const rows: SearchRow[] = []
  const searches = searchesOf(filled)
  // As in a service that has been running: its code compiled, and what it does at first done.
  for (const search of searches) await time(target, search, { warmUp: 0, asked: 150 })
  for (const search of searches) {
    const timed = await time(target, search, { warmUp: 50, asked: 500 })
    const row = { title: search.title, ...timed, plan: await planOf(target, search) }
    tell(`${row.title}: ${row.p50.toFixed(2)} ms, p99 ${row.p99.toFixed(2)}, ${row.plan}`)
    rows.push(row)
  }
  return rows
}

interface Search {
  readonly title: string
  readonly of: 'certificates' | 'events'
  readonly filterOf: () => CertificateFilter | EventFilter
  /** Beside the filter. */
  readonly more?: Readonly<Record<string, string>>
}

const searchesOf = ({ certificates, base, began }: Filled): readonly Search[] => {
  const any = (of = certificates): number => Math.floor(Math.random() * of)
  const team = (): string => `team-${String(any(5_000)).padStart(4, '0')}`
  const day = (days: number): Date => new Date(began + days * 86_400_000)
  /** A five-hundredth of the roll. */
  const span = (): { readonly after: Date; readonly before: Date } => {
    const from = began + any(4_900)
    return { after: new Date(from), before: new Date(from + 10) }
  }
  const issued = (): CertificateFilter => {
    const { after, before } = span()
    return { issuedAfter: after, issuedBefore: before }
  }
  const certificate = (title: string, filterOf: () => CertificateFilter, more?: Search['more']): Search => ({
    title,
    of: 'certificates',
    filterOf,
    ...(more && { more }),
  })
  return [
    certificate('an exact name', () => ({ name: nameOf(any()) })),
    certificate('a name that is not there', () => ({ name: nameOf(99_999_999 - any(10_000)) })),
    certificate('names below a suffix of few', () => ({ name: teamOf(any()) })),
    certificate('names below a suffix of all', () => ({ name: '*.example.com' })),
    certificate('… of a principal of few', () => ({ name: '*.example.com', principal: team() })),
    certificate('… of a principal of half', () => ({ name: '*.example.com', principal: 'pipeline' })),
    certificate('… in a span of time', () => ({ name: '*.example.com', ...issued() })),
    certificate('… with few names, of another principal', () => ({ name: teamOf(any()), principal: 'nobody' })),
    certificate('a span of time', issued),
    certificate('a span of time, a principal of half', () => ({ ...issued(), principal: 'pipeline' })),
    certificate('a span of time, a principal of few', () => ({ ...issued(), principal: team() })),
    certificate('a principal of few', () => ({ principal: team() })),
    certificate('a principal of half', () => ({ principal: 'pipeline' })),
    certificate('a principal of half, a profile that is rare', () => ({
      principal: 'pipeline',
      profile: 'webhook-serving',
    })),
    certificate('a profile of most', () => ({ profile: 'server' })),
    certificate('a profile of most, an issuer that is rare', () => ({ profile: 'server', issuer: 'etcd' })),
    certificate('a profile of most, an issuer of many that never used it', () => ({
      profile: 'server',
      issuer: 'kubernetes',
    })),
    certificate('an issuer that is rare', () => ({ issuer: 'etcd' })),
    certificate('a subject of thousands', () => ({ subject: `OU=Unit ${1 + any(998)},O=Example` })),
    certificate('a subject of thousands, a principal of few', () => ({
      subject: `OU=Unit ${1 + any(998)},O=Example`,
      principal: team(),
    })),
    certificate('all that are valid, the first to expire', () => ({ status: 'valid' })),
    certificate('all that expire within a day', () => ({ expiresAfter: day(1), expiresBefore: day(2) })),
    certificate('… of a principal of few', () => ({ expiresAfter: day(1), expiresBefore: day(2), principal: team() })),
    certificate('all that are revoked', () => ({ status: 'revoked' })),
    certificate('revoked, of a principal of few', () => ({ status: 'revoked', principal: team() })),
    certificate('all, newest first', () => ({})),
    certificate('a principal of half, counted', () => ({ principal: 'pipeline' }), { count: 'true' }),
    certificate('a principal of few, counted', () => ({ principal: team() }), { count: 'true' }),
    { title: 'events of a principal of few', of: 'events', filterOf: () => ({ principal: team() }) },
    {
      title: 'events that somebody did, in a span of time',
      of: 'events',
      filterOf: () => ({ by: 'admin', ...span() }),
    },
    {
      title: 'revocations from a place on',
      of: 'events',
      filterOf: () => ({ type: 'certificate.revoked', fromIndex: base + any() }),
    },
  ]
}

const time = async (
  target: Target,
  { of, filterOf, more }: Search,
  { warmUp, asked }: { readonly warmUp: number; readonly asked: number },
): Promise<Pick<SearchRow, 'found' | 'p50' | 'p99'>> => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const { authorization = '' } = target.headers
  const times: number[] = []
  let last = ''
  for (let i = 0; i < warmUp + asked; i += 1) {
    const query = new URLSearchParams({ ...more })
    for (const [field, value] of Object.entries(filterOf()))
      query.set(field, value instanceof Date ? value.toISOString() : String(value))
    const url = `${new URL(`/v1/${of}`, target.url)}?${query}`
    if (i % uncollected === 0) collect()
    const began = performance.now()
    const { status, text } = await call({ url, ca: target.ca, headers: { authorization }, agent })
    if (status !== 200) throw new Error(`a search is answered with ${status}: ${text}`)
    if (i >= warmUp) times.push(performance.now() - began)
    last = text
  }
  agent.destroy()
  times.sort((a, b) => a - b)
  const found: number = JSON.parse(last).items.length
  return { found, p50: times[asked >> 1] ?? 0, p99: times[Math.floor(asked * 0.99)] ?? 0 }
}

/** The client's own garbage, between what it measures: its collections were most of the slowest percent. */
const collect: () => void = (() => {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc')
})()
/** Searches whose garbage the young heap holds. */
const uncollected = 25

/**
 * The same search by the same code over a database that is listened to, and its last statement explained: in a session with
 * the settings of the service, as far as they say which plan it is.
 */
const planOf = async ({ database }: Target, { of, filterOf }: Search): Promise<string> => {
  const { servingUrl = '' } = database ?? {}
  const db = openDatabase({ url: servingUrl, max: 1, log: quiet, applicationName: 'bench' })
  const seen: { readonly statement: Statement; readonly values: readonly unknown[] }[] = []
  const records = openRecords({
    db: {
      ...db,
      query: (statement, values = []) => {
        seen.push({ statement, values })
        return db.query(statement, values)
      },
    },
    codec,
    namesOf: readNames,
    sentAlong: () => [],
  })
  const explaining = await openExplaining(servingUrl)
  try {
    await (await (records.walk[of] as OpenWalk<object, unknown>)(filterOf())).page(100)
    const last = seen.findLast(({ statement: { text } }) => / limit 101\b/.test(text)) ?? seen.at(-1)
    if (!last) throw new Error('a search without a statement')
    const { statement, values } = last
    return scansOf(await explaining.explain(statement, values, { options: 'analyze, timing off' }))
  } finally {
    await explaining.close()
    await db.close()
  }
}

/** `certificates_of_principal 101; intents_pkey 101 × 1`. */
const scansOf = (plan: readonly string[]): string =>
  plan
    .flatMap((line) => {
      const scan =
        /((?:Seq|Index|Index Only|Bitmap \w+) Scan)(?: Backward)?(?: using (\S+))? on (\S+)[^(]*\(.*actual rows=([\d.]+) loops=(\d+)/.exec(
          line,
        )
      if (!scan) return []
      const [, kind = '', index, table, rows = '0', loops = '0'] = scan
      return `${index ?? `${kind} of ${table}`} ${Number(rows)}${loops === '1' ? '' : ` × ${loops}`}`
    })
    .join('; ')

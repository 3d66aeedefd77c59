/**
 * Searches of the records: a page in JSON, or everything as NDJSON and CSV. Whoever reads the records of others is on
 * record before the answer begins, with what was asked and what it is bound to.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Access, Searchable } from '../../ca/access/access-log.ts'
import type { Range, Walk } from '../../ca/records.ts'
import { Problem } from '../../errors.ts'
import { callerOf, readsAll } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import { negotiate } from '../media.ts'
import { type AccessAsked, type Beside, boundsView, type Exports, formats, type Searched } from './export.ts'
import { listTypes, pageOf, sendPage } from './page.ts'

/** What routes of searches are given beside the rest. */
export interface SearchDeps extends HttpDeps {
  readonly exports: Exports
}

export interface SearchQuery {
  readonly limit?: string
  readonly cursor?: string
  readonly count?: 'true' | 'false'
  readonly at?: string
}

/** Without `limit` and `cursor`, NDJSON and CSV are exports: of any length, with a last line that says so. */
export const answerSearch = async <F extends object, T>(
  deps: SearchDeps,
  request: FastifyRequest,
  reply: FastifyReply,
  searched: Searched<F, T>,
): Promise<FastifyReply> => {
  const { limit, cursor, count, at } = request.query as SearchQuery
  const type = negotiate(request.headers.accept, listTypes)
  const start = { cursor, at: at === undefined ? undefined : Number(at) }
  if (count === 'true' && type !== 'application/json')
    throw new Problem('request.malformed', 'A count is told in JSON; an export ends with its own.', {
      violations: [{ check: 'request.query', field: '/count', value: 'true', reason: `is not told in ${type}` }],
    })
  const access = accessOf(request, searched, formats[type])
  if (type !== 'application/json' && limit === undefined && cursor === undefined)
    return deps.exports.send(request, reply, {
      searched,
      type,
      access,
      open: () => searched.open(searched.filter, start),
    })
  const walk = await withinDeadline(searched.open(searched.filter, start))
  const { limit: most } = pageOf({ ...(limit && { limit }) })
  const note = (rows: number): Promise<void> =>
    noteSearch(deps, request, { ...access, continues: cursor !== undefined, size: walk.bounds.size, rows })
  let noted: Promise<void> | undefined
  let isGivenUp = false
  // Its row is written while the items are made of what was found.
  const found = (rows: number): void => {
    if (!isGivenUp) noted = note(rows)
  }
  const finding = find(walk, { limit: most, isCounted: count === 'true', found })
  const { page, counted } = await withinDeadline(finding).catch((error: unknown) => {
    isGivenUp = true
    throw error
  })
  await (noted ?? note(page.items.length))
  const beside = cursor === undefined ? await besideOf(deps, request, searched, walk.range) : {}
  const texts = searched.json && page.items.map(searched.json)
  return sendPage(request, reply, {
    ...page,
    items: texts && type !== 'text/csv' ? [] : page.items.map(searched.view),
    ...(texts && { texts }),
    columns: searched.columns,
    more: { ...(counted && { count: counted }), ...beside, boundTo: boundsView(walk.bounds) },
  })
}

/** What was found is told all the same: whoever looks at a flood must not be kept from it by what it has left to count. */
const besideOf = async <F extends object, T>(
  { log }: HttpDeps,
  request: FastifyRequest,
  { records, beside }: Searched<F, T>,
  range: Range,
): Promise<Partial<Beside>> => {
  try {
    return beside ? await withinDeadline(beside(range), besideMs) : {}
  } catch (error) {
    log.warn({ event: 'search.uncounted', id: request.id, records, err: error }, 'a page is told without its count')
    return {}
  }
}

interface Finding {
  readonly limit: number
  readonly isCounted: boolean
  readonly found: (rows: number) => void
}

const find = async <T>(walk: Walk<T>, { limit, isCounted, found }: Finding) => {
  const counted = isCounted ? await walk.count() : undefined
  return { page: await walk.page(limit, { found }), counted }
}

const accessOf = (
  request: FastifyRequest,
  { records, filter }: { readonly records: Searchable; readonly filter: object },
  format: Access['format'],
): AccessAsked => ({
  principal: callerOf(request).principal,
  records,
  filter: wordsOf(filter, request.query as Asked),
  continues: false,
  format,
})

type Asked = Readonly<Record<string, string>>

/** A filter in the words of the query: times are those that were asked, however fine. */
const wordsOf = (filter: object, asked: Asked): Asked =>
  Object.fromEntries(
    Object.entries(filter)
      .filter(([, value]) => value !== undefined)
      .map(([field, value]) => [field, value instanceof Date ? (asked[field] as string) : String(value)]),
  )

/**
 * A page is answered even where its row can't be written, and the log has it instead: whoever is woken at night, with a
 * database that takes no records, must still be able to look. (Exports are not: see export.ts.) A requester's search of its
 * own certificates is nobody else's matter.
 */
const noteSearch = async (
  { accesses, log }: HttpDeps,
  request: FastifyRequest,
  told: Omit<Access, 'act' | 'export'>,
): Promise<void> => {
  if (!readsAll(callerOf(request))) return
  try {
    await withinDeadline(accesses.record({ ...told, act: 'searched', export: null }), noteMs)
  } catch (error) {
    log.error({ event: 'access.unrecorded', id: request.id, ...told, err: error }, 'a search could not be recorded')
  }
}

/** Milliseconds until the log has it. */
const noteMs = 2_000
/** Milliseconds that a page waits for what is told beside it. */
const besideMs = 2_000

/** Lists in pages: JSON, one JSON value a line, or CSV; the cursor of the next page also stands in a Link header. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Page, PageRequest } from '../../ca/records.ts'
import { callerOf } from '../auth.ts'
import { negotiate } from '../media.ts'
import { jsonItems, sendPieces } from '../pieces.ts'
import { leaveWith } from '../room.ts'
import { type Column, csvLines, type Row } from './csv.ts'

export const listTypes = ['application/json', 'application/x-ndjson', 'text/csv'] as const
export type ListType = (typeof listTypes)[number]

/** What the query asks for; the schema has bounded both. */
export const pageOf = ({ limit, cursor }: { readonly limit?: string; readonly cursor?: string }): PageRequest => ({
  limit: limit === undefined ? defaultLimit : Number(limit),
  ...(cursor !== undefined && { cursor }),
})

interface SentPage extends Page<Row> {
  /** The rows as JSON, where that is there already: instead of items, or beside them for CSV. */
  readonly texts?: readonly string[]
  /** Further members of the JSON object. */
  readonly more?: Readonly<Record<string, unknown>>
  /** Those of CSV, whatever there is. */
  readonly columns: readonly Column[]
}

/** Answers with one page of rows, in the form that Accept prefers. */
export const sendPage = async (request: FastifyRequest, reply: FastifyReply, page: SentPage): Promise<FastifyReply> => {
  const type = negotiate(request.headers.accept, listTypes)
  const { visit } = request
  if (visit) leaveWith(reply.raw, visit.pages.take(callerOf(request).principal, octetsOf(page)))
  if (page.next !== undefined) reply.header('link', `<${nextUrl(request, page.next)}>; rel="next"`)
  return sendPieces(reply.type(contentTypes[type]), textsOf[type](page))
}

/** About; what is not encoded yet is more in memory than it will be. */
const octetsOf = ({ items, texts = [] }: SentPage): number =>
  texts.reduce((sum, text) => sum + text.length, items.length * octetsOfRow)

export const contentTypes: Readonly<Record<ListType, string>> = {
  'application/json': 'application/json',
  'application/x-ndjson': 'application/x-ndjson',
  'text/csv': 'text/csv; charset=utf-8; header=present',
}

const textsOf: Readonly<Record<ListType, (page: SentPage) => Iterable<string>>> = {
  'application/json': ({ items, texts = encoded(items), next, more }) =>
    jsonItems(texts, { ...(next !== undefined && { next }), ...more }),
  *'application/x-ndjson'({ items, texts = encoded(items) }) {
    for (const text of texts) yield `${text}\n`
  },
  'text/csv': ({ items, columns }) => csvLines(items, columns),
}

function* encoded(rows: readonly Row[]): Generator<string> {
  for (const row of rows) yield JSON.stringify(row)
}

const nextUrl = (request: FastifyRequest, cursor: string): string => {
  const query = new URLSearchParams(request.query as Record<string, string>)
  query.set('cursor', cursor)
  return `${request.pattern}?${query}`
}

const defaultLimit = 100
const octetsOfRow = 4 * 1024

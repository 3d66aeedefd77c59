/** Lists in pages: JSON, one JSON value a line, or CSV; the cursor of the next page also stands in a Link header. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Page, PageRequest } from '../../ca/records.ts'
import { negotiate } from '../media.ts'
import { jsonItems, sendPieces } from '../pieces.ts'

export const listTypes = ['application/json', 'application/x-ndjson', 'text/csv'] as const

export type Row = Readonly<Record<string, unknown>>

/** What the query asks for; the schema has bounded both. */
export const pageOf = ({ limit, cursor }: { readonly limit?: string; readonly cursor?: string }): PageRequest => ({
  limit: limit === undefined ? defaultLimit : Number(limit),
  ...(cursor !== undefined && { cursor }),
})

/** Answers with one page of rows, in the form that Accept prefers. */
export const sendPage = async (
  request: FastifyRequest,
  reply: FastifyReply,
  page: Page<Row>,
): Promise<FastifyReply> => {
  const type = negotiate(request.headers.accept, listTypes)
  if (page.next !== undefined) reply.header('link', `<${nextUrl(request, page.next)}>; rel="next"`)
  reply.type(type === 'text/csv' ? 'text/csv; charset=utf-8; header=present' : type)
  return sendPieces(reply, textsOf[type](page))
}

const textsOf: Readonly<Record<(typeof listTypes)[number], (page: Page<Row>) => Iterable<string>>> = {
  'application/json': ({ items, next }) => jsonItems(encoded(items), next),
  *'application/x-ndjson'({ items }) {
    for (const text of encoded(items)) yield `${text}\n`
  },
  'text/csv': ({ items }) => csvLines(items),
}

function* encoded(rows: readonly Row[]): Generator<string> {
  for (const row of rows) yield JSON.stringify(row)
}

/**
 * RFC 4180, with a header line. Every cell is quoted, and one that a spreadsheet would take for a formula begins with
 * an apostrophe: names come from strangers.
 */
export const encodeCsv = (rows: readonly Row[]): string => [...csvLines(rows)].join('')

function* csvLines(rows: readonly Row[]): Generator<string> {
  const columns = columnsOf(rows)
  yield `${columns.map(encodeCell).join(',')}\r\n`
  for (const row of rows) yield `${columns.map((column) => encodeCell(row[column])).join(',')}\r\n`
}

const columnsOf = ([first = {}]: readonly Row[]): readonly string[] => Object.keys(first)

const encodeCell = (value: unknown): string => {
  const text = value === null || value === undefined ? '' : typeof value === 'object' ? flatten(value) : String(value)
  const safe = typeof value !== 'number' && formula.test(text) ? `'${text}` : text
  return `"${safe.replaceAll('"', '""')}"`
}

/** Names as `dns:web.example.com ip:10.0.0.1`; anything else as JSON. */
const flatten = (value: object): string =>
  Array.isArray(value) && value.every(isName)
    ? value.map(({ kind, value: name }) => `${kind}:${name}`).join(' ')
    : JSON.stringify(value)

const isName = (value: unknown): value is { kind: string; value: string } =>
  typeof value === 'object' && value !== null && 'kind' in value && 'value' in value

const nextUrl = (request: FastifyRequest, cursor: string): string => {
  const query = new URLSearchParams(request.query as Record<string, string>)
  query.set('cursor', cursor)
  return `${request.pattern}?${query}`
}

const formula = /^\s*[=+\-@]|^[\t\r\n]/
const defaultLimit = 100

/** Lists in pages: JSON, one JSON value a line, or CSV; the cursor of the next page also stands in a Link header. */
import { setImmediate as nextRound } from 'node:timers/promises'

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Page, PageRequest } from '../../ca/records.ts'
import { negotiate } from '../media.ts'

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
  if (type === 'application/json') {
    const next = page.next === undefined ? '' : `,"next":${JSON.stringify(page.next)}`
    const items = await encodeEach(page.items, JSON.stringify)
    return reply.type(type).send(`{"items":[${items.join(',')}]${next}}`)
  }
  if (type === 'application/x-ndjson') {
    const lines = await encodeEach(page.items, (row) => `${JSON.stringify(row)}\n`)
    return reply.type(type).serializer(String).send(lines.join(''))
  }
  const lines = await encodeEach(page.items, csvLineOf(page.items))
  return reply.type('text/csv; charset=utf-8; header=present').send(csvOf(page.items, lines))
}

/** A page of a thousand refusals may be of many megabytes: others have their turn between its rows. */
const encodeEach = async (rows: readonly Row[], encode: (row: Row) => string): Promise<readonly string[]> => {
  const texts: string[] = []
  let since = performance.now()
  for (const row of rows) {
    if (performance.now() - since > sliceMs) {
      await nextRound()
      since = performance.now()
    }
    texts.push(encode(row))
  }
  return texts
}

/**
 * RFC 4180, with a header line. Every cell is quoted, and one that a spreadsheet would take for a formula begins with
 * an apostrophe: names come from strangers.
 */
export const encodeCsv = (rows: readonly Row[]): string => csvOf(rows, rows.map(csvLineOf(rows)))

const csvOf = (rows: readonly Row[], lines: readonly string[]): string =>
  [columnsOf(rows).map(encodeCell).join(','), ...lines, ''].join('\r\n')

const csvLineOf = (rows: readonly Row[]): ((row: Row) => string) => {
  const columns = columnsOf(rows)
  return (row) => columns.map((column) => encodeCell(row[column])).join(',')
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
const sliceMs = 5

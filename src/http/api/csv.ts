/**
 * RFC 4180, with a header line. Names come from strangers, so a cell that a spreadsheet would take for a formula begins with
 * an apostrophe. For readers that are no spreadsheets this can be undone: a cell that begins with an apostrophe of its own
 * gets one more, so whoever takes one apostrophe from the beginning of each cell that has one has exactly what was there.
 */

export type Row = Readonly<Record<string, unknown>>

/** The columns of one kind of rows, in their order, whatever a row has. */
export interface Column {
  readonly name: string
  readonly of: (row: Row) => unknown
}

/** Each column is a member of that name, or by `of` what it is made of. */
export const columnsOf = (
  names: readonly string[],
  made: Readonly<Record<string, Column['of']>> = {},
): readonly Column[] => names.map((name) => ({ name, of: made[name] ?? ownTexts[name] ?? ((row) => row[name]) }))

/** Names are `dns:web.example.com ip:10.0.0.1`, and nothing where there are none; every other list is JSON, an empty one too. */
const ownTexts: Readonly<Record<string, Column['of']>> = {
  names: ({ names }) =>
    (names as readonly { readonly kind: string; readonly value: string }[])
      .map(({ kind, value }) => `${kind}:${value}`)
      .join(' '),
}

export const encodeCsv = (rows: readonly Row[], columns: readonly Column[]): string =>
  [...csvLines(rows, columns)].join('')

export function* csvLines(rows: Iterable<Row>, columns: readonly Column[]): Generator<string> {
  yield lineOf(columns.map(({ name }) => name))
  for (const row of rows) yield csvLine(row, columns)
}

export const csvLine = (row: Row, columns: readonly Column[]): string => lineOf(columns.map(({ of }) => of(row)))

export const lineOf = (cells: readonly unknown[]): string => `${cells.map(encodeCell).join(',')}\r\n`

const encodeCell = (value: unknown): string => {
  if (typeof value === 'number') return `"${value}"`
  const text =
    value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value)
  const safe = misleading.test(text) ? `'${text}` : text
  return `"${safe.includes('"') ? safe.replaceAll('"', '""') : safe}"`
}

/** The wide ones of East Asian scripts begin a formula as well. */
const misleading = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n']/

/** What commands print. On a terminal and off it the same, so that what was seen can be scripted. */
import type { Violation } from '../errors.ts'

export interface Output {
  /** JSON for machines with `--json`, else the text. */
  show(value: unknown, text: string): void
  table(rows: readonly Readonly<Record<string, unknown>>[], columns: readonly string[]): void
}

export const openOutput = (json: boolean, write: (text: string) => void): Output => ({
  show: (value, text) =>
    write(json ? `${JSON.stringify(value, null, 2)}\n` : text.endsWith('\n') || text === '' ? text : `${text}\n`),
  table: (rows, columns) => write(json ? `${JSON.stringify(rows, null, 2)}\n` : formatTable(rows, columns)),
})

/**
 * Columns as wide as their widest cell, or narrower where a line would be wider than `room`; what could steer a terminal is
 * made visible.
 */
export const formatTable = (
  rows: readonly Readonly<Record<string, unknown>>[],
  columns: readonly string[],
  room?: number,
): string => {
  const cells = [
    columns.map((column) => column.toUpperCase()),
    ...rows.map((row) => columns.map((column) => cellOf(row[column]))),
  ]
  const widest = columns.map((_, i) => cells.reduce((width, row) => Math.max(width, row[i]?.length ?? 0), 0))
  const widths = room === undefined ? widest : narrowed(widest, room)
  const lines = cells.map((row) =>
    row
      .map((cell, i) => cut(cell, widths[i] ?? 0).padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  return `${lines.join('\n')}\n`
}

/** The widest give way first, down to what still tells something. */
const narrowed = (widest: readonly number[], room: number): readonly number[] => {
  const gaps = 2 * (widest.length - 1)
  const widths = [...widest]
  let over = widths.reduce((sum, width) => sum + width, gaps) - room
  while (over > 0) {
    const widestNow = Math.max(...widths)
    if (widestNow <= narrowest) break
    const at = widths.lastIndexOf(widestNow)
    widths[at] = widestNow - 1
    over -= 1
  }
  return widths
}

const cut = (cell: string, width: number): string => (cell.length <= width ? cell : `${cell.slice(0, width - 1)}…`)

const narrowest = 8

const cellOf = (value: unknown): string => {
  if (value === null || value === undefined || value === '') return '-'
  if (Array.isArray(value)) return value.length === 0 ? '-' : visible(value.map(itemText).join(' '))
  return visible(typeof value === 'object' ? JSON.stringify(value) : String(value))
}

const itemText = (item: unknown): string => {
  if (typeof item === 'object' && item !== null && 'kind' in item && 'value' in item)
    return `${item.kind}:${item.value}`
  return typeof item === 'string' ? item : JSON.stringify(item)
}

/** One line of what failed, below the sentence that it belongs to. */
export const violationText = ({ check, field, value, reason }: Violation): string =>
  `  ${check} ${field}${value && ` ${value}`}: ${reason}`

/** Names come from strangers, and terminals obey control characters. */
export const visible = (text: string): string =>
  text.replaceAll(/[\p{Cc}\p{Cf}]/gu, (character) => `\\u${character.codePointAt(0)?.toString(16).padStart(4, '0')}`)

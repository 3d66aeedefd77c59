/** What commands print. On a terminal and off it the same, so that what was seen can be scripted. */
import type { Violation } from '../errors.ts'

export interface Output {
  /** JSON for machines with `--json`, else the text. */
  show(value: unknown, text: string): void
  table(rows: readonly Readonly<Record<string, unknown>>[], columns: readonly string[]): void
}

export const openOutput = (
  json: boolean,
  write: (text: string) => void = (text) => process.stdout.write(text),
): Output => ({
  show: (value, text) =>
    write(json ? `${jsonText(value, 2)}\n` : text.endsWith('\n') || text === '' ? text : `${text}\n`),
  table: (rows, columns) => write(json ? `${jsonText(rows, 2)}\n` : formatTable(rows, columns)),
})

/** The same value to whoever reads it, and nothing in it steers a terminal: JSON leaves U+007F and beyond as they are. */
export const jsonText = (value: unknown, indent = 0): string =>
  (JSON.stringify(value, null, indent) ?? '').replaceAll(unseen, (found) =>
    found === '\n' ? found : found.split('').map(escaped).join(''),
  )

/**
 * Columns as wide as their widest cell, or narrower where a line would be wider than `room`; what could steer a terminal is
 * made visible.
 */
export const formatTable = (
  rows: readonly Readonly<Record<string, unknown>>[],
  columns: readonly string[],
  room?: number,
): string => {
  const cells = [columns.map(headingOf), ...rows.map((row) => columns.map((column) => cellOf(row[column])))]
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

/** One word, so that columns can be cut out of lines. */
const headingOf = (column: string): string => column.replaceAll(/[A-Z]/g, '-$&').toUpperCase()

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

/** Above the YAML of a document: which of its versions that is. */
export const versionLine = (told: {
  readonly version: number
  readonly sha256: string
  readonly createdBy: string
  readonly createdAt: string
}): string => visible(`# version ${told.version}, sha256 ${told.sha256}, by ${told.createdBy} at ${told.createdAt}`)

/**
 * Names come from strangers, and terminals obey control characters. What is not seen, and blanks that are no plain space, are
 * shown too.
 */
export const visible = (text: string): string => text.replaceAll(unseen, escaped)

/**
 * What could pass for another row of the same text is visible too: rows are told apart by where their values begin, and so
 * no value has more than one space at a time.
 */
export const plain = (text: string): string => visible(text).replaceAll(/(?<= ) |^ | $|\p{M}/gu, escaped)

/** Whoever decides by what is shown must not take one letter for another. */
export const ascii = (text: string): string => plain(text).replaceAll(/[^\x20-\x7e]/gu, escaped)

/**
 * Rows with labels. What is long goes on below itself and further to the right, so that it passes for no row without a
 * label; and nothing but a label is at the left.
 */
export const formatRows = (rows: readonly (readonly [label: string, value: string])[]): string =>
  rows
    .flatMap(([label, value]) =>
      wrapped(value).map((line, i) => (i === 0 ? label.padEnd(labelWidth) : ' '.repeat(labelWidth + indent)) + line),
    )
    .join('\n')

/** Between words where that can be. */
const wrapped = (text: string): readonly string[] => {
  const lines: string[] = []
  for (let rest = text; ; ) {
    const characters = [...rest]
    const width = lines.length === 0 ? valueWidth : valueWidth - indent
    if (characters.length <= width) return [...lines, rest]
    const space = characters.lastIndexOf(' ', width)
    const end = space > 0 ? space : width
    lines.push(characters.slice(0, end).join(''))
    rest = characters.slice(space > 0 ? end + 1 : end).join('')
  }
}

const escaped = (character: string): string => {
  const digits = character.codePointAt(0)?.toString(16) ?? ''
  return digits.length > 4 ? `\\u{${digits}}` : `\\u${digits.padStart(4, '0')}`
}

/** Braille without a dot is a blank as well. */
export const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs}/gu

const labelWidth = 12
const indent = 2
/** On a terminal of 80. */
const valueWidth = 80 - labelWidth

/** An option, as it is written on the command line. */
export const flagOf = (name: string): string => `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

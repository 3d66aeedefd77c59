/** Writes the tables of docs/roll.md from those of the code; `node tools/roll.ts`. The tests compare the file with what this makes. */
import { readFile, writeFile } from 'node:fs/promises'

import { unknown } from '../src/auditor/unknown.ts'
import { type FaultCode, faults } from '../src/tlog/fault.ts'
import { findings, storageFindings } from '../src/tlog/findings.ts'
import { type EntryForm, entryForms, type Fields } from '../src/tlog/forms.ts'

/** The page, with its tables as they must be; the prose between them is left alone. */
export const withTables = (page: string): string =>
  Object.entries(tables).reduce((text, [name, table]) => {
    const [begin, end] = [`<!-- ${name}: made by tools/roll.ts -->\n`, `<!-- end of ${name} -->`]
    const [from, to] = [text.indexOf(begin), text.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`docs/roll.md has no room for the table of ${name}`)
    return text.slice(0, from + begin.length) + table + text.slice(to)
  }, page)

const fieldsText = (fields: Fields): string =>
  Object.entries(fields)
    .map(([name, { title }]) => `\`${name}\`: ${title}`)
    .join('; ')

const entryRow = ([type, { means, fields }]: [string, EntryForm]): string =>
  `| \`${type}\` | ${fieldsText(fields)} | ${means} |`

const table = (head: string, rows: readonly string[]): string =>
  `${head}\n${head.replaceAll(/[^|]+/g, '---')}\n${rows.join('\n')}\n`

const codes = (table: Readonly<Record<string, string>>): string[] =>
  Object.entries(table).map(([code, means]) => `| \`${code}\` | ${means} |`)

const tables = {
  entries: table('| type | fields | what it tells |', Object.entries(entryForms).map(entryRow)),
  findings: table('| finding | what it means |', codes(findings)),
  storage: table('| finding | what it means |', codes(storageFindings)),
  unknown: table(
    '| table | column | why |',
    Object.entries(unknown).flatMap(([table, columns]) =>
      Object.entries(columns).map(
        ([column, why]) => `| \`${table}\` | ${column === '*' ? 'all' : `\`${column}\``} | ${why} |`,
      ),
    ),
  ),
  faults: table('| fault | what it means |', codes(faults satisfies Readonly<Record<FaultCode, string>>)),
}

if (import.meta.main) {
  const file = new URL('../docs/roll.md', import.meta.url)
  await writeFile(file, withTables(await readFile(file, 'utf8')))
}

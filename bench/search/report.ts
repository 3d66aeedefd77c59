/** From what was measured to the tables that people read. */
import { whole } from '../report.ts'
import { toMarkdown } from '../table.ts'
import type { ExportRow } from './exports.ts'
import type { SearchRow } from './searches.ts'

export interface SearchResults {
  readonly certificates: number
  readonly searches: readonly SearchRow[]
  readonly exports: readonly ExportRow[]
}

export const searchText = ({ certificates, searches, exports }: SearchResults): readonly string[] => [
  `## Searches among ${whole(certificates)} certificates, 100 to a page, one client (bound: p99 under 10 ms)`,
  toMarkdown(
    ['', 'found', 'p50 ms', 'p99 ms'],
    searches.map(({ title, found, p50, p99 }) => [title, found, p50.toFixed(2), p99.toFixed(2)]),
  ),
  '## What the last statement of each reads: indexes with rows × loops',
  searches.map(({ title, plan }) => `- ${title}: ${plan}`).join('\n'),
  '## Exports, one client (bound: 50,000 rows/s, memory that does not grow)',
  toMarkdown(
    ['', 'rows', 'rows/s', 'MB/s', 'µs/row of the service', 'µs/row of PostgreSQL', 'MiB before', 'MiB at most'],
    exports.map(({ title, rows, octets, seconds, service, postgres, before, most }) => [
      title,
      whole(rows),
      whole(rows / seconds),
      (octets / seconds / 1e6).toFixed(1),
      ((service / rows) * 1e6).toFixed(1),
      ((postgres / rows) * 1e6).toFixed(1),
      whole(before),
      whole(most),
    ]),
  ),
]

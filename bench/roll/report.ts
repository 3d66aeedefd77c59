/** From what was measured to the tables that people read. */
import { issuanceTable, median, type Row, whole } from '../report.ts'
import { toMarkdown } from '../table.ts'
import type { VerifyRow } from './verify.ts'

export const verifyText = (rows: readonly VerifyRow[]): readonly string[] => [
  '## Auditing, each command from its start to its end (bound of verifying: 20,000 entries/s)',
  toMarkdown(
    ['', 'entries', 'entries/s', 'seconds', 'processor seconds', 'MiB at most'],
    rows.map(({ title, entries, seconds, processorSeconds, memory }) => [
      ...[title, whole(entries), whole(entries / seconds), seconds.toFixed(1)],
      ...[processorSeconds.toFixed(1), whole(memory)],
    ]),
  ),
]

export const treeText = (rows: readonly Row[]): readonly string[] => [
  '## Issuance with and without the tree (bound: 15 %)',
  issuanceTable({ rows }),
  `The tree costs ${(100 * costOf(rows)).toFixed(1)} % of the throughput at ${rows[0]?.clients} clients.`,
]

/** Share of the throughput, 0 to 1, by the medians: of the first two rows, with it and without. */
const costOf = (rows: readonly Row[]): number => {
  const rates = rows.map(({ rounds }) => median(rounds.map(({ perSecond }) => perSecond)))
  const [withTree = Number.NaN, without = Number.NaN] = rates
  return 1 - withTree / without
}

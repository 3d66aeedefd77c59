/** From what was measured of identities to the table that people read. */
import { median, type Row } from '../report.ts'
import { meansOf } from '../stages.ts'
import { toMarkdown } from '../table.ts'

export const identitiesText = (rows: readonly Row[]): readonly string[] => [
  toMarkdown(
    ['proof', 'clients', 'certificates a second', 'against the token', 'p50, ms', 'p99, ms', 'authenticating, µs each'],
    rows.map((row) => [
      row.title,
      String(row.clients),
      perSecond(row).toFixed(0),
      ratio(row, rows),
      median(row.rounds.map(({ p50 }) => p50)).toFixed(1),
      median(row.rounds.map(({ p99 }) => p99)).toFixed(1),
      authenticating(row).toFixed(1),
    ]),
  ),
  ...rows.flatMap(({ title, rounds }) =>
    rounds.flatMap(({ faults }) => faults.map((fault) => `**Not a result:** ${title}: ${fault}`)),
  ),
]

const perSecond = ({ rounds }: Row): number => median(rounds.map((round) => round.perSecond))

const ratio = (row: Row, rows: readonly Row[]): string => {
  const token = rows.find(({ target, clients }) => target === 'token' && clients === row.clients)
  return token ? `${(perSecond(row) / perSecond(token)).toFixed(2)} ×` : '-'
}

/** Of each request, from its first line to the caller being known, as our histogram has it. */
const authenticating = ({ rounds }: Row): number =>
  median(
    rounds.map(
      ({ totals }) =>
        1e6 * (meansOf(totals, 'chancery_stage_seconds').find(({ label }) => label === 'authenticate')?.mean ?? NaN),
    ),
  )

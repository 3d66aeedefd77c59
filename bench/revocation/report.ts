/** From what was measured of revocation to the table that people read, and the JSON that is kept. */
import type { Machine } from '../machine.ts'
import type { Options } from '../options.ts'
import { machineLines, whole } from '../report.ts'
import { toMarkdown } from '../table.ts'
import type { AnswersRow } from './answers.ts'
import type { Arrival } from './arrival.ts'
import type { ListsRow } from './lists.ts'
import type { Many } from './many.ts'

export interface RevocationResults {
  readonly at: string
  readonly machine: Machine
  readonly options: Options
  readonly answers: readonly AnswersRow[]
  readonly arrival: Arrival | undefined
  readonly lists: readonly ListsRow[]
  readonly many: Many | undefined
}

export const renderRevocationReport = (results: RevocationResults): string => {
  const { machine, options } = results
  return [
    `# Benchmark of revocation of ${results.at.slice(0, 16).replace('T', ' ')} UTC`,
    `${machineLines({ ...results, rows: [] })}\nLoad by ${machine.generator} on the same ${machine.cores} cores, keep-alive HTTP, ${options.seconds} s each. Load of the machine before: ${machine.loadBefore.toFixed(2)}.`,
    ...(results.answers.length > 0
      ? ['## OCSP (bound: 8,000/s signed before, aim 15,000)', answersTable(results)]
      : []),
    ...(results.arrival
      ? [
          `## How long a revocation takes to arrive, ms, of ${results.arrival.revocations}`,
          arrivalTable(results.arrival),
        ]
      : []),
    ...(results.lists.length > 0
      ? ['## Publishing lists (bound of one with 100,000 entries: 2 s, aim 0.5; event loop 50 ms)', listsTable(results)]
      : []),
    ...(results.many
      ? ['## Many at once, an instance killed half-way', manyText(results.many), phasesTable(results.many)]
      : []),
  ].join('\n\n')
}

const answersTable = ({ answers }: RevocationResults): string =>
  toMarkdown(
    ['', 'clients', 'answers/s', 'p50 ms', 'p99 ms', 'faults'],
    answers.map(({ title, clients, perSecond, p50, p99, faults }) => [
      title,
      clients,
      whole(perSecond),
      p50.toFixed(2),
      p99.toFixed(2),
      faults,
    ]),
  )

const arrivalTable = ({ revoking, sameReplica, otherReplica, list }: Arrival): string =>
  toMarkdown(
    ['', 'p50', 'p99', 'bound'],
    (
      [
        ['the answer to whoever revokes', revoking, '–'],
        ['from then to OCSP of the same instance', sameReplica, 'at once: one exchange'],
        ['… to OCSP of another instance', otherReplica, '2,000'],
        ['… to the list', list, '60,000'],
      ] as const
    ).map(([what, { p50, p99 }, bound]) => [what, p50.toFixed(1), p99.toFixed(1), bound]),
  )

const listsTable = ({ lists }: RevocationResults): string =>
  toMarkdown(
    ['revocations', 'shards', 'seconds', 'lists/s', 'octets', 'largest event-loop delay, ms', 'memory, MiB more'],
    lists.map(({ revoked, shards, seconds, octets, loopMax, memory }) => [
      whole(revoked),
      whole(shards),
      seconds.toFixed(2),
      whole(shards / seconds),
      whole(octets),
      loopMax.toFixed(1),
      whole(memory),
    ]),
  )

const manyText = ({ planned, planMs, orderMs, atKill, idleMs, seconds, facts }: Many): string =>
  [
    `${whole(planned)} certificates: planned in ${whole(planMs)} ms, ordered in ${whole(orderMs)} ms.`,
    `Killed (SIGKILL) when ${whole(atKill)} were revoked; the next instance went on ${(idleMs / 1000).toFixed(1)} s later. All done ${seconds.toFixed(1)} s after the order, the load beside it and the kill included.`,
    `Of the plan, ${whole(facts.once)} were revoked exactly once, ${facts.twice} more than once, ${facts.others} beside it; ${whole(facts.events)} events, ${facts.unlike} unlike their rows.`,
  ].join('\n')

const phasesTable = ({ phases }: Many): string =>
  toMarkdown(
    ['', 'revoked/s', 'issued/s', 'p50 ms', 'p99 ms', 'p99.9 ms', 'max ms', 'faults'],
    phases.map(({ title, issuance, revoked, seconds }) => [
      title,
      seconds > 0 ? whole(revoked / seconds) : '-',
      ...(issuance
        ? [
            whole(issuance.requests / issuance.seconds),
            ...[issuance.p50, issuance.p99, issuance.p999, issuance.max].map((ms) => ms.toFixed(1)),
            issuance.statusErrors + issuance.socketErrors + issuance.timeouts,
          ]
        : ['-', '-', '-', '-', '-', '-']),
    ]),
  )

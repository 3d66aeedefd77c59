/** From what was measured of keys to the table that people read, and the JSON that is kept. */

import { encodeKept } from '../keep.ts'
import type { Machine } from '../machine.ts'
import type { Options } from '../options.ts'
import { faultText, issuanceTable, machineText, median, plainRows, whole } from '../report.ts'
import { toMarkdown } from '../table.ts'
import type { IssuanceRow } from './issuance.ts'
import type { LatencyRow, LoopDelay } from './latency.ts'
import type { SignatureRow } from './signatures.ts'
import { latencyMs } from './tokens.ts'

export interface KeyResults {
  readonly at: string
  readonly machine: Machine
  readonly options: Options
  readonly rows: readonly IssuanceRow[]
  readonly signatures: readonly SignatureRow[]
  readonly latencies: readonly LatencyRow[]
  /** Of a process that only asks the signer process. */
  readonly loop: LoopDelay | undefined
}

export const renderKeyReport = (results: KeyResults): string =>
  [
    `# Benchmark of keys of ${results.at.slice(0, 16).replace('T', ' ')} UTC`,
    machineText(results),
    '## Against the bounds',
    boundsTable(results),
    ...(results.rows.length > 0 ? ['## Issuance', issuanceTable(results), ...faultText(results)] : []),
    ...(results.rows.length > 0 ? ["### The service's event loop meanwhile, ms late", loopTable(results)] : []),
    ...(results.latencies.length > 0
      ? [`## A module of ${latencyMs} ms, the provider alone`, latencyTable(results)]
      : []),
    ...(results.signatures.length > 0 ? ['## Signatures a second, 32 asked for at once', signatureTable(results)] : []),
  ].join('\n\n')

export const encodeKeyResults = (results: KeyResults): string =>
  encodeKept({ ...results, rows: plainRows(results.rows) })

/** Each found figure beside what it must be. */
const boundsTable = (results: KeyResults): string => {
  const { latencies, loop, rows } = results
  const clients = [...new Set(rows.map((row) => row.clients))]
  const against = (what: string, pair: { readonly own: string; readonly other: string }, bound: string) =>
    clients.map((each) => [`${what}, ${each} clients`, ratioOf(rows, { ...pair, clients: each }), bound])
  const least = Math.min(...latencies.map(({ perSecond, most }) => perSecond / most))
  const counts = latencies.map(({ sessions }) => sessions).join(', ')
  const found = [
    ...against(
      'issuance through SoftHSM against the key in a file',
      { own: 'chancery-softhsm', other: 'chancery' },
      '≥ 0.7 ×',
    ),
    ...(latencies.length > 0
      ? [
          [
            `the provider alone against sessions ÷ ${latencyMs} ms, the least of ${counts} sessions`,
            `${least.toFixed(2)} ×`,
            '≥ 0.9 ×',
          ],
        ]
      : []),
    ...(loop
      ? [
          [
            'event loop of who asks the signer process meanwhile, ms late: p99, max',
            `${loop.p99.toFixed(1)}, ${loop.max.toFixed(1)}`,
            `p99 < ${latencyMs}: never held`,
          ],
        ]
      : []),
    ...against(
      'issuance with the signer process against in-process signing',
      { own: 'chancery', other: 'chancery-inline' },
      '–',
    ),
  ]
  return toMarkdown(['', 'found', 'bound'], found)
}

const ratioOf = (
  rows: readonly IssuanceRow[],
  { own, other, clients }: { readonly own: string; readonly other: string; readonly clients: number },
): string => {
  const rateOf = (target: string): number =>
    median(
      rows
        .filter((row) => row.target === target && row.clients === clients)
        .flatMap(({ rounds }) => rounds.map(({ perSecond }) => perSecond)),
    )
  return `${(rateOf(own) / rateOf(other)).toFixed(2)} ×`
}

const loopTable = ({ rows }: KeyResults): string =>
  toMarkdown(
    ['', 'clients', 'p99', 'max'],
    rows.map(({ title, clients, loop }) => [title, clients, loop.p99.toFixed(1), loop.max.toFixed(1)]),
  )

const latencyTable = ({ latencies }: KeyResults): string =>
  toMarkdown(
    ['sessions', 'signatures/s', `sessions ÷ ${latencyMs} ms`, 'of it', 'bound'],
    latencies.map(({ sessions, perSecond, most }) => [
      sessions,
      whole(perSecond),
      whole(most),
      `${(perSecond / most).toFixed(2)} ×`,
      '≥ 0.9 ×',
    ]),
  )

const signatureTable = ({ signatures }: KeyResults): string =>
  toMarkdown(
    ['key', 'algorithm', 'signer process', 'in-process'],
    signatures.map(({ provider, algorithm, signer, inline }) => [provider, algorithm, whole(signer), whole(inline)]),
  )

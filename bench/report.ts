/** From what was measured to the table that people read and the JSON that is kept. Medians over the rounds. */
import type { Floor } from './floor.ts'
import { encodeKept } from './keep.ts'
import type { Machine } from './machine.ts'
import type { Measured } from './measure.ts'
import type { Options } from './options.ts'
import { addTotals, meansOf, type Totals } from './stages.ts'
import { toMarkdown } from './table.ts'

export interface Row {
  readonly target: string
  readonly title: string
  readonly version: string
  readonly clients: number
  readonly rounds: readonly Measured[]
}

export interface Results {
  readonly at: string
  readonly machine: Machine
  readonly options: Options
  readonly rows: readonly Row[]
  readonly notRun: readonly string[]
  readonly floor: Floor | undefined
  /** Seconds, each from a new data folder. */
  readonly starts: readonly number[]
  /** Octets that one certificate takes in the database, indexes included. */
  readonly storedOctets: number | undefined
}

export const renderReport = (results: Results): string =>
  [
    `# Benchmark of ${results.at.slice(0, 16).replace('T', ' ')} UTC`,
    machineText(results),
    ...(results.rows.length > 0 ? ['## Issuance', issuanceTable(results)] : []),
    ...results.notRun.map((line) => `Not run: ${line}`),
    ...faultText(results),
    '## Against the bounds',
    boundsTable(results),
    ...(results.rows.length > 0 ? costs(results) : []),
  ].join('\n\n')

export const encodeResults = (results: Results): string => encodeKept({ ...results, rows: plainRows(results.rows) })

/** As they are kept: everything, with histograms as means. */
export const plainRows = (rows: readonly Row[]): readonly object[] =>
  rows.map((row) => ({ ...row, rounds: row.rounds.map(plainRound) }))

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2
}

export const hasFaults = ({ rows }: Pick<Results, 'rows'>): boolean => rows.some(({ rounds }) => rounds.some(isFaulty))

const plainRound = ({ totals, ...rest }: Measured): object => ({
  ...rest,
  means: Object.fromEntries(
    [...totals]
      .filter(([, { count }]) => count > 0)
      .map(([key, { count, sum }]) => [key, { count, mean: sum / count }]),
  ),
})

export const machineText = (results: Pick<Results, 'machine' | 'options' | 'rows'>): string => {
  const { machine: m, options, rows } = results
  return [
    machineLines(results),
    `Load by ${m.generator} on the same ${m.cores} cores, keep-alive HTTPS, one P-256 request with one DNS name; ${options.rounds} rounds of ${options.seconds} s in turn, medians. Load of the machine before: ${m.loadBefore.toFixed(2)}; other programs took ${(100 * foreignShare(rows)).toFixed(1)} % of it meanwhile.`,
  ].join('\n')
}

/** What the figures were taken on, without how. */
export const machineLines = ({ machine: m, rows }: Pick<Results, 'machine' | 'rows'>): string => {
  const versions = [...new Map(rows.map((row) => [row.title, row])).values()]
    .filter(({ target }) => !target.startsWith('chancery'))
    .map(({ title, version }) => `${title}: ${version}`)
  return [
    `${m.processor}, ${m.cores} cores, ${m.memoryGiB} GiB; ${m.system}, Linux ${m.kernel}; fdatasync of 8 KiB ${m.fdatasync.p50.toFixed(2)} ms (p99 ${m.fdatasync.p99.toFixed(2)}).`,
    `Chancery ${m.commit}; Node ${m.node.slice(1)}, OpenSSL ${m.openssl}, PostgreSQL ${m.postgres}${versions.map((version) => `; ${version}`).join('')}.`,
  ].join('\n')
}

const foreignShare = (rows: readonly Row[]): number => {
  const shares = rows.flatMap(({ rounds }) => rounds.map(({ foreign }) => foreign))
  return shares.length === 0 ? 0 : median(shares)
}

export const issuanceTable = ({ rows }: Pick<Results, 'rows'>): string =>
  toMarkdown(
    [
      '',
      'clients',
      'certificates/s',
      'spread',
      'p50 ms',
      'p99 ms',
      'max ms',
      'service MiB',
      'PostgreSQL MiB',
      'its buffers',
      'errors',
    ],
    rows.map(({ title, clients, rounds }) => {
      const of = (pick: (round: Measured) => number): number => median(rounds.map(pick))
      const rates = rounds.map(({ perSecond }) => perSecond)
      return [
        title,
        clients,
        rounds.some(isFaulty) ? `failed (${whole(of(({ perSecond }) => perSecond))})` : whole(median(rates)),
        `${whole(Math.min(...rates))}–${whole(Math.max(...rates))}`,
        of(({ p50 }) => p50).toFixed(1),
        of(({ p99 }) => p99).toFixed(1),
        of(({ max }) => max).toFixed(0),
        whole(Math.max(...rounds.map(({ memory }) => memory.service))),
        whole(Math.max(...rounds.map(({ memory }) => memory.postgres))),
        whole(Math.max(...rounds.map(({ memory }) => memory.buffers))),
        rounds.reduce(
          (sum, { statusErrors, socketErrors, timeouts }) => sum + statusErrors + socketErrors + timeouts,
          0,
        ),
      ]
    }),
  )

const isFaulty = ({ faults }: Measured): boolean => faults.length > 0

export const faultText = ({ rows }: Pick<Results, 'rows'>): string[] =>
  rows.flatMap(({ title, clients, rounds }) =>
    rounds.flatMap(({ faults }, i) =>
      faults.length > 0 ? [`Failed: ${title}, ${clients} clients, round ${i + 1}: ${faults.join('; ')}.`] : [],
    ),
  )

/** What a comparison has of what is kept of it. */
export interface Kept extends Pick<Results, 'at' | 'machine' | 'floor'> {
  readonly rows: readonly KeptRow[]
}

interface KeptRow extends Pick<Row, 'target' | 'clients'> {
  readonly rounds: readonly Pick<Measured, 'perSecond' | 'p99' | 'faults'>[]
}

/**
 * Rates are compared twice: with the same number of clients, and each target with as many as it does best with, of those
 * that were tried and answered without a fault.
 */
export const boundsOf = ({ rows }: Pick<Kept, 'rows'>) => {
  const sound = rows.filter(({ rounds }) => rounds.length > 0 && rounds.every(({ faults }) => faults.length === 0))
  const few = Math.min(...rows.map(({ clients }) => clients))
  const rateOf = (row: KeptRow): number => median(row.rounds.map(({ perSecond }) => perSecond))
  const rates = (target: string): Found<number> => {
    const own = sound.filter((row) => row.target === target)
    const same = own.find(({ clients }) => clients === few)
    return [same && rateOf(same), own.length > 0 ? Math.max(...own.map(rateOf)) : undefined]
  }
  const ours = rates('chancery')
  const by = (theirs: Found<number>): Found<number> => [ratio(ours[0], theirs[0]), ratio(ours[1], theirs[1])] as const
  const slow = sound
    .filter(({ target, clients }) => target === 'chancery' && clients === few)
    .flatMap(({ rounds }) => rounds.map(({ p99 }) => p99))
  return {
    few,
    /** Times as many as the peer's. */
    against: (peer: string): Found<number> => by(rates(peer)),
    /** The part of that rate. */
    of: (rate: number | undefined): Found<number> => by([rate, rate]),
    /** Milliseconds of the slowest percent, with the fewest clients. */
    slowest: slow.length > 0 ? median(slow) : undefined,
  }
}

/** The bounds: what was found beside what must be and what is aimed at. */
const boundsTable = (results: Results): string => {
  const { rows, floor, starts } = results
  const { few, against, of, slowest } = boundsOf(results)
  const own = rows.filter(({ target, rounds }) => target === 'chancery' && !rounds.some(isFaulty))
  const highest = (among: readonly Row[]): number | undefined => {
    const memory = among.flatMap(({ rounds }) => rounds.map(({ memory: m }) => m.service + m.postgres))
    return memory.length > 0 ? Math.max(...memory) : undefined
  }
  const cores = floor ? ` (${whole(floor.perSecond)}/s on ${floor.cores} cores)` : ''
  const start = starts.length > 0 ? median(starts) : undefined
  const memory: Found<number> = [highest(own.filter(({ clients }) => clients === few)), highest(own)]
  const found: readonly (readonly [string, readonly (string | undefined)[], string, string])[] = [
    ['issuance against cfssl, recording', told(against('cfssl-recording'), times), '4 ×', '8 ×'],
    ['issuance against cfssl, recording nothing', told(against('cfssl'), times), '0.5 ×', 'ahead'],
    ['issuance against step-ca with Badger', told(against('step-ca'), times), '1.5 ×', '3 ×'],
    [`fraction of the crypto floor${cores}`, told(of(floor?.perSecond), percent), '27 %', '50 %'],
    ['p99', [...told([slowest], (ms) => `${ms.toFixed(1)} ms`), '–'], '< 30 ms', '< 15 ms'],
    [
      'memory, all our processes, without shared buffers',
      told(memory, (mebibytes) => `${whole(mebibytes)} MiB`),
      '< 300 MB',
      '< 200 MB',
    ],
    [
      '`npm start` to the first certificate',
      [...told([start], (seconds) => `${seconds.toFixed(2)} s`), '–'],
      '< 10 s',
      '< 4 s',
    ],
  ]
  return toMarkdown(
    ['', `${few} clients`, 'each at its best', 'at least', 'aim'],
    found.map(([what, [same, best], least, aim]) => [what, same ?? 'not run', best ?? 'not run', least, aim]),
  )
}

const told = (
  values: readonly (number | undefined)[],
  tell: (value: number) => string,
): readonly (string | undefined)[] => values.map((value) => (value === undefined ? undefined : tell(value)))
const times = (value: number): string => `${value.toFixed(2)} ×`
const percent = (value: number): string => `${(100 * value).toFixed(0)} %`

const ratio = (own: number | undefined, theirs: number | undefined): number | undefined =>
  own === undefined || theirs === undefined ? undefined : own / theirs

/** With the same number of clients, and each with its best. */
type Found<T> = readonly [T | undefined, T | undefined]

/** Where the time goes: processors by whom, then the stages and statements as our own metrics tell them. */
const costs = ({ rows, floor, machine, storedOctets }: Results): string[] => [
  '## Processor time for each certificate, µs',
  toMarkdown(
    [
      '',
      'clients',
      'main thread',
      'verifying threads',
      'signer',
      'GC and compiler',
      'PostgreSQL',
      'load generator',
      'kernel and others',
      'idle',
    ],
    rows.map(({ title, clients, rounds }) => [
      title,
      clients,
      ...processorCells(rounds, machine.cores).map((cell) => whole(cell)),
    ]),
  ),
  ...(floor
    ? [
        `One core alone: import ${floor.importing.toFixed(1)} µs, verify ${floor.verifying.toFixed(1)} µs, sign ${floor.signing.toFixed(1)} µs.`,
      ]
    : []),
  ...(storedOctets === undefined
    ? []
    : [`One certificate takes ${whole(storedOctets)} octets in the database, all records and indexes.`]),
  ...rows.filter(({ rounds }) => rounds.some(({ totals }) => totals.size > 0)).flatMap(stageText),
]

const processorCells = (rounds: readonly Measured[], cores: number): number[] => {
  const of = (pick: (round: Measured) => number): number =>
    median(rounds.map((round) => (1e6 * pick(round)) / round.requests))
  return [
    of(({ processors: p }) => p.main),
    of(({ processors: p }) => p.pool),
    of(({ processors: p }) => p.signer),
    of(({ processors: p }) => p.engine),
    of(({ processors: p }) => p.postgres),
    of(({ processorSeconds }) => processorSeconds),
    of(({ processors: p, processorSeconds }) =>
      Math.max(0, p.machine - p.main - p.pool - p.signer - p.engine - p.postgres - processorSeconds),
    ),
    of(({ processors: p, seconds }) => Math.max(0, seconds * cores - p.machine)),
  ]
}

const stageText = ({ title, clients, rounds }: Row): string[] => {
  const totals = rounds.map(({ totals }) => totals).reduce(addTotals)
  const issued = rounds.reduce((sum, { requests }) => sum + requests, 0)
  return [
    `### Stages: ${title}, ${clients} clients`,
    toMarkdown(
      ['stage', 'mean ms'],
      meansOf(totals, 'chancery_stage_seconds').map(({ label, mean }) => [label, (mean * 1e3).toFixed(3)]),
    ),
    toMarkdown(['statement', 'mean ms', 'for so many certificates'], statementRows(totals, issued)),
  ]
}

const statementRows = (totals: Totals, issued: number): (string | number)[][] => [
  ...meansOf(totals, 'chancery_database_seconds').map(({ label, mean, count }) => [
    label,
    (mean * 1e3).toFixed(2),
    (issued / count).toFixed(1),
  ]),
  ...meansOf(totals, 'chancery_batch_size').map(({ label, mean }) => [`batch: ${label}`, '', mean.toFixed(1)]),
]

export const whole = (value: number): string => Math.round(value).toLocaleString('en')

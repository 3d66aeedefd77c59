/**
 * Metrics as plain arrays, since what lies on the path of a request adds to them: that costs tens of nanoseconds, and prom-client
 * only reads them when somebody asks.
 */
import type { Registry } from 'prom-client'

import { type Definition, type MetricName, metricTable } from './metric-table.ts'

export interface Series {
  add(amount: number, first: string, second?: string): void
  observe(value: number, label: string): void
  watch(read: () => number, label: string): void
  /** What is counted elsewhere, all of it, looked up when somebody asks. */
  take(read: () => readonly Counted[]): void
}

export type AllSeries = Readonly<Record<MetricName, Series>>

/** Registers every metric of the table, whether or not anything comes of it. */
export const openAllSeries = (registry: Registry): AllSeries =>
  Object.fromEntries(
    Object.keys(metricTable).map((name) => [name, openSeries(registry, name as MetricName)]),
  ) as AllSeries

interface Counted {
  readonly labels: readonly [string, string?]
  readonly value: number
  readonly buckets?: readonly number[]
}

interface Sample {
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
  readonly metricName?: string
}

interface Cell {
  readonly labels: Readonly<Record<string, string>>
  value: number
  /** For histograms: how many fell into each bucket, and beyond the last. */
  readonly buckets: Float64Array
  count: number
  read?: () => number
}

/** One metric with all its label values. The number of those is bounded: a label never comes from outside unchecked. */
const openSeries = (registry: Registry, name: MetricName): Series => {
  const { kind, help, labels, buckets = [] }: Definition = metricTable[name]
  const cells = new Map<string, Cell>()
  let counted: (() => readonly Counted[]) | undefined
  const cellOf = (first: string, second?: string): Cell => {
    const key = second === undefined ? first : `${first}\n${second}`
    const known = cells.get(key)
    if (known) return known
    const [labelOne, labelTwo = 'label'] = labels
    if (cells.size >= (counted ? maxCounted : maxCells) && first !== overflow)
      return cellOf(overflow, second === undefined ? undefined : overflow)
    const cell = {
      labels: {
        ...(labelOne !== undefined && { [labelOne]: first }),
        ...(second !== undefined && { [labelTwo]: second }),
      },
      value: 0,
      buckets: new Float64Array(buckets.length + 1),
      count: 0,
    }
    cells.set(key, cell)
    return cell
  }
  const samples = (): Sample[] => {
    // What is not there any more is not told any more.
    if (counted) cells.clear()
    for (const { labels, value, buckets = [] } of counted?.() ?? []) {
      const cell = cellOf(...labels)
      cell.value = value
      cell.buckets.set(buckets)
      cell.count = buckets.reduce((sum, count) => sum + count, 0)
    }
    return [...cells.values()].flatMap((cell) => samplesOf(name, cell, kind === 'histogram' ? buckets : undefined))
  }
  // prom-client asks a metric only for this when it writes or reads a registry.
  const metric = {
    name,
    help,
    type: kind,
    aggregator: 'sum',
    get: async () => ({ name, help, type: kind, aggregator: 'sum', values: samples() }),
  }
  registry.registerMetric(metric as unknown as Parameters<Registry['registerMetric']>[0])
  return {
    add: (amount, first, second) => {
      cellOf(first, second).value += amount
    },
    observe: (value, label) => {
      const cell = cellOf(label)
      let i = 0
      while (i < buckets.length && value > (buckets[i] ?? 0)) i += 1
      cell.buckets[i] = (cell.buckets[i] ?? 0) + 1
      cell.value += value
      cell.count += 1
    },
    watch: (read, label) => {
      cellOf(label).read = read
    },
    take: (read) => {
      counted = read
    },
  }
}

const samplesOf = (name: string, cell: Cell, buckets: readonly number[] | undefined): Sample[] => {
  const { labels } = cell
  if (!buckets) return [{ labels, value: cell.read ? cell.read() : cell.value }]
  let below = 0
  const counted = buckets.map((le, i) => {
    below += cell.buckets[i] ?? 0
    return { labels: { ...labels, le }, value: below, metricName: `${name}_bucket` }
  })
  return [
    ...counted,
    { labels: { ...labels, le: '+Inf' }, value: cell.count, metricName: `${name}_bucket` },
    { labels, value: cell.value, metricName: `${name}_sum` },
    { labels, value: cell.count, metricName: `${name}_count` },
  ]
}

const maxCells = 2_000
/** Of what is our own: the lists of 128 shards of a hundred issuers. */
const maxCounted = 12_800
const overflow = 'other'

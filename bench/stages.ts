/** Our own histograms, as /metrics tells them: what happened between two readings. */

/** Count and sum of one label of one histogram. */
export interface Total {
  readonly count: number
  readonly sum: number
}

export type Totals = ReadonlyMap<string, Total>

/** By `metric/label`: `chancery_stage_seconds/sign`. */
export const readTotals = (text: string): Totals => {
  const totals = new Map<string, { count: number; sum: number }>()
  for (const [, metric, part, label, value] of text.matchAll(sample)) {
    const key = `${metric}/${label}`
    const total = totals.get(key) ?? { count: 0, sum: 0 }
    if (part === 'sum') total.sum = Number(value)
    else total.count = Number(value)
    totals.set(key, total)
  }
  return totals
}

export const totalsBetween = (before: Totals, after: Totals): Totals =>
  new Map(
    [...after].map(([key, { count, sum }]) => {
      const earlier = before.get(key) ?? { count: 0, sum: 0 }
      return [key, { count: count - earlier.count, sum: sum - earlier.sum }]
    }),
  )

export const addTotals = (one: Totals, other: Totals): Totals =>
  new Map(
    [...new Set([...one.keys(), ...other.keys()])].map((key) => {
      const [a, b] = [one.get(key), other.get(key)]
      return [key, { count: (a?.count ?? 0) + (b?.count ?? 0), sum: (a?.sum ?? 0) + (b?.sum ?? 0) }]
    }),
  )

/** What happened, with its mean: label, how often, mean in the metric's unit. In the order in which it happens. */
export const meansOf = (totals: Totals, metric: string): { label: string; count: number; mean: number }[] =>
  [...totals]
    .filter(([key, { count }]) => key.startsWith(`${metric}/`) && count > 0)
    .map(([key, { count, sum }]) => ({ label: key.slice(metric.length + 1), count, mean: sum / count }))

const sample =
  /^(chancery_(?:stage_seconds|database_seconds|batch_size|key_seconds))_(sum|count)\{\w+="([^"]*)"\} (\S+)$/gm

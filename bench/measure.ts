/** One target under load, once: what the clients saw, what the processors did, what our histograms say. */
import { writeFile } from 'node:fs/promises'
import { Agent } from 'node:https'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'

import { type Generator, shoot, type Yield } from './load/load.ts'
import { type Memory, readMemory } from './memory.ts'
import { type Place, withClient } from './place.ts'
import { between, type Processors, readProcessors } from './processors.ts'
import { call } from './request.ts'
import { readTotals, type Totals, totalsBetween } from './stages.ts'
import type { Target } from './targets/target.ts'

export interface Measured extends Yield {
  readonly perSecond: number
  readonly processors: Processors
  /** The highest seen. */
  readonly memory: Memory
  /** Why this is no result: a wrong answer, or fewer records than answers. Empty where it is one. */
  readonly faults: readonly string[]
  readonly totals: Totals
  /** Share of the machine, 0 to 1, that neither the target, PostgreSQL nor the generator used: a noisy neighbour's. */
  readonly foreign: number
}

export interface Plan {
  readonly place: Place
  readonly generator: Generator
  readonly clients: number
  readonly seconds: number
  readonly warmUpSeconds: number
}

export const measure = async (target: Target, plan: Plan): Promise<Measured> => {
  const { place, generator, clients, seconds, warmUpSeconds } = plan
  await checkOne(target)
  const { url, method = 'POST', headers, body, client, connections } = target
  const shot = { url, method, headers, body, clients, ...(client && { client }), ...(connections && { connections }) }
  const fire = async (span: number): Promise<Yield> =>
    shoot(generator, place.folder, { ...shot, seconds: span, ...(await variantsOf(target, place, span)) })
  await fire(warmUpSeconds)

  const [recordedBefore, totalsBefore] = [await target.recorded?.(), await totalsOf(target)]
  const others = await backendsOfOthers(target)
  const postmaster = target.database && place.postmaster
  const read = (): Processors => readProcessors(target.pid, place.postmaster, target.metrics !== undefined)
  const before = read()
  let memory = readMemory(target.pid, postmaster, others)
  const watching = setInterval(() => {
    memory = highest(memory, readMemory(target.pid, postmaster, others))
  }, 2_000)
  const seen = await fire(seconds).finally(() => clearInterval(watching))
  const processors = between(before, read())
  const totals = totalsBetween(totalsBefore, await totalsOf(target))
  await checkOne(target)
  const recorded = recordedBefore === undefined ? undefined : ((await target.recorded?.()) ?? 0) - recordedBefore
  return {
    ...seen,
    perSecond: seen.requests / seen.seconds,
    processors,
    memory,
    faults: faultsOf(seen, recorded),
    totals,
    foreign: foreignOf(seen, processors),
  }
}

/** A target is only measured while it gives the certificates that it should. */
const checkOne = async (target: Target): Promise<void> => {
  const body = (await target.bodies?.(1))?.[0] ?? target.body
  const { url, ca, headers, method = 'POST', client } = target
  const agent = client && new Agent({ ca, ...client })
  const { status, text } = await call({ url, ca, method, headers, body, ...(agent && { agent }) })
  target.assertIssued(status, text)
}

const foreignOf = (
  { processorSeconds, seconds }: Yield,
  { machine, main, pool, signer, engine, postgres }: Processors,
): number =>
  Math.max(0, machine - main - pool - signer - engine - postgres - processorSeconds) /
  (seconds * availableParallelism())

const faultsOf = (seen: Yield, recorded: number | undefined): string[] => [
  ...(seen.statusErrors > 0 ? [`${seen.statusErrors} answers with a status above 399`] : []),
  ...(seen.socketErrors > 0 ? [`${seen.socketErrors} broken connections`] : []),
  ...(seen.timeouts > 0 ? [`${seen.timeouts} requests without an answer in time`] : []),
  ...(recorded !== undefined && recorded < seen.requests
    ? [`${seen.requests} answers, but only ${recorded} certificates in the records`]
    : []),
]

const variantsOf = async (
  target: Target,
  { folder }: Place,
  seconds: number,
): Promise<{ keys?: string; bodies?: string }> => {
  if (target.keyed) return { keys: `bench-${Date.now()}-` }
  if (!target.bodies) return {}
  const path = join(folder, 'load-bodies')
  await writeFile(path, (await target.bodies(seconds * mostPerSecond)).join('\n'))
  return { bodies: path }
}

const totalsOf = async (target: Target): Promise<Totals> =>
  target.metrics ? readTotals(await target.metrics()) : new Map()

/** Backends of other databases in the same server: theirs is not this target's memory. */
const backendsOfOthers = async ({ database }: Target): Promise<ReadonlySet<number>> => {
  if (!database) return new Set()
  return withClient(database.superuserUrl, async (client) => {
    const { rows } = await client.query<{ pid: number }>(
      'select pid from pg_stat_activity where datname <> current_database() or pid = pg_backend_pid()',
    )
    return new Set(rows.map(({ pid }) => pid))
  })
}

const highest = (one: Memory, other: Memory): Memory =>
  one.service + one.postgres + one.buffers > other.service + other.postgres + other.buffers ? one : other

/** More than any target that needs prepared requests has answered. */
const mostPerSecond = 6_000

/**
 * `npm run bench`: Chancery beside its peers, on one machine, in one run, by the same load. docs/performance.md says what
 * the figures mean. Results are kept under bench/results/; commit those of a quiet machine.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { type Floor, measureFloor } from './floor.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine, storedOctets } from './machine.ts'
import { type Measured, measure, type Plan } from './measure.ts'
import { type Options, parseOptions, usage } from './options.ts'
import { openPlace, type Place } from './place.ts'
import { encodeResults, hasFaults, type Results, type Row, renderReport } from './report.ts'
import { makeSample } from './sample.ts'
import { measureSearches, type SearchRow } from './search.ts'
import { measureStart } from './startup.ts'
import { cfsslVersion, openCfssl } from './targets/cfssl.ts'
import { openChancery, partsOf, withKeys } from './targets/chancery.ts'
import { openStepCa } from './targets/step-ca.ts'
import type { SampleRequest, Target } from './targets/target.ts'

const run = async (options: Options, place: Place): Promise<Results> => {
  const sample = await makeSample(place.folder)
  const generator = pickGenerator(options.generator)
  const at = new Date().toISOString()
  const machine = await describeMachine(place.folder, await place.createDatabase('machine'), generator)
  const { targets, notRun } = await openTargets(options, place, sample)
  let rows: readonly Row[] = []
  let stored: number | undefined
  try {
    rows = await takeTurns(targets, { options, place, generator })
    const own = targets.find(({ name }) => name === 'chancery')
    if (own?.database) stored = await storedOctets(own.database, (await own.recorded?.()) ?? 0)
  } finally {
    for (const target of targets) await target.close()
  }
  return {
    at,
    machine,
    options,
    rows,
    notRun,
    floor: isWanted(options, 'floor') ? await floorOf(options) : undefined,
    starts: isWanted(options, 'start') ? await startsOf(options, place, sample) : [],
    searches: options.certificates > 0 ? await searchesOf(options, place) : [],
    storedOctets: stored,
  }
}

const isWanted = ({ only }: Options, name: string): boolean => only === undefined || only.includes(name)

const openTargets = async (
  options: Options,
  place: Place,
  sample: SampleRequest,
): Promise<{ targets: readonly Target[]; notRun: readonly string[] }> => {
  const targets: Target[] = []
  const notRun: string[] = []
  const wanted = (name: string): boolean => isWanted(options, name)
  const own = options.only?.filter((name) => name.startsWith('chancery') && name !== 'chancery-inline')
  if (own === undefined || own.length > 0) {
    const nodeFlags = [...options.nodeFlags, ...(options.profile ? profileFlags : [])]
    const chancery = await openChancery({ place, sample, nodeFlags })
    targets.push(chancery)
    if (wanted('chancery-keys')) targets.push(withKeys(chancery))
    if (options.only?.some((name) => parts.includes(name))) targets.push(...partsOf(chancery))
  }
  if (options.only?.includes('chancery-inline'))
    targets.push(
      await openChancery({
        place,
        sample,
        nodeFlags: options.nodeFlags,
        name: 'chancery-inline',
        title: 'Chancery, signing in its own process',
        env: { CHANCERY_SIGNER: 'inline' },
      }),
    )
  if (wanted('cfssl-recording') || wanted('cfssl')) {
    if (cfsslVersion() === undefined) notRun.push("cfssl, which is not installed (Debian's golang-cfssl).")
    else {
      if (wanted('cfssl-recording')) targets.push(await openCfssl(place, sample, true))
      if (wanted('cfssl')) targets.push(await openCfssl(place, sample, false))
    }
  }
  if (wanted('step-ca')) {
    const binary = process.env['CHANCERY_BENCH_STEP_CA']
    if (binary) targets.push(await openStepCa(place, binary))
    else notRun.push('step-ca, since CHANCERY_BENCH_STEP_CA names no binary.')
  }
  return { targets, notRun }
}

interface Turns {
  readonly options: Options
  readonly place: Place
  readonly generator: 'wrk' | 'node'
}

/** A B A B …: what the machine does to one, it does to the other soon after. */
const takeTurns = async (targets: readonly Target[], { options, place, generator }: Turns): Promise<Row[]> => {
  const { rounds, seconds } = options
  const rows: (Row & { readonly rounds: Measured[] })[] = []
  for (const clients of options.clients) {
    const these = targets
      .filter(({ name }) => isWanted(options, name))
      .map((target) => ({
        target,
        row: { target: target.name, title: target.title, version: target.version, clients, rounds: [] as Measured[] },
      }))
    for (let round = 0; round < rounds; round += 1) {
      for (const { target, row } of these) {
        // The compiler of Node is done with us after some 30,000 certificates.
        const warmUpSeconds = round === 0 ? 15 : 1
        const measured = await measureInPeace(target, { place, generator, clients, seconds, warmUpSeconds })
        row.rounds.push(measured)
        tell(
          `${clients} clients, round ${round + 1}: ${target.title} ${Math.round(measured.perSecond)}/s, p99 ${measured.p99.toFixed(1)} ms ${measured.faults.join('; ')}`,
        )
      }
    }
    rows.push(...these.map(({ row }) => row))
  }
  return rows
}

/** Once more, up to twice, where a neighbour took much of the machine; the quietest counts. Alike for every target. */
const measureInPeace = async (target: Target, plan: Plan): Promise<Measured> => {
  let best = await measure(target, plan)
  for (let again = 0; best.foreign > noisy && again < 2; again += 1) {
    tell(`other programs took ${Math.round(100 * best.foreign)} % of the machine: ${target.title} once more`)
    const next = await measure(target, { ...plan, warmUpSeconds: 1 })
    if (next.foreign < best.foreign) best = next
  }
  return best
}

const floorOf = async ({ seconds }: Options): Promise<Floor> => {
  tell('the crypto floor')
  return measureFloor(Math.min(seconds, 5))
}

const startsOf = async ({ rounds }: Options, place: Place, sample: SampleRequest): Promise<number[]> => {
  const starts: number[] = []
  for (let round = 0; round < Math.min(rounds, 3); round += 1) {
    starts.push(await measureStart(place, sample, round))
    tell(`npm start to the first certificate: ${starts.at(-1)?.toFixed(2)} s`)
  }
  return starts
}

const searchesOf = async ({ certificates }: Options, place: Place): Promise<SearchRow[]> =>
  measureSearches(place, certificates, tell)

/** Those of a run with other flags than `npm start` has are no results. */
const keep = async (results: Results, report: string): Promise<void> => {
  const { profile, nodeFlags } = results.options
  if (profile || nodeFlags.length > 0) return
  const folder = join(import.meta.dirname, 'results')
  const name = results.at.slice(0, 16).replace('T', '-').replace(':', '')
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, `${name}.json`), encodeResults(results))
  await writeFile(join(folder, `${name}.md`), `${report}\n`)
  tell(`kept as bench/results/${name}.md and .json`)
}

const tell = (line: string): void => {
  process.stderr.write(`bench: ${line}\n`)
}

const main = async (argv: readonly string[]): Promise<number> => {
  if (argv.includes('--help')) {
    console.log(usage)
    return 0
  }
  let options: Options
  try {
    options = parseOptions(argv)
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}`)
    return 2
  }
  const place = await openPlace()
  const leave = (): void => void place.close().finally(() => process.exit(130))
  process.once('SIGINT', leave)
  try {
    const results = await run(options, place)
    const report = renderReport(results)
    console.log(report)
    await keep(results, report)
    return hasFaults(results) ? 1 : 0
  } finally {
    process.off('SIGINT', leave)
    await place.close()
  }
}

/** Share of the machine. */
const noisy = 0.1
/** Only when named. */
const parts = ['chancery-livez', 'chancery-explain']
const profileFlags = ['--cpu-prof', '--cpu-prof-dir=/tmp/chancery-profile']

process.exitCode = await main(process.argv.slice(2))

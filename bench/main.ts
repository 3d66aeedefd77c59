/**
 * `npm run bench`: Chancery beside its peers, on one machine, in one run, by the same load. docs/performance.md says what
 * the figures mean. Results are kept under bench/results/; commit those of a quiet machine.
 */
import { resolve } from 'node:path'

import { type Floor, measureFloor } from './floor.ts'
import { benchIdentities } from './identities.ts'
import { keepResults, type Outcome } from './keep.ts'
import { benchKeys } from './keys.ts'
import { benchKubernetes } from './kubernetes.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine, storedOctets } from './machine.ts'
import { flagsOf, type Options, parseOptions, usage } from './options.ts'
import { openPlace, type Place } from './place.ts'
import { encodeResults, hasFaults, type Results, type Row, renderReport } from './report.ts'
import { benchRevocation } from './revocation.ts'
import { benchRoll } from './roll.ts'
import { makeSample } from './sample.ts'
import { measureStart } from './startup.ts'
import { cfsslVersion, openCfssl } from './targets/cfssl.ts'
import { openChancery, partsOf, withKeys } from './targets/chancery.ts'
import { openStepCa } from './targets/step-ca.ts'
import type { SampleRequest, Target } from './targets/target.ts'
import { tell } from './tell.ts'
import { takeTurns } from './turns.ts'

/** Chancery beside its peers. */
const benchAll = async (options: Options, place: Place): Promise<Outcome> => {
  const results = await run(options, place)
  return {
    at: results.at,
    json: encodeResults(results),
    report: renderReport(results),
    isFaulty: hasFaults(results),
  }
}

const run = async (options: Options, place: Place): Promise<Results> => {
  const sample = await makeSample(place.folder)
  const generator = pickGenerator(options.generator)
  const at = new Date().toISOString()
  const machine = await describeMachine(place.folder, await place.createDatabase('machine'), generator)
  // Before the load: what reads our sources for the first time keeps 45 MB for it as long as it runs.
  const starts = isWanted(options, 'start') ? await startsOf(options, place, sample) : []
  const { targets, notRun } = await openTargets(options, place, sample)
  let rows: readonly Row[] = []
  let stored: number | undefined
  try {
    rows = await takeTurns(
      targets.filter(({ name }) => name === 'base' || isWanted(options, name)),
      { options, place, generator },
    )
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
    starts,
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
    const nodeFlags = flagsOf(options)
    const chancery = await openChancery({ place, sample, nodeFlags })
    targets.push(chancery)
    if (wanted('chancery-keys')) targets.push(withKeys(chancery))
    if (options.only?.some((name) => parts.includes(name))) targets.push(...partsOf(chancery))
  }
  if (options.base !== undefined)
    targets.push(
      await openChancery({ place, sample, name: 'base', title: 'Chancery, base', root: resolve(options.base) }),
    )
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

const main = async (argv: readonly string[]): Promise<number> => {
  if (argv.includes('--help')) {
    console.log(usage)
    return 0
  }
  const named = benches[argv[0] ?? '']
  const [bench, args] = named ? [named, argv.slice(1)] : [benchAll, argv]
  let options: Options
  try {
    options = parseOptions(args)
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}`)
    return 2
  }
  const place = await openPlace()
  const leave = (): void => void place.close().finally(() => process.exit(130))
  process.once('SIGINT', leave)
  try {
    const outcome = await bench(options, place)
    console.log(outcome.report)
    // Those of a run with other flags than `npm start` has are no results.
    if (!options.profile && options.nodeFlags.length === 0) await keepResults(outcome)
    return outcome.isFaulty ? 1 : 0
  } finally {
    process.off('SIGINT', leave)
    await place.close()
  }
}

const benches: Readonly<Record<string, typeof benchAll>> = {
  identities: benchIdentities,
  keys: benchKeys,
  kubernetes: benchKubernetes,
  revocation: benchRevocation,
  roll: benchRoll,
}
/** Only when named. */
const parts = ['chancery-livez', 'chancery-explain']

process.exitCode = await main(process.argv.slice(2))

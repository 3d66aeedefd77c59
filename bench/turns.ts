/** Targets under load, in turn. */
import { type Measured, measure, type Plan } from './measure.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import type { Row } from './report.ts'
import type { Target } from './targets/target.ts'
import { tell } from './tell.ts'

export interface Turns {
  readonly options: Pick<Options, 'rounds' | 'seconds' | 'clients'>
  readonly place: Place
  readonly generator: 'wrk' | 'node'
}

/** A B A B …: what the machine does to one, it does to the other soon after. */
export const takeTurns = async (targets: readonly Target[], { options, place, generator }: Turns): Promise<Row[]> => {
  const { rounds, seconds } = options
  const rows: (Row & { readonly rounds: Measured[] })[] = []
  for (const clients of options.clients) {
    const these = targets.map((target) => ({
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

/** Share of the machine. */
const noisy = 0.1

/** `npm run bench -- roll`: what the roll costs and gives, part by part. */
import type { Outcome } from './keep.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine } from './machine.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import { machineLines } from './report.ts'
import { searchText } from './search/report.ts'
import { measureSearch } from './search/search.ts'
import { tell } from './tell.ts'

export const benchRoll = async (options: Options, place: Place): Promise<Outcome> => {
  const at = new Date().toISOString()
  const machine = await describeMachine(
    place.folder,
    await place.createDatabase('machine'),
    pickGenerator(options.generator),
  )
  const isWanted = (part: string): boolean => options.only === undefined || options.only.includes(part)
  const { nodeFlags, profile } = options
  const search = isWanted('search')
    ? await measureSearch(
        place,
        {
          certificates: options.certificates || 1_000_000,
          nodeFlags: [...nodeFlags, ...(profile ? profileFlags : [])],
        },
        tell,
      )
    : undefined
  const results = { at, machine, options, rows: [], search }
  return {
    at,
    suffix: '-roll',
    json: `${JSON.stringify(results, (_key, value) => (typeof value === 'number' ? Math.round(value * 1e6) / 1e6 : value), 1)}\n`,
    report: [
      `# Benchmark of the roll of ${at.slice(0, 16).replace('T', ' ')} UTC`,
      `${machineLines(results)}\nLoad of the machine before: ${machine.loadBefore.toFixed(2)}.`,
      ...(search ? searchText(search) : []),
    ].join('\n\n'),
    isFaulty: false,
  }
}

const profileFlags = ['--cpu-prof', '--cpu-prof-dir=/tmp/chancery-profile']

/** `npm run bench -- roll`: what the roll costs and gives, part by part. */
import type { Outcome } from './keep.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine } from './machine.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import { hasFaults, machineLines, plainRound } from './report.ts'
import { treeText, verifyText } from './roll/report.ts'
import { measureTree } from './roll/tree.ts'
import { measureVerify } from './roll/verify.ts'
import { makeSample } from './sample.ts'
import { searchText } from './search/report.ts'
import { measureSearch } from './search/search.ts'
import { tell } from './tell.ts'

export const benchRoll = async (options: Options, place: Place): Promise<Outcome> => {
  const at = new Date().toISOString()
  const generator = pickGenerator(options.generator)
  const machine = await describeMachine(place.folder, await place.createDatabase('machine'), generator)
  const isWanted = (part: string): boolean => options.only === undefined || options.only.includes(part)
  const { nodeFlags, profile, certificates } = options
  const flags = [...nodeFlags, ...(profile ? profileFlags : [])]
  const search = isWanted('search')
    ? await measureSearch(place, { certificates: certificates || 1_000_000, nodeFlags: flags }, tell)
    : undefined
  const sample = await makeSample(place.folder)
  const audited = { place, sample, generator, certificates: certificates || 100_000, tell }
  const verify = isWanted('verify') ? await measureVerify(audited) : []
  const tree = isWanted('tree') ? await measureTree({ options, place, sample, generator }) : []
  const plain = tree.map((row) => ({ ...row, rounds: row.rounds.map(plainRound) }))
  return {
    at,
    suffix: '-roll',
    json: `${JSON.stringify({ at, machine, options, rows: [], search, verify, tree: plain }, rounded, 1)}\n`,
    report: [
      `# Benchmark of the roll of ${at.slice(0, 16).replace('T', ' ')} UTC`,
      `${machineLines({ machine, rows: [] })}\nLoad of the machine before: ${machine.loadBefore.toFixed(2)}.`,
      ...(search ? searchText(search) : []),
      ...(verify.length > 0 ? verifyText(verify) : []),
      ...(tree.length > 0 ? treeText(tree) : []),
    ].join('\n\n'),
    isFaulty: hasFaults({ rows: tree }),
  }
}

const rounded = (_key: string, value: unknown): unknown =>
  typeof value === 'number' ? Math.round(value * 1e6) / 1e6 : value

const profileFlags = ['--cpu-prof', '--cpu-prof-dir=/tmp/chancery-profile']

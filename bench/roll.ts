/** `npm run bench -- roll`: what the roll costs and gives, part by part. */
import { encodeKept, type Outcome } from './keep.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine } from './machine.ts'
import { flagsOf, type Options } from './options.ts'
import type { Place } from './place.ts'
import { hasFaults, machineLines, plainRows } from './report.ts'
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
  const { certificates } = options
  const search = isWanted('search')
    ? await measureSearch(place, { certificates: certificates || 1_000_000, nodeFlags: flagsOf(options) }, tell)
    : undefined
  const sample = await makeSample(place.folder)
  const audited = { place, sample, generator, certificates: certificates || 100_000, tell }
  const verify = isWanted('verify') ? await measureVerify(audited) : []
  const tree = isWanted('tree') ? await measureTree({ options, place, sample, generator }) : []
  return {
    at,
    suffix: '-roll',
    json: encodeKept({ at, machine, options, rows: [], search, verify, tree: plainRows(tree) }),
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

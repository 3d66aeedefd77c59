/**
 * `npm run bench -- revocation`: how fast relying parties are answered, what publishing lists costs at sizes that nobody
 * wishes for, how long a revocation takes to arrive, and how many go at once; all in one run, with the bounds beside them.
 */
import { encodeKept, type Outcome } from './keep.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine } from './machine.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import { measureAnswers } from './revocation/answers.ts'
import { measureArrival } from './revocation/arrival.ts'
import { measureLists } from './revocation/lists.ts'
import { measureMany } from './revocation/many.ts'
import { type RevocationResults, renderRevocationReport } from './revocation/report.ts'
import { makeSample } from './sample.ts'
import { tell } from './tell.ts'

export const benchRevocation = async (options: Options, place: Place): Promise<Outcome> => {
  const at = new Date().toISOString()
  const generator = pickGenerator(options.generator)
  const machine = await describeMachine(place.folder, await place.createDatabase('machine'), generator)
  const sample = await makeSample(place.folder, { name: 'n000000000.example.com' })
  const isWanted = (part: string): boolean => options.only === undefined || options.only.includes(part)
  const plan = { options, place, sample, generator, tell }
  const results: RevocationResults = {
    at,
    machine,
    options,
    answers: isWanted('answers') ? await measureAnswers(plan) : [],
    arrival: isWanted('arrival') ? await measureArrival(plan) : undefined,
    lists: isWanted('lists') ? await measureLists(plan) : [],
    many: isWanted('many') ? await measureMany(plan) : undefined,
  }
  return {
    at,
    suffix: '-revocation',
    json: encodeKept(results),
    report: renderRevocationReport(results),
    isFaulty: results.answers.some(({ faults }) => faults > 0) || results.many?.isSound === false,
  }
}

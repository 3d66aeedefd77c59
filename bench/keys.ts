/**
 * `npm run bench -- keys`: what it costs where the key is. Signatures by provider and algorithm, issuance by where its
 * key is, a module that takes its time; all in one run, with the bounds beside them.
 */

import type { Outcome } from './keep.ts'
import { measureIssuance } from './keys/issuance.ts'
import { measureLatency, measureLoop } from './keys/latency.ts'
import { encodeKeyResults, type KeyResults, renderKeyReport } from './keys/report.ts'
import { measureSignatures } from './keys/signatures.ts'
import { openTokens } from './keys/tokens.ts'
import { pickGenerator } from './load/load.ts'
import { describeMachine } from './machine.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import { hasFaults } from './report.ts'
import { tell } from './tell.ts'

export const benchKeys = async (options: Options, place: Place): Promise<Outcome> => {
  const at = new Date().toISOString()
  const tokens = await openTokens(place)
  const isWanted = (part: string): boolean => options.only === undefined || options.only.includes(part)
  const plan = { place, folder: place.folder, tokens, seconds: options.seconds, tell }
  try {
    const machine = await describeMachine(
      place.folder,
      await place.createDatabase('machine'),
      pickGenerator(options.generator),
    )
    const results: KeyResults = {
      at,
      machine,
      options,
      rows: isWanted('issuance') ? await measureIssuance(options, place, tokens) : [],
      signatures: isWanted('signatures') ? await measureSignatures(plan) : [],
      latencies: isWanted('latency') ? await measureLatency(plan) : [],
      loop: isWanted('loop') ? await measureLoop(plan) : undefined,
    }
    return {
      at,
      suffix: '-keys',
      json: encodeKeyResults(results),
      report: renderKeyReport(results),
      isFaulty: hasFaults(results),
    }
  } finally {
    await tokens.close()
  }
}

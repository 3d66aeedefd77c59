/**
 * `npm run bench -- identities`: what it costs to know who asks. The same issuance by the same principal, with a token of
 * ours, a token of an identity provider and a client certificate, and with a new connection for each request; in turns in
 * one run. wrk shows no certificates, so the generator in Node makes the load of all of them.
 */
import { identitiesText } from './identities/report.ts'
import { openIdentities } from './identities/targets.ts'
import { encodeKept, type Outcome } from './keep.ts'
import { describeMachine } from './machine.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import { hasFaults, machineLines, plainRows } from './report.ts'
import { makeSample } from './sample.ts'
import { takeTurns } from './turns.ts'

export const benchIdentities = async (options: Options, place: Place): Promise<Outcome> => {
  const at = new Date().toISOString()
  const generator = 'node'
  const machine = await describeMachine(place.folder, await place.createDatabase('machine'), generator)
  const { targets, close } = await openIdentities(place, await makeSample(place.folder))
  try {
    const wanted = targets.filter(({ name }) => options.only === undefined || options.only.includes(name))
    const rows = await takeTurns(wanted, { options, place, generator })
    return {
      at,
      suffix: '-identities',
      json: encodeKept({ at, machine, options, rows: plainRows(rows) }),
      report: [
        `# Benchmark of identities of ${at.slice(0, 16).replace('T', ' ')} UTC`,
        `${machineLines({ machine, rows: [] })}\nLoad by the generator in Node on the same ${machine.cores} cores; ${options.rounds} rounds of ${options.seconds} s in turn, medians. Load of the machine before: ${machine.loadBefore.toFixed(2)}.`,
        ...identitiesText(rows),
      ].join('\n\n'),
      isFaulty: hasFaults({ rows }),
    }
  } finally {
    await close()
  }
}

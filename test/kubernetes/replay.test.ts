/** Every recorded exchange again, against the double: what it answers must be what the real server answered. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import t from 'tap'

import { loadExchanges, folder as recordings, sightingsIn, versionsBefore } from './recordings.ts'
import { replay } from './replay.ts'

for (const release of ['1.36', '1.34'] as const) {
  const exchanges = loadExchanges(release)
  const sightings = sightingsIn(exchanges)
  const versions = versionsBefore(exchanges)
  for (const folder of new Set(exchanges.map(({ name }) => name.split('/')[0]))) {
    t.test(`${release} ${folder}`, async (t) => {
      for (const exchange of exchanges.filter(({ name }) => name.split('/')[0] === folder)) {
        const { got, wanted } = await replay(exchange, { sightings, version: versions.get(exchange) ?? 1, exchanges })
        t.strictSame(got, wanted, exchange.name)
      }
    })
  }
}

t.test('the index names the same exchanges', async (t) => {
  const [, ...rows] = readFileSync(join(recordings, 'INDEX.tsv'), 'utf8').trim().split('\n')
  const replayed = (['1.36', '1.34'] as const).flatMap((release) =>
    loadExchanges(release).map(({ name }) => `v${release}/${name}.json`),
  )
  t.strictSame(replayed.toSorted(), rows.map((row) => row.split('\t')[0] ?? '').toSorted())
})

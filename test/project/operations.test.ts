/** What docs/operations.md says of the metrics is what there is. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { metricTable } from '../../src/metrics.ts'

t.test('docs/operations.md names every metric with its labels, and no other', async (t) => {
  const page = await readFile(join(import.meta.dirname, '../../docs/operations.md'), 'utf8')
  const named = [...page.matchAll(/^\| `(chancery_\w+)` \| (.+) \|$/gm)].map(([, name, labels = '']) => [
    name,
    [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label),
  ])
  t.same(
    named,
    Object.entries(metricTable).map(([name, { labels }]) => [name, [...labels]]),
  )
})

/** Who copies the roll: a row when the first bundle of entries is asked for, and one when no more are. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import type { Access } from '../../src/ca/access/access-log.ts'
import { Problem } from '../../src/errors.ts'
import { openCopies } from '../../src/http/copies.ts'
import { openStores } from '../../src/server/stores.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employ } from './people.ts'

const openCopying = (record?: (access: Access) => Promise<string>) => {
  const rows: Access[] = []
  const lines: object[] = []
  const clock = { ms: 50_000_000 }
  const copies = openCopies({
    record: record ?? (async (access) => `row ${rows.push(access)}`),
    log: { ...quiet, error: (line: object) => void lines.push(line) },
    now: () => clock.ms,
  })
  return { copies, rows, lines, clock }
}

t.test('bundles of one after the other, and beside each other, are one copy', async (t) => {
  const { copies, rows, clock } = openCopying()
  await Promise.all([0, 1, 2].map((i) => copies.note('eve', { from: i * 256, before: (i + 1) * 256, size: 900 })))
  clock.ms += 59_000
  await copies.note('eve', { from: 768, before: 901, size: 901 })
  await copies.sweep()
  t.match(rows, [{ principal: 'eve', act: 'began', records: 'events', format: 'tiles', rows: null, export: null }])
  t.equal(rows.length, 1, 'it goes on')
  clock.ms += 60_000
  await Promise.all([copies.sweep(), copies.sweep()])
  t.same(rows[1], {
    principal: 'eve',
    act: 'completed',
    records: 'events',
    filter: { fromIndex: '0', beforeIndex: '901' },
    continues: false,
    format: 'tiles',
    size: 901,
    rows: 901,
    export: 'row 1',
  })
  t.equal(rows.length, 2)
})

t.test('of two principals there are two; one that never ends has an end each hour', async (t) => {
  const { copies, rows, clock } = openCopying()
  await copies.note('eve', { from: 0, before: 256, size: 256 })
  await copies.note('mallory', { from: 0, before: 1, size: 256 })
  for (const end = clock.ms + 3_600_000; clock.ms < end; clock.ms += 30_000) {
    await copies.note('eve', { from: 255, before: 256, size: 256 })
    await copies.sweep()
  }
  await copies.sweep()
  t.same(
    rows.map(({ principal, act }) => `${principal} ${act}`),
    ['eve began', 'mallory began', 'mallory completed', 'eve completed'],
  )
})

t.test('where no row can be written, entries are served, the log has it, and it is tried again', async (t) => {
  let isAway = true
  const acts: string[] = []
  const { copies, lines, clock } = openCopying(async ({ act }) => {
    if (isAway) throw new Problem('db.unavailable', 'away')
    return `row ${acts.push(act)}`
  })
  for (let i = 0; i < 100; i++) await copies.note('eve', { from: i * 256, before: (i + 1) * 256, size: 90_000 })
  t.match(lines, [{ event: 'access.unrecorded', principal: 'eve', act: 'began', format: 'tiles' }])
  t.equal(lines.length, 1)
  isAway = false
  clock.ms += 11_000
  for (const i of [100, 101]) await copies.note('eve', { from: i * 256, before: (i + 1) * 256, size: 90_000 })
  t.same(acts, ['began'])
  isAway = true
  await copies.note('mallory', { from: 0, before: 256, size: 90_000 })
  t.equal(lines.length, 2)
  isAway = false
  await copies.close()
  t.same(acts, ['began', 'completed'], 'what has no beginning on record has no end there')
  t.equal(lines.length, 2)
})

t.test('a stop waits for the end of a copy that is being written', async (t) => {
  const acts: string[] = []
  const { copies, clock } = openCopying(async ({ act }) => {
    if (act === 'completed') await sleep(200)
    acts.push(act)
    return 'row'
  })
  await copies.note('eve', { from: 0, before: 256, size: 256 })
  clock.ms += 60_000
  void copies.sweep()
  await copies.close()
  t.same(acts, ['began', 'completed'])
})

slowTest('docs/auditing.md: an auditor who copies the roll is found among the accesses', async (t) => {
  const service = await openTestService(t)
  const auditor = await employ(service, 'eve', 'auditor')
  const read = (path: string, method = 'GET') => service.request(method, path, { token: auditor })
  const copiesOf = async () =>
    (await read('/v1/accesses?principal=eve&records=events')).json.items.filter(
      ({ format }: { readonly format: string }) => format === 'tiles',
    )
  while ((await read('/roll/tile/entries/000.p/5')).status === 404) await sleep(100)
  for (const path of ['/roll/checkpoint', '/roll/tile/0/000.p/5']) t.equal((await read(path)).status, 200)
  t.match(await copiesOf(), [
    { act: 'began', filter: { fromIndex: '0', beforeIndex: '5' }, rows: null, export: null, continues: false },
  ])
  await read('/roll/tile/entries/000.p/3')
  const found = await copiesOf()
  t.equal(found.length, 1, 'hashes say nothing, and what goes on has no row')
  const csv = await service.request('GET', '/v1/accesses', { token: auditor, headers: { accept: 'text/csv' } })
  t.match(csv.text, /"tiles"/)

  const stores = await openStores({ config: service.config, databaseUrl: service.database.servingUrl, log: quiet })
  t.teardown(stores.close)
  const end = async () =>
    (await (await stores.accesses.walk({ principal: 'eve', act: 'completed' })).page(10)).items.filter(
      ({ format }) => format === 'tiles',
    )
  t.same(await end(), [])
  await service.service.close()
  t.match(await end(), [{ rows: 8, export: found[0].id, filter: { fromIndex: '0', beforeIndex: '5' } }])
})

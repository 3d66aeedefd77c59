/** Searches of what is not kept for ever, before and after it was dropped: what is gone is told. */
import pg from 'pg'
import t from 'tap'

import { maintain } from '../../src/cli/migrate.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'

const service = await openTestService(t)
const other = await openTestService(t, {}, service)
const owner = new pg.Client({ connectionString: service.database.ownerUrl })

t.before(() => owner.connect())
t.teardown(() => owner.end())

/** So many refusals of each of these months ago, each in a month of its own. */
const refuse = async (months: readonly number[], count: number): Promise<void> => {
  await owner.query(
    `insert into refusals (id, at, principal, code, digest, detail, violations)
      select gen_random_uuid(), date_trunc('month', now(), 'UTC') - make_interval(months => m) + make_interval(secs => i), 'old',
        'csr.pem', decode(repeat('ab', 32), 'hex'), '', '[]' from unnest($1::integer[]) m, generate_series(1, $2) i`,
    [months, count],
  )
  await owner.query(`select maintain_refusals('3650 days')`)
}

/** The first of the month so many months ago, by the database. */
const month = async (ago: number): Promise<string> => {
  const text = `select date_trunc('month', now(), 'UTC') - make_interval(months => $1) as at`
  const { rows } = await owner.query<{ at: Date }>(text, [ago])
  return rows[0]?.at.toISOString() ?? ''
}

const drop = () => Promise.all([service, other].map(({ config }) => maintain(service.database.ownerUrl, config, quiet)))

t.test('a page and an export tell from when on there is anything, and a cursor leads no further', async (t) => {
  await refuse([6, 7], 20)
  const first = (await service.request('GET', '/v1/refusals?principal=old&limit=5')).json
  t.match(first, { keptFrom: await month(7), counted: 0 })
  t.equal(first.items.length, 5)
  await drop()
  const second = await other.request('GET', `/v1/refusals?principal=old&limit=5&cursor=${first.next}`)
  t.match(second, { status: 200, json: { items: { length: 0 }, next: undefined, keptFrom: undefined } })
  const asked = `/v1/refusals?after=${await month(8)}&before=${await month(5)}`
  t.match((await other.request('GET', asked)).json, { items: { length: 0 }, keptFrom: await month(1) })
  const { text } = await other.request('GET', asked, { headers: { accept: 'application/x-ndjson' } })
  t.match(JSON.parse(text), { end: { complete: true, rows: 0, keptFrom: await month(1) } })
  t.match((await service.request('GET', '/v1/accesses')).json, { keptFrom: await month(1) })
  const roll = (await service.request('GET', '/v1/events?limit=1')).json
  t.notOk(Object.hasOwn(roll, 'keptFrom'), 'the roll is kept for ever')
})

import t from 'tap'

import type { CertificateFilter } from '../../src/ca/records.ts'
import type { Database, Statement } from '../../src/db/database.ts'
import { openShapes } from '../../src/db/search/prepared.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { codec } from '../../src/server/codec.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { drill } from '../helpers/drill.ts'
import { openTestStores } from './stores.ts'

t.test('so many shapes are prepared, and no more', async (t) => {
  const shape = openShapes(2)
  const [first, second] = [shape('select 1'), shape('select 2')]
  t.match(
    [first, second],
    [
      { text: 'select 1', name: 'search', pool: 'searching' },
      { text: 'select 2', name: 'search', pool: 'searching' },
    ],
  )
  t.not(first.shape, second.shape)
  t.same(shape('select 3'), { text: 'select 3' })
  t.equal(shape('select 1'), first)
  t.equal(openShapes()('select 1').shape, first.shape, 'a name means the same text, whoever prepares it')
})

drill('a search of a common shape is prepared once, whatever its values; others are not', async (t) => {
  const { stores, issue } = await openTestStores(t)
  await issue(['dns:a.example.com'])
  await stores.db.transaction(async (tx) => {
    const db = { ...stores.db, query: tx.query }
    const records = openRecords({ db, codec, namesOf: readNames, sentAlong: () => [] })
    const prepared = async (): Promise<number> => {
      const { rows } = await tx.query<{ n: number }>({
        text: `select count(*)::integer as n from pg_prepared_statements where name like 'search%'`,
      })
      return rows[0]?.n ?? 0
    }
    const before = await prepared()
    for (const principal of ['admin', 'nobody']) await (await records.walk.certificates({ principal })).page(100)
    const after = await prepared()
    t.ok(after > before && after <= before + 2, `${after - before} statements for one shape`)
    await (await records.walk.certificates({ principal: 'admin' })).page(17)
    await (await records.walk.certificates({ principal: 'admin', originUser: 'ann' })).page(100)
    t.equal(await prepared(), after)
  })
})

drill(
  'an issuer alone, which leads two indexes, keeps plans for its values; other lists have them for any',
  async (t) => {
    const { stores, issue } = await openTestStores(t)
    await issue(['dns:a.example.com'])
    const asked: Statement[] = []
    const query: Database['query'] = (statement, values) => {
      if (statement.name === 'search') asked.push(statement)
      return stores.db.query(statement, values)
    }
    const records = openRecords({ db: { ...stores.db, query }, codec, namesOf: readNames, sentAlong: () => [] })
    const isGeneric = async (filter: CertificateFilter): Promise<readonly boolean[]> => {
      asked.length = 0
      await (await records.walk.certificates(filter)).page(100)
      t.ok(asked.length > 0)
      return [...new Set(asked.map(({ pool }) => pool === 'searching'))]
    }
    for (const more of [{}, { status: 'revoked' }, { name: '*.example.com' }, { name: 'a.example.com' }] as const) {
      t.strictSame(await isGeneric({ issuer: 'default', ...more }), [false], JSON.stringify(more))
      t.strictSame(await isGeneric({ issuer: 'default', profile: 'server', ...more }), [true], JSON.stringify(more))
      t.strictSame(await isGeneric({ issuer: 'default', principal: 'admin', ...more }), [true], JSON.stringify(more))
    }
  },
)

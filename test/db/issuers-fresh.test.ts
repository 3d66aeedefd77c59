/** What anybody may ask for costs the database little, and what was brought a moment ago is there. */
import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import type { Records } from '../../src/ca/records.ts'
import type { Database } from '../../src/db/database.ts'
import { selectIssuers } from '../../src/db/issuers.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { Problem } from '../../src/errors.ts'
import { codec } from '../../src/server/codec.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { openReplica } from '../helpers/replica.ts'
import { tamper } from '../helpers/tamper.ts'

/** Its records, over a database that counts how often issuers are read, and can be away or silent. */
const open = async (t: Test) => {
  const { stores, database } = await openReplica(t)
  const state = { reads: 0, atOnce: 0, most: 0, until: Promise.resolve(), fault: undefined as Problem | undefined }
  const query: Database['query'] = async (statement, values) => {
    if (statement.text !== selectIssuers.text) return stores.db.query(statement, values)
    state.reads += 1
    state.atOnce += 1
    state.most = Math.max(state.most, state.atOnce)
    try {
      await state.until
      if (state.fault) throw state.fault
      return await stores.db.query(statement, values)
    } finally {
      state.atOnce -= 1
    }
  }
  const records = openRecords({ db: { ...stores.db, query }, codec, namesOf: readNames, sentAlong: () => [] })
  const bring = (name: string) =>
    tamper(
      database,
      `insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
         select '${name}', authority, certificate || '\\x00', chain, key_uri, public_url, shards from issuers limit 1`,
      `insert into issuer_states (issuer, state, by) values ('${name}', 'staged', 'test')`,
    )
  return { state, records, bring }
}
const names = async (records: Records, as?: 'fresh') => (await records.issuers(as)).map(({ name }) => name)

t.test('who asks for issuers afresh sees what was brought before, though others have just read them', async (t) => {
  const { records, bring } = await open(t)
  t.notOk((await names(records)).includes('brought'))
  await bring('brought')
  t.ok((await names(records, 'fresh')).includes('brought'))
  t.ok((await names(records)).includes('brought'), 'and so does everybody then')
})

t.test('who does not shares a read for a second', async (t) => {
  const { records, state } = await open(t)
  let ms = performance.now()
  mock.method(performance, 'now', () => ms)
  t.teardown(() => mock.restoreAll())
  await Promise.all([names(records), names(records)])
  ms += 999
  await names(records)
  t.equal(state.reads, 1)
  ms += 1
  await names(records)
  t.equal(state.reads, 2)
})

t.test('a crowd that asks afresh shares reads: one at a time, ten a second', async (t) => {
  const { records, state, bring } = await open(t)
  const gate = Promise.withResolvers<void>()
  state.until = gate.promise
  const first = names(records, 'fresh')
  await sleep(1)
  t.equal(state.reads, 1, 'the first waits for nobody')
  const crowd = Array.from({ length: 1_000 }, () => names(records, 'fresh'))
  await sleep(200)
  t.equal(state.reads, 1)
  await bring('late')
  gate.resolve()
  await first
  t.ok(
    (await Promise.all(crowd)).every((all) => all.includes('late')),
    'by a read that began after they had asked',
  )
  t.equal(state.reads, 2)
  const started = performance.now()
  for (let asked = 0; asked < 5; asked += 1) await names(records, 'fresh')
  t.equal(state.reads, 7)
  t.ok(performance.now() - started >= 300, 'however fast it is asked')
  t.equal(state.most, 1)
})

t.test('a read that fails is told to those who wait for it, and the next one reads again', async (t) => {
  const { records, state } = await open(t)
  state.fault = new Problem('db.unavailable', 'away')
  await t.rejects(names(records, 'fresh'), { code: 'db.unavailable' })
  await t.rejects(Promise.all([names(records, 'fresh'), names(records, 'fresh')]), { code: 'db.unavailable' })
  t.equal(state.reads, 2)
  await t.rejects(names(records), { code: 'db.unavailable' })
  state.fault = undefined
  t.ok((await names(records)).includes('default'))
  t.ok((await names(records, 'fresh')).includes('default'))
})

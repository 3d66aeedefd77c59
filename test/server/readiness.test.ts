import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { openDatabase } from '../../src/db/database.ts'
import { openTurnedDown } from '../../src/db/write-failures.ts'
import { databaseFault } from '../../src/server/readiness.ts'
import { openService } from '../../src/server/service.ts'
import { openOwnEmbedded } from '../helpers/embedded.ts'
import { quiet as log } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { tamper } from '../helpers/tamper.ts'
import { csrFor } from '../http/people.ts'

t.test('a database whose commits wait for a standby that is gone takes no records, though it answers', async (t) => {
  // A server of its own: the setting is for all who use it.
  const { ownerUrl: url, superuserUrl } = await openOwnEmbedded(t)
  const superuser = await openSql(t, superuserUrl)
  const db = openDatabase({ url, max: 2, log, applicationName: 'test' })
  t.teardown(db.close)
  const standby = async (name: string): Promise<void> => {
    await superuser.query(`alter system set synchronous_standby_names = '${name}'`)
    await superuser.query('select pg_reload_conf()')
    while ((await superuser.query('show synchronous_standby_names')).rows[0].synchronous_standby_names !== name)
      await sleep(20)
  }
  // Who waits for a commit does not end, and neither does whoever waits for that one.
  t.teardown(() => standby(''))
  const fault = () => databaseFault({ db, turnedDown: openTurnedDown(), roll: { head: async () => ({}) as never } })
  await db.query({ text: 'create table things (n int)' })
  await standby('gone')
  const writing = db.query({ text: 'insert into things values (1)' })
  t.equal(await fault(), undefined, 'each commit waits for a while')
  const since = performance.now()
  let told = await fault()
  for (; told === undefined && performance.now() - since < 20_000; told = await fault()) await sleep(100)
  t.match(told, /^commits wait for a synchronous standby: .* synchronous_standby_names/)
  await standby('')
  await writing
  t.equal(await fault(), undefined)
})

slowTest('a database that issues nothing because files of its own are damaged takes no records', async (t) => {
  const { database, config, stores, keys } = await openReplica(t)
  const service = await openService(stores, keys)
  t.teardown(service.close)
  const token = (await readFile(join(config.dataDir, 'admin.token'), 'utf8')).trim()
  const headers = { authorization: `Bearer ${token}` }
  const issue = async () => {
    const payload = { csr: csrFor('damaged.example.com'), profile: 'server' }
    return (await service.app.inject({ method: 'POST', url: '/v1/certificates', headers, payload })).statusCode
  }
  const fileOf = async (index: string): Promise<number> => {
    const text = 'select relfilenode::integer as file from pg_class where relname = $1'
    return (await stores.db.query<{ file: number }>({ text }, [index])).rows[0]?.file ?? 0
  }
  const another = await fileOf('profiles')
  for (const index of ['certificates_of_key', 'intents_pkey', 'outcomes_entry_key']) {
    const file = await fileOf(index)
    const put = (file: number) =>
      tamper(database, `update pg_class set relfilenode = ${file} where relname = '${index}'`)
    t.equal(await issue(), 201, index)
    await put(another)
    t.equal(await issue(), 503, index)
    t.match(await databaseFault(stores), /^the database finds files of its own damaged/, index)
    await put(file)
    t.equal(await issue(), 201, index)
    t.equal(await databaseFault(stores), undefined, index)
  }
  const { body } = await service.app.inject({ url: '/metrics', headers })
  t.match(body, /faults_total\{statement="enrol"\} 2\n/, 'one try each: no second one would mend it')
})

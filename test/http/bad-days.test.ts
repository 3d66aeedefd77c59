/** The roll of a service that runs: its records are set back under it, and its disk is full. */
import t, { type Test } from 'tap'

import { openStores } from '../../src/server/stores.ts'
import { parseCheckpoint } from '../../src/tlog/checkpoint.ts'
import { parseNote } from '../../src/tlog/note.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { setBackTo, tamper } from '../helpers/tamper.ts'
import { csrFor, employ } from './people.ts'

const service = await openTestService(t)
const stores = await openStores({ config: service.config, databaseUrl: service.database.servingUrl, log: quiet })
t.teardown(async () => {
  stores.policies.close()
  await stores.db.close()
})

const csr = csrFor('web.example.com')
const issue = (key?: string) =>
  service.request('POST', '/v1/certificates', {
    body: { csr, profile: 'server' },
    ...(key !== undefined && { headers: { 'idempotency-key': key } }),
  })
/** What readiness says of the roll, once it is red or green. */
const rollCheck = async (ok: boolean) => {
  for (let tries = 0; ; tries += 1) {
    const { status, json } = await service.request('GET', '/readyz')
    const check = json.checks.find(({ name }: { name: string }) => name === 'roll')
    if (check.ok === ok || tries > 200) return { ...check, status }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
const tables = [
  'entries',
  'subtrees',
  'intents',
  'outcomes',
  'revocations',
  'crls',
  'profiles',
  'tokens',
  'grants',
  'roll',
]
const rows = async (): Promise<unknown> => {
  const counts = tables.map((table) => `(select count(*) from ${table}) as ${table}`)
  return (await stores.db.query({ text: `select ${counts.join(', ')}, (select size from roll) as size` })).rows
}
/** From now on the service writes nothing by itself: each list that is due has been published. */
const settled = (): Promise<void> => service.service.publishCrls()
const checkpointSize = async (): Promise<number> =>
  parseCheckpoint(parseNote((await service.request('GET', '/roll/checkpoint')).text).text).size

slowTest(
  'records that are set back under a service stop it from writing, and it goes on when they are whole',
  async (t) => {
    await settled()
    const { serial } = (await issue()).json
    await issue()
    const size = await checkpointSize()
    const keep = ['create table kept_entries as select * from entries', 'create table kept_roll as select * from roll']
    await tamper(service.database, ...keep, ...(await setBackTo(stores.db, size - 1)))
    const red = await rollCheck(false)
    t.match(red, { status: 503, reason: new RegExp(`ends at ${size - 1}, but \\d+ entries were seen before: entr`) })
    const before = await rows()
    const profile = (await service.request('GET', '/v1/profiles/server')).json
    for (const [method, path, body, headers = {}] of [
      ['POST', '/v1/certificates', { csr, profile: 'server' }],
      ['POST', `/v1/certificates/${serial}/revocation`, { reason: 'superseded' }],
      ['PUT', '/v1/profiles/other', { ...profile.document, name: 'other' }, { 'if-none-match': '*' }],
      ['POST', '/v1/principals', { name: 'somebody' }],
      ['POST', '/v1/tokens', { principal: 'admin', label: 'another' }],
    ] as const) {
      const { status, json } = await service.request(method, path, { body, headers })
      t.match({ status, ...json }, { status: 503, code: 'roll.inconsistent', retryable: true }, `${method} ${path}`)
    }
    t.equal((await service.request('GET', `/v1/certificates/${serial}`)).status, 200, 'what is there can be read')
    t.ok((await checkpointSize()) >= size, 'and the checkpoint that was told is told again')
    t.same(await rows(), before, 'nothing was written')
    await tamper(
      service.database,
      'insert into entries select * from kept_entries on conflict do nothing',
      'update roll set (size, root, time) = (select size, root, time from kept_roll)',
    )
    t.match(await rollCheck(true), { ok: true })
    t.equal((await issue()).status, 201)
    t.equal(
      (await service.request('POST', `/v1/certificates/${serial}/revocation`, { body: { reason: 'superseded' } }))
        .status,
      200,
    )
  },
)

slowTest('while the records do not say who asks, nobody waits for that as long as they might', async (t) => {
  const token = await employ(service, 'waiting', 'requester', { profiles: ['server'] })
  const owner = await openSql(t, service.database.ownerUrl)
  await owner.query('begin')
  await owner.query('lock table tokens, principals, grants in access exclusive mode')
  const answer = await service.request('POST', '/v1/certificates', { token, body: { csr, profile: 'server' } })
  // Before the lock timeout of a statement.
  t.match(answer, { status: 503, json: { code: 'overload.deadline', retryable: true } })
  await owner.query('rollback')
})

slowTest('with a full disk nothing is handed out; what was recorded is when there is room again', async (t: Test) => {
  const disk = openFullDisk()
  t.teardown(disk.free)
  await settled()
  const size = await checkpointSize()
  disk.fill(0)
  const { status, json } = await issue('one-key')
  t.match({ status, ...json }, { status: 503, code: 'roll.unanchored', retryable: true })
  t.equal(json.certificate, undefined)
  t.match(await rollCheck(false), {
    status: 503,
    reason: 'The last checkpoint could not be kept outside of the database: EFBIG: file too large, write',
  })
  const before = await rows()
  t.match((await issue('another-key')).json, { code: 'roll.unanchored' })
  t.same(await rows(), before, 'no intent is recorded that could not be answered')
  t.ok((await checkpointSize()) <= size + 1, 'no checkpoint is told that is not kept')
  disk.free()
  t.match(await rollCheck(true), { ok: true })
  const again = await issue('one-key')
  t.ok([200, 201].includes(again.status))
  t.equal(
    (await service.request('GET', '/v1/certificates?limit=100')).json.items.filter(
      ({ serial }: { serial: string }) => serial === again.json.serial,
    ).length,
    1,
  )
  t.match(again.json.proof, /^c2sp\.org\/tlog-proof@v1\n/)
})

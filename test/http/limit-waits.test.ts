/** A principal whose usage is being counted delays no other one. */
import t from 'tap'

import { openTestService } from '../helpers/service.ts'
import { openSql } from '../helpers/sql.ts'
import { csrFor, employ } from './people.ts'

const service = await openTestService(t)

const db = await openSql(t, service.database.ownerUrl)

const requester = (name: string, limits?: object) =>
  employ(service, name, 'requester', { profiles: ['server'], ...(limits && { limits }) })

const item = (idempotencyKey?: string) => ({ csr: csrFor('a.example.com'), profile: 'server', idempotencyKey })
const ask = async (token: string): Promise<number> =>
  (await service.request('POST', '/v1/certificates', { token, body: item() })).status
const askAll = async (token: string, keys: readonly string[]): Promise<number[]> => {
  const body = { items: keys.map(item) }
  const { json } = await service.request('POST', '/v1/certificates/batch', { token, body })
  return json.items.map(({ status }: { status: number }) => status)
}

/** Resolves when somebody waits for such a lock. */
const waitsFor = async (kind: string): Promise<void> => {
  for (;;) {
    const { rows } = await db.query('select 1 from pg_locks where locktype = $1 and not granted', [kind])
    if (rows.length > 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const held = await requester('held', { certificatesPerDay: 100 })
const other = await requester('other', { certificatesPerDay: 100 })
const free = await requester('free')

t.test('the lock of one principal delays neither other principals nor a move of an issuer', async (t) => {
  t.same(await Promise.all([ask(held), ask(other), ask(free)]), [201, 201, 201])
  await db.query('begin')
  await db.query(`select pg_advisory_xact_lock(4711001, hashtext('held'))`)
  const late = ask(held)
  const neighbour = ask(other)
  await waitsFor('advisory')
  const mover = await openSql(t, service.database.ownerUrl)
  await mover.query('begin')
  await mover.query(`set local lock_timeout = '1s'`)
  await mover.query('select pg_advisory_xact_lock(4711000004)')
  await mover.query('rollback')
  t.equal(await neighbour, 201, 'one that came in the same moment')
  t.same(await Promise.all([ask(other), ask(free)]), [201, 201])
  await db.query('rollback')
  t.equal(await late, 201, 'it has come again by itself')
})

t.test('two batches with the same requests never wait for each other', async (t) => {
  for (const token of [free, other]) {
    const principal = token === free ? 'free' : 'other'
    const record = (key: string) =>
      db.query(
        `insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version,
          tbs, plan)
        select substring(sha256($2::bytea) for 16), principal, $1, 1, digest, issuer, shard, profile, profile_version, tbs, plan
        from intents where principal = $3 limit 1`,
        [key, Buffer.from(principal + key), principal],
      )
    await db.query('begin')
    await record('a')
    const asked = askAll(token, ['b', 'a'])
    await waitsFor('transactionid')
    await record('b')
    await db.query('rollback')
    t.same(await asked, [201, 201])
  }
})

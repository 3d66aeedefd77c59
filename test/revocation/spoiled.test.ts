/** A list on record that is none any more, as after a disk has failed. */
import { setTimeout as sleep } from 'node:timers/promises'

import type pg from 'pg'
import t, { type Test } from 'tap'

import { openCrlShelf } from '../../src/ca/revocation/crl-cache.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { drill } from '../helpers/drill.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { openSql } from '../helpers/sql.ts'

/** The owner of the tables of a service that has published its lists, of which one is none any more. */
const spoilList = async (t: Test, service: TestService): Promise<pg.Client> => {
  await service.service.publishCrls()
  const owner = await openSql(t, service.database.ownerUrl)
  await owner.query('alter table crl_files disable trigger only_newer')
  const spoil = `update crl_files set der = '\\x3000', changed_at = now() where issuer = 'default' and shard = 3`
  t.equal((await owner.query(spoil)).rowCount, 1)
  await owner.query('alter table crl_files enable trigger only_newer')
  return owner
}

drill('one spoiled list keeps no instance from starting with all others, and is made anew', async (t) => {
  const service = await openTestService(t)
  const owner = await spoilList(t, service)
  // The other one publishes a moment after its start, as soon as it may.
  await owner.query('begin')
  await owner.query('lock table crls in exclusive mode')
  const other = await openTestService(t, {}, service)
  const fetchList = async (shard: number) => {
    const answer = await fetch(`${other.publicUrl}/crl/default/${shard}.crl`)
    const retryAfter = answer.headers.get('retry-after')
    return { status: answer.status, octets: Buffer.from(await answer.arrayBuffer()), retryAfter }
  }
  t.equal((await fetchList(4)).status, 200)
  t.match(await fetchList(3), { status: 503, retryAfter: '5' }, 'there is one to be: nobody is to take that for none')
  t.equal((await fetchList(128)).status, 404)
  await owner.query('commit')
  for (let tries = 0; tries < 50 && (await fetchList(3)).status !== 200; tries += 1) {
    // The first has the lease, and what it serves is whole.
    await owner.query('delete from leases')
    await other.service.publishCrls()
    // One that came to nothing is not tried again at once.
    await sleep(200)
  }
  const { status, octets } = await fetchList(3)
  t.equal(status, 200)
  t.equal(parseCrl(octets).number, 2n)
  t.equal(parseCrl((await fetchList(4)).octets).number, 1n)
})

drill('it is made anew also while another instance, whose own copy is whole, publishes the others', async (t) => {
  const service = await openTestService(t)
  const owner = await spoilList(t, service)
  // The first is at it for as long as the test takes.
  await owner.query(`update leases set until = 'infinity' where name like 'crls/%'`)
  const other = await openTestService(t, {}, service)
  await other.service.publishCrls()
  const answer = await fetch(`${other.publicUrl}/crl/default/3.crl`)
  t.equal(answer.status, 200)
  t.equal(parseCrl(Buffer.from(await answer.arrayBuffer())).number, 2n)
  const { rows } = await owner.query(`select number from crls where issuer = 'default' group by number order by number`)
  t.same(rows, [{ number: '1' }, { number: '2' }], 'and nothing else is')
})

t.test('one that is spoiled is told, and read again once a minute and not each second', async (t) => {
  const state = { elapsed: 0, reads: 0, number: 1, der: Buffer.from('3000', 'hex') }
  const place = { issuer: 'default', shard: 3 }
  const told: string[] = []
  const shelf = openCrlShelf(
    {
      changedWithin: async () => [{ ...place, number: state.number }],
      unlisted: async () => [],
      files: async () => {
        state.reads += 1
        return [{ ...place, number: state.number, revoked: 0, der: state.der, sharesDate: false }]
      },
    },
    { elapsedMs: () => state.elapsed, damaged: (issuer, error) => told.push(`${issuer}: ${(error as Error).message}`) },
  )
  for (; state.elapsed <= 60_000; state.elapsed += 1_000) await shelf.refresh()
  t.equal(state.reads, 1)
  t.same(told, ['default: list 1 of shard 3 cannot be read'])
  t.same([...shelf.spoiled('default')], [[3, 1]])
  await shelf.refresh()
  t.equal(state.reads, 2)
  state.number = 2
  await shelf.refresh()
  t.equal(state.reads, 3)
  t.same([...shelf.spoiled('default')], [[3, 2]])
})

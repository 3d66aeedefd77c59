/** A list on record that is none any more, as after a disk has failed. */
import pg from 'pg'
import t from 'tap'

import { parseCrl } from '../../src/x509/crl.ts'
import { openTestService } from '../helpers/service.ts'

t.test('one spoiled list keeps no instance from starting with all others, and is made anew', async (t) => {
  const service = await openTestService(t)
  await service.service.publishCrls()
  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  t.teardown(() => owner.end())
  await owner.query('alter table crl_files disable trigger only_newer')
  const spoil = `update crl_files set der = '\\x3000', changed_at = now() where issuer = 'default' and shard = 3`
  t.equal((await owner.query(spoil)).rowCount, 1)
  await owner.query('alter table crl_files enable trigger only_newer')

  const other = await openTestService(t, {}, service)
  const fetchList = async (shard: number) => {
    const answer = await fetch(`${other.publicUrl}/crl/default/${shard}.crl`)
    return { status: answer.status, octets: Buffer.from(await answer.arrayBuffer()) }
  }
  t.equal((await fetchList(4)).status, 200)
  t.equal((await fetchList(3)).status, 404)
  for (let tries = 0; tries < 50 && (await fetchList(3)).status !== 200; tries += 1) {
    // The first has the lease, and what it serves is whole.
    await owner.query('delete from leases')
    await other.service.publishCrls()
  }
  const { status, octets } = await fetchList(3)
  t.equal(status, 200)
  t.equal(parseCrl(octets).number, 2n)
  t.equal(parseCrl((await fetchList(4)).octets).number, 1n)
})

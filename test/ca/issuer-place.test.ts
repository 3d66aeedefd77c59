/** Where the key of an issuer is, by records that were recovered: a request itself is lost, what was corrected of it is not. */
import pg from 'pg'
import t from 'tap'

import { verifyDatabase } from '../../src/auditor/database.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openTestService } from '../helpers/service.ts'

t.test('a request that is made again after a recovery, which has only where its key was found to be', async (t) => {
  const [service, root, subject] = [await openTestService(t), openTestRoot(), named('Issuing 2027')]
  const ask = (name: string, key: string) =>
    service.request('POST', '/v1/issuer-requests', { body: { name, authority: 'default', subject, key } })
  const owner = new pg.Client(service.database.ownerUrl)
  await owner.connect()
  await owner.query(`insert into issuer_key_uris (entry, issuer, key_uri)
    values (0, 'there', 'file:keys/moved.pem'), (1, 'other', 'file:keys/lost.pem')`)
  await owner.end()
  const keyOf = async (name: string) => (await service.request('GET', `/v1/issuers/${name}/key`)).json.key
  t.equal((await ask('another', 'file:keys/lost.pem')).json.code, 'state.exists', 'that of another issuer')
  t.equal((await ask('there', 'file:keys/moved.pem')).status, 201)
  t.equal(await keyOf('there'), 'file:keys/moved.pem')
  const { csr } = (await ask('other', 'file:keys/new.pem')).json
  t.equal(await keyOf('other'), 'file:keys/new.pem', 'and no more where that was')
  t.equal(
    (await service.request('PUT', '/v1/issuers/other', { body: { chain: root.certify(csr) + root.pem } })).status,
    201,
  )
  await service.service.issuers.byName('other').opening
  t.equal(service.service.issuers.byName('other').fault, undefined)
  const { items } = (await service.request('GET', '/v1/events?type=issuer.relocated')).json
  t.match(
    items.map(({ entry }: { entry: string }) => JSON.parse(entry)),
    [{ issuer: 'other', key: 'file:keys/new.pem', before: 'file:keys/lost.pem', by: 'admin' }],
    'the roll says so too',
  )
  const findings: Finding[] = []
  const wanted = { keys: { roll: [], witnesses: [] }, checkpoints: [], tell: (one: Finding) => findings.push(one) }
  await verifyDatabase(service.database.servingUrl, { ...wanted, progress: () => {} })
  t.equal(findings.length, 2, `the rows that no recovery made: ${findings.map(({ message }) => message)}`)
})

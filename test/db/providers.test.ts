/** Identity providers on record, when what is asked of a document is more than it was. */
import { hash } from 'node:crypto'

import t from 'tap'

import { openProviders } from '../../src/db/providers.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { parseProvider } from '../../src/policy/identity.ts'
import { openTestStores } from './stores.ts'

const { stores } = await openTestStores(t)
const issuer = `https://${'例'.repeat(1_000)}`
const document = {
  ...{ name: 'long', issuer, keys: { discovery: true }, algorithms: ['RS256'], audience: 'x', lifetime: '15m' },
  mappings: [{ id: 'one', claims: { sub: 'x' }, principal: 'p' }],
}

t.test('one with a longer issuer than is taken today still decides, and is not written again', async (t) => {
  const text = canonicalJson(document)
  await stores.db.query(
    {
      text: `insert into identity_providers (name, version, sha256, issuer, document, created_by)
        values ('long', 1, $1, $2, $3, 'admin')`,
    },
    [Buffer.from(hash('sha256', text), 'hex'), issuer, text],
  )
  const { db, roll, log } = stores
  const providers = await openProviders({
    ...{ db, roll, log },
    parse: (document, version, isStored) => parseProvider(document, { version, isStored }),
  })
  t.teardown(providers.close)
  t.match(providers.issuedBy(issuer)?.provider, { name: 'long', version: 1 })
  t.match(await providers.read('long'), { provider: { issuer } })
  t.equal((await providers.list()).length, 1)
  await t.rejects(providers.put(document, 'admin', {}), {
    code: 'provider.invalid',
    options: { violations: [{ field: '/issuer', reason: 'is 3008 octets of UTF-8; at most 2048 are allowed' }] },
  })
})

/** An issuer that may not certify every name: whoever asks is told which, whether it is only a question or not. */
import t from 'tap'

import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openTestService } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'

const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
const root = openTestRoot()
const asked = { name: 'narrow', authority: 'default', subject: named('Narrow') }
const { csr } = (await service.request('POST', '/v1/issuer-requests', { body: asked })).json
const nameConstraints = { permitted: [{ kind: 'dns', value: 'inside.example.com' }], excluded: [] } as const
const chain = root.certify(csr, { nameConstraints }) + root.pem
const staged = await service.request('PUT', '/v1/issuers/narrow', { body: { chain } })
const moved = await service.request('POST', '/v1/issuers/narrow/moves', { body: { move: 'activate' } })
t.match([staged.status, moved.status], [201, 200])

const ask = (query: string, name: string) =>
  service.request('POST', `/v1/certificates${query}`, { body: { csr: csrFor(name), profile: 'server' } })
const broken = {
  check: 'issuer.nameConstraints',
  field: '/names',
  value: 'outside.example.com',
  reason: 'the issuer does not permit it',
}

t.test('a dry run answers, and says which name', async (t) => {
  const { status, json } = await ask('?dryRun=true', 'outside.example.com')
  t.match({ status, json }, { status: 200, json: { allowed: false, violations: [broken], authority: 'default' } })
  t.notOk('tbs' in json, 'there is none to be signed')
  const failed = json.checks.filter(({ outcome }: { outcome: string }) => outcome === 'failed')
  t.same(failed, [{ ...broken, outcome: 'failed' }], 'it is among the checks, which is all that is kept')
  t.match(await ask('?dryRun=true', 'a.inside.example.com'), { status: 200, json: { allowed: true } })
})

t.test('a request is refused for the same, and kept with it', async (t) => {
  const { status, json } = await ask('', 'outside.example.com')
  t.match({ status, json }, { status: 422, json: { code: 'san.forbidden', violations: [broken] } })
  const { items } = (await service.request('GET', '/v1/refusals?code=san.forbidden')).json
  const kept = items[0].checks.filter(({ outcome }: { outcome: string }) => outcome === 'failed')
  t.same(kept, [{ ...broken, outcome: 'failed' }])
})

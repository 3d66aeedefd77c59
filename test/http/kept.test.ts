/** Documents and grants that were applied before more was asked of new ones: a pipeline applies them again each hour. */
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import t from 'tap'

import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { sha256 } from '../../src/lib/sha256.ts'
import { drill } from '../helpers/drill.ts'
import { bare } from '../helpers/environment.ts'
import { openTestIssuer } from '../helpers/issuer.ts'
import { openTestService } from '../helpers/service.ts'
import { openSql } from '../helpers/sql.ts'

const service = await openTestService(t)
const owner = await openSql(t, service.database.ownerUrl)

const idle = { uri: { allow: ['https://a.test/**'], deny: ['https://A.test/**'] } }
const reason = /^matches no name that can be asked for: a URI has a host/

const keep = async (table: string, column: string, document: Readonly<Record<string, unknown>>) => {
  const text = canonicalJson(document)
  await owner.query(
    `insert into ${table} (name, version, sha256, ${column}, document, created_by) values ($1, 1, $2, $3, $4, 'admin')`,
    [document['name'], sha256(Buffer.from(text)), document[column], text],
  )
  // Each second they are read again.
  await sleep(1_500)
}

const apply = async (path: string, body: object) => {
  const { status, json } = await service.request('PUT', path, { headers: { 'if-match': '*' }, body })
  return { status, version: json.version, violations: json.violations }
}

const chancery = (...args: readonly string[]) => {
  const env = { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url }
  return promisify(execFile)(process.execPath, ['src/main.ts', ...args], { env })
}

drill('a profile that is there as it is', async (t) => {
  const server = (await service.request('GET', '/v1/profiles/server')).json.document
  const kept = { ...server, name: 'kept', names: idle, extendedKeyUsage: ['1.3.6.1.4.1.311.10.12.1'] }
  await keep('profiles', 'authority', kept)
  t.match(await apply('/v1/profiles/kept', kept), { status: 200, version: 1 })
  const changed = { ...kept, keyUsage: ['digitalSignature', 'keyAgreement'], keys: [{ ec: ['P-256'] }] }
  t.match(await apply('/v1/profiles/kept', changed), {
    status: 422,
    violations: [{ field: '/names/uri/deny/0', reason }, { field: '/extendedKeyUsage/0' }],
  })

  const path = join(t.testdir(), 'kept.json')
  await writeFile(path, JSON.stringify(kept))
  t.match(await chancery('profile', 'apply', path), { stdout: 'kept is unchanged at version 1.\n', stderr: /^$/ })
  t.match(await chancery('profile', 'diff', path), { stdout: /^$/, stderr: /^$/ })
  await writeFile(path, JSON.stringify(changed))
  const { stderr } = await chancery('profile', 'apply', path).catch((error) => error)
  t.match(stderr, /profile\.invalid.*deny\/0.*Nothing was applied/s)
})

drill('an identity provider that is there as it is', async (t) => {
  const issuer = await openTestIssuer(t)
  const kept = {
    ...{ name: 'kept', issuer: issuer.url, keys: { discovery: true, ca: issuer.ca }, algorithms: ['RS256'] },
    ...{ audience: 'chancery', lifetime: '1h' },
    mappings: [{ id: 'a', claims: { sub: 'a' }, principal: 'kept/a', grants: [{ profiles: ['server'], names: idle }] }],
  }
  await keep('identity_providers', 'issuer', kept)
  t.match(await apply('/v1/identity-providers/kept', kept), { status: 200, version: 1 })
  t.match(await apply('/v1/identity-providers/kept', { ...kept, lifetime: '2h' }), {
    status: 422,
    violations: [{ field: '/mappings/0/grants/0/names/uri/deny/0', reason }],
  })
  const label = (dns: string) => [
    { ...kept.mappings[0], claims: { tag: '*' }, grants: [{ profiles: ['server'], names: { dns: { allow: [dns] } } }] },
  ]
  for (const dns of ['xn--{/tag}.example.com', '{/tag}.0{/tag}']) {
    const { status } = await apply('/v1/identity-providers/kept', { ...kept, mappings: label(dns) })
    t.equal(status, 200, `${dns}: with the right claim it matches something`)
  }
})

t.test('a grant that is held', async (t) => {
  await service.request('POST', '/v1/principals', { body: { name: 'holder' } })
  await owner.query(
    `insert into grants (id, principal, role, profiles, names, created_by)
     values (gen_random_uuid(), 'holder', 'requester', '{server}', $1, 'admin')`,
    [JSON.stringify(idle)],
  )
  const grant = (names: object) =>
    service.request('POST', '/v1/grants', {
      body: { principal: 'holder', role: 'requester', profiles: ['server'], names },
    })
  t.match(await grant(idle), { status: 200, json: { names: idle } })
  t.match(await grant({ uri: { allow: ['https://b.test/**'], deny: idle.uri.deny } }), {
    status: 400,
    json: { violations: [{ field: '/names/uri/deny/0', reason }] },
  })
})

/** docs/revocation.md, typed as it stands. */
import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { named, openTestRoot } from '../helpers/ceremony.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { putCommand } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertTools } from '../interop/tools.ts'
import { pem, requestBy } from '../x509/build.ts'

const run = promisify(execFile)
t.setTimeout(300_000)

slowTest('from a certificate to its revocation, as the page tells it', async (t) => {
  await assertTools('openssl', 'curl')
  const blocks = await blocksOf('docs/revocation.md')
  const service = await openTestService(t)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-docs-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await symlink(service.config.dataDir, join(folder, 'data'))
  const PATH = await putCommand(join(folder, 'bin'))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  await writeFile(join(folder, 'found.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const issue = async (): Promise<string> => {
    const body = { csr: pem(requestBy(privateKey, 'web.example.com')), profile: 'server' }
    const { json } = await service.request('POST', '/v1/certificates', { body })
    await writeFile(join(folder, 'web.pem'), [json.certificate, ...json.chain].join(''))
    return json.serial
  }
  let serial = await issue()
  const typed: string[] = []
  const type = async (name: string, pki = service.publicUrl): Promise<string> => {
    typed.push(name)
    const env = {
      ...bare,
      PATH,
      CHANCERY_URL: service.url,
      pki,
      serial,
    }
    const { stdout, stderr } = await run('bash', ['-ceu', '-o', 'pipefail', blocks.get(name) ?? 'false'], {
      cwd: folder,
      env,
    })
    return stdout + stderr
  }
  await service.service.publishCrls()
  t.match(await type('lists'), /revoked +0\n[\s\S]*web\.pem: OK/)
  const files = (await (await fetch(`${service.publicUrl}/crl/default/`)).text()).split('\n').slice(0, -1)
  t.same([files.length, files[0], files.at(-1)], [128, '0.crl', '127.crl'])
  const gap = createServer(({ url }, answer) =>
    answer.writeHead(url === '/crl/default/64.crl' ? 503 : 200).end(url === '/crl/default/' ? files.join('\n') : 'x'),
  )
  t.teardown(() => gap.close())
  await once(gap.listen(0, '127.0.0.1'), 'listening')
  const without = `http://127.0.0.1:${(gap.address() as AddressInfo).port}`
  await t.rejects(type('every-list', without), { code: 22 }, 'one that does not come, between others, ends it')
  t.match(await type('every-list'), /web\.pem: OK/)
  t.match(await type('ocsp'), /leaf\.pem: good/)
  t.match(
    await type('revoke'),
    new RegExp(`as certificateHold[\\s\\S]*released[\\s\\S]*as superseded[\\s\\S]*${serial}`),
  )
  t.match(await type('ocsp'), /leaf\.pem: revoked/)
  await service.service.publishCrls()
  for (const name of ['lists', 'every-list']) await t.rejects(type(name), /certificate revoked/)
  const root = openTestRoot()
  const ask = { name: 'whole', authority: 'etcd', subject: named('Whole') }
  const { csr } = (await service.request('POST', '/v1/issuer-requests', { body: ask })).json
  await writeFile(join(folder, 'whole.chain.pem'), root.certify(csr) + root.pem)
  t.match(await type('one-list'), /^whole is staged/)
  t.match((await service.request('GET', '/v1/issuers/whole')).json, { state: 'staged', shards: 1 })
  serial = await issue()
  t.match(await type('by-key'), /is revoked as keyCompromise/)
  t.same(new Set(typed), new Set(blocks.keys()), 'and there is no other block')
})

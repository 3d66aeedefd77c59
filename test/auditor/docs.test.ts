/** The auditor's walk of docs/auditing.md, typed as it stands. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { putCommand } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'

const run = promisify(execFile)
t.setTimeout(300_000)

slowTest('from a suspicious host name to the statement that nothing else was issued for it', async (t) => {
  const blocks = await blocksOf('docs/auditing.md')
  const service = await openTestService(t)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-audit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const PATH = await putCommand(join(folder, 'bin'))

  const issue = async (name: string): Promise<string> => {
    const { json } = await service.request('POST', '/v1/certificates', {
      body: { csr: csrFor(name), profile: 'server' },
    })
    return json.serial
  }
  const serial = await issue('shop.example.com')
  for (const name of ['web.example.com', 'a.shop.example.com']) await issue(name)
  await service.request('POST', '/v1/certificates', { body: { csr: csrFor('shop.example.org'), profile: 'server' } })

  const env = {
    ...bare,
    PATH,
    HOME: folder,
    CHANCERY_URL: service.url,
    CHANCERY_CACERT: join(service.config.dataDir, 'root.pem'),
    CHANCERY_TOKEN_FILE: join(service.config.dataDir, 'admin.token'),
    ...{ serial, principal: 'admin', profile: 'server', version: '1' },
  }
  const typed: string[] = []
  const type = async (name: string): Promise<string> => {
    typed.push(name)
    const script = blocks.get(name) ?? 'false'
    return (await run('bash', ['-ceu', '-o', 'pipefail', script], { cwd: folder, env })).stdout
  }
  await writeFile(join(folder, 'roll.key'), (await run('chancery', ['roll', 'key'], { cwd: folder, env })).stdout)

  const named = await type('name')
  t.match(named, serial)
  t.match(named, /a\.shop\.example\.com/)
  t.notMatch(named, /web\.example\.com/)
  t.match(await type('rule'), /server@1[\s\S]*certificate\.issued[\s\S]*requester[\s\S]*authority/)
  t.match(await type('right'), /grant\.changed .*admin as requester[\s\S]*profile\.changed .*server@1/)
  t.match(await type('principal'), /shop\.example\.org|san|names/)
  t.match(await type('proof'), /is on the roll .*\n.*certificate\.issued/)
  const nothingElse = await type('nothing-else')
  t.match(
    nothingElse,
    new RegExp(`${serial}[\\s\\S]*1 certificate for shop\\.example\\.com among \\d+ entries of .*, and no others\\.`),
  )
  t.match(await type('file'), /certificates/)
  t.match(await readFile(join(folder, 'shop.csv'), 'utf8'), serial)
  t.same(new Set(typed), new Set(blocks.keys()), 'and there is no other block')
})

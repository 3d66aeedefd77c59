/** As OpenShift runs pods (components/openshift): a user without a name, in group 0, with a group of the namespace on volumes. */
import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t, { type Test } from 'tap'

import { openTestDatabase } from '../helpers/database.ts'
import { blocksOf } from '../helpers/docs.ts'
import { mainFile } from '../helpers/run.ts'
import { install } from './installation.ts'

t.setTimeout(300_000)
const run = promisify(execFile)

const id = 1_000_650_000
const asStranger = ['setpriv', `--reuid=${id}`, '--regid=0', `--groups=${id}`]
const folder = await mkdtemp(join(tmpdir(), 'chancery-any-user-'))
t.teardown(() => rm(folder, { recursive: true }))
const at = (...names: readonly string[]): string => join(folder, ...names)
// The folder stands for the root of a file system.
await chmod(folder, 0o755)
const [setpriv = '', ...being] = asStranger
const canBe = await run(setpriv, [...being, 'ls', folder, mainFile, process.execPath]).then(
  () => true,
  () => false,
)

/** The sockets of the test's PostgreSQL are for its own user only. */
const letIn = async (t: Test, url: string): Promise<string> => {
  const own = new URL(url.replace('@/', '@localhost/')).searchParams.get('host') ?? ''
  const server = createServer((outside) => {
    const inside = connect(join(own, '.s.PGSQL.5432'))
    for (const [one, other] of [
      [outside, inside],
      [inside, outside],
    ] as const)
      one.pipe(other).on('error', () => one.destroy())
  })
  await mkdir(at('postgres'))
  await new Promise<void>((resolve) => server.listen(at('postgres/.s.PGSQL.5432'), resolve))
  await chmod(at('postgres/.s.PGSQL.5432'), 0o777)
  t.teardown(() => server.close())
  return own
}

t.test(
  'migration and service work as a user without a name, whom volumes let in by their group',
  { skip: !canBe && 'nobody can become another user here, or others may not read these files' },
  async (t) => {
    const { servingUrl, ownerUrl } = await openTestDatabase(t, { empty: true })
    const own = await letIn(t, servingUrl)
    const through = (url: string): string => url.replace(encodeURIComponent(own), encodeURIComponent(at('postgres')))
    const keys = (await blocksOf('docs/kubernetes.md')).get('keys') ?? 'false'
    const urls = { servingUrl: through(servingUrl), ownerUrl: through(ownerUrl) }
    const installation = await install(folder, keys, urls, asStranger)
    // What a kubelet does with fsGroup, and the image's own /data, which is somebody else's.
    const volumes = [
      `chown -R 0:${id} run`,
      'find run -type d -exec chmod 0750 {} +',
      'find run/secrets/chancery -type f -exec chmod 0440 {} +',
      `mkdir data-chancery-0 && chown 0:${id} data-chancery-0 && chmod 2775 data-chancery-0`,
      'mkdir -m 0700 data-none && chown 10001:10001 data-none',
    ]
    await run('sh', ['-euc', volumes.join('\n')], { cwd: folder })
    await installation.migrate()
    const replica = await installation.start(t, 'chancery-0', true)
    t.equal(await replica.ready(), 503, 'nobody can sign yet')
    const token = at('data-chancery-0/chancery/admin.token')
    t.match(await stat(token), { uid: id, mode: 0o100600 })
    await replica.stop()
    const again = await installation.start(t, 'chancery-0')
    t.equal(await again.ready(), 503, 'and its own files are read again')
    t.match(await readFile(token, 'utf8'), /\S/)
  },
)

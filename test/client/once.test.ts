/** A job of a build service, whose token counts for one request: it gets its certificate all the same. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { audience, githubJob, openTestIssuer, type TestIssuer } from '../helpers/issuer.ts'
import { chanceryFor, type Run } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)

let issuer: TestIssuer
t.before(async () => {
  issuer = await openTestIssuer(t)
})

const believe = async (service: TestService, profiles: readonly string[]): Promise<void> => {
  const body = {
    name: 'builds',
    issuer: issuer.url,
    keys: { discovery: true, ca: issuer.ca },
    algorithms: ['RS256'],
    audience,
    lifetime: '15m',
    mappings: [
      {
        id: 'deploy',
        claims: { repository: 'octo/web' },
        principal: 'ci/deploy',
        once: true,
        grants: [{ profiles }],
      },
    ],
  }
  const headers = { 'if-none-match': '*' }
  const made = await service.request('PUT', '/v1/identity-providers/builds', { headers, body })
  if (made.status !== 201) throw new Error(made.text)
}

/** Each command has a token of its own, as each job has. */
const runnerOf = (service: TestService, folder: string) => {
  const file = join(folder, 'job.token')
  return async (...args: readonly string[]): Promise<Run> => {
    await writeFile(file, issuer.token(githubJob('octo/web')), { mode: 0o600 })
    return chanceryFor(service)(['issue', '--token-file', file, '--name', 'once.example.com', ...args])
  }
}

slowTest('one token is enough for a certificate', async (t) => {
  for (const [what, settings] of [
    ['it asks for itself what must be trusted', {}],
    ['where no certificate may, what has come is there for the next token', { CHANCERY_CLIENT_RENEWAL: 'no' }],
  ] as const) {
    const service = await openTestService(t, settings)
    await believe(service, ['server'])
    const folder = await newFolder(t)
    const out = join(folder, 'web')
    const run = await runnerOf(service, folder)('--profile', 'server', '--out', out)
    const takesItself = !('CHANCERY_CLIENT_RENEWAL' in settings)
    t.equal(run.code, takesItself ? 0 : exitCodes.denied, `${what}: ${run.err}`)
    t.equal((await readShown(out)) !== undefined, takesItself)
    const { items } = (await service.request('GET', '/v1/certificates?principal=ci/deploy')).json
    t.equal(items.length, 1)
  }
})

slowTest('who waits for people comes back with another token', async (t) => {
  const service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 1 })
  const { alice } = await employApprovers(service, ['payments'])
  await believe(service, ['payments'])
  const folder = await newFolder(t)
  const issue = runnerOf(service, folder)
  const args = ['--profile', 'payments', '--out', join(folder, 'pay')]
  const waiting = await issue(...args)
  t.equal(waiting.code, exitCodes.later)
  t.match(waiting.err, 'Run the same command again then')
  t.notMatch(waiting.err, 'auth.replayed')
  const { items } = (await service.request('GET', '/v1/requests')).json
  t.equal(items.length, 1)
  t.match(await openDesk(service).approve(alice, items[0]), { status: 200 })
  t.equal((await issue(...args)).code, 0)
  t.ok(await readShown(join(folder, 'pay')))
})

/** docs/identities.md: the token of a team, typed as it stands, asks for the names of its team and for no others. */
import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { newFolder } from '../client/folders.ts'
import { blocksOf } from '../helpers/docs.ts'
import { chanceryFor, envFor, putCommand } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

const run = promisify(execFile)
t.setTimeout(120_000)

slowTest('a team gets a token for its names', async (t) => {
  const service = await openTestService(t)
  const folder = await newFolder(t)
  const env = { ...envFor(service), PATH: await putCommand(join(folder, 'bin')), HOME: folder }
  const text = (await blocksOf('docs/identities.md')).get('team') ?? 'false'
  const { stdout } = await run('bash', ['-ceu', '-o', 'pipefail', text], { cwd: folder, env })
  t.match(stdout, /^This request would be issued\.$/m)
  const token = join(folder, 'team-a.token')
  t.equal((await stat(token)).mode & 0o777, 0o600, 'nobody else reads it')
  const chancery = chanceryFor(service)
  const other = ['explain', '--token-file', token, '--profile', 'server', '--name', 'www.example.com']
  const refused = await chancery(other)
  t.equal(refused.code, exitCodes.refused)
  t.match(refused.out, /^FAILED +grant\.names\.dns /m)
})

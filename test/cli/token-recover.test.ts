/** `chancery token recover`, as an operator runs it whose administrators have lost every token. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import t from 'tap'

import { newSecret } from '../../src/db/secrets.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { putCommand, type Run } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employ } from '../http/people.ts'

const service = await openTestService(t)
const folder = await mkdtemp(join(tmpdir(), 'chancery-token-recover-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const { dataDir } = service.config
const adminFile = join(dataDir, 'admin.token')
const beside = { ...bare, CHANCERY_DATA: dataDir, CHANCERY_DATABASE_URL: service.database.servingUrl }
const PATH = await putCommand(folder)

const run = (file: string, args: readonly string[], more: Readonly<Record<string, string>> = {}): Promise<Run> =>
  new Promise((resolve) => {
    const env = { ...beside, PATH, ...more }
    execFile(file, args, { env, cwd: folder, timeout: 60_000 }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    )
  })
const recover = (...args: readonly string[]): Promise<Run> => run('chancery', ['token', 'recover', ...args])
const secretIn = async (file: string): Promise<string> => (await readFile(file, 'utf8')).trim()
const tokens = async (): Promise<readonly string[]> =>
  (await service.request('GET', '/v1/tokens')).json.items.map(({ id }: { readonly id: string }) => id)

t.test('while the token of the data folder works, nothing is lost and nothing is made', async (t) => {
  const before = await tokens()
  const refused = await recover()
  t.match(refused, { code: exitCodes.conflict, out: /^$/ })
  t.match(
    refused.err,
    /^Nothing is lost: the token in .*admin\.token works, as that of admin\. Use it with --token-file /,
  )
  t.same(await tokens(), before)
  t.equal(await secretIn(adminFile), service.adminToken)
})

slowTest('what is no token stays, and a time that is too long is refused', async (t) => {
  const notes = join(folder, 'notes')
  await writeFile(notes, 'mine')
  t.match(await recover('--out', notes), { code: exitCodes.usage, err: /holds something else than a token/ })
  t.equal(await readFile(notes, 'utf8'), 'mine')
  t.match(await recover('--out', folder), { code: exitCodes.usage, err: /cannot be read \(EISDIR\)/ })
  for (const duration of ['25h', '0s', '59s', 'never', ''])
    t.match(await recover('--duration', duration, '--out', join(folder, 'none')), {
      code: exitCodes.usage,
      err: /is not a time from 1m to 24h/,
    })
  t.match(await recover('nobody', '--out', join(folder, 'none')), {
    code: exitCodes.usage,
    err: 'nobody is no administrator. The administrator is admin.\n',
  })
  t.match(await recover('--out', '/proc/none/here.token'), { code: exitCodes.usage, err: /cannot be (read|written)/ })
  t.equal((await tokens()).length, 1, 'and nothing was made')
})

t.test('what is no plain file is neither waited for nor replaced', async (t) => {
  const [pipe, target, link] = ['pipe', 'target', 'link'].map((name) => join(folder, name)) as [string, string, string]
  t.match(await run('mkfifo', [pipe]), { code: 0 })
  await writeFile(target, '')
  await symlink(target, link)
  for (const file of [pipe, link])
    t.match(await recover('--out', file), {
      code: exitCodes.usage,
      err: `${file} is there and no plain file: name another one by --out.\n`,
    })
  t.ok((await lstat(pipe)).isFIFO() && (await lstat(link)).isSymbolicLink())
  t.equal((await tokens()).length, 1, 'and nothing was made')
})

t.test('where it comes to nothing, what was there stays, and nothing is made', async (t) => {
  const [lost, none] = [join(folder, 'lost.token'), join(folder, 'none.token')]
  const secret = newSecret(randomBytes)
  await writeFile(lost, secret)
  for (const file of [lost, none]) {
    t.match(await recover('nobody', '--out', file), { code: exitCodes.usage, err: /is no administrator/ })
    // There is room for something, and for no secret.
    const full = `trap '' XFSZ; prlimit --pid $$ --fsize=50 && chancery token recover --out '${file}'`
    t.match(await run('bash', ['-c', full]), { code: exitCodes.usage, err: /cannot be written: EFBIG/ }, 'a full disk')
  }
  t.equal(await readFile(lost, 'utf8'), secret)
  t.notOk((await readdir(folder)).some((name) => name.startsWith('none.token')))
  t.equal((await tokens()).length, 1)
})

t.test('an account whom the data folder is not open to is told so, and not that there are no records', async (t) => {
  const shut = join(folder, 'shut')
  await mkdir(shut, { mode: 0o000 })
  // What root reads nevertheless.
  const bounded = process.getuid?.() === 0 ? 'setpriv --bounding-set=-dac_override,-dac_read_search' : 'exec'
  const more = { CHANCERY_DATA: join(shut, 'data'), CHANCERY_DATABASE_URL: '' }
  const tried = await run(
    'sh',
    ['-c', `unset CHANCERY_DATABASE_URL; ${bounded} "${folder}/chancery" token recover`],
    more,
  )
  t.match(tried, {
    code: exitCodes.usage,
    err: /^\/.*\/data is not open to this account \(EACCES\): run the command as /,
  })
})

t.test('docs/operations.md: the way in as it stands there, beside the service that runs', async (t) => {
  await rm(adminFile)
  const block = (await blocksOf('docs/operations.md')).get('token-recover') ?? 'exit 9'
  const done = await run('bash', ['-ceu', block], { CHANCERY_URL: service.url })
  t.equal(done.code, 0, done.err)
  t.match(done.out, /admin\.token lets its bearer in as admin, who may act as [a-z, ]*admin[a-z, ]*, until 20/)
  t.match(done.out, /-[0-9a-f]{12} of admin, "first administrator", without an end\n/, 'what may be lost')
  const secret = await secretIn(adminFile)
  t.not(secret, service.adminToken)
  t.notOk(`${done.out}${done.err}`.includes(secret), 'its secret is in the file alone')
  t.equal((await stat(adminFile)).mode & 0o777, 0o600)
  const answer = await service.request('GET', '/v1/principals', { token: await secretIn(join(folder, 'safe.token')) })
  t.equal(answer.status, 200)
})

t.test('it ends within the hour, and is on the roll with who made it', async (t) => {
  const { entry } = (await service.request('GET', '/v1/events?type=token.created')).json.items.find(
    (item: { readonly entry: string }) => JSON.parse(item.entry).label === 'recovered',
  )
  const event = JSON.parse(entry)
  t.match(event, { principal: 'admin', by: /^os:./ })
  const left = Date.parse(event.expires) - Date.now()
  t.ok(left > 3_400_000 && left <= 3_600_000, `${left} ms are left`)
  const found = await service.request('GET', `/v1/events?type=token.created&by=${event.by}`)
  t.equal(found.json.items.length, 1, 'and found by that')
})

t.test('one that is asked for longer, as JSON, in the place of one that has ended', async (t) => {
  const file = join(folder, 'later.token')
  const first = await recover('admin', '--out', file, '--duration', '2h', '--json')
  t.equal(first.code, 0, first.err)
  const made = JSON.parse(first.out)
  t.match(made, { principal: 'admin', by: /^os:/, file, token: /^[0-9a-f-]{36}$/ })
  t.ok(made.roles.includes('admin'))
  const before = await secretIn(file)
  t.match(await recover('--out', file), { code: exitCodes.conflict })
  await service.request('DELETE', `/v1/tokens/${made.token}`)
  t.match(await recover('--out', file), { code: 0 })
  t.not(await secretIn(file), before)
})

t.test('a label steers no terminal', async (t) => {
  const body = { principal: 'admin', label: 'safe\u009b2K\u202e' }
  t.equal((await service.request('POST', '/v1/tokens', { body })).status, 201)
  const { out } = await recover('--out', join(folder, 'shown.token'))
  t.match(out, / of admin, "safe\\/)
  t.notMatch(out, /[\u009b\u202e]/)
})

t.test('a token that works stays where it is, whosever it is', async (t) => {
  const file = join(folder, 'ci.token')
  const secret = await employ(service, 'ci', 'auditor')
  await writeFile(file, secret)
  t.match(await recover('--out', file), {
    code: exitCodes.conflict,
    err: /works, as that of ci, who is no administrator: name another file by --out\.\n$/,
  })
  t.equal(await secretIn(file), secret)
})

slowTest('of several administrators, one is named; of none, one is made', async (t) => {
  await service.request('POST', '/v1/principals', { body: { name: 'ops' } })
  await service.request('POST', '/v1/grants', { body: { principal: 'ops', role: 'admin' } })
  const file = join(folder, 'several.token')
  t.match(await recover('--out', file), {
    code: exitCodes.usage,
    err: 'The administrators are admin, ops: say whose token is to be made.\n',
  })
  t.match(await recover('ops', '--out', file), {
    code: 0,
    out: /lets its bearer in as ops, who may act as admin, until/,
  })
  t.equal((await service.request('GET', '/v1/principals', { token: await secretIn(file) })).status, 200)
  await rm(file)

  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  await owner.query(`insert into principal_closures (principal, closed_by) values ('admin', 'test')`)
  await owner.query(`insert into grant_revocations (grant_id, revoked_by)
    select id, 'test' from grants where role = 'admin'`)
  await owner.end()
  t.match(await recover('--out', file), {
    code: exitCodes.usage,
    err: /^Nobody is an administrator any more\. The principal "admin" is disabled for good\. Name another principal\.\n$/,
  })
  t.match(await recover('chancery', '--out', file), { code: exitCodes.usage, err: /is the service itself/ })
  t.match(await recover('ops', '--out', file), { code: 0 })
  t.equal((await service.request('GET', '/v1/principals', { token: await secretIn(file) })).status, 200)
})

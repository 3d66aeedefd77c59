/** `chancery token create --out`: a secret that no terminal and no log of a pipeline shows. */
import { rmSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { chanceryFor, type Run } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { employ } from '../http/people.ts'

const service = await openTestService(t)
const chancery = chanceryFor(service)
await employ(service, 'team', 'requester', { profiles: ['server'] })
const folder = await mkdtemp(join(tmpdir(), 'chancery-token-create-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const create = (...args: readonly string[]): Promise<Run> =>
  chancery(['token', 'create', 'team', '--label', 'kept', ...args])

interface Listed {
  readonly id: string
  readonly label: string
  readonly revokedAt: string | null
}

const tokens = async (): Promise<readonly Listed[]> => (await service.request('GET', '/v1/tokens')).json.items

t.test('its secret is in a file of ours alone, and printed nowhere', async (t) => {
  const file = join(folder, 'deep', 'team.token')
  const run = await create('--out', file)
  t.match(run, { code: 0, err: /^$/ })
  const [, id] = /^\S+team\.token lets its bearer in as team\. It is the token (\S+)\.\n$/.exec(run.out) ?? []
  t.match(
    (await tokens()).find((one) => one.id === id),
    { label: 'kept', revokedAt: null },
  )
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.match(await readFile(file, 'utf8'), /^chy_\S+\n$/)
  t.match(await chancery(['certificate', 'search', '--token-file', file]), { code: 0, err: /^$/ }, 'it works')

  const machine = join(folder, 'machine.token')
  const told = JSON.parse((await create('--out', machine, '--json')).out)
  t.match(told, { principal: 'team', label: 'kept', file: machine })
  t.notOk('secret' in told)
  t.match(await readFile(machine, 'utf8'), /^chy_\S+\n$/)
})

t.test('what is there stays, and what cannot be written is told before anything is made', async (t) => {
  const mine = join(folder, 'mine')
  await writeFile(mine, 'mine')
  await symlink(join(folder, 'nowhere'), join(folder, 'link'))
  await mkdir(join(folder, 'full'))
  const before = await tokens()
  for (const there of [mine, join(folder, 'link'), join(folder, 'full')])
    t.match(await create('--out', there), {
      code: exitCodes.usage,
      out: /^$/,
      err: /^\S+ is there already, and stays as it is: name another file by --out\.\n$/,
    })
  t.equal(await readFile(mine, 'utf8'), 'mine')
  t.match(await create('--out', join(mine, 'below')), { code: exitCodes.usage, err: /below cannot be written: E/ })
  t.same(await tokens(), before)
})

t.test('where none is made, no file is left', async (t) => {
  const kept = await readdir(folder)
  const file = join(folder, 'none.token')
  t.match(await create('--out', file, '--expires-at', 'never'), { code: exitCodes.refused, out: /^$/ })
  t.match(await create('--out', file, '--server', 'https://127.0.0.1:1'), { code: exitCodes.later, out: /^$/ })
  t.same(await readdir(folder), kept)
})

t.test('one whose secret could not be written works no more; where it does, that is told', async (t) => {
  const at = join(folder, 'lost')
  const lost = (isReachable: boolean) =>
    onCall(t, ({ method, url }, response) => {
      if (method === 'POST' && url === '/v1/tokens') {
        rmSync(at, { recursive: true })
        writeFileSync(at, '')
      }
      if (method === 'DELETE' && !isReachable) return response.writeHead(503).end()
    })
  for (const isReachable of [true, false]) {
    const known = new Set((await tokens()).map(({ id }) => id))
    await mkdir(at)
    const restore = lost(isReachable)
    const run = await create('--out', join(at, 'team.token'))
    restore()
    t.match(run, {
      code: exitCodes.usage,
      out: /^$/,
      err: /team\.token cannot be written: E.*Name another file by --out\./,
    })
    t.equal(/What was made could not be withdrawn, and works: revoke it by its id\.\n$/.test(run.err), !isReachable)
    const made = (await tokens()).filter(({ id }) => !known.has(id))
    t.equal(made.length, 1)
    t.equal(made[0]?.revokedAt === null, !isReachable)
    await rm(at)
  }
})

/** Sees each call before the service does, or answers it. */
const onCall = (t: Test, see: (request: IncomingMessage, response: ServerResponse) => unknown): (() => void) => {
  const { server } = service.service.app
  const listeners = server.listeners('request')
  const restore = (): void => {
    server.removeAllListeners('request')
    for (const listener of listeners) server.on('request', listener as never)
  }
  server.removeAllListeners('request')
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (see(request, response)) return
    for (const listener of listeners)
      (listener as (...those: readonly unknown[]) => void).call(server, request, response)
  })
  t.teardown(restore)
  return restore
}

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { tellReady } from '../../src/cli/notify.ts'
import { quiet } from '../helpers/log.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-notify-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const told = join(folder, 'told')
const never = new AbortController().signal

/** Resolves to what is logged, or to nothing when the helper has ended. */
const tell = (env: NodeJS.ProcessEnv): Promise<object | undefined> =>
  new Promise((resolve) => {
    const helper = tellReady({ ...quiet, warn: (line: object) => resolve(line) }, never, env)
    if (helper === undefined) resolve(undefined)
    helper?.once('close', (code) => {
      if (code === 0) resolve(undefined)
    })
  })

t.test('systemd is told by its helper, where it has asked', async (t) => {
  const helper = `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >> '${told}'\n`
  await writeFile(join(folder, 'systemd-notify'), helper, { mode: 0o755 })
  const env = { PATH: `${folder}:/usr/bin:/bin` }
  t.equal(await tell(env), undefined)
  await t.rejects(readFile(told), { code: 'ENOENT' }, 'and else nothing is started')
  t.equal(await tell({ ...env, NOTIFY_SOCKET: '/run/systemd/notify' }), undefined)
  t.equal(await readFile(told, 'utf8'), '/run/systemd/notify --ready\n')
})

t.test('where the helper is missing or fails, as in an image, that is logged, and the service goes on', async (t) => {
  const nowhere = { PATH: join(folder, 'nowhere'), NOTIFY_SOCKET: '/run/systemd/notify' }
  t.match(await tell(nowhere), { event: 'notify.failed', err: { code: 'ENOENT' } })
  await writeFile(join(folder, 'systemd-notify'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  t.match(await tell({ ...nowhere, PATH: `${folder}:/usr/bin:/bin` }), { event: 'notify.failed', err: { code: 1 } })
})

t.test('a helper that nobody listens to ends with the service, which does not wait for it', async (t) => {
  await writeFile(join(folder, 'systemd-notify'), '#!/bin/sh\nexec sleep 30\n', { mode: 0o755 })
  const stop = new AbortController()
  const warned: object[] = []
  const env = { PATH: `${folder}:/usr/bin:/bin`, NOTIFY_SOCKET: '/run/systemd/notify' }
  const helper = tellReady({ ...quiet, warn: (line: object) => void warned.push(line) }, stop.signal, env)
  const ended = new Promise((resolve) => helper?.once('close', (...how) => resolve(how)))
  stop.abort()
  t.strictSame(await ended, [null, 'SIGTERM'])
  t.strictSame(warned, [])
})

/** What a process may have open bounds its sockets, so that who fills these does not take what issuing needs. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'

import t from 'tap'

import { socketsFor } from '../../src/server/open-files.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'

t.test('each listener takes as many sockets as the system leaves room for', async (t) => {
  const told: object[] = []
  const log = { debug: () => {}, info: () => {}, warn: (line: object) => void told.push(line), error: () => {} }
  const asked = { connections: 4096, poolSize: 14 }
  t.equal(socketsFor(asked, log, 1_048_576), 4096)
  t.equal(socketsFor(asked, log, Number.POSITIVE_INFINITY), 4096)
  t.same(told, [])
  t.equal(socketsFor(asked, log, 1_024), 457)
  t.equal(socketsFor(asked, log, 64), 16, 'and never none')
  t.match(told[0], { event: 'sockets.few', openFiles: 1_024, connections: 457 })
})

slowTest('who takes all sockets of the public listener stops no request to the API', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-files-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const [port, publicPort] = [await freePort(), await freePort()]
  // Sockets that say nothing are closed after it.
  const env = { CHANCERY_REQUEST_DEADLINE: '20s' }
  const instance = startInstance({ data, port, publicPort, servingUrl, ownerUrl, env, openFiles: 256 })
  t.teardown(() => instance.signal('SIGKILL'))
  const told = new Promise<void>((resolve) => instance.told(/"event":"sockets.few"/, resolve))
  await instance.ready()
  // The log gathers its lines for a fifth of a second.
  await told
  const sockets: Socket[] = []
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (let i = 0; i < 400; i += 1) sockets.push(connect(publicPort, '127.0.0.1').on('error', () => {}))
  await Promise.all(sockets.map((socket) => once(socket, 'connect').catch(() => {})))
  for (let i = 0; i < 3; i += 1) {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false })
    sockets.push(socket)
    const met = once(socket, 'secureConnect').then(
      () => 'answered',
      ({ code }) => code,
    )
    t.equal(await met, 'answered')
  }
  instance.signal('SIGTERM')
  await instance.exited
})

/** Ports of tests: each is given once, to whichever of them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'

import t from 'tap'

import { freePort, openPorts } from '../helpers/port.ts'

const many = 300

t.test('no port is given twice, nor to two who look for one at the same time', async (t) => {
  const program = `
    import { freePort } from ${JSON.stringify(join(import.meta.dirname, '../helpers/port.ts'))}
    const ports = []
    for (let i = 0; i < ${many}; i += 1) ports.push(await freePort())
    process.stdin.resume()
    process.send(ports)`
  const other = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['pipe', 'inherit', 'inherit', 'ipc'],
  })
  t.teardown(() => void other.kill('SIGKILL'))
  const [theirs] = (await once(other, 'message')) as [readonly number[]]
  const ours = await Promise.all(Array.from({ length: many }, freePort))
  t.equal(new Set([...theirs, ...ours]).size, 2 * many)
})

t.test(
  'where others have all of them, whoever looks for one is told so, and finds one once they are gone',
  async (t) => {
    const first = await freePort()
    const other = createServer().listen(first, '127.0.0.1')
    await once(other, 'listening')
    const next = openPorts(first, first + 32)
    await t.rejects(next(), { message: /^Somebody listens at every 32nd port from \d+ to \d+, .* end what/ })
    other.close()
    await once(other, 'close')
    t.ok((await next()) > first)
  },
)

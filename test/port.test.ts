/** Ports of tests: each is given once, to whichever of them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import t from 'tap'

import { freePort } from './helpers/port.ts'

const many = 300

t.test('no port is given twice, nor to two who look for one at the same time', async (t) => {
  const program = `
    import { freePort } from ${JSON.stringify(join(import.meta.dirname, 'helpers', 'port.ts'))}
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

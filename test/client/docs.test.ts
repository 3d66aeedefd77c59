/** docs/client.md, typed as it stands. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { keyTypeNames } from '../../src/client/issue/order.ts'
import { readOrders } from '../../src/client/issue/orders.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { mainFile } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder, readShown } from './folders.ts'

const run = promisify(execFile)
t.setTimeout(300_000)

slowTest('from logging in to certificates that stay fresh, as the page tells it', async (t) => {
  const blocks = await blocksOf('docs/client.md')
  const service = await openTestService(t)
  const folder = await newFolder(t)
  await mkdir(join(folder, 'bin'))
  const program = async (name: string, text: string): Promise<void> =>
    writeFile(join(folder, 'bin', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  await program('chancery', `exec '${process.execPath}' '${mainFile}' "$@"`)
  await program('nginx', `echo "$@" >> '${join(folder, 'reloads')}'`)
  await copyFile(join(service.config.dataDir, 'root.pem'), join(folder, 'root.pem'))
  await copyFile(join(service.config.dataDir, 'admin.token'), join(folder, 'my.token'))
  const { host } = new URL(service.url)
  const env = { ...bare, PATH: `${join(folder, 'bin')}:${process.env['PATH']}`, HOME: folder }
  const typed: string[] = []
  const textOf = (name: string): string => {
    typed.push(name)
    return (blocks.get(name) ?? 'false').replaceAll('ca.example.com:8443', host)
  }
  const type = async (name: string): Promise<string> =>
    (await run('bash', ['-ceu', '-o', 'pipefail', textOf(name)], { cwd: folder, env })).stdout

  t.match(await type('login'), new RegExp(`^${host} is the current context`))
  t.match(await type('contexts'), new RegExp(`${host} is the current context\\.\n$`))
  t.match(await type('issue'), /^serial [\s\S]*web\/certificate\.pem: OK\n$/)
  t.match(await type('explain'), /^This request would be issued\./)
  const first = await readShown(join(folder, 'web'))
  t.match(await type('renew'), /nothing to do/)
  t.match(await type('orders'), /^serial [\s\S]*\nserial /)
  t.not((await readShown(join(folder, 'web')))?.serial, first?.serial, 'without --renew-before it is a new one')
  t.equal(await readFile(join(folder, 'reloads'), 'utf8'), '-s reload\n')
  t.equal((await readShown(join(folder, 'web-client')))?.certificate.subjectAltName, 'DNS:web.example.com')

  const child = spawn('bash', ['-ceu', `exec ${textOf('daemon')}`], {
    cwd: folder,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => void child.kill('SIGKILL'))
  let said = ''
  await new Promise<void>((resolve) =>
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk
      if (said.split('\n').length > 2) resolve()
    }),
  )
  child.kill('SIGTERM')
  t.equal((await once(child, 'exit'))[0], 0)
  t.match(said, /^20\S+Z kept +web: [0-9a-f]{32} is there, valid until 20\S+Z; to be renewed at 20\S+Z\.$/m)
  t.same(new Set(typed), new Set(blocks.keys()), 'and there is no other block')
})

t.test('the page names every kind of key, and every member of an order', async (t) => {
  const text = await readFile(new URL('../../docs/client.md', import.meta.url), 'utf8')
  for (const name of keyTypeNames) t.match(text, `\`${name}\``)
  const folder = await newFolder(t)
  await writeFile(join(folder, 'orders.yaml'), '- { none: x }')
  const error = await readOrders(join(folder, 'orders.yaml')).catch((error) => error)
  t.equal(error.exitCode, exitCodes.usage)
  for (const name of error.message.split('there are ')[1].replace('.', '').split(', ')) t.match(text, `\`${name}\``)
})

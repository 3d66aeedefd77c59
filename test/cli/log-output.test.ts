/** The log of a process that serves, to somebody who stalls or has gone, or to a disk that is full. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { openTestDatabase } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'

t.setTimeout(300_000)

const module = join(import.meta.dirname, '../../src/cli/log-output.ts')

/** Does what it is asked for, by how many lines it is to write, and answers for how long its log has stalled. */
const writer = `
  import { openServiceLog } from ${JSON.stringify(module)}
  const log = openServiceLog('info', { fd: 1, gatherMs: 20 })
  let n = 0
  process.on('message', (asked) => {
    if (asked === 'exit') process.exit(3)
    if (asked === 'end') return process.disconnect()
    for (let i = 0; i < asked; i += 1) log.info({ event: 'line', n: n++, padding: 'x'.repeat(200) }, 'é')
    setTimeout(() => process.send(log.stalledSeconds()), 400)
  })
  process.send(0)
`

const start = async (t: Test, to: number | 'pipe') => {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', writer], {
    env: bare,
    stdio: ['ignore', to, 'pipe', 'ipc'],
  })
  t.teardown(() => void child.kill('SIGKILL'))
  await once(child, 'message')
  return {
    child,
    write: async (lines: number): Promise<number> => {
      const answered = once(child, 'message')
      child.send(lines)
      return (await answered)[0]
    },
  }
}

/** Undefined where it has not ended after five seconds. */
const ended = async (child: ChildProcess): Promise<number | null | undefined> =>
  Promise.race([once(child, 'exit').then(([code]) => code as number | null), sleep(5_000, undefined, { ref: false })])

const full = async (t: Test): Promise<number> => {
  const file = await open('/dev/full', 'w')
  t.teardown(() => file.close())
  return file.fd
}

/** What a child is given by name is a socket, which holds more. */
const openPipe = async (t: Test) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-log-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'pipe')
  await once(spawn('mkfifo', [path]), 'exit')
  // Opening one end waits for the other.
  const [readable, writable] = await Promise.all([open(path, 'r'), open(path, 'w')])
  return { path, readable, writable }
}

slowTest('a reader that stalls costs bounded memory, and learns how many lines it has missed', async (t) => {
  const { child, write } = await start(t, 'pipe')
  const many = 40_000
  t.ok((await write(many)) > 0.1, 'that it stalls is known')
  t.ok((await write(0)) > 0.5)
  const all = text(child.stdout as NonNullable<typeof child.stdout>)
  while ((await write(0)) > 0);
  await write(1)
  child.send('end')
  const lines = (await all).trimEnd().split('\n')
  const told = lines.map((line) => JSON.parse(line))
  const numbers = told.filter(({ event }) => event === 'line').map(({ n }) => n)
  const kept = numbers.length - 1
  t.ok(kept > 10_000 && kept < 20_000, `${kept} lines were kept`)
  t.same(numbers, [...Array(kept).keys(), many], 'each once, in their order')
  t.match(told.at(-2), { level: 'warn', event: 'log.lost', lines: many - kept }, 'where they are missing')
})

slowTest('a reader who takes a pipeful at a time, and more than is written, misses no line', async (t) => {
  const { writable, readable } = await openPipe(t)
  const { child, write } = await start(t, writable.fd)
  await writable.close()
  const pieces: string[] = []
  const reading = (async () => {
    for await (const piece of readable.createReadStream({ encoding: 'latin1' })) {
      pieces.push(piece)
      await sleep(10)
    }
  })()
  for (let i = 0; i < 7; i += 1) await write(5_000)
  while ((await write(0)) > 0);
  child.send('end')
  await reading
  const all = pieces.join('')
  t.notMatch(all, 'log.lost')
  t.equal(all.trimEnd().split('\n').length, 35_000)
})

slowTest('a log that nobody takes does not keep its process', async (t) => {
  for (const [how, to] of [
    ['a pipe that nobody reads', 'pipe'],
    ['a full disk', await full(t)],
    ['a reader that has gone', 'gone'],
  ] as const)
    for (const [end, code] of [
      ['exit', 3],
      ['end', 0],
    ] as const) {
      const { child, write } = await start(t, to === 'gone' ? 'pipe' : to)
      if (to === 'gone') child.stdout?.destroy()
      t.ok((await write(2_000)) > 0.1, `${how}: it goes on`)
      const exit = ended(child)
      child.send(end)
      t.equal(await exit, code, `${how}: ${end}`)
    }
})

t.test('nor does a terminal that stands still', { skip: !existsSync('/usr/bin/script') }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-log-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'writer.mjs')
  const body = `
    import { openServiceLog } from ${JSON.stringify(module)}
    const log = openServiceLog('info', { fd: 1, gatherMs: 20 })
    setInterval(() => {
      for (let i = 0; i < 1_000; i += 1) log.info({ event: 'line', padding: 'x'.repeat(200) })
      if (log.stalledSeconds() > 0.5) process.exit(3)
    }, 20)`
  await writeFile(file, body)
  // It has the terminal whose reader is stalled by nobody who reads what it shows.
  const terminal = spawn(
    '/usr/bin/script',
    ['-qec', `'${process.execPath}' '${file}'; echo $? > '${folder}/code'`, '/dev/null'],
    {
      env: bare,
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  )
  t.teardown(() => void terminal.kill('SIGKILL'))
  const code = async (): Promise<string> => readFile(join(folder, 'code'), 'utf8').catch(() => '')
  for (let i = 0; i < 100 && (await code()) === ''; i += 1) await sleep(100)
  t.equal((await code()).trim(), '3')
})

t.test('what was not taken is told once it is taken again', async (t) => {
  const { path, readable, writable } = await openPipe(t)
  const { child, write } = await start(t, writable.fd)
  await readable.close()
  await writable.close()
  t.ok((await write(3)) > 0.1)
  const reader = await open(path, 'r')
  child.send('end')
  const told = (await reader.readFile('utf8')).trimEnd().split('\n')
  await reader.close()
  t.same(
    told.map((line) => JSON.parse(line).n),
    [0, 1, 2],
  )
})

slowTest('a service answers and stops though its log is on a full disk', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-log-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const [port, publicPort] = [await freePort(), await freePort()]
  const env = { CHANCERY_LOG_LEVEL: 'info' }
  const instance = startInstance({ data, port, publicPort, servingUrl, ownerUrl, env, log: await full(t) })
  t.teardown(() => instance.signal('SIGKILL'))
  await instance.ready()
  instance.signal('SIGTERM')
  t.equal(await instance.exited, 0)
})

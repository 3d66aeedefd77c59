/** What a command prints, to somebody who stops reading or to a disk that is full. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { newFolder } from '../client/folders.ts'
import { bare } from '../helpers/environment.ts'
import { mainFile } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

t.setTimeout(300_000)
const folder = await mkdtemp(join(tmpdir(), 'chancery-streams-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

/** A shell's command line, where `$0` is Node and `$1` the command. */
const shell = (line: string, ...args: string[]): Promise<{ readonly code: number; readonly err: string }> =>
  new Promise((resolve) => {
    execFile('/bin/sh', ['-c', line, process.execPath, mainFile, ...args], { env: bare }, (error, _, err) => {
      resolve({ code: error ? Number(error.code) : 0, err })
    })
  })

t.test('whoever reads no further has what was wanted', async (t) => {
  for (let i = 0; i < 3; i += 1) {
    const child = spawn(process.execPath, [mainFile, 'issue', '--help'], {
      env: bare,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child.stdout.destroy()
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk
    })
    const [code] = await once(child, 'close')
    t.same({ code, said }, { code: 0, said: '' })
  }
})

slowTest('what a disk has no room for is told, and ends with 2', async (t) => {
  const sentence = /^Standard output cannot be written \((ENOSPC|EFBIG)\); it is not whole\.\n$/
  for (const asked of ['--version', 'issue --help'])
    t.match(await shell(`exec "$0" "$1" ${asked} > /dev/full`), { code: exitCodes.usage, err: sentence }, asked)
  const file = join(folder, 'part')
  const part = await shell('unset NODE_OPTIONS; ulimit -f 2; exec "$0" "$1" issue --help > "$2"', file)
  t.match(part, { code: exitCodes.usage, err: sentence }, 'also where there is room for a part of it')
  t.ok((await readFile(file)).length > 0)
  t.equal((await shell('exec "$0" "$1" issue --bogus 2> /dev/full')).code, exitCodes.usage, 'nor is there a stack')
  t.equal((await shell('exec "$0" "$1" issue --help > "$2"', join(folder, 'whole'))).code, 0)
})

slowTest('a daemon goes on whether or not its log can be written', async (t) => {
  const service = await openTestService(t)
  const full = await open('/dev/full', 'w')
  t.teardown(() => full.close())
  for (const to of [full.fd, 'pipe'] as const) {
    const out = await newFolder(t)
    const args = [
      'issue',
      '--profile',
      'server',
      '--name',
      'log.example.com',
      '--out',
      out,
      '--exec',
      'false',
      '--daemon',
    ]
    const env = { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url }
    const child = spawn(process.execPath, [mainFile, ...args], { env, stdio: ['ignore', to, 'ignore'] })
    t.teardown(() => void child.kill('SIGKILL'))
    child.stdout?.destroy()
    const status = join(out, '.chancery/status.json')
    const failures = async (): Promise<number> =>
      JSON.parse(await readFile(status, 'utf8').catch(() => '{}')).failures ?? 0
    while (child.exitCode === null && (await failures()) < 2) await new Promise((resolve) => setTimeout(resolve, 50))
    t.equal(child.exitCode, null, `it runs, with ${to}`)
    child.kill('SIGTERM')
    const [code] = await once(child, 'exit')
    t.equal(code, 0)
  }
})

slowTest('a line of its log that a full disk has broken off spoils none after it', async (t) => {
  const service = await openTestService(t)
  const [out, log] = [join(await newFolder(t), 'a\u009bm'), join(await newFolder(t), 'log')]
  // Room for what it writes but for its log, of which a part of a line fits.
  const most = 64 * 512
  await writeFile(log, '\n'.repeat(most - 40))
  const line = 'ulimit -f 64; exec "$0" "$@" >> "$LOG"'
  const order = ['issue', '--profile', 'server', '--name', 'torn.example.com', '--out', out, '--exec', 'false']
  const env = { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url, LOG: log }
  const args = ['-c', line, process.execPath, mainFile, ...order, '--daemon', '--json']
  const child = spawn('/bin/sh', args, { env, stdio: 'ignore' })
  t.teardown(() => void child.kill('SIGKILL'))
  const untilIn = async (isThere: (text: string) => boolean): Promise<string> => {
    for (;;) {
      const text = await readFile(log, 'utf8')
      if (isThere(text) || child.exitCode !== null) return text.trim()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  const torn = await untilIn(({ length }) => length === most)
  t.match(torn, /^\{"time":"[^\n]{31}$/)
  // Somebody makes room.
  await writeFile(log, torn)
  const [first, next = ''] = (await untilIn((text) => text.endsWith('}\n'))).split('\n')
  t.equal(first, torn)
  t.match(JSON.parse(next), { event: 'certificate.failed', folder: out })
  t.match(next, /a\\u009bm/, 'nor does it steer a terminal')
  child.kill('SIGTERM')
  await once(child, 'exit')
})

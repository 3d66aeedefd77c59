/** The lock of commands over what they share: several at once, and what is left of those that were killed. */
import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { withLock } from '../../src/lib/lock.ts'
import { newFolder } from '../client/folders.ts'

const lockFile = join(import.meta.dirname, '../../src/lib/lock.ts')

/** Another process, which adds one to a number in a file so many times; or has the lock until it is killed. */
const start = (folder: string, times: number) => {
  const text = `
    const { withLock } = await import(${JSON.stringify(lockFile)})
    const { readFile, writeFile } = await import('node:fs/promises')
    for (let i = 0; i < ${times}; i += 1)
      await withLock('${folder}/lock', async () => {
        const count = Number(await readFile('${folder}/count', 'utf8'))
        await writeFile('${folder}/count', String(count + 1))
      })
    if (${times} === 0) await withLock('${folder}/lock', () => new Promise(() => {
      process.stdout.write('held')
      setInterval(() => {}, 1000)
    }))`
  const args = ['--input-type=module', '--eval', text]
  return spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
}

const ended = (child: ReturnType<typeof start>): Promise<number | null> =>
  new Promise((resolve) => child.once('exit', resolve))

t.test('one process at a time has it', async (t) => {
  const folder = await newFolder(t)
  await writeFile(join(folder, 'count'), '0')
  const children = [start(folder, 50), start(folder, 50), start(folder, 50)]
  t.same(await Promise.all(children.map(ended)), [0, 0, 0])
  t.equal(await readFile(join(folder, 'count'), 'utf8'), '150')
  t.same(await readdir(folder), ['count'], 'and nothing is left')
})

t.test('of those that were killed with it, one is the next, and takes it at once', async (t) => {
  const folder = await newFolder(t)
  await writeFile(join(folder, 'count'), '0')
  const child = start(folder, 0)
  await new Promise((resolve) => child.stdout?.once('data', resolve))
  // Whoever is killed while it takes one away leaves a name beside it.
  await symlink('chancery', join(folder, 'lock.0123456789abcdef'))
  const waiting = [start(folder, 10), start(folder, 10), start(folder, 10)].map(ended)
  child.kill('SIGKILL')
  await ended(child)
  t.same(await Promise.all(waiting), [0, 0, 0])
  t.equal(await readFile(join(folder, 'count'), 'utf8'), '30')
})

t.test('one of another machine, or of nobody, is respected until it is old', async (t) => {
  for (const make of [
    (path: string) => symlink('1@elsewhere.example.com:x', path),
    (path: string) => symlink(`${process.pid}@${hostname()}:x`, path),
    // Of a container of the same name: there is such a process there, and none here.
    (path: string) => symlink(`4194304@${hostname()}/1:x`, path),
    (path: string) => symlink(`4194304@${hostname()}:x`, path),
    (path: string) => symlink('../../../etc', path),
    (path: string) => writeFile(path, ''),
  ]) {
    const folder = await newFolder(t)
    await make(join(folder, 'lock'))
    const take = (staleMs: number) => withLock(join(folder, 'lock'), async () => 'taken', { patienceMs: 100, staleMs })
    await t.rejects(take(60_000), { kind: 'later', message: /is at it, and keeps / })
    t.equal(await take(1), 'taken')
    t.same(await readdir(folder), [])
  }
})

t.test('whoever was stopped for long learns that it has it no more', async (t) => {
  const folder = await newFolder(t)
  const path = join(folder, 'lock')
  const inner = withLock(path, async (slow) => {
    await slow.assertHeld()
    await new Promise((resolve) => setTimeout(resolve, 5))
    await withLock(path, () => t.rejects(slow.assertHeld(), { kind: 'later', message: /took too long/ }), {
      patienceMs: 5_000,
      staleMs: 1,
    })
    await withLock(path, async (other) => {
      await other.assertHeld()
    })
    await t.rejects(slow.assertHeld(), { kind: 'later', message: /took too long/ })
  })
  await inner
  t.same(await readdir(folder), [])
})

t.test('it is made where its folder is not there yet, and says where it cannot be', async (t) => {
  const folder = await newFolder(t)
  t.equal(await withLock(join(folder, 'a/b/lock'), async () => 1), 1)
  await mkdir(join(folder, 'taken/lock'), { recursive: true })
  const times = { patienceMs: 100, staleMs: 0 }
  await t.rejects(
    withLock(join(folder, 'taken/lock'), async () => 1, times),
    { code: /EISDIR|EPERM/ },
  )
})

import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { makeFolder } from '../src/make-folder.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-folders-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

t.test('all that are missing are made, and the topmost of them is told', async (t) => {
  const path = join(folder, 'a', 'b', 'c')
  t.equal(await makeFolder(path, 0o700), join(folder, 'a'))
  for (const made of [join(folder, 'a'), path]) t.equal((await stat(made)).mode & 0o777, 0o700)
  t.equal(await makeFolder(path), undefined, 'it is there')
  t.equal(await makeFolder(join(path, 'd')), join(path, 'd'))
})

t.test('where none can be made, that is told, and nobody waits for ever', { timeout: 5_000 }, async (t) => {
  await t.rejects(makeFolder('/proc/x/y'), { code: 'ENOENT', path: '/proc/x' })
  await writeFile(join(folder, 'file'), '')
  await t.rejects(makeFolder(join(folder, 'file', 'x')), { code: 'ENOTDIR' })
})

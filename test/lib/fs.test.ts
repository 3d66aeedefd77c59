import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { makeFolder } from '../../src/lib/fs.ts'

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

t.test(
  'what stands in the place of a folder is told by its name: a file, a link to one, a link to nothing',
  async (t) => {
    const [file, link, nowhere] = ['a-file', 'a-link', 'nowhere'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ]
    await writeFile(file, '')
    await symlink(file, link)
    await symlink(join(folder, 'nothing'), nowhere)
    for (const [path, code] of [
      [file, 'ENOTDIR'],
      [link, 'ENOTDIR'],
      [nowhere, 'EEXIST'],
    ] as const)
      for (const below of ['', 'x', 'x/y'])
        await t.rejects(makeFolder(join(path, below)), { code, path: new RegExp(`^${path}$`) }, below)
    const there = join(folder, 'there')
    await mkdir(there)
    await rm(link)
    await symlink(there, link)
    t.equal(await makeFolder(link), undefined, 'a link to a folder is one')
    t.equal(await makeFolder(join(link, 'x')), join(link, 'x'))
  },
)

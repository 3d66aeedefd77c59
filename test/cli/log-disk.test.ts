/** What exports, and remembers what was verified, on a bad day of its disk. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { writeWhole } from '../../src/auditor/state.ts'
import { openFullDisk } from '../helpers/full-disk.ts'

t.test('a disk that takes no more is told with the file, and what was begun gives its room back', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-disk-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'tile')
  await writeFile(path, 'before')
  const disk = openFullDisk()
  disk.fill(100)
  const writing = writeWhole(path, [Buffer.alloc(80), Buffer.alloc(80)])
  await t.rejects(writing, { kind: 'usage', message: `${path} cannot be written (EFBIG); what was there is kept.` })
  disk.free()
  t.same(await readdir(folder), ['tile'])
  t.equal(await readFile(path, 'utf8'), 'before')
  await writeWhole(path, [Buffer.alloc(160)])
  t.equal((await readFile(path)).length, 160)
})

t.test('nor is a place where nothing can be made a defect', async (t) => {
  for (const [path, code] of [
    ['/sys/nowhere/checkpoint', 'EPERM'],
    ['/proc/nowhere/checkpoint', 'ENOENT'],
    [join(import.meta.filename, 'checkpoint'), 'ENOTDIR'],
  ] as const)
    await t.rejects(writeWhole(path, ['x']), { kind: 'usage', message: new RegExp(`^${path} .*\\(${code}\\); `) }, path)
})

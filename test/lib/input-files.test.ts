/** Files that a command line names, and that are not what it takes them for. */
import { constants } from 'node:buffer'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { readGiven, readGivenText } from '../../src/lib/input-files.ts'
import { slowTest } from '../helpers/slow.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-given-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const reads: readonly ((path: string, what?: string) => Promise<unknown>)[] = [readGiven, readGivenText]

t.test('what cannot be read is the fault of the command line, and named once', async (t) => {
  const none = join(folder, 'none')
  for (const read of reads) {
    await t.rejects(read(none), { kind: 'usage', message: `${none} cannot be read (ENOENT).` })
    await t.rejects(read(folder, 'The key '), { kind: 'usage', message: `The key ${folder} cannot be read (EISDIR).` })
  }
})

slowTest('so is what is longer than a text can be, as a disk that was named by mistake', async (t) => {
  const disk = join(folder, 'disk')
  await writeFile(disk, '')
  await truncate(disk, constants.MAX_STRING_LENGTH + 1)
  const fault = { kind: 'usage', message: `${disk} is too long for what is read here: name another file.` }
  for (const read of reads) await t.rejects(read(disk), fault)
})

t.test('a text is what is there, its byte order mark included', async (t) => {
  const file = join(folder, 'text')
  await writeFile(file, '\uFEFFä\n')
  t.equal(await readGivenText(file), '\uFEFFä\n')
  t.same(await readGiven(file), Buffer.from('\uFEFFä\n'))
})

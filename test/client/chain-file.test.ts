/** A file for a chain that is there already, and whose it is. */
import { chmod, chown, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { replaceChain } from '../../src/commands/issue/chain-file.ts'
import { newFolder } from './folders.ts'

const isRoot = process.geteuid?.() === 0
const nobody = 65_534

t.test('what takes the place of a chain is of whom it was, and may be read by whom it might', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'chain.pem')
  await replaceChain(file, 'first')
  t.equal((await stat(file)).mode & 0o7777, 0o644)
  await chmod(file, 0o640)
  if (isRoot) await chown(file, nobody, nobody)
  const { ino, uid, gid } = await stat(file)
  await replaceChain(file, 'second')
  t.equal(await readFile(file, 'utf8'), 'second')
  const after = await stat(file)
  t.match(after, { uid, gid })
  t.equal(after.mode & 0o7777, 0o640)
  t.not(after.ino, ino, 'it is another file')
  t.same(await readdir(folder), ['chain.pem'])
})

t.test('where only the file itself may be written, it is written', async (t) => {
  // Where anybody may enter.
  const folder = await newFolder(t, '/tmp')
  const theirs = join(folder, 'theirs')
  await mkdir(theirs)
  const [file, link] = [join(theirs, 'chain.pem'), join(folder, 'link.pem')]
  await writeFile(file, 'first')
  await symlink('theirs/chain.pem', link)
  await chmod(folder, 0o755)
  if (isRoot) await chown(file, nobody, nobody)
  await chmod(theirs, 0o555)
  if (isRoot) process.seteuid?.(nobody)
  try {
    await replaceChain(link, 'second')
    await t.rejects(replaceChain(join(theirs, 'other.pem'), 'x'), { code: 'EACCES' })
  } finally {
    if (isRoot) process.seteuid?.(0)
    await chmod(theirs, 0o755)
  }
  t.equal(await readFile(file, 'utf8'), 'second')
  t.same(await readdir(theirs), ['chain.pem'])
})

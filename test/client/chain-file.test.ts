/** A file for a chain that is there already, and whose it is. */
import { randomUUID } from 'node:crypto'
import { renameSync, symlinkSync, watch } from 'node:fs'
import {
  chmod,
  chown,
  link,
  lutimes,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { replaceChain, sweepChains } from '../../src/client/issue/chain-file.ts'
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

t.test('whoever puts a link in the place of what is half made is given nothing that it leads to', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'chain.pem')
  await replaceChain(file, 'first')
  let swapped = 0
  const watcher = watch(folder, (_event, name) => {
    if (swapped > 0 || !name?.startsWith('chain.pem.')) return
    renameSync(join(folder, name), join(folder, 'taken'))
    // Nowhere: who would follow it fails.
    symlinkSync('nowhere', join(folder, name))
    swapped += 1
  })
  t.teardown(() => watcher.close())
  await replaceChain(file, 'second')
  t.equal(swapped, 1)
  t.equal(await readFile(join(folder, 'taken'), 'utf8'), 'second')
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

t.test('what was left half made goes when it is old, and nothing else that is named like it', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'chain.pem')
  const make = async (name: string, text = 'half'): Promise<string> => {
    await writeFile(join(folder, name), text)
    await utimes(join(folder, name), 0, 0)
    return name
  }
  const old = await Promise.all([make(`chain.pem.${randomUUID()}`), make(`chain.pem.pending.json.${randomUUID()}`)])
  const given = await make(`chain.pem.${randomUUID()}`)
  if (isRoot) {
    // As one that was given to whom the file in its place is.
    await writeFile(file, 'there')
    await chown(file, nobody, nobody)
    await chown(join(folder, given), nobody, nobody)
  }
  const young = `chain.pem.${randomUUID()}`
  await writeFile(join(folder, young), 'half')
  const kept = await Promise.all([
    make('chain.pem.bak'),
    make(`other.pem.${randomUUID()}`),
    make(`chain.pem.old.${randomUUID()}`),
    make(`chain.pem-${randomUUID()}`),
    make('target'),
  ])
  const [symbolic, hard, inside] = [0, 0, 0].map(() => `chain.pem.${randomUUID()}`) as [string, string, string]
  await symlink('target', join(folder, symbolic))
  await lutimes(join(folder, symbolic), 0, 0)
  await link(join(folder, 'target'), join(folder, hard))
  await mkdir(join(folder, inside))
  await utimes(join(folder, inside), 0, 0)
  const theirs = await make(`chain.pem.${randomUUID()}`)
  if (isRoot) await chown(join(folder, theirs), nobody - 1, nobody)
  await sweepChains([file])
  const left = new Set(await readdir(folder))
  for (const name of [...old, given]) t.notOk(left.has(name), name)
  for (const name of [young, ...kept, symbolic, hard, inside]) t.ok(left.has(name), name)
  if (isRoot) t.ok(left.has(theirs), 'that of somebody else')
  t.equal(await readFile(join(folder, 'target'), 'utf8'), 'half')
  await sweepChains([join(folder, 'nowhere', 'chain.pem')])
  await sweepChains([])
})

t.test('behind a link it goes where that leads', async (t) => {
  const folder = await newFolder(t)
  await mkdir(join(folder, 'real'))
  const draft = join(folder, 'real', `chain.pem.${randomUUID()}`)
  for (const path of [join(folder, 'real', 'chain.pem'), draft]) await writeFile(path, 'x')
  await utimes(draft, 0, 0)
  await symlink('real/chain.pem', join(folder, 'link.pem'))
  await sweepChains([join(folder, 'link.pem')])
  t.same(await readdir(join(folder, 'real')), ['chain.pem'])
})

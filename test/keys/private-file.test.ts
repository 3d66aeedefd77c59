import { execFile } from 'node:child_process'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t, { type Test } from 'tap'

import { createPrivateFile, readPrivateFile, writePrivateFile } from '../../src/keys/private-file.ts'
import { slowTest } from '../helpers/slow.ts'

const folderFor = async (t: Test): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-private-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}
const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777

t.test('what is written is ours alone, in a folder of ours, whatever the umask says', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'a', 'b', 'secret')
  const umask = process.umask(0)
  t.teardown(() => process.umask(umask))
  await writePrivateFile(path, 'one')
  t.equal(await modeOf(path), 0o600)
  t.equal(await modeOf(join(folder, 'a', 'b')), 0o700)
  t.equal(await modeOf(join(folder, 'a')), 0o700)
  t.equal((await readPrivateFile(path)).toString(), 'one')
})

t.test('a file is replaced as a whole: whoever reads meanwhile sees the old or the new one', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'secret')
  const contents = ['a', 'b', 'c', 'd'].map((letter) => letter.repeat(200_000))
  await writePrivateFile(path, contents[0] ?? '')
  let writing = true
  const reader = (async () => {
    for (let seen = 0; writing || seen === 0; seen++)
      if (!contents.includes((await readPrivateFile(path)).toString())) t.fail('a torn file was read')
  })()
  for (const content of [...contents, ...contents]) await writePrivateFile(path, content)
  writing = false
  await reader
  await Promise.all(contents.map((content) => writePrivateFile(path, content)))
  t.ok(contents.includes((await readPrivateFile(path)).toString()), 'writers at once leave one whole file')
  t.same(await readdir(folder), ['secret'], 'and no draft')
})

t.test('a file that must not be there yet is made by one of many, whole, and replaces nothing', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'once')
  const contents = Array.from({ length: 8 }, (_, i) => String(i).repeat(50_000))
  const outcomes = await Promise.allSettled(contents.map((content) => createPrivateFile(path, content)))
  const winner = outcomes.findIndex(({ status }) => status === 'fulfilled')
  t.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const outcome of outcomes) if (outcome.status === 'rejected') t.match(outcome.reason, { code: 'EEXIST' })
  t.equal((await readPrivateFile(path)).toString(), contents[winner])
  t.equal(await modeOf(path), 0o600)
  t.same(await readdir(folder), ['once'])
})

t.test('a write that fails leaves the old file and no draft', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'secret')
  await mkdir(join(path, 'in-the-way'), { recursive: true })
  await t.rejects(writePrivateFile(path, 'new'))
  t.same(await readdir(folder), ['secret'])
  await t.rejects(writePrivateFile(join(folder, 'secret', 'in-the-way'), 'new'))
})

t.test('a file that others could read or write is refused with what to do', async (t) => {
  const path = join(await folderFor(t), 'secret')
  await writeFile(path, 'x')
  for (const mode of [0o644, 0o640, 0o604, 0o660, 0o602, 0o610, 0o601, 0o777]) {
    await chmod(path, mode)
    const message = new RegExp(`secret can be read by others \\(mode ${mode.toString(8)}\\): chmod 600 it`)
    await t.rejects(readPrivateFile(path), { message }, mode.toString(8))
  }
  for (const mode of [0o600, 0o400]) {
    await chmod(path, mode)
    t.equal((await readPrivateFile(path)).toString(), 'x')
  }
})

t.test('a link is judged by the file that it leads to', async (t) => {
  const folder = await folderFor(t)
  await writeFile(join(folder, 'open'), 'x', { mode: 0o644 })
  await symlink(join(folder, 'open'), join(folder, 'link'))
  await t.rejects(readPrivateFile(join(folder, 'link')), { message: /can be read by others/ })
  await writePrivateFile(join(folder, 'link'), 'y')
  t.equal(await readFile(join(folder, 'open'), 'utf8'), 'x', 'writing replaces the link, and not what it leads to')
})

const root = process.getuid?.() === 0
t.test(
  'a secret of Kubernetes with fsGroup (root’s, 0440) is read by its group, and by nobody more',
  { skip: root ? false : 'only root can make such a file' },
  async (t) => {
    const folder = await folderFor(t)
    await chmod(folder, 0o755)
    const path = join(folder, 'secret')
    await writeFile(path, 'x', { mode: 0o440 })
    await chown(path, 0, 4242)
    await t.rejects(readPrivateFile(path), { message: /mode 440/ }, 'root needs no group')
    /** As an ordinary user of these groups, for as long as this takes. */
    const as = async (groups: readonly number[]): Promise<string> => {
      const before = process.getgroups?.() ?? []
      process.setgroups?.([...groups])
      process.seteuid?.(12_345)
      // The check asks for the real user, which only a process of its own could give up and take back.
      const { getuid } = process
      process.getuid = () => 12_345
      try {
        return (await readPrivateFile(path)).toString()
      } catch (error) {
        return (error as Error).message
      } finally {
        if (getuid) process.getuid = getuid
        process.seteuid?.(0)
        process.setgroups?.([...before])
      }
    }
    t.equal(await as([4242]), 'x')
    t.match(await as([4343]), /EACCES|mode 440/)
    await chmod(path, 0o444)
    t.match(
      await as([4242]),
      /\(mode 444\), and is the account 0's, while this runs as 12345: chown 12345 and chmod 400 it .+; as a Secret of Kubernetes it takes defaultMode 0440 and an fsGroup\.$/,
    )
    await t.rejects(readPrivateFile(path), { message: /\(mode 444\): chmod 600 it\.$/ }, 'root may do so with any')
    await chmod(path, 0o460)
    t.match(await as([4242]), /mode 460/, 'writable by the group')
    await chmod(path, 0o440)
    await chown(path, 12_346, 4242)
    t.match(await as([4242]), /mode 440/, "another user's")
  },
)

t.test(
  'a credential of systemd (root’s, 0440 by an access list) is read where it was given to us, and nowhere else',
  { skip: root ? false : 'only root can make such a file' },
  async (t) => {
    const folder = await folderFor(t)
    const path = join(folder, 'secret')
    await writeFile(path, 'x', { mode: 0o440 })
    await chown(path, 0, 4242)
    const before = process.env['CREDENTIALS_DIRECTORY']
    t.teardown(() => setCredentials(before))
    const { getuid } = process
    t.teardown(() => {
      if (getuid) process.getuid = getuid
    })
    // What the access list would let in reads as root here, and says that it is not.
    process.getuid = () => 12_345
    const readWith = (credentials: string | undefined): Promise<string> => {
      setCredentials(credentials)
      return readPrivateFile(path).then(String, (error: Error) => error.message)
    }
    t.equal(await readWith(folder), 'x')
    for (const elsewhere of [undefined, '', join(folder, '..'), join(folder, 'secret')])
      t.match(await readWith(elsewhere), /mode 440/, String(elsewhere))
    for (const mode of [0o444, 0o460, 0o441]) {
      await chmod(path, mode)
      t.match(await readWith(folder), new RegExp(`mode ${mode.toString(8)}`))
    }
    await chmod(path, 0o440)
    await chown(path, 12_346, 4242)
    t.match(await readWith(folder), /mode 440/, "another user's")
  },
)

const setCredentials = (folder: string | undefined): void => {
  if (folder === undefined) delete process.env['CREDENTIALS_DIRECTORY']
  else process.env['CREDENTIALS_DIRECTORY'] = folder
}

slowTest('what comes by a pipe is read to its end, however late it comes', async (t) => {
  const path = join(await folderFor(t), 'pipe')
  await promisify(execFile)('mkfifo', ['-m', '600', path])
  for (const write of [`sleep 0.3; printf one`, `printf on; sleep 2.5; printf e`, `sleep 2.5; printf one`]) {
    const writer = promisify(execFile)('sh', ['-c', `exec > "$0"; ${write}`, path])
    t.equal((await readPrivateFile(path)).toString(), 'one', write)
    await writer
  }
})

/** Ceremonies that do not come to their end: whatever the key has made, a transcript tells of it. */
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, symlink } from 'node:fs/promises'

import t from 'tap'
import { stringify } from 'yaml'

import { createSealed } from '../../src/cli/ceremony/files.ts'
import { runCeremony } from '../../src/cli/ceremony/run.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { slowTest } from '../helpers/slow.ts'
import { fileKey, opensslKeys, openTable, rootParameters, signParameters, type Table } from './ceremonies.ts'

t.setTimeout(300_000)

/** The transcript, whose last line is right. */
const transcriptOf = async (table: Table, name = 'root.txt'): Promise<string> => {
  const text = await table.read(name)
  const [, body = '', digest = ''] = /^([\s\S]*\n)SHA-256 of all lines above: ([0-9a-f]{64})\n$/.exec(text) ?? []
  t.equal(createHash('sha256').update(body).digest('hex'), digest)
  return text
}
const filesOf = async (table: Table) =>
  (await readdir(table.folder)).filter((name) => !/yaml|passphrase/.test(name)).sort()

/** A root whose key was made, and that now waits for the digits. */
const untilDigits = async (table: Table) => {
  await table.write('root.yaml', stringify(rootParameters('root')))
  const ceremony = table.begin('root', 'root.yaml', { typed: '' })
  ceremony.child.stdin.write('yes\n')
  await ceremony.shows(/Type the first 8 digits/)
  return ceremony
}

slowTest('an output that has no place is found out before the key is made', async (t) => {
  const table = await openTable(t)
  await mkdir(table.path('there'))
  await symlink('there', table.path('link'))
  for (const [what, output, said] of [
    ['a missing folder', { certificate: 'missing/root.pem' }, /Nothing can be written into \S*missing \(ENOENT\)/],
    ['a file for a folder', { certificate: 'passphrase/root.pem' }, /Nothing can be written into .*\(ENOTDIR\)/],
    [
      'one file, written twice',
      { certificate: './root.txt' },
      /\/output\/transcript \(root\.txt\) is the file of another/,
    ],
    ['one file, by two ways', { certificate: 'there/root.pem', transcript: 'link/root.pem' }, /is the file of another/],
    ['the file of the key', { certificate: 'root.key.pem' }, /root\.key\.pem is the file of another output/],
    ['a transcript without a place', { transcript: 'missing/root.txt' }, /Nothing can be written/],
  ] as const) {
    const parameters = rootParameters('root', {
      output: { certificate: 'root.pem', transcript: 'root.txt', ...output },
    })
    const ended = await table.act('root', parameters)
    t.match(ended, { code: exitCodes.usage, out: /^$/ }, what)
    t.match(ended.err, said, what)
    t.same(await filesOf(table), ['link', 'there'], `${what}: nothing was made`)
    t.same(await readdir(table.path('there')), [])
  }
  const key = { ...fileKey('root'), algorithm: 'ec-p256', uri: 'file:/sys/nowhere/root.key.pem' }
  t.match(await table.act('root', rootParameters('root', { key })), {
    code: exitCodes.usage,
    err: /^The key at \/sys\/nowhere\/root\.key\.pem cannot be read or written: EPERM/,
  })
  t.same(await filesOf(table), ['link', 'there'], 'nor is the place of a key a bare errno')
})

t.test('a medium that is full is found out too, and nothing on it stands in the way of the next try', async (t) => {
  const table = await openTable(t)
  await table.write('root.yaml', stringify(rootParameters('root')))
  const hold = () =>
    runCeremony(
      'root',
      { parameters: table.path('root.yaml'), yes: true },
      { clock: () => new Date(), input: process.stdin, show: () => {}, onBreak: () => {} },
    )
  const disk = openFullDisk()
  disk.fill(1_000)
  const full = { kind: 'usage', message: `Nothing can be written into ${table.folder} (EFBIG).` }
  await t.rejects(hold(), full).finally(disk.free)
  t.same(await filesOf(table), [])

  disk.fill(10)
  const path = table.path('root.txt')
  const named = { kind: 'usage', message: `${path} cannot be written (EFBIG).` }
  await t.rejects(createSealed(path, 'longer than that'), named).finally(disk.free)
  t.same(await filesOf(table), [], 'nor is what is full only now')
  const sealed = await createSealed(path, 'before\n')
  const before = await transcriptOf(table)
  disk.fill(10)
  await t.rejects(sealed.replace('after, and longer\n'), named).finally(disk.free)
  t.equal(await transcriptOf(table), before, 'what was true before stays')
  t.same(await filesOf(table), ['root.txt'])
  await sealed.remove()

  await hold()
  t.same(await filesOf(table), ['root.key.pem', 'root.pem', 'root.txt'])
})

slowTest('a signal at the digits leaves a transcript that says so, and of what there is', async (t) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const table = await openTable(t)
    const { child, ended } = await untilDigits(table)
    t.match(await transcriptOf(table), /^Stopped +broken off before its end/m, 'it is there already')
    child.kill(signal)
    t.match(await ended, { code: exitCodes.refused, err: new RegExp(`^Broken off by ${signal}\\. The key stays at`) })
    const text = await transcriptOf(table)
    t.match(text, new RegExp(`^Stopped +Broken off by ${signal}\\. The key stays at file:root\\.key\\.pem`, 'm'))
    t.match(text, /Made +the key file:/)
    t.match(text, new RegExp(`root\\.key\\.pem +${await table.sha256('root.key.pem')}`))
    t.same(await filesOf(table), ['root.key.pem', 'root.txt'])
  }
})

t.test('a process that dies leaves the transcript of its last step', async (t) => {
  const table = await openTable(t)
  const { child, ended } = await untilDigits(table)
  child.kill('SIGKILL')
  await ended
  const text = await transcriptOf(table)
  t.match(text, /^Stopped +broken off before its end: what is told here was done/m)
  t.match(text, /make the key: "yes" typed/)
  t.match(text, new RegExp(`root\\.key\\.pem +${await table.sha256('root.key.pem')}`))
})

t.test(
  'what crashes while it has the key writes nothing of it to a disk',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const table = await openTable(t)
    const { child, ended } = await untilDigits(table)
    t.equal(await readFile(`/proc/${child.pid}/coredump_filter`, 'latin1'), '00000000\n')
    child.kill('SIGINT')
    await ended
  },
)

slowTest('a medium that is pulled out while people are asked is told in a sentence', async (t) => {
  const table = await openTable(t)
  const [stick, pulled] = [table.path('stick'), table.path('pulled')]
  const output = { certificate: 'stick/root.pem', transcript: 'stick/root.txt' }
  await table.write('root.yaml', stringify(rootParameters('root', { output })))
  const begin = async (question: RegExp, typed: string) => {
    await mkdir(stick)
    const ceremony = table.begin('root', 'root.yaml', { typed: '' })
    ceremony.child.stdin.write(typed)
    await ceremony.shows(question)
    await rename(stick, pulled)
    return ceremony
  }
  const told = { code: exitCodes.usage, err: `${table.path('stick/root.txt')} cannot be written (ENOENT).\n` }
  const first = await begin(/Type yes to make the key/, '')
  first.child.stdin.end('yes\n')
  t.match(await first.ended, told)
  t.same(await filesOf(table), ['pulled'])
  await rm(pulled, { recursive: true })

  const broken = await begin(/Type yes to make the key/, '')
  broken.child.kill('SIGINT')
  t.match(await broken.ended, { code: exitCodes.refused, err: 'Broken off by SIGINT. Nothing was made.\n' })
  await rm(pulled, { recursive: true })

  const second = await begin(/Type the first 8 digits/, 'yes\n')
  second.child.kill('SIGINT')
  t.match(await second.ended, {
    code: exitCodes.refused,
    err: /^Broken off by SIGINT\. The key stays at file:root\.key\.pem/,
  })
  t.same(await filesOf(table), ['pulled', 'root.key.pem'])
  await rename(pulled, stick)
  t.match(await transcriptOf(table, 'stick/root.txt'), /^Stopped +broken off before its end[\s\S]*Made +the key/m)

  const again = rootParameters('root', { output: { ...output, transcript: 'stick/root-2.txt' } })
  t.match(await table.act('root', again), {
    code: exitCodes.conflict,
    err: /root\.key\.pem exists; nothing is ever overwritten\. To take the key that is there, add existing: true/,
  })
  const key = { ...fileKey('root'), algorithm: 'ec-p256', existing: true }
  t.match(await table.act('root', { ...again, key }), { code: 0, err: /^$/ })
})

t.test('a signal before anything was made leaves nothing', async (t) => {
  const table = await openTable(t)
  await table.write('root.yaml', stringify(rootParameters('root')))
  const { child, shows, ended } = table.begin('root', 'root.yaml', { typed: '' })
  await shows(/Type yes to make the key/)
  child.kill('SIGINT')
  t.match(await ended, { code: exitCodes.refused, err: 'Broken off by SIGINT. Nothing was made.\n' })
  t.same(await filesOf(table), [])
})

slowTest('a screen that goes away stops it at the next step, or not at all', async (t) => {
  const table = await openTable(t)
  const { child, ended } = await untilDigits(table)
  child.stdout.destroy()
  child.stdin.write('00000000\n')
  t.match(await ended, { code: exitCodes.refused, err: /^Broken off by a screen that is gone \(EPIPE\)\./ })
  t.match(await transcriptOf(table), /^Stopped +Broken off by a screen/m)

  const again = rootParameters('root', {
    key: { ...fileKey('root'), algorithm: 'ec-p256', existing: true },
    output: { certificate: 'root.pem', transcript: 'again.txt' },
  })
  t.match(await table.act('again', again), { code: 0 })
  const csr = await table.request('int', opensslKeys['ec-p256'], '/O=Example/CN=Example CA int')
  await table.write('int.yaml', stringify(signParameters('root', 'int')))
  const signing = table.begin('sign', 'int.yaml', { file: csr })
  signing.child.stdout.destroy()
  const { code, err } = await signing.ended
  t.notMatch(err, /\n {4}at /, 'no stack')
  const files = await filesOf(table)
  t.equal(code, files.includes('int.pem') ? 0 : exitCodes.refused)
  t.equal(files.includes('int.txt'), files.includes('int.pem'), 'what was signed has a transcript')
})

t.test('what could steer a terminal is shown as what it is', async (t) => {
  const table = await openTable(t)
  const operators = ['Ada\u001b[2J Lovelace']
  const { out } = await table.act('root', rootParameters('root', { operators }))
  t.notOk(out.includes('\u001b'))
  t.match(out, /Ada\\u001b\[2J Lovelace/)
})

/** One folder that several commands are at, and what somebody else has damaged or given away in it. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { chmod, chown, mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

import t from 'tap'

import { obtain, type Task } from '../../src/client/issue/ensure.ts'
import { openFolder } from '../../src/client/issue/folder.ts'
import { type IntoOptions, readTask, wardOf } from '../../src/client/issue/new-certificate.ts'
import { type Client, openClient } from '../../src/client/rest.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { chanceryFor, startChancery } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
const chancery = chanceryFor(service)
const client = await openClient({ server: service.url }, { CHANCERY_DATA: service.config.dataDir })
const signal = new AbortController().signal

const taskFor = async (name: string, out: string, more: IntoOptions = {}): Promise<Task> => ({
  ...(await readTask({ profile: 'server', name: [name], out, ...more }, client.origin)),
  ...{ renews: true, isDue: () => true, isSpent: () => false },
})
const countOf = async (name: string): Promise<number> =>
  (await service.request('GET', `/v1/certificates?name=${name}&limit=1000`)).json.items.length
const issueArgs = (name: string, out: string): string[] => [
  'issue',
  '--profile',
  'server',
  '--name',
  name,
  '--out',
  out,
]

const untilThere = async (file: string): Promise<string> => {
  for (;;) {
    const text = await readFile(file, 'utf8').catch(() => '')
    if (text !== '') return text
    await wait(20)
  }
}

slowTest('a key that is not that of its certificate is replaced, with a certificate for it', async (t) => {
  const out = await newFolder(t)
  const options = { profile: 'server', name: ['damaged.example.com'], out }
  const ward = wardOf(await readTask(options, client.origin), { now: Date.now, openClient: async () => client })
  let before = await ward.pass(signal)
  t.equal((await ward.pass(signal)).issued, false)
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  for (const key of [privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, 'nonsense', '']) {
    await writeFile(join(out, 'key.pem'), key)
    const after = await ward.pass(signal)
    t.equal(after.issued, true)
    t.not(after.serial, before.serial)
    t.equal((await readShown(out))?.serial, after.serial)
    before = after
  }
})

t.test('who was told of one certificate was not told of the one after it', async (t) => {
  const folder = await newFolder(t)
  const out = join(folder, 'web')
  const shell = (exec: string): Promise<Task> => taskFor('told.example.com', out, { exec, shell: true })
  const [begun, go, log] = ['begun', 'go', 'log'].map((name) => join(folder, name))
  const slow = obtain(await shell(`echo 1 > ${begun}; until test -e ${go}; do sleep 0.05; done`), client)
  await untilThere(`${begun}`)
  const second = await obtain(await shell('exit 3'), client)
  t.match(second.failure, { problem: { code: 'exec.failed' } })
  t.match(second.failure?.toJSON(), { failure: 'later', exitCode: exitCodes.later, code: 'exec.failed' })
  await writeFile(`${go}`, 'go')
  t.equal((await slow).failure, undefined)
  const again = await shell(`openssl x509 -noout -serial -in ${out}/certificate.pem > ${log}`)
  const third = await obtain({ ...again, isDue: () => false }, client)
  t.equal(third.held.serial, second.held.serial)
  const told = await readFile(`${log}`, 'utf8').catch(() => '')
  t.equal(told.trim().toLowerCase(), `serial=${second.held.serial}`)
})

t.test('a question that another command waits with is not taken away', async (t) => {
  const out = await newFolder(t)
  // Nobody is there, and it asks again and again.
  const nobody = { CHANCERY_URL: 'https://127.0.0.1:9', CHANCERY_TOKEN: 'x' }
  const daemon = startChancery(service, [...issueArgs('first.example.com', out), '--daemon'], nobody)
  t.teardown(() => void daemon.kill('SIGKILL'))
  const file = join(out, '.chancery/pending.json')
  const question = await untilThere(file)
  const other = await chancery(issueArgs('second.example.com', out))
  t.match(other, { code: exitCodes.conflict, err: /Another command asks for another certificate in/ })
  t.equal(await readFile(file, 'utf8'), question)
  t.equal(await countOf('second.example.com'), 0, 'nothing was issued in vain')
  daemon.kill('SIGKILL')
  await once(daemon, 'exit')
  t.equal((await chancery(issueArgs('second.example.com', out))).code, 0, 'what nobody waits for any more is')
})

t.test('another order whose certificate was put there meanwhile is a conflict, and no success', async (t) => {
  const out = await newFolder(t)
  const other = await taskFor('winner.example.com', out)
  let isFirst = true
  const overtaken = (inner: Client): Client => ({
    ...inner,
    as: (identity) => overtaken(inner.as(identity)),
    call: async (method, path, call) => {
      const answer = await inner.call(method, path, call)
      if (isFirst) {
        isFirst = false
        await obtain(other, client)
      }
      return answer
    },
  })
  await t.rejects(obtain(await taskFor('loser.example.com', out), overtaken(client)), {
    kind: 'conflict',
    message: /Another command has put another certificate into/,
  })
  t.equal((await readShown(out))?.certificate.subjectAltName, 'DNS:winner.example.com')
})

t.test('a key that was reported as compromised is not asked for again', async (t) => {
  const task = await taskFor('stolen.example.com', await newFolder(t), { reuseKey: true })
  const first = await obtain(task, client)
  const second = await obtain(task, client)
  t.equal(second.held.keyPem, first.held.keyPem)
  const path = `/v1/certificates/${second.held.serial}/revocation`
  t.ok((await service.request('POST', path, { body: { reason: 'keyCompromise' } })).status < 300)
  const third = await obtain(task, client)
  t.not(third.held.keyPem, first.held.keyPem)
  t.match(third.refusal?.problem, { code: 'auth.revoked' })
  const fourth = await obtain(task, client)
  t.equal(fourth.held.keyPem, third.held.keyPem, 'and the new one is kept from then on')

  const plain = { ...task, renews: false }
  const report = `/v1/certificates/${fourth.held.serial}/revocation`
  t.ok((await service.request('POST', report, { body: { reason: 'keyCompromise' } })).status < 300)
  const fifth = await obtain(plain, client)
  t.not(fifth.held.keyPem, fourth.held.keyPem, 'also where it is asked for as the first one was')
  t.equal(fifth.refusal, undefined)
})

t.test('a renewal that is refused for its key is tried with a new one', async (t) => {
  const task = await taskFor('blocked.example.com', await newFolder(t), { reuseKey: true })
  const first = await obtain(task, client)
  let refused = 0
  const refusing = (inner: Client): Client => ({
    ...inner,
    hasToken: false,
    as: (identity) => refusing(inner.as(identity)),
    call: async (method, path, call) => {
      if (path.endsWith('/renewal') && refused++ === 0)
        throw new Failure('refused', 'Blocked key', { code: 'key.blocked', retryable: false })
      return inner.call(method, path, call)
    },
  })
  const second = await obtain(task, refusing(client))
  t.not(second.held.keyPem, first.held.keyPem)
  t.equal(refused, 2)
})

slowTest(
  'who says to whom the files are to be given is heeded at once, though there is nothing to renew',
  async (t) => {
    const out = await newFolder(t)
    const args = [...issueArgs('given.example.com', out), '--renew-before', '30%']
    t.equal((await chancery(args)).code, 0)
    t.equal((await chancery(issueArgs('given.example.com', out))).code, 0)
    const versions = join(out, '.chancery/versions')
    const keys = (await readdir(versions)).map((name) => join(versions, name, 'key.pem'))
    t.equal(keys.length, 2, 'the last one is kept, and may hold')
    const modes = () => Promise.all(keys.map(async (key) => (await stat(key)).mode & 0o7777))
    // Whoever is not root can give files to a group of theirs only.
    const owner = process.geteuid?.() === 0 ? 'nobody:daemon' : `:${process.getegid?.()}`
    for (const [text, mode] of [
      ['0640', 0o640],
      ['0600', 0o600],
    ] as const) {
      const run = await chancery([...args, '--key-mode', text, '--owner', owner])
      t.match(run, { code: 0, out: /nothing to do/ })
      t.same(await modes(), [mode, mode])
    }
    if (process.geteuid?.() === 0) t.ok((await stat(join(out, 'key.pem'))).gid > 0)
    await chmod(join(out, 'key.pem'), 0o640)
    t.equal((await chancery(args)).code, 0)
    t.equal((await stat(join(out, 'key.pem'))).mode & 0o7777, 0o640, 'what is not said stays')

    const other = await newFolder(t)
    await writeFile(join(other, 'key.pem'), 'of somebody else', { mode: 0o600 })
    await symlink(other, join(versions, 'link'))
    t.equal((await chancery([...args, '--key-mode', '0644'])).code, 0)
    t.equal((await stat(join(other, 'key.pem'))).mode & 0o7777, 0o600, 'nothing is given through a link')
  },
)

t.test('nobody is given the key of another order, wherever a link above leads', async (t) => {
  const folder = await newFolder(t)
  const [theirs, link] = [join(folder, 'theirs'), join(folder, 'link')]
  t.equal((await chancery([...issueArgs('theirs.example.com', theirs), '--key-mode', '0600'])).code, 0)
  await symlink(theirs, link)
  const dead = { CHANCERY_TOKEN: 'chancery_dead' }
  t.equal((await chancery([...issueArgs('ours.example.com', link), '--key-mode', '0644'], dead)).code, exitCodes.denied)
  t.equal((await stat(join(theirs, 'key.pem'))).mode & 0o7777, 0o600)
})

slowTest('nobody else says where a key is written and what is removed, by a link or a folder of theirs', async (t) => {
  const args = (out: string) => issueArgs('led.example.com', out)
  const theirs = await newFolder(t)
  await writeFile(join(theirs, 'precious'), 'of somebody else')
  const out = await newFolder(t)
  const versions = join(out, '.chancery/versions')
  await mkdir(join(out, '.chancery'))
  await symlink(theirs, versions)
  t.match(await chancery(args(out)), { code: exitCodes.usage, err: /versions is no folder of this user's/ })
  await rm(join(out, '.chancery'), { recursive: true })
  await symlink(theirs, join(out, '.chancery'))
  t.match(await chancery(args(out)), { code: exitCodes.usage, err: /\.chancery is no folder of this user's/ })
  t.same(await readdir(theirs), ['precious'])
  await rm(join(out, '.chancery'))
  if (process.geteuid?.() === 0) {
    await mkdir(join(out, '.chancery'))
    await chown(join(out, '.chancery'), 65_534, 65_534)
    t.match(await chancery(args(out)), { code: exitCodes.usage, err: /Run this as whom it belongs to/ })
    await rm(join(out, '.chancery'), { recursive: true })
  }
  t.equal(await countOf('led.example.com'), 0, 'nothing was asked for')
  t.equal((await chancery(args(out))).code, 0)
  await mkdir(join(versions, 'precious'))
  for (let i = 0; i < 2; i += 1) t.equal((await chancery(args(out))).code, 0)
  t.equal((await readdir(versions)).length, 3, 'what is no certificate is left')
})

t.test('where the file system says whose all is, what was made there is ours', async (t) => {
  const { geteuid } = process
  t.teardown(() => Object.assign(process, { geteuid }))
  // As root on NFS that squashes: the folders that it makes are of nobody.
  Object.assign(process, { geteuid: () => 4_711 })
  const out = await newFolder(t)
  const own = join(out, '.chancery')
  await openFolder(out)
  t.ok(await openFolder(out))
  t.strictSame(await readdir(own), ['versions'], 'nothing is left of the look')
  await rm(own, { recursive: true })
  await symlink(await newFolder(t), own)
  await t.rejects(openFolder(out), { message: /is no folder of this user's/ }, 'a link is none all the same')
})

t.test('a file that somebody has taken away is there again, and what cannot be written leaves no drafts', async (t) => {
  const out = await newFolder(t)
  const args = [...issueArgs('gone.example.com', out), '--renew-before', '30%']
  t.equal((await chancery(args)).code, 0)
  const { serial } = (await readShown(out)) ?? {}
  await rm(join(out, 'key.pem'))
  await rm(join(out, 'chain.pem'))
  t.match(await chancery(args), { code: 0, out: /nothing to do/ })
  t.equal(await readlink(join(out, 'key.pem')), '.chancery/current/key.pem')
  t.match(await readFile(join(out, 'chain.pem'), 'utf8'), /BEGIN CERTIFICATE/)
  t.equal((await readShown(out))?.serial, serial)
  const folder = await openFolder(out)
  const own = join(out, '.chancery')
  // What stands in its place cannot be replaced: as on a full disk, it is noticed late.
  await mkdir(join(own, 'status.json/full'), { recursive: true })
  const before = await readdir(own)
  await t.rejects(folder.note('status.json', '{}'), /cannot be written/)
  t.same(await readdir(own), before)
})

t.test('a folder that goes while a daemon looks after it is made again, for all who could read it', async (t) => {
  const out = join(await newFolder(t), 'tls/web')
  const options = { profile: 'server', name: ['swept.example.com'], out }
  const ward = wardOf(await readTask(options, client.origin), { now: Date.now, openClient: async () => client })
  const first = await ward.pass(signal)
  await rm(join(out, '..'), { recursive: true })
  const second = await ward.pass(signal)
  t.equal(second.issued, true)
  t.not(second.serial, first.serial)
  t.equal((await readShown(out))?.serial, second.serial)
  const mask = process.umask()
  t.equal((await stat(out)).mode & 0o777, 0o777 & ~mask)
  for (const name of ['.chancery', '.chancery/versions'])
    t.equal((await stat(join(out, name))).mode & 0o777, 0o755, name)
  await rm(join(out, 'key.pem'))
  await writeFile(join(out, 'key.pem'), 'of somebody else')
  await t.rejects(
    ward.pass(signal),
    /key\.pem is there and was not made here/,
    'a key that does not fit is told at once',
  )
})

t.test('what cannot be read of our own files is told, and what to do', async (t) => {
  const out = await newFolder(t)
  const args = issueArgs('unread.example.com', out)
  const pending = join(out, '.chancery/pending.json')
  await mkdir(pending, { recursive: true })
  t.match(await chancery(args), {
    code: exitCodes.usage,
    err: /pending\.json cannot be read \(EISDIR\)\. Remove it\.\n$/,
  })
  await rm(pending, { recursive: true })
  t.equal((await chancery(args)).code, 0)
  await writeFile(join(out, 'certificate.pem'), '')
  t.match(await chancery(args), {
    code: exitCodes.usage,
    err: /current leads to cannot be read: .* Remove that link, and a new/,
  })
  await rm(join(out, '.chancery/current'))
  t.equal((await chancery(args)).code, 0)
  t.ok(await readShown(out))
})

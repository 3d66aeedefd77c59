/** Signer processes as the service has them, with keys in files: when they are started, are not, and are ended. */
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { makePassphrase } from '../../src/keys/passphrase.ts'
import { KeyExists } from '../../src/keys/pkcs11/token-fault.ts'
import { openSigners } from '../../src/keys/signer/client.ts'
import type { SigningKey } from '../../src/keys/signing-key.ts'
import { takeDescriptors } from '../helpers/descriptors.ts'
import { bare } from '../helpers/environment.ts'
import { slowTest } from '../helpers/slow.ts'

t.setTimeout(300_000)
const data = await mkdtemp(join(tmpdir(), 'chancery-signers-'))
t.teardown(() => rm(data, { recursive: true, force: true }))
await makePassphrase(data)
const uri = 'file:keys/one.pem'
const message = Buffer.from('what is signed')

interface Line {
  readonly event: string
  readonly reason?: string
}

const open = (t: Test, restMs?: number) => {
  const lines: Line[] = []
  const note = (line: object): void => void lines.push(line as Line)
  const env: Record<string, string> = { ...bare, CHANCERY_DATA: data }
  const keys = openSigners({
    log: { debug: note, info: note, warn: note, error: note },
    script: join(import.meta.dirname, '../../src/server/signer.ts'),
    env,
    deadlineMs: 1_000,
    sessions: 1,
    ...(restMs !== undefined && { restMs }),
  })
  t.teardown(() => keys.close())
  return { keys, env, lines }
}
{
  const { keys } = open(t)
  await keys.create(uri, 'ec-p256')
  await keys.close()
}

/** Of this process, and of no other test. */
const signers = (): readonly number[] =>
  readdirSync('/proc/self/task')
    .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number))
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('signer.ts'))
const until = async (isSo: () => boolean | Promise<boolean>): Promise<boolean> => {
  for (const end = performance.now() + 20_000; performance.now() < end; await pause(20)) if (await isSo()) return true
  return false
}
const signs = async (key: SigningKey): Promise<boolean> => Buffer.isBuffer((await key.sign([message]))[0])

t.test('that a key is there already is known by more than its words, from another process as well', async (t) => {
  const { keys } = open(t)
  await t.rejects(keys.create(uri, 'ec-p256'), KeyExists)
})

slowTest('a signer that the system cannot start is told of, and started as soon as it can be', async (t) => {
  const lacks: Readonly<Record<string, (env: Record<string, string>) => () => void>> = {
    'no file descriptor is left for a signer process': takeDescriptors,
    'spawn E2BIG': (env) => {
      env['CHANCERY_LARGE'] = 'x'.repeat(1_000_000)
      return () => void delete env['CHANCERY_LARGE']
    },
  }
  for (const [reason, begin] of Object.entries(lacks)) {
    const { keys, env, lines } = open(t)
    const key = await keys.open(uri)
    t.ok(await signs(key))
    const [signer] = signers()
    const end = begin(env)
    process.kill(signer as number, 'SIGKILL')
    const ended = () => lines.filter(({ event }) => event === 'signer.ended').map((line) => line.reason)
    const isTold = await until(() => ended().length > 2)
    const [fault] = await key.sign([message])
    const opening = keys.open(uri)
    await t.rejects(opening, { message: new RegExp(`^The signer process ended before it answered: ${reason}\\.$`) })
    end()
    t.ok(isTold)
    t.same(ended().slice(0, 3), ['killed by SIGKILL', reason, reason])
    t.match(fault, { when: 'before', message: `the signer process is being started again: ${reason}` })
    t.ok(await until(() => signs(key)), 'the same key, in another process')
    await keys.close()
  }
})

t.test('who was held up hears what its signer has said meanwhile, and does not kill it', async (t) => {
  const { keys, lines } = open(t)
  const key = await keys.open(uri)
  const signing = key.sign([message], 100)
  await new Promise((resolve) => setImmediate(resolve))
  // As a stopped process would be, or one whose machine has no time for it.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_500)
  t.ok(Buffer.isBuffer((await signing)[0]))
  t.ok(await signs(key))
  t.same(lines, [])
})

t.test('what is too long for a signer is told as that, and costs nothing that is under way', async (t) => {
  const { keys, lines } = open(t)
  const key = await keys.open(uri)
  const longest = Buffer.alloc(64 * 1024 * 1024 - 8)
  const [one, other] = await Promise.all([key.sign([message]), key.sign([Buffer.alloc(longest.length + 1)])])
  t.ok(Buffer.isBuffer(one[0]))
  t.match(other[0], { when: 'before', message: '67108857 octets are more than a signer process takes' })
  t.ok(Buffer.isBuffer((await key.sign([longest], 10_000))[0]))
  t.same(lines, [])
})

slowTest('a key that is a pipe, which nobody comes to the end of, costs the others nothing', async (t) => {
  const { keys, lines } = open(t)
  const key = await keys.open(uri)
  const pipe = join(data, 'keys', 'pipe.pem')
  execFileSync('mkfifo', ['-m', '600', pipe])
  const writer = openSync(pipe, 'r+')
  t.teardown(() => closeSync(writer))
  await t.rejects(keys.open('file:keys/pipe.pem'), {
    message: `${pipe} is a pipe, and whoever has it open does not come to an end: name a file.`,
  })
  t.ok(await signs(key))
  t.same(lines, [])
})

t.test(
  'of many keys that take their time a few are opened at once, in order, and what is open signs meanwhile',
  async (t) => {
    const { keys, lines } = open(t)
    const key = await keys.open(uri)
    const pem = readFileSync(join(data, 'keys', 'one.pem'))
    const names = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => `slow-${name}.pem`)
    for (const name of names) execFileSync('mkfifo', ['-m', '600', join(data, 'keys', name)])
    const opening = names.map((name) => keys.open(`file:keys/${name}`))
    /** Writers of those that the signer reads. */
    const writers = new Map<string, number>()
    const look = (): number => {
      for (const name of names.filter((one) => !writers.has(one)))
        try {
          writers.set(name, openSync(join(data, 'keys', name), constants.O_WRONLY | constants.O_NONBLOCK))
        } catch (error) {
          t.match(error, { code: 'ENXIO' })
        }
      return writers.size
    }
    for (const many of [2, 4, 6]) {
      t.ok(await until(() => look() >= many))
      await pause(100)
      t.equal(look(), many)
      t.ok(await signs(key))
      for (const name of names.slice(many - 2, many)) {
        const writer = writers.get(name) as number
        writeSync(writer, pem)
        closeSync(writer)
      }
    }
    for (const opened of await Promise.all(opening)) t.ok(await signs(opened))
    t.same(lines, [])
  },
)

t.test('a signer that nobody has a key of is ended after a while, and started for whoever asks', async (t) => {
  const { keys, lines } = open(t, 200)
  const isGone = () => until(() => signers().length === 0)
  await t.rejects(keys.open('file:keys/none.pem'))
  t.equal(signers().length, 1, 'somebody may ask again')
  t.ok(await isGone())
  const [one, other] = await Promise.all([keys.open(uri), keys.open(uri)])
  await one.close()
  await pause(600)
  t.equal(signers().length, 1, 'while anybody has a key of it, it stays')
  t.ok(await signs(other))
  await other.close()
  t.ok(await isGone())
  t.same(lines, [], 'that is no failure')
  const again = await keys.open(uri)
  t.ok(await signs(again))
})

t.test('whoever asks after the end is told, and starts nothing', async (t) => {
  const { keys } = open(t)
  const key = await keys.open(uri)
  const waiting = keys.open('pkcs11:token=none;object=none')
  const closing = keys.close()
  await t.rejects(waiting, { message: 'The signer processes are closed.' })
  for (const asked of [keys.open(uri), keys.create(uri, 'ec-p256'), keys.open('pkcs11:token=other;object=none')])
    await t.rejects(asked, { message: 'The signer processes are closed.' })
  await closing
  t.equal(signers().length, 0)
  t.match((await key.sign([message]))[0], { when: 'before' })
  await t.rejects(keys.open(uri), { message: 'The signer processes are closed.' })
  t.equal(signers().length, 0)
})

/** Real threads that die or hang. Pauses and deadlines are those of a clock that is moved by hand. */
import { execFile } from 'node:child_process'
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { join } from 'node:path'
import { mock } from 'node:test'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'

import t, { type Test } from 'tap'

import { openVerifier } from '../../src/keys/verifier.ts'
import type { Log } from '../../src/log.ts'
import { type SignatureAlgorithm, signatureAlgorithm } from '../../src/x509/algorithms.ts'
import type { SignatureCheck } from '../../src/x509/csr.ts'
import { bare } from '../helpers/environment.ts'

const run = promisify(execFile)

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const spki = publicKey.export({ type: 'spki', format: 'der' })
const message = Buffer.from('what was signed')
const check = (key: KeyObject, algorithm: SignatureAlgorithm): SignatureCheck => ({
  spki,
  message,
  signature: sign('sha256', message, key),
  algorithm,
})
const good = check(privateKey, signatureAlgorithm('ecdsa-sha256'))
const bad = check(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey, signatureAlgorithm('ecdsa-sha256'))
/** A thread looks algorithms up by their id, and dies of this one; a check that is done here takes it as it is. */
const deadly: SignatureCheck = { ...good, algorithm: { ...good.algorithm, id: 'unknown to the thread' } }

/** The threads hold up no process, and mocked timers do not either. */
const awake = setInterval(() => {}, 1_000)
t.teardown(() => clearInterval(awake))

/** So many threads, and a clock for their pauses. */
const openWatched = (t: Test, threads = 1) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  const lines: { readonly event: string; readonly pauseMs?: number }[] = []
  const write = (line: unknown): void => void lines.push(line as { event: string })
  const log: Log = { debug: write, info: write, warn: write, error: write }
  const { verify, close } = openVerifier(threads, log)
  t.teardown(async () => {
    await close()
    mock.timers.reset()
    mock.restoreAll()
  })
  const count = (event: string): number => lines.filter((line) => line.event === event).length
  const pauses = () => lines.flatMap(({ event, pauseMs }) => (event === 'verifier.restarting' ? [pauseMs] : []))
  return { verify, close, count, pauses }
}

t.test('what a thread that dies had is checked here, and so is all until its pause is over', async (t) => {
  const { verify, count, pauses } = openWatched(t)
  t.same(await Promise.all([verify(good), verify(bad)]), [true, false])
  t.equal(await verify(deadly), true)
  t.equal(count('verifier.failed'), 1, 'the thread died of it')
  t.same(pauses(), [100])
  t.same(await Promise.all([verify(good), verify(bad), verify(deadly)]), [true, false, true])
  mock.timers.tick(99)
  t.equal(await verify(deadly), true)
  t.equal(count('verifier.failed'), 1, 'there is no thread that could die')
  mock.timers.tick(1)
  t.same(await Promise.all([verify(good), verify(bad)]), [true, false])
  t.equal(await verify(deadly), true)
  t.equal(count('verifier.failed'), 2, 'the next one')
})

t.test('while one has ended, the others have its share', async (t) => {
  const { verify, count } = openWatched(t, 2)
  for (const died of [1, 2, 2]) {
    t.equal(await verify(deadly), true)
    t.equal(count('verifier.failed'), died)
  }
})

t.test(
  'pauses double up to five seconds while threads do nothing but die, and begin anew after work done',
  async (t) => {
    const { verify, count, pauses } = openWatched(t)
    const wanted = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]
    for (const [i, pause] of wanted.entries()) {
      t.equal(await verify(deadly), true)
      t.same(pauses(), wanted.slice(0, i + 1))
      mock.timers.tick(pause - 1)
      t.equal(await verify(deadly), true)
      t.equal(count('verifier.failed'), i + 1, `none for ${pause} ms`)
      mock.timers.tick(1)
    }
    t.equal(await verify(good), true, 'by a thread that lives')
    await verify(deadly)
    t.same(pauses(), [...wanted, 100])
  },
)

t.test('a thread that does not answer in time is ended, and its checks are done here', async (t) => {
  const { verify, count, pauses } = openWatched(t)
  t.equal(await verify(good), true)
  const ended = mock.method(Worker.prototype, 'terminate')
  mock.timers.tick(5_000)
  t.equal(ended.mock.callCount(), 0, 'one that did may live')
  // It waits for a message that never comes, and we wait for it.
  const silence = mock.method(Worker.prototype, 'postMessage', () => {})
  let answers: readonly boolean[] | undefined
  const asked = Promise.all([verify(good), verify(bad)]).then((valid) => {
    answers = valid
  })
  await turns()
  t.equal(silence.mock.callCount(), 1)
  mock.timers.tick(4_999)
  await turns()
  t.equal(ended.mock.callCount(), 0)
  t.equal(answers, undefined, 'it has five seconds')
  mock.timers.tick(1)
  await asked
  t.same(answers, [true, false])
  t.equal(count('verifier.failed'), 0, 'it was ended, and did not fail')
  t.same(pauses(), [100])
  silence.mock.restore()
  mock.timers.tick(100)
  t.equal(await verify(good), true)
  await verify(deadly)
  t.equal(count('verifier.failed'), 1, 'a new one is at work')
})

t.test('where the system gives no thread, signatures are checked here, and nothing ends', async (t) => {
  // With as many threads as its user may have, which root is not bound by.
  const script = `
    const { execFileSync } = await import('node:child_process')
    const { openVerifier } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/keys/verifier.ts'))})
    const check = { spki: Buffer.from('${spki.toString('hex')}', 'hex'), message: Buffer.from('${message.toString('hex')}', 'hex'),
      signature: Buffer.from('${good.signature.toString('hex')}', 'hex') }
    const algorithm = { id: 'ecdsa-sha256', hash: 'sha256', signOptions: ${JSON.stringify(good.algorithm.signOptions)} }
    const failures = []
    const log = { warn: () => {}, error: ({ err }) => failures.push(err.code) }
    const { verify } = openVerifier(1, log)
    if (!(await verify({ ...check, algorithm }))) throw new Error('by a thread')
    if (process.getuid() === 0) process.setuid(65534)
    execFileSync('prlimit', ['--pid', String(process.pid), '--nproc=1:'])
    const deadly = { ...check, algorithm: { ...algorithm, id: 'unknown to the thread' } }
    const valid = [await verify(deadly)]
    while (failures.length < 3) await new Promise((resolve) => setTimeout(resolve, 20))
    valid.push(await verify({ ...check, algorithm }), await verify({ ...check, message: Buffer.from('y'), algorithm }))
    process.stdout.write(JSON.stringify({ valid, failures: failures.slice(1, 3) }), () => process.exit())`
  const args = ['--input-type=module', '-e', script]
  const { stdout } = await run(process.execPath, args, { env: bare })
  t.same(JSON.parse(stdout), {
    valid: [true, true, false],
    failures: ['ERR_WORKER_INIT_FAILED', 'ERR_WORKER_INIT_FAILED'],
  })
})

t.test('closing answers what was asked, ends the threads, and starts no other', async (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const lines: unknown[] = []
  const write = (line: unknown): void => void lines.push(line)
  const log: Log = { debug: write, info: write, warn: write, error: write }
  const { verify, close } = openVerifier(2, log)
  const asked = Promise.all(Array.from({ length: 200 }, (_, i) => verify(i % 2 ? good : bad)))
  let isAnswered = false
  void asked.then(() => {
    isAnswered = true
  })
  await close()
  t.ok(isAnswered)
  t.same(
    await asked,
    Array.from({ length: 200 }, (_, i) => i % 2 === 1),
  )
  mock.timers.tick(60_000)
  await turns()
  t.same(lines, [], 'an end that was wanted is no failure')
})

t.test('nor does it while one is to start again', async (t) => {
  const { verify, close, count } = openWatched(t)
  await verify(deadly)
  await close()
  mock.timers.tick(100)
  t.equal(await verify(deadly), true)
  t.equal(count('verifier.failed'), 1, 'there is no thread that could die')
})

/** Time for what is not a timer: messages of threads, batches. */
const turns = async (): Promise<void> => {
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve))
}

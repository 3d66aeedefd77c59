/**
 * opensc's pkcs11-spy between Chancery and the token, kill -9 under load: the token is asked to sign nothing but what
 * was recorded before, and each of that once.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { faultsInRecords } from '../crash/checker.ts'
import { openLoad } from '../crash/load.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { type Instance, startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql } from '../helpers/sql.ts'
import { openSoftHsm } from './softhsm.ts'
import { parseSpyLog, timesIn } from './spy-log.ts'

const spyModule = [
  '/usr/lib/x86_64-linux-gnu/pkcs11-spy.so',
  '/usr/lib/aarch64-linux-gnu/pkcs11-spy.so',
  '/usr/lib/pkcs11-spy.so',
  '/opt/homebrew/lib/pkcs11-spy.so',
].find(existsSync)

const openPlace = async (t: Test) => {
  if (spyModule === undefined) throw new Error('pkcs11-spy is not installed (Debian: opensc-pkcs11)')
  const hsm = await openSoftHsm(t)
  const database = await openTestDatabase({ teardown: () => {} })
  const data = await mkdtemp(join(tmpdir(), 'chancery-spy-'))
  const [port, publicPort] = [await freePort(), await freePort()]
  const log = join(data, 'spy.log')
  const env = {
    CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
    CHANCERY_PKCS11_MODULE: spyModule,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    CHANCERY_SIGNING_DEADLINE: '1s',
    // So that lists are on their way when a kill comes.
    CHANCERY_CRL_PERIOD: '1s',
    CHANCERY_CRL_VALIDITY: '5m',
    PKCS11SPY: hsm.module,
    PKCS11SPY_OUTPUT: log,
    ...hsm.env,
  }
  const started: Instance[] = []
  t.teardown(async () => {
    for (const instance of started) instance.signal('SIGKILL')
    await Promise.all(started.map(({ exited }) => exited))
    await database.close()
    await rm(data, { recursive: true, force: true })
  })
  return {
    database,
    log,
    start: async (): Promise<Instance> => {
      const { servingUrl, ownerUrl } = database
      const instance = startInstance({ data, port, publicPort, servingUrl, ownerUrl, env })
      started.push(instance)
      await instance.ready()
      return instance
    },
    target: async () => ({
      port,
      ca: await readFile(join(data, 'root.pem'), 'utf8'),
      token: (await readFile(join(data, 'admin.token'), 'utf8')).trim(),
    }),
  }
}

/** The processes that this one has started, as Linux tells. */
const childrenOf = (pid: number): number[] =>
  readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  )

const sha256 = (octets: Buffer): string => createHash('sha256').update(octets).digest('hex')
/** Written out, and not imported: this is what checks. */
const trial = sha256(Buffer.from('Chancery trial signature: this is not a certificate.\n'))

const queried = (url: string, text: string): Promise<readonly Record<string, Buffer>[]> => askSql(url, text)

t.setTimeout(300_000)

slowTest(
  'under kill -9 the token signs nothing but recorded intents and lists, each once, and the fixed trial text',
  async (t) => {
    const { start, target, database, log } = await openPlace(t)
    let instance = await start()
    const load = openLoad([await target()], 16)
    for (let kill = 0; kill < 10; kill += 1) {
      await pause(300 + Math.random() * 500)
      if (kill % 3 === 2) for (const child of childrenOf(instance.pid)) process.kill(child, 'SIGKILL')
      else {
        instance.signal('SIGKILL')
        await instance.exited
        instance = await start()
      }
    }
    await pause(1_500)
    const { ownerUrl } = database
    // On a slow machine ten kills are survived by few lists.
    const isEnough = async (): Promise<boolean> =>
      load.answered.length > 100 && (await queried(ownerUrl, 'select from crls')).length > 2 * 512
    for (let i = 0; !(await isEnough()) && i < 120; i += 1) await pause(500)
    await load.stop()
    const openIntents = 'select serial from intents where serial not in (select serial from outcomes)'
    for (let i = 0; (await queried(ownerUrl, openIntents)).length > 0 && i < 120; i += 1) await pause(500)
    instance.signal('SIGTERM')
    await instance.exited

    const intents = await queried(ownerUrl, 'select tbs from intents')
    const certified = await queried(
      ownerUrl,
      `select i.tbs from intents i join outcomes o on o.serial = i.serial where o.kind = 'certificate'`,
    )
    const text = await readFile(log, 'latin1')
    const pieces = parseSpyLog(text).filter(({ calls }) => calls.includes('C_Sign'))
    const lists = (await queried(ownerUrl, 'select tbs_sha256 as digest from crls')).map(({ digest }) =>
      (digest as Buffer).toString('hex'),
    )
    const known = new Map([...intents.map(({ tbs }) => sha256(tbs as Buffer)), ...lists].map((digest) => [digest, 0]))
    t.equal(known.size, intents.length + lists.length, 'no two are the same')
    const unknown: string[] = []
    let [calls, trials, torn] = [0, 0, 0]
    for (const piece of pieces) {
      const asked = piece.calls.filter((name) => name === 'C_Sign').length
      let found = timesIn(piece, trial)
      trials += found
      for (const [digest, times] of known) {
        const here = timesIn(piece, digest)
        if (here > 0) known.set(digest, times + here)
        found += here
      }
      calls += asked
      // Of calls that a kill found under way, what goes in may not have been written yet.
      if (found < asked && piece.isTorn) torn += asked - found
      else if (found !== asked) unknown.push(piece.text)
    }
    const signed = [...known].filter(([, times]) => times > 0)
    const signedLists = lists.filter((digest) => known.get(digest) === 1).length
    t.comment(
      `answered ${load.answered.length}, intents ${intents.length}, C_Sign ${calls}: of intents ${signed.length - signedLists}, of lists ${signedLists}, of the trial text ${trials}, cut off ${torn}; calls mixed ${pieces.filter(({ calls }) => calls.length > 1).length}; retries ${JSON.stringify([...load.retries])}`,
    )
    t.same(unknown, [], 'every input is the digest of the TBS of a recorded intent or list, or of the trial text')
    t.same(
      signed.filter(([, times]) => times > 1),
      [],
      'no intent and no list is signed twice',
    )
    t.same(
      certified.map(({ tbs }) => sha256(tbs as Buffer)).filter((digest) => known.get(digest) !== 1),
      [],
      'and the token has signed every certificate on record',
    )
    t.ok(torn <= 8 * 10, 'at most as many as there are sessions, for each kill')
    t.ok(signedLists > 512, 'lists are among them')
    t.ok(signed.length > 100 && load.answered.length > 100, 'under load')
    for (const other of ['C_SignUpdate', 'C_SignFinal', 'C_SignRecover', 'C_Decrypt', 'C_WrapKey'])
      t.notOk(text.includes(`: ${other}\n`), `${other} was never called`)
    t.same(load.failures, [])
    t.same(await faultsInRecords(ownerUrl, load.answered), [])
  },
)

t.test('a log is read however its calls are mixed and wherever it ends', async (t) => {
  const [one, two, three] = ['11', '22', '33'].map((octet) => octet.repeat(16)) as [string, string, string]
  const dump = (half: string, at: number): string =>
    `    ${at.toString(16).padStart(8, '0')}  ${(half.match(/../g) ?? []).map((octet) => `${octet} `).join('')} ................`
  const head = (n: number): string[] => [
    '',
    `${n}: C_Sign`,
    'P:1; T:0x1 2026-01-01 00:00:00.000',
    '[in] hSession = 0x1',
  ]
  const data = '[in] pData[ulDataLen] 00007f / 32'
  const out = ['[out] pSignature[*pulSignatureLen] 00007f / 64', dump(three, 0)]
  const end = ['Returned:  0 CKR_OK', '']
  const read = (lines: readonly string[]) => parseSpyLog(lines.join('\n'))
  const alone = [...head(0), data, dump(one, 0), dump(two, 16), ...out, ...end]
  t.same(
    read([...alone, ...alone]).map((piece) => [piece.calls, timesIn(piece, one + two), timesIn(piece, two + one)]),
    [
      [['C_Sign'], 1, 0],
      [['C_Sign'], 1, 0],
    ],
  )
  const mixed = [
    ...[...head(0), ...head(1), '[in] pData[ulDataLen] [in] pData[ulDataLen] 00007f / 32', '00007f / 32'],
    ...[dump(one, 0), dump(one, 0), dump(two, 16), dump(three, 16), ...end, ...out, ...end],
  ]
  const [piece, ...more] = read([...mixed, ...alone])
  t.same(piece?.calls, ['C_Sign', 'C_Sign'])
  t.same(piece && [timesIn(piece, one + two), timesIn(piece, one + three), timesIn(piece, two + one)], [1, 1, 0])
  t.equal(more.length, 1)
  const cut = read([...alone, ...head(1), data, dump(one, 0), dump(two, 16).slice(0, 9)])
  t.same(
    cut.map((piece) => [piece.isTorn, timesIn(piece, one + two)]),
    [
      [false, 1],
      [true, 0],
    ],
  )
})

/** A token locks after a few wrong PINs: an instance tries a refused one once. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { serve } from '../../src/cli/serve.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { openShim } from './softhsm.ts'

t.setTimeout(300_000)

/** Of this process. */
const signers = (): number[] =>
  readdirSync('/proc/self/task')
    .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number))
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('signer.ts'))
const killSigners = (): void => {
  for (const pid of signers()) process.kill(pid, 'SIGKILL')
}

const openPlace = async (t: Test) => {
  const hsm = await openShim(t)
  const service = await openTestService(t, {
    CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    ...hsm.env,
  })
  const issue = async (): Promise<number> =>
    (await service.request('POST', '/v1/certificates', { body: { csr: csrFor('a.example.com'), profile: 'server' } }))
      .status
  // As patient as it takes where other tests want the processors too.
  const until = async (isSo: () => Promise<boolean>, ms = 60_000): Promise<boolean> => {
    for (const end = performance.now() + ms; performance.now() < end; await sleep(50)) if (await isSo()) return true
    return false
  }
  const isReady = async (reason: RegExp): Promise<boolean> =>
    reason.test((await service.request('GET', '/readyz')).text)
  const isWell = () => until(async () => (await issue()) === 201)
  t.ok(await isWell())
  return { hsm, service, issue, until, says: (reason: RegExp) => until(() => isReady(reason)), isWell }
}

slowTest('a wrong PIN is tried once; the right one in its file is tried after a restart', async (t) => {
  const { hsm, service, issue, says } = await openPlace(t)
  const before = await hsm.logins()
  await hsm.setPin('9999')
  killSigners()
  t.ok(await says(/refuses the PIN \(CKR_PIN_INCORRECT\)\. No login is tried again before a restart/))
  await hsm.setPin('1234')
  await sleep(3_000)
  t.equal(await hsm.logins(), before + 1)
  t.equal(await issue(), 503)
  const { config } = service
  const listen = { ...config.listen, port: 0 }
  const restarted = await serve({ ...config, listen, publicListen: listen }, quiet)
  t.teardown(restarted.close)
  const { statusCode } = await restarted.service.app.inject({
    method: 'POST',
    url: '/v1/certificates',
    headers: { authorization: `Bearer ${service.adminToken}` },
    payload: { csr: csrFor('a.example.com'), profile: 'server' },
  })
  t.equal(statusCode, 201)
})

slowTest('a module that crashes before it has seen the PIN needs no operator', async (t) => {
  const { hsm, isWell, says } = await openPlace(t)
  const before = await hsm.logins()
  await hsm.misbehave('open-crash')
  killSigners()
  t.ok(await says(/being started again: killed by SIGSEGV|The signer process ended/))
  await sleep(4_000)
  t.equal(await hsm.logins(), before)
  await hsm.misbehave()
  t.ok(await isWell())
})

slowTest('what a token answers in words of its own may be a refusal; what is its own trouble is not', async (t) => {
  const { hsm, says, isWell } = await openPlace(t)
  const before = await hsm.logins()
  await hsm.misbehave(`login-error=${0x30}`)
  killSigners()
  await sleep(6_000)
  t.ok((await hsm.logins()) >= before + 3, 'CKR_DEVICE_ERROR is tried on')
  await hsm.misbehave()
  t.ok(await isWell())
  const well = await hsm.logins()
  await hsm.misbehave(`login-error=${0x8000_0001}`)
  killSigners()
  t.ok(await says(/No login is tried again before a restart/))
  await sleep(3_000)
  t.equal(await hsm.logins(), well + 1)
})

slowTest('a token that says that the next wrong PIN locks it is not asked', async (t) => {
  const { hsm, says } = await openPlace(t)
  const before = await hsm.logins()
  await hsm.misbehave('final-try')
  killSigners()
  t.ok(await says(/The next wrong PIN locks the token ca \(CKF_USER_PIN_FINAL_TRY\)/))
  await sleep(3_000)
  t.equal(await hsm.logins(), before)
})

slowTest(
  'a replica starts, and answers, while a token lets it wait, with two connections to the database',
  async (t) => {
    const { hsm, service } = await openPlace(t)
    const { config } = service
    await hsm.misbehave('login-hang')
    const listen = { ...config.listen, port: 0 }
    const database = { ...config.database, poolSize: 2 }
    const start = performance.now()
    const second = await serve({ ...config, database, listen, publicListen: listen }, quiet)
    t.teardown(second.close)
    const startedMs = performance.now() - start
    for (let i = 0; i < 6; i += 1) {
      const before = performance.now()
      await second.service.issuers.refresh()
      const { statusCode } = await second.service.app.inject({
        url: '/v1/issuers',
        headers: { authorization: `Bearer ${service.adminToken}` },
      })
      t.equal(statusCode, 200)
      const tookMs = performance.now() - before
      t.ok(tookMs < 1_000, `${tookMs} ms`)
      await sleep(500)
    }
    t.comment(`started within ${Math.round(startedMs)} ms`)
    await hsm.misbehave()
  },
)

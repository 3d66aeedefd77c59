/** PINs are tried with care, whatever happens around: a token locks after a few wrong ones. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { serve } from '../../src/cli/serve.ts'
import { databaseClock } from '../../src/db/clock.ts'
import { openDatabase } from '../../src/db/database.ts'
import { openRollWriter } from '../../src/db/log.ts'
import { unlatchTokens } from '../../src/db/pins.ts'
import { codec } from '../../src/server/codec.ts'
import { openTestServer } from '../helpers/database.ts'
import { drill } from '../helpers/drill.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { openSql } from '../helpers/sql.ts'
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
  const unlatch = async () => {
    const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
    const roll = openRollWriter(
      db,
      codec,
      databaseClock(() => new Date(), 5_000),
    )
    const unlatched = await unlatchTokens({ roll }, 'ca', 'os:test')
    await db.close()
    return unlatched.length
  }
  const isWell = () => until(async () => (await issue()) === 201)
  t.ok(await isWell())
  return { hsm, service, issue, until, says: (reason: RegExp) => until(() => isReady(reason)), isWell, unlatch }
}

drill('while the records are read-only nobody logs in; and then a wrong PIN is tried once', async (t) => {
  const { hsm, service, says, isWell } = await openPlace(t)
  const superuser = await openSql(t, (await openTestServer()).superuserUrl)
  const name = new URL(service.database.ownerUrl.replace('@/', '@h/')).pathname.slice(1)
  const readOnly = async (on: boolean): Promise<void> => {
    await superuser.query(`alter database ${name} set default_transaction_read_only = ${on}`)
    await superuser.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name])
  }
  await hsm.setPin('9999')
  await readOnly(true)
  const before = await hsm.logins()
  killSigners()
  await sleep(6_000)
  t.equal(await hsm.logins(), before)
  await readOnly(false)
  t.ok(await says(/has refused this PIN before/))
  await sleep(3_000)
  t.equal(await hsm.logins(), before + 1)
  await hsm.setPin('1234')
  t.ok(await isWell())
})

drill('after a login that nobody saw the end of there is one more, and after two of them an operator', async (t) => {
  const { hsm, says, isWell, unlatch, until } = await openPlace(t)
  const hangAndKill = async (): Promise<void> => {
    const before = await hsm.logins()
    await hsm.misbehave('login-stuck')
    killSigners()
    t.ok(await until(async () => (await hsm.logins()) === before + 1))
  }
  await hangAndKill()
  await hsm.misbehave()
  killSigners()
  t.ok(await isWell(), 'a crash in a login needs no operator')
  await hangAndKill()
  await hangAndKill()
  const before = await hsm.logins()
  await hsm.misbehave()
  killSigners()
  t.ok(await says(/Nobody saw the end of the last 2 tries to log in to the token ca/))
  await sleep(3_000)
  t.equal(await hsm.logins(), before)
  t.equal(await unlatch(), 1)
  t.ok(await isWell())
})

drill('a module that crashes before it has seen the PIN needs no operator', async (t) => {
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

drill('what a token answers in words of its own may be a refusal; what is its own trouble is not', async (t) => {
  const { hsm, says, isWell, unlatch } = await openPlace(t)
  const before = await hsm.logins()
  await hsm.misbehave(`login-error=${0x30}`)
  killSigners()
  await sleep(6_000)
  t.ok((await hsm.logins()) >= before + 3, 'CKR_DEVICE_ERROR is tried on')
  await hsm.misbehave()
  t.ok(await isWell())
  await hsm.misbehave(`login-error=${0x8000_0001}`)
  killSigners()
  t.ok(await says(/Nobody saw the end of the last 2 tries/))
  await hsm.misbehave()
  t.equal(await unlatch(), 1)
  t.ok(await isWell())
})

drill('a token that says that the next wrong PIN locks it is not asked before an operator says so', async (t) => {
  const { hsm, says, isWell, unlatch } = await openPlace(t)
  const before = await hsm.logins()
  await hsm.misbehave('final-try')
  killSigners()
  t.ok(await says(/The token ca says that the next wrong PIN locks it, and is not asked/))
  await sleep(3_000)
  t.equal(await hsm.logins(), before)
  t.equal(await unlatch(), 1)
  t.ok(await isWell())
  t.equal(await hsm.logins(), before + 1)
})

drill('a replica starts, and answers, while a token lets it wait, with two connections to the database', async (t) => {
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
})

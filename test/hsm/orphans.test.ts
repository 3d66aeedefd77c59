/** What a service that was killed leaves behind: nothing, whatever its modules do at that moment. */
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { openTestDatabase } from '../helpers/database.ts'
import { startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'
import { openShim } from './softhsm.ts'

t.setTimeout(300_000)

const hsm = await openShim(t)
const database = await openTestDatabase(t)
const data = await mkdtemp(join(tmpdir(), 'chancery-orphans-'))
t.teardown(() => rm(data, { recursive: true, force: true }))
const [port, publicPort] = [await freePort(), await freePort()]
const start = () =>
  startInstance({
    data,
    port,
    publicPort,
    servingUrl: database.servingUrl,
    ownerUrl: database.ownerUrl,
    env: {
      CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
      CHANCERY_PKCS11_MODULE: hsm.module,
      CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
      ...hsm.env,
    },
  })

/** Signers of this test's instances, whoever their parent is by now. */
const signers = (): number[] =>
  readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('signer.ts') &&
          readFileSync(`/proc/${pid}/environ`, 'utf8').includes(data)
        )
      } catch {
        return false
      }
    })
const until = async (isSo: () => boolean | Promise<boolean>, ms: number): Promise<boolean> => {
  for (const end = performance.now() + ms; performance.now() < end; await sleep(50)) if (await isSo()) return true
  return false
}

slowTest('a service that is killed while its module hangs in C_Login leaves no signer', async (t) => {
  const first = start()
  t.teardown(async () => {
    first.signal('SIGKILL')
    await first.exited
    for (const pid of signers()) process.kill(pid, 'SIGKILL')
  })
  await first.ready()
  t.ok(signers().length > 0)
  const filters = signers().map((pid) => readFileSync(`/proc/${pid}/coredump_filter`, 'latin1'))
  t.same([...new Set(filters)], ['00000000\n'], 'and none that crashes writes its PIN to a disk')
  await hsm.misbehave('login-hang')
  const before = await hsm.logins()
  for (const pid of signers()) process.kill(pid, 'SIGKILL')
  t.ok(await until(async () => (await hsm.logins()) > before, 10_000), 'another one hangs')
  first.signal('SIGKILL')
  await first.exited
  t.ok(await until(() => signers().length === 0, 5_000))
})

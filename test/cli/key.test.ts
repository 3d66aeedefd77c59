/** `chancery key` as an operator runs it: a process of its own beside the service, on the real SoftHSM and PostgreSQL. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { embeddedFolder } from '../helpers/embedded.ts'
import { bare } from '../helpers/environment.ts'
import { freePort } from '../helpers/port.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openShim } from '../hsm/softhsm.ts'

const chancery = (env: Readonly<Record<string, string>>, ...args: readonly string[]): Promise<Run> =>
  runChancery(args, { env: { ...bare, CHANCERY_LOG_LEVEL: 'error', ...env }, timeout: 30_000 })
const uri = 'pkcs11:token=ca;object=default'
const software = 'file:keys/default.pem'
t.setTimeout(300_000)

slowTest('beside a service with keys in a token', async (t) => {
  const hsm = await openShim(t)
  const module = {
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    ...hsm.env,
  }
  const service = await openTestService(t, { CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca', ...module })
  const beside = {
    ...module,
    CHANCERY_DATA: service.config.dataDir,
    CHANCERY_DATABASE_URL: service.database.servingUrl,
  }
  await t.test('a key that can be used', async (t) => {
    await hsm.misbehave('login-noise')
    const json = await chancery(beside, 'key', 'probe', uri, '--json')
    await hsm.misbehave()
    t.equal(json.code, 0, json.err)
    t.match(json.err, /^C_Login$/m, 'what the module prints is not in the answer')
    const found = JSON.parse(json.out)
    t.match(found, { algorithm: 'ecdsa-sha256', spki: /^[0-9a-f]{64}$/ })
    t.match(found.id, /^pkcs11:token=ca;serial=[0-9a-f]{16};object=default;type=private$/)
    t.match(found.attributes, { sensitive: true, extractable: false, local: true })
    const text = await chancery(beside, 'key', 'probe', uri)
    t.match(text.out, /object=default;type=private signs by ecdsa-sha256\.\n.*\n {2}sensitive: true\n/)
    const none = await chancery(beside, 'key', 'probe', 'pkcs11:token=ca;object=none')
    t.strictSame(none, { code: exitCodes.usage, out: '', err: 'The token ca has no private key none.\n' })
  })

  const eventsOf = async (type: string) =>
    (await service.request('GET', `/v1/events?type=${type}`)).json.items.map(({ entry }: { entry: string }) =>
      JSON.parse(entry),
    )
  const by = /^os:./

  await t.test('a key that was probed is on the roll, with who did it; one that does not open is not', async (t) => {
    const events = await eventsOf('key.probed')
    t.match(events, [{ key: /object=default;type=private$/, attributes: { sensitive: true }, by }, { by }])
    t.equal(events.length, 2)
  })

  await t.test('a PIN that is refused', async (t) => {
    await hsm.setPin('9999')
    const { code, err } = await chancery(beside, 'key', 'probe', uri)
    t.equal(code, exitCodes.usage)
    t.match(err, /refuses the PIN \(CKR_PIN_INCORRECT\)/)
    t.notMatch(err, /9999/)
  })
})

slowTest('beside a service with the embedded PostgreSQL, which goes on', async (t) => {
  const data = await embeddedFolder(t)
  const port = await freePort()
  const env = {
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${await freePort()}`,
  }
  const empty = await chancery({ CHANCERY_DATA: join(data, 'nothing') }, 'key', 'probe', software)
  t.equal(empty.code, exitCodes.usage)
  t.match(empty.err, /^There are no records in /)
  t.notOk(existsSync(join(data, 'nothing')), 'and none are made')

  const serving = spawn(process.execPath, ['src/main.ts', 'serve'], {
    env: { ...bare, CHANCERY_LOG_LEVEL: 'warn', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = new Promise((resolve) => serving.once('exit', resolve))
  t.teardown(async () => {
    serving.kill('SIGTERM')
    await exited
  })
  await new Promise<void>((resolve) => serving.stdout?.once('data', () => resolve()))
  const postmaster = async (): Promise<number> =>
    Number.parseInt(await readFile(join(data, 'postgres', 'cluster', 'postmaster.pid'), 'utf8'), 10)
  const before = await postmaster()
  const { code, out, err } = await chancery(env, 'key', 'probe', software, '--json')
  t.equal(code, 0, err)
  t.match(JSON.parse(out), { algorithm: 'ecdsa-sha256', attributes: null })
  t.equal(await postmaster(), before)
  t.equal(serving.exitCode, null)

  serving.kill('SIGTERM')
  await exited
  t.equal((await chancery(env, 'key', 'probe', software)).code, 0, 'and without it the records are read')
  t.notOk(existsSync(join(data, 'postgres', 'cluster', 'postmaster.pid')), 'and the server is left as it was: stopped')
})

/**
 * A service that is started on a bad day of its token: it comes up, says what is wrong, answers its callers, serves its
 * API under a certificate that nobody has signed, and is whole within seconds of the token being back.
 */
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'

import t from 'tap'

import { type Serving, serve } from '../../src/cli/serve.ts'
import { loadConfig } from '../../src/config/config.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { openShim, type Shim } from './softhsm.ts'

interface Fault {
  readonly begin: (hsm: Shim) => Promise<unknown>
  readonly end: (hsm: Shim) => Promise<unknown>
  readonly reason: RegExp
}

let restore = async (): Promise<void> => {}
const spoilt = (change: (hsm: Shim) => Promise<unknown>, reason: RegExp): Fault => ({
  begin: async (hsm) => {
    restore = await hsm.save()
    await change(hsm)
  },
  end: () => restore(),
  reason,
})

const faults: Readonly<Record<string, Fault>> = {
  'a missing token': {
    begin: (hsm) => hsm.pull(),
    end: (hsm) => hsm.plug(),
    // SoftHSM does not even start without the folder of its tokens.
    reason: /There is no token with label ca|does not start/,
  },
  'a missing module': {
    begin: (hsm) => rename(hsm.module, `${hsm.module}.away`),
    end: (hsm) => rename(`${hsm.module}.away`, hsm.module),
    reason: /PKCS#11 module .*shim\.so/,
  },
  'a module that hangs': {
    begin: (hsm) => hsm.misbehave('sign-hang'),
    end: (hsm) => hsm.misbehave(),
    reason: /did not sign in time|within|ended|being started/,
  },
  'a module that crashes': {
    begin: (hsm) => hsm.misbehave('sign-crash'),
    end: (hsm) => hsm.misbehave(),
    reason: /ended|being started/,
  },
  'a key that is gone': spoilt(
    (hsm) => hsm.tool('--delete-object', '--type', 'privkey', '--label', 'default'),
    /no private key default/,
  ),
  'two keys with one label': spoilt(
    (hsm) => hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'default', '--id', '0b'),
    /more than one private key default/,
  ),
  "another issuer's key": spoilt(async (hsm) => {
    for (const type of ['privkey', 'pubkey']) await hsm.tool('--delete-object', '--type', type, '--label', 'default')
    await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'default', '--id', '0c')
  }, /is not the key of issuer default|is not held by its token alone/),
}

t.setTimeout(300_000)

const hsm = await openShim(t)
const database = await openTestDatabase(t)
const data = await mkdtemp(join(tmpdir(), 'chancery-start-'))
t.teardown(() => rm(data, { recursive: true, force: true }))
const open = async (): Promise<Serving> =>
  serve(
    await loadConfig({
      ...bare,
      CHANCERY_DATA: data,
      CHANCERY_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
      CHANCERY_PUBLIC_URL: 'http://pki.test',
      CHANCERY_DATABASE_URL: database.servingUrl,
      CHANCERY_MIGRATION_URL: database.ownerUrl,
      CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
      CHANCERY_PKCS11_MODULE: hsm.module,
      CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
      ...hsm.env,
    }),
    quiet,
  )

interface Answer {
  readonly status: number
  readonly text: string
  readonly fingerprint: string
  readonly ms: number
}

const call = (url: string, ca: string, path: string, body?: object): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const start = performance.now()
    const headers = {
      authorization: `Bearer ${token}`,
      ...(body && { 'content-type': 'application/json' }),
    }
    const options = { ca, agent: new Agent({ keepAlive: false }), method: body ? 'POST' : 'GET', headers }
    const sent = request(new URL(path, url), options, (response) => {
      const fingerprint = (response.socket as TLSSocket).getPeerCertificate().fingerprint256
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text, fingerprint, ms: performance.now() - start }),
      )
    })
    sent.on('error', reject)
    sent.end(body ? JSON.stringify(body) : undefined)
  })

const first = await open()
await first.close()
const token = (await readFile(join(data, 'admin.token'), 'utf8')).trim()
const root = await readFile(join(data, 'root.pem'), 'utf8')
const asked = { csr: csrFor('hsm.example.com'), profile: 'server' }

for (const [what, { begin, end, reason }] of Object.entries(faults))
  slowTest(`started with ${what}`, async (t) => {
    await begin(hsm)
    const { addresses, anchor, close } = await open()
    t.teardown(close)
    t.match(anchor, /stand-in\.pem$/)
    const standIn = await readFile(anchor, 'utf8')
    t.equal(new X509Certificate(standIn).subject, 'CN=Chancery without an issuer')
    const refused = await call(addresses.api, standIn, '/v1/certificates', asked)
    t.match(refused, { status: 503 })
    t.match(JSON.parse(refused.text), { code: 'key.unavailable', retryable: true })
    t.ok(refused.ms < 2_000, `${refused.ms} ms to the answer`)
    let ready = await call(addresses.api, standIn, '/readyz')
    for (let i = 0; !reason.test(ready.text) && i < 40; i += 1) {
      await sleep(100)
      ready = await call(addresses.api, standIn, '/readyz')
    }
    t.equal(ready.status, 503)
    t.match(ready.text, reason)

    await end(hsm)
    const start = performance.now()
    let answer: Answer | undefined
    while (answer?.status !== 201 && performance.now() - start < 20_000) {
      await sleep(100)
      // The service's own certificate is the first that is issued, or nearly so.
      answer = await call(addresses.api, root, '/v1/certificates', asked).catch(() => undefined)
    }
    t.equal(answer?.status, 201, 'under its own certificate again, without a restart')
    t.not(answer?.fingerprint, new X509Certificate(standIn).fingerprint256)
    t.comment(
      `${what}: 503 after ${Math.round(refused.ms)} ms, well again after ${Math.round(performance.now() - start)} ms`,
    )
    t.equal(await readFile(join(data, 'root.pem'), 'utf8'), root)
  })

slowTest(
  'a first start whose token is not there, or makes no key for the roll, ends as with any setting that is no good',
  async (t) => {
    const fresh = await openTestDatabase(t)
    const folder = await mkdtemp(join(tmpdir(), 'chancery-first-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const first = (more: Readonly<Record<string, string>>): Promise<Run> =>
      runChancery(['serve'], {
        env: {
          ...bare,
          CHANCERY_DATA: folder,
          CHANCERY_LISTEN: '127.0.0.1:0',
          CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
          CHANCERY_PUBLIC_URL: 'http://pki.test',
          CHANCERY_DATABASE_URL: fresh.servingUrl,
          CHANCERY_MIGRATION_URL: fresh.ownerUrl,
          CHANCERY_PKCS11_MODULE: hsm.module,
          CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
          ...hsm.env,
          ...more,
        },
        timeout: 60_000,
      })
    await hsm.misbehave('no-edwards')
    const edwards = await first({ CHANCERY_ROLL_KEY: 'pkcs11:token=ca;object=roll' })
    await hsm.misbehave()
    t.equal(edwards.code, exitCodes.usage)
    t.equal(
      edwards.err,
      'The token ca cannot make a key of type ed25519. That is the key of the roll, an Ed25519 one: CHANCERY_ROLL_KEY may name one in a file, as it does by default, or in another token.\n',
    )
    for (const more of [
      { CHANCERY_ROLL_KEY: 'pkcs11:token=mistyped;object=roll' },
      { CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=mistyped' },
    ]) {
      const { code, out, err } = await first(more)
      t.equal(code, exitCodes.usage, err)
      t.match(err, /^There is no token with label mistyped\. The module \S+ shows ca\.\n$/)
      const places = out
        .split('\n')
        .filter((line) => line.includes('"signer.ended"'))
        .map((line) => JSON.parse(line).place)
      t.ok(
        places.every((place) => place === 'token mistyped'),
        `${places}`,
      )
      t.ok(places.length > 0)
    }
  },
)

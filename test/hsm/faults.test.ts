/**
 * The service on bad days of its module: every fault gives its callers a clear answer within two seconds, says so in
 * /readyz, and is over within five seconds of the module behaving again, without an operator and without another key.
 */
import { X509Certificate } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { csrFor } from '../http/people.ts'
import { openShim, type Shim } from './softhsm.ts'

interface Fault {
  readonly begin: (hsm: Shim) => Promise<void>
  readonly end: (hsm: Shim) => Promise<void>
  /** What /readyz says meanwhile. */
  readonly reason: RegExp
}

const behave = (hsm: Shim): Promise<void> => hsm.misbehave()
const word = (reason: RegExp, ...words: readonly string[]): Fault => ({
  begin: (hsm) => hsm.misbehave(...words),
  end: behave,
  reason,
})

const faults: Readonly<Record<string, Fault>> = {
  'C_Sign hangs': word(/no (signature|answer) within|did not sign in time/, 'sign-hang'),
  'C_Sign crashes': word(/ended meanwhile: killed by SIGSEGV|being started/, 'sign-crash'),
  'C_Sign fails (CKR_DEVICE_ERROR)': word(/CKR_DEVICE_ERROR|ended|being started/, `sign-error=${0x30}`),
  'C_SignInit fails (CKR_KEY_HANDLE_INVALID)': word(/CKR_KEY_HANDLE_INVALID|ended|being started/, `init-error=${0x60}`),
  'C_SignInit fails (CKR_USER_NOT_LOGGED_IN)': word(
    /CKR_USER_NOT_LOGGED_IN|ended|being started/,
    `init-error=${0x101}`,
  ),
  'the token disappears and comes back': {
    begin: (hsm) => hsm.pull(),
    end: (hsm) => hsm.plug(),
    reason: /There is no token with label ca|did not sign|ended|being started/,
  },
}

let restore = async (): Promise<void> => {}
/** While the module crashes nothing is opened: what is changed meanwhile is found by the next process. */
const whileDown = async (hsm: Shim, change: () => Promise<unknown>): Promise<void> => {
  await hsm.misbehave('sign-crash')
  await issue(service)
  await change()
  await hsm.misbehave()
}
const generate = (hsm: Shim, id: string): Promise<string> =>
  hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'default', '--id', id)

Object.assign(faults, {
  'the key is swapped for another with its label': {
    begin: async (hsm) => {
      restore = await hsm.save()
      await whileDown(hsm, async () => {
        for (const type of ['privkey', 'pubkey'])
          await hsm.tool('--delete-object', '--type', type, '--label', 'default')
        await generate(hsm, '0a')
      })
    },
    end: (hsm) => whileDown(hsm, restore),
    reason: /default: (another key is at pkcs11:token=ca;object=default now|The key .* is not held by its token alone)/,
  },
  'a second key gets the same label': {
    begin: async (hsm) => {
      restore = await hsm.save()
      await whileDown(hsm, () => generate(hsm, '0b'))
    },
    end: (hsm) => whileDown(hsm, restore),
    reason: /default: The token ca has more than one private key default/,
  },
} satisfies Record<string, Fault>)

const hsm = await openShim(t)
const service = await openTestService(t, {
  CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
  CHANCERY_PKCS11_MODULE: hsm.module,
  CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
  CHANCERY_SIGNING_DEADLINE: '1500ms',
  ...hsm.env,
})
const issuerKey = (await service.request('GET', '/v1/authorities/default/bundle')).text
t.setTimeout(300_000)
const results: string[] = []

const issue = async (service: TestService) => {
  const start = performance.now()
  const body = { csr: csrFor('hsm.example.com'), profile: 'server' }
  const answer = await service.request('POST', '/v1/certificates', { body })
  return { ...answer, ms: performance.now() - start }
}

t.test('a certificate by a key that was born in the token', async (t) => {
  const answer = await issue(service)
  t.equal(answer.status, 201, answer.text)
  const [leaf, issuer] = answer.json.chain.map((pem: string) => new X509Certificate(pem))
  t.ok(issuer ? leaf.verify(issuer.publicKey) : leaf, issuerKey)
})

for (const [what, { begin, end, reason }] of Object.entries(faults))
  t.test(`${what}: a clear answer meanwhile, and recovery after it`, async (t) => {
    t.equal((await issue(service)).status, 201, 'well before')
    await begin(hsm)
    const answers = await Promise.all(Array.from({ length: 8 }, () => issue(service)))
    const slowest = Math.max(...answers.map(({ ms }) => ms))
    for (const { status, json, headers } of answers) {
      t.equal(status, 503)
      t.match(json, { retryable: true, code: 'key.unavailable' })
      t.match(headers['retry-after'], /^\d+$/)
    }
    // What it said last is remembered for two seconds.
    let ready = await service.request('GET', '/readyz')
    for (let i = 0; !reason.test(ready.text) && i < 50; i += 1) {
      await sleep(100)
      ready = await service.request('GET', '/readyz')
    }
    t.equal(ready.status, 503)
    t.match(ready.text, reason)
    await sleep(1_000)
    t.equal((await issue(service)).status, 503, 'it does not heal by itself')
    await end(hsm)
    const start = performance.now()
    let status = 0
    while (status !== 201 && performance.now() - start < 20_000) {
      await sleep(50)
      status = (await issue(service)).status
    }
    const recovery = performance.now() - start
    t.equal(status, 201)
    results.push(`${what}: 503 after ${Math.round(slowest)} ms, well again after ${Math.round(recovery)} ms`)
    t.ok(slowest < 3_000, `${slowest} ms to the answer`)
    t.ok(recovery < 10_000, `${recovery} ms to recovery`)
  })

slowTest('a token that signs wrongly leaves no more intents open than were under way', async (t) => {
  const client = await openSql(t, service.database.servingUrl)
  const open = async (): Promise<number> =>
    (
      await client.query(
        `select count(*)::int n from intents i where created_at >= $1
         and not exists (select from outcomes o where o.serial = i.serial)`,
        [since],
      )
    ).rows[0].n
  // What others have left open is ended meanwhile.
  const { since } = (await client.query('select clock_timestamp() as since')).rows[0]
  await hsm.misbehave('sign-wrong')
  const codes = new Set<string>()
  for (const end = performance.now() + 4_000; performance.now() < end; ) {
    const { status, json } = await issue(service)
    codes.add(status === 503 ? json.code : String(status))
  }
  t.same([...codes].sort(), ['key.bad_signature', 'key.unavailable'])
  t.equal(await open(), 1)
  await hsm.misbehave()
  let status = 0
  for (const end = performance.now() + 5_000; status !== 201 && performance.now() < end; await sleep(50))
    status = (await issue(service)).status
  t.equal(status, 201)
})

t.test('what went wrong is counted, through every restart of the signer', async (t) => {
  await sleep(1_500)
  const { text } = await service.request('GET', '/metrics')
  for (const code of ['CKR_DEVICE_ERROR', 'CKR_KEY_HANDLE_INVALID', 'CKR_USER_NOT_LOGGED_IN'])
    t.match(text, new RegExp(`^chancery_key_errors_total\\{code="${code}"\\} [1-9]`, 'm'))
  t.match(text, /^chancery_key_waits_total [1-9]\d+$/m)
  t.match(text, /^chancery_key_sessions\{state="waiting"\} 0$/m)
})

t.test('a session that fails is replaced, and nobody notices', async (t) => {
  for (const code of [0xb0, 0xb3, 0x90, 0x91]) {
    await hsm.misbehave(`init-error-once=${code}`)
    t.equal((await issue(service)).status, 201, `0x${code.toString(16)}`)
  }
})

t.test('the times', async (t) => {
  for (const line of results) t.comment(line)
})

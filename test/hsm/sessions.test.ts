/** Tokens that allow few sessions: they have to do, whether the token says so or only answers CKR_SESSION_COUNT. */
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { named } from '../helpers/ceremony.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest, slowUnless } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { csrFor } from '../http/people.ts'
import { openShim, type Shim } from './softhsm.ts'

t.setTimeout(300_000)

/** So many ask at once, over and over; each again until it has its certificate. Resolves to what they were told. */
const issueAll = async (
  service: TestService,
  { clients, each }: { readonly clients: number; readonly each: number },
  { serials, retries } = openTold(),
) => {
  const one = async (client: number, i: number): Promise<void> => {
    const body = { csr: csrFor(`c${client}-${i}.example.com`), profile: 'server' }
    const headers = { 'idempotency-key': `client-${client}-${i}` }
    for (;;) {
      const { status, json, text } = await service.request('POST', '/v1/certificates', { body, headers })
      if (status === 201) return void serials.add(json.serial)
      if (json?.retryable !== true) throw new Error(`${status} ${text}`)
      retries.set(json.code, (retries.get(json.code) ?? 0) + 1)
      await sleep(50)
    }
  }
  const client = async (_: unknown, at: number): Promise<void> => {
    for (let i = 0; i < each; i += 1) await one(at, i)
  }
  await Promise.all(Array.from({ length: clients }, client))
  return { issued: serials.size, retries: Object.fromEntries(retries) }
}

/** What they were told so far. */
const openTold = () => ({ serials: new Set<string>(), retries: new Map<string, number>() })

/** Once the signer, which tells each second, has told of so many signatures. */
const failuresIn = async (service: TestService, signatures: number): Promise<string> => {
  const metrics = async () => (await service.request('GET', '/metrics')).text
  const counted = (text: string) => Number(/^chancery_key_waits_total (\d+)$/m.exec(text)?.[1])
  let text = await metrics()
  while (!(counted(text) >= signatures)) {
    await sleep(50)
    text = await metrics()
  }
  return [...text.matchAll(/^chancery_key_errors_total\{code="(\w+)"\}/gm)].map(([, code]) => code).join()
}

const openLimited = async (t: Test, word: string): Promise<{ hsm: Shim; service: TestService }> => {
  const hsm = await openShim(t)
  await hsm.misbehave(word)
  const service = await openTestService(t, {
    CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    ...hsm.env,
  })
  return { hsm, service }
}

for (const [what, word] of [
  ['answers CKR_SESSION_COUNT beyond the first', 'sessions=1'],
  ['says that it allows one', 'max-sessions=1'],
  ['says that it allows three', 'max-sessions=3'],
] as const)
  slowUnless(
    word === 'sessions=1',
    `a token that ${what}: issuance works and keys are made, and nothing is lost`,
    async (t) => {
      const { service } = await openLimited(t, word)
      const load = issueAll(service, { clients: 32, each: 8 })
      const body = { name: 'next', authority: 'default', subject: named('next'), key: 'pkcs11:token=ca;object=next' }
      const made = await service.request('POST', '/v1/issuer-requests', { body })
      t.equal(made.status, 201, made.text)
      const { issued, retries } = await load
      t.equal(issued, 32 * 8)
      t.same(retries, {}, 'and nobody had to ask again')
      t.equal(await failuresIn(service, 32 * 8), '', 'none was opened beyond what the token has said')
    },
  )

slowTest('the only session fails, and its login with it: a new process, and nobody is lost', async (t) => {
  const { hsm, service } = await openLimited(t, 'sessions=1')
  const told = openTold()
  const load = issueAll(service, { clients: 8, each: 40 }, told)
  const refused = (): number => told.retries.get('key.unavailable') ?? 0
  for (const [code, issued] of [
    [0xb3, 40],
    [0x90, 160],
  ] as const) {
    while (told.serials.size < issued) await sleep(5)
    const before = refused()
    await hsm.misbehave('sessions=1', `init-error=${code}`)
    // That is at the signing deadline, by which the token's queue gives up, too, and tells of it a moment later.
    while (refused() === before) await sleep(5)
    await hsm.misbehave('sessions=1')
  }
  const { issued, retries } = await load
  t.equal(issued, 8 * 40)
  t.same(Object.keys(retries), ['key.unavailable'], 'and of each it is known that nothing was signed')
  const client = await openSql(t, service.database.servingUrl)
  const { rows } = await client.query(
    `select coalesce(o.kind, 'open') as kind from intents i left join outcomes o using (serial)
     where o.kind is distinct from 'certificate' group by 1`,
  )
  t.strictSame(rows, [{ kind: 'unsigned' }], 'as the records say')
})

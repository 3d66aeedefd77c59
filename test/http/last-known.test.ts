/** Who is let in while the database, which alone says who asks, is away; and what everyone is given meanwhile. */
import { X509Certificate } from 'node:crypto'

import t, { type Test } from 'tap'

import { Problem } from '../../src/errors.ts'
import { openLastKnown } from '../../src/http/last-known.ts'
import { openPublicApp } from '../../src/http/public/app.ts'
import { openTestServer } from '../helpers/database.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { employ } from './people.ts'
import { openStandIn, reached } from './stand-in.ts'

const away = async (): Promise<string> => {
  throw new Problem('db.unavailable', 'away')
}

/** Of the service's database, for everyone: shut, it is away. */
const openDoor = async (t: Test, { database }: TestService) => {
  const superuser = await openSql(t, (await openTestServer()).superuserUrl)
  const name = new URL(database.ownerUrl.replace('@/', '@h/')).pathname.slice(1)
  return async (isOpen: boolean): Promise<void> => {
    await superuser.query(`alter database ${name} allow_connections ${isOpen}`)
    await superuser.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name])
  }
}

t.test('who was known is known while the database is away, for a day', async (t) => {
  let now = 0
  const known = openLastKnown<string>(() => now)
  await t.rejects(known.of('a', away), { code: 'db.unavailable' }, 'nobody was ever let in')
  t.same(await known.of('a', async () => 'ann'), { value: 'ann', isOld: false })
  t.same(await known.of('a', away), { value: 'ann', isOld: true })
  t.same(await known.of('a', async () => 'ann, as she is now'), { value: 'ann, as she is now', isOld: false })
  await t.rejects(known.of('b', away), { code: 'db.unavailable' }, 'who shows something else')
  now += 86_400_001
  await t.rejects(known.of('a', away), { code: 'db.unavailable' })
})

t.test(
  'who was turned down is known no more, and nothing but the absence of the database makes somebody known',
  async (t) => {
    const known = openLastKnown<string>(() => 0)
    for (const code of ['auth.invalid', 'auth.forbidden'] as const) {
      await known.of('a', async () => 'ann')
      await t.rejects(
        known.of('a', () => Promise.reject(new Problem(code, 'no'))),
        { code },
      )
      await t.rejects(known.of('a', away), { code: 'db.unavailable' }, code)
    }
    await known.of('a', async () => 'ann')
    for (const code of ['rate.limited', 'auth.unavailable'] as const) {
      const later = known.of('a', () => Promise.reject(new Problem(code, 'later')))
      await t.rejects(later, { code }, 'that is not to be turned down')
    }
    t.match(await known.of('a', away), { value: 'ann' })
    const ask = (id: string) => known.of(id, async () => 'somebody')
    await ask('b')
    for (let i = 0; i < 60; i += 1) await ask(`${i}`)
    await ask('b')
    for (let i = 60; i < 70; i += 1) await ask(`${i}`)
    await t.rejects(known.of('6', away), { code: 'db.unavailable' }, 'and there is no end of them')
    t.match(await known.of('7', away), { isOld: true })
    t.match(await known.of('b', away), { isOld: true }, 'who comes all the time is not forgotten for others')
  },
)

t.test('a database that says nothing is waited for a moment, and what it says later counts', async (t) => {
  const known = openLastKnown<string>(() => 0, 20)
  await known.of('a', async () => 'ann')
  const { promise, reject } = Promise.withResolvers<string>()
  t.same(await known.of('a', () => promise), { value: 'ann', isOld: true })
  reject(new Problem('auth.invalid', 'revoked meanwhile'))
  await promise.catch(() => {})
  await t.rejects(known.of('a', away), { code: 'db.unavailable' })
})

slowTest(
  'metrics and what holds up are told while the database is away, to whoever was told them before, and say so',
  async (t) => {
    const service = await openTestService(t)
    const accept = await openDoor(t, service)
    const scraper = await employ(service, 'prometheus', 'auditor')
    const other = await employ(service, 'other', 'auditor')
    const get = (token: string, path = '/metrics') => service.request('GET', path, { token })
    t.match(await get(scraper), { status: 200, text: 'chancery_check_passed{check="database"} 1' })
    await get(other, '/v1/authorities')
    const operator = await employ(service, 'operator', 'operator')
    t.match(await get(operator, '/readyz'), { status: 200, json: { ready: true } })

    await accept(false)
    // What is known of tokens and of health is two seconds old.
    await new Promise((resolve) => setTimeout(resolve, 2_500))
    const told = await get(scraper)
    t.match(told, { status: 200, text: 'chancery_check_passed{check="database"} 0' })
    t.match(told.text, 'process_start_time_seconds')
    t.notMatch(told.text, /^chancery_approval_requests\{/m)
    t.match(await get(other), { status: 503, json: { code: 'db.unavailable' } })
    const { status, json: readiness } = await get(operator, '/readyz')
    t.match({ status, ready: readiness.ready }, { status: 503, ready: false })
    const checkOf = (wanted: string) => readiness.checks.find(({ name }: { name: string }) => name === wanted)
    t.match(checkOf('database'), { ok: false })
    t.match(checkOf('clock'), { ok: true, reason: /^is not known to agree with the database, .* read at (?=20\d\d-)/ })
    const [readAt] = /20.*Z$/.exec(checkOf('clock').reason) ?? []
    t.ok(Date.now() - Date.parse(String(readAt)) > 2_000, 'since when')
    t.match(await get(other, '/readyz'), { status: 503, json: { code: 'db.unavailable' } })
    t.match(await get(scraper, '/v1/certificates'), { status: 503, json: { code: 'db.unavailable' } })

    await accept(true)
    const agrees = { name: 'clock', ok: true, reason: 'agrees with the database' }
    const clock = async () => (await get(operator, '/readyz')).json.checks?.[2]
    while ((await clock())?.reason !== agrees.reason) await new Promise((resolve) => setTimeout(resolve, 100))
    t.same(await clock(), agrees)
    const { json } = await service.request('GET', '/v1/tokens?principal=prometheus')
    await service.request('DELETE', `/v1/tokens/${json.items[0].id}`)
    t.match(await get(scraper), { status: 401 })
    await accept(false)
    await new Promise((resolve) => setTimeout(resolve, 2_500))
    t.match(await get(scraper), { status: 503 }, 'who was turned down is not known')
    await accept(true)
  },
)

slowTest(
  'issuers are given to everyone while the database is away, also one that nobody has asked for yet',
  async (t) => {
    const service = await openTestService(t)
    const accept = await openDoor(t, service)
    const fetched = async (file: string) => {
      const answer = await fetch(`${service.publicUrl}/issuers/${file}`)
      return { status: answer.status, octets: Buffer.from(await answer.arrayBuffer()) }
    }
    const first = await fetched('default.cer')
    await accept(false)
    // Issuers are read once a second.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    t.same(await fetched('default.cer'), first)
    const { status, octets } = await fetched('etcd.cer')
    t.equal(status, 200)
    t.match(new X509Certificate(octets).subject, /etcd/)
    t.equal((await fetched('nobody.cer')).status, 503, 'of one that is not known nobody can say that it is not there')
    await accept(true)
  },
)

t.test(
  'the public listener is ready while the database says nothing of issuers, and reads them for who asks',
  async (t) => {
    const { deps } = await openStandIn()
    const certificate = Buffer.from('its octets')
    let asked = 0
    const issuers = (): Promise<unknown> => {
      asked += 1
      return asked === 1 ? new Promise(() => {}) : Promise.resolve([{ name: 'default', certificate }])
    }
    const app = await openPublicApp({
      ...deps,
      records: reached({ issuers } as object),
      crls: reached({}),
      ocsp: reached({}),
    })
    t.teardown(() => app.close())
    t.equal(asked, 1)
    const answer = await app.inject('/issuers/default.cer')
    t.equal(answer.statusCode, 200)
    t.same(answer.rawPayload, certificate)
    t.equal(asked, 2)
  },
)

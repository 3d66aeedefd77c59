/** What is taken away, or replaced, while an intent waits for the records: nothing is signed by it. */
import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t from 'tap'

import { openTestServer } from '../helpers/database.ts'
import { audience, openTestIssuer } from '../helpers/issuer.ts'
import { type Answer, openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { employApprovers, openDesk, wantApprovals } from './approvals.ts'
import { csrFor, employ } from './people.ts'

const service = await openTestService(t)
const owner = new pg.Client({ connectionString: service.database.ownerUrl })

t.before(() => owner.connect())
t.teardown(() => owner.end())

/** Asks so many while intents have to wait, changes something then, and lets them in later than anybody is believed. */
const across = async <T>(
  many: number,
  asking: () => Promise<T>,
  change: () => Promise<unknown>,
  { laterMs = 1_300, after = async () => {} }: Later = {},
): Promise<T> => {
  await owner.query('begin')
  await owner.query('lock table intents in share mode')
  const before = await drafts()
  const asked = asking()
  while ((await drafts()) < before + many) await sleep(20)
  await intentsWait()
  await change()
  await sleep(laterMs)
  await owner.query('commit')
  await after()
  return asked
}

interface Later {
  readonly laterMs?: number
  /** What happens once they are let in. */
  readonly after?: () => Promise<unknown>
}

/** How many have come as far as their intents, of which those of one statement go together, and the others are let in later. */
const drafts = async (): Promise<number> => {
  const { text } = await service.request('GET', '/metrics')
  return Number(/^chancery_stage_seconds_count\{stage="possession"\} (\d+)$/m.exec(text)?.[1] ?? 0)
}

const intentsWait = async (): Promise<void> => {
  const waiting = `select from pg_locks where relation = 'intents'::regclass and not granted`
  while ((await owner.query(waiting)).rowCount === 0) await sleep(20)
}

const ask = (token: string, profile = 'server') =>
  service.request('POST', '/v1/certificates', { token, body: { csr: csrFor('web.example.internal'), profile } })
const firstOf = async (what: 'grants' | 'tokens', principal: string): Promise<string> =>
  (await service.request('GET', `/v1/${what}?principal=${principal}`)).json.items[0].id
const outcomesOf = async (principal: string): Promise<readonly string[]> =>
  (
    await owner.query<{ kind: string }>(
      'select o.kind from outcomes o join intents i using (serial) where i.principal = $1',
      [principal],
    )
  ).rows.map(({ kind }) => kind)
/** A new version of it, which differs in nothing that matters. */
const touch = async (path: string) => {
  const { json, headers } = await service.request('GET', path)
  const { description: _, ...document } = json.document ?? json
  return service.request('PUT', path, {
    headers: { 'if-match': headers['etag'] as string },
    body: { ...document, description: `as of ${performance.now()}` },
  })
}

slowTest('who asks is asked again, and by the profile of today, where an intent had to wait', async (t) => {
  const names = ['closed', 'ungranted', 'unproved', 'unchanged', 'narrowed'] as const
  const tokens = new Map<string, string>()
  for (const name of names) tokens.set(name, await employ(service, name, 'requester', { profiles: ['server'] }))
  const older = await employ(service, 'older', 'requester', { profiles: ['client'] })
  const grant = await firstOf('grants', 'ungranted')
  const token = await firstOf('tokens', 'unproved')
  const wider = await firstOf('grants', 'narrowed')
  const narrow = { dns: { allow: ['db.example.internal'] } }
  await service.request('POST', '/v1/grants', {
    body: { principal: 'narrowed', role: 'requester', profiles: ['server'], names: narrow },
  })
  const answers = await across(
    6,
    () => Promise.all([...names.map((name) => ask(tokens.get(name) ?? '')), ask(older, 'client')]),
    async () => {
      for (const path of [
        ...['/v1/principals/closed', `/v1/grants/${grant}`, `/v1/tokens/${token}`],
        `/v1/grants/${wider}`,
      ])
        t.equal((await service.request('DELETE', path)).status, 204)
      t.equal((await touch('/v1/profiles/client')).status, 200)
    },
  )
  t.match(answers, [
    { status: 401, json: { code: 'auth.invalid' } },
    { status: 403, json: { code: 'auth.forbidden' } },
    { status: 401, json: { code: 'auth.invalid' } },
    { status: 201 },
    { status: 503, json: { code: 'request.in_progress', detail: /grants/ } },
    { status: 503, json: { code: 'request.in_progress', detail: /profile/ } },
  ])
  for (const name of [...names, 'older'])
    t.same(await outcomesOf(name), [name === 'unchanged' ? 'certificate' : 'unsigned'], name)
  t.match(await ask(older, 'client'), { status: 201, json: { profile: { version: 2 } } }, 'as it was told')
})

slowTest('so are the items of a batch, and whoever a token makes somebody', async (t) => {
  const issuer = await openTestIssuer(t)
  const document = {
    ...{ name: 'jobs', issuer: issuer.url, keys: { discovery: true, ca: issuer.ca }, lifetime: '15m' },
    ...{ algorithms: ['RS256'], audience },
  }
  const mapping = { id: 'job', claims: { sub: '*' }, principal: 'jobs/{sub}', grants: [{ profiles: ['server'] }] }
  const put = (headers: Readonly<Record<string, string>>, mappings: readonly object[]) =>
    service.request('PUT', '/v1/identity-providers/jobs', { headers, body: { ...document, mappings } })
  t.equal((await put({ 'if-none-match': '*' }, [mapping])).status, 201)
  const batcher = await employ(service, 'batcher', 'requester', { profiles: ['server'] })
  const body = { items: Array.from({ length: 3 }, () => ({ csr: csrFor('b.example.internal'), profile: 'server' })) }
  const [batch, job] = (await across(
    4,
    () =>
      Promise.all([
        service.request('POST', '/v1/certificates/batch', { token: batcher, body }),
        ask(issuer.token({ sub: 'web' })),
      ]),
    async () => {
      t.equal((await service.request('DELETE', '/v1/principals/batcher')).status, 204)
      t.equal((await put({ 'if-match': '*' }, [])).status, 200)
    },
  )) as [Answer, Answer]
  t.equal(batch.json.items.length, 3)
  for (const item of batch.json.items) t.match(item, { status: 401, problem: { code: 'auth.invalid' } })
  t.match(job, { status: 401, json: { code: 'auth.unmapped' } })
  t.same(await outcomesOf('jobs/web'), ['unsigned'])
})

t.test('what had to wait for no longer than that is issued by what it was decided by, also in a batch', async (t) => {
  const token = await employ(service, 'short', 'requester', { profiles: ['client'] })
  const body = { items: [{ csr: csrFor('b.example.internal'), profile: 'client' }] }
  // However long a busy machine takes, it is a millisecond less than the second for which somebody is believed.
  let now = performance.now()
  mock.method(performance, 'now', () => now)
  t.teardown(() => mock.restoreAll())
  const [alone, batch] = (await across(
    2,
    () => Promise.all([ask(token, 'client'), service.request('POST', '/v1/certificates/batch', { token, body })]),
    async () => {
      await touch('/v1/profiles/client')
      now += 999
    },
    { laterMs: 0 },
  )) as [Answer, Answer]
  const { version } = alone.json.profile
  t.match(alone, { status: 201 })
  t.match(batch.json.items, [{ status: 201, certificate: { profile: { version } } }])
})

t.test('and whoever has asked for what people approve', async (t) => {
  await wantApprovals(service, 'simple', { required: 1 })
  const { requester, alice } = await employApprovers(service, ['simple'])
  const desk = openDesk(service)
  const request = (await desk.ask(requester, 'simple')).json
  const grant = await firstOf('grants', 'ci')
  const answer = await across(
    1,
    () => desk.approve(alice, request),
    () => service.request('DELETE', `/v1/grants/${grant}`),
    // Every instance looks after what is approved: one may come by meanwhile.
    { laterMs: 0 },
  )
  t.match(answer, { json: { state: 'failed', end: { code: 'approval.plan', reason: /auth\.forbidden/ } } })
  t.notOk((await outcomesOf('ci')).includes('certificate'))
})

slowTest(
  'where nobody can say who asks, nothing is signed: the intent ends as unsigned, and the same call goes on',
  async (t) => {
    const superuser = await openSql(t, (await openTestServer()).superuserUrl)
    const { database } = (await owner.query('select current_database() as database')).rows[0]
    const accept = (on: boolean) => superuser.query(`alter database ${database} allow_connections ${on}`)
    const token = await employ(service, 'unknown', 'requester', { profiles: ['server'] })
    const call = { token, body: { csr: csrFor('web.example.internal'), profile: 'server' } }
    const askUnderKey = () =>
      service.request('POST', '/v1/certificates', { ...call, headers: { 'idempotency-key': 'unknown' } })
    const answer = await across(
      1,
      askUnderKey,
      async () => {
        await accept(false)
        // All but who waits, and who makes them wait.
        await superuser.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> $2
          and pid not in (select pid from pg_locks where not granted)`,
          [database, (await owner.query('select pg_backend_pid() as pid')).rows[0].pid],
        )
      },
      // Later than anything is remembered; and it is away for a while longer.
      { laterMs: 2_200, after: () => sleep(800).then(() => accept(true)) },
    )
    t.match(answer, { status: 503, json: { code: 'db.unavailable', retryable: true } })
    t.same(await outcomesOf('unknown'), ['unsigned'])
    t.match(await askUnderKey(), { status: 201, json: { replayed: false } })
  },
)

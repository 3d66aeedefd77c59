/** Tables of whoever serves, by the names of the records: the guards of the database look at the records all the same. */
import { randomBytes } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { csrFor } from '../http/people.ts'

t.setTimeout(300_000)

const connect = async (url: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  t.teardown(() => client.end())
  return client
}

slowTest('a temporary table takes the place of no record', async (t) => {
  const service: TestService = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 2 })
  const { requester } = await employApprovers(service, ['payments', 'server'])
  const desk = openDesk(service)
  const made = (await desk.ask(requester, 'server', { key: 'plain', csr: csrFor('web.example.com') })).json
  const asked = (await desk.ask(requester, 'payments', { key: 'asked' })).json

  const owner = await connect(service.database.ownerUrl)
  const name = new URL(service.database.servingUrl.replace('@/', '@h/')).pathname.slice(1)
  await owner.query(`grant temporary on database ${name} to chancery`)
  const serving = await connect(service.database.servingUrl)
  const { rows } = await owner.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')`,
  )
  for (const { name } of rows)
    await serving.query(`create temporary table ${name} as select * from public.${name} limit 0`)
  // By these nothing wants approvals, one request needs none, and the roll begins anew.
  await serving.query(`insert into profiles (name, version, approvals) values ('payments', 1, 0), ('server', 1, 0)`)
  await serving.query('insert into principals select * from public.principals')
  await serving.query('insert into issuers select * from public.issuers')
  await serving.query('insert into approval_requests select * from public.approval_requests')
  await serving.query('update approval_requests set required = 0, plan = (select plan from public.intents limit 1)')
  await serving.query(`insert into roll (id, size, time) values (1, 1000000, '2100-01-01')`)
  await serving.query(`insert into revocations select * from public.revocations`)

  const intend = (profile: string, key: string, approval: string | null) =>
    serving.query(
      `insert into public.intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, approval)
       select $1, principal, $3, 1, digest, issuer, shard, $5, 1, tbs, plan, $4 from public.intents where serial = $2`,
      [randomBytes(16), Buffer.from(made.serial, 'hex'), key, approval, profile],
    )
  await t.rejects(intend('payments', 'direct', null), { code: '23503' }, 'a profile that wants approvals')
  await t.rejects(intend('payments', 'asked', asked.id), { message: /is not approved so/ }, 'too few approvals')
  await t.rejects(
    intend('server', 'asked', null),
    { message: 'under this key people were asked' },
    'a key under which people wait',
  )
  const tables = {
    'an outcome of no intent': `insert into public.outcomes (serial, kind, at) values (sha256('x'), 'unsigned', now())`,
    'entries that leave a gap': `insert into public.entries (index, type, time, leaf_hash, body)
      values (999999, 'service.started', now(), sha256('\\x00'::bytea || '{}'), '{}')`,
    'a subtree ahead of the roll': `insert into public.subtrees (level, index, hash) values (1, 0, sha256('x'))`,
    'a request that ends while it is issued': `insert into public.approval_ends (request, kind, serial, at)
      values ('${asked.id}', 'issued', sha256('x'), now())`,
  }
  for (const [what, text] of Object.entries(tables)) await t.rejects(serving.query(text), { code: /^23/ }, what)
  const state = await serving.query<{ state: string }>(`select state_for_intent('default') as state`)
  t.equal(state.rows[0]?.state, 'active')
})

t.test('no function that runs as its caller names a table without its schema', async (t) => {
  const service = await openTestService(t)
  const owner = await connect(service.database.ownerUrl)
  const { rows: tables } = await owner.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v')`,
  )
  const { rows } = await owner.query<{ name: string; body: string }>(`
    select proname as name, prosrc as body from pg_proc p
    where pronamespace = 'public'::regnamespace and has_function_privilege('chancery', oid, 'execute')
      and not exists (select from unnest(proconfig) setting where setting = 'search_path=public, pg_temp')
      and proname !~ '^(maintain_|make_|grant_)'`)
  const bare = new RegExp(`(?<![.\\w])(?:from|join|into|update)\\s+(${tables.map(({ name }) => name).join('|')})\\b`)
  t.ok(rows.length > 15)
  for (const { name, body } of rows) t.notMatch(body, bare, name)
})

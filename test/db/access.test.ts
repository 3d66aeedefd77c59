import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t from 'tap'

import { openAccess } from '../../src/db/access.ts'
import type { Database } from '../../src/db/database.ts'
import { isSecret, newSecret } from '../../src/db/secrets.ts'
import { slowTest } from '../helpers/slow.ts'
import { openTestStores } from './stores.ts'

const { stores, open, service } = await openTestStores(t)
const { access } = stores
const by = 'admin'
const invalid = { code: 'auth.invalid', detail: 'This token is unknown, expired or revoked.' }

const employ = async (name: string, role?: 'admin' | 'auditor') => {
  await access.createPrincipal(name, by)
  const grant =
    role && (await access.createGrant({ principal: name, role, profiles: null, names: null, revoke: false }, by)).grant
  const token = await access.createToken({ principal: name, label: 'test', expiresAt: null }, by)
  return { token, grant }
}

t.test('a token is chy_, 256 random bits and a checksum, and is kept as its SHA-256 only', async (t) => {
  const secret = newSecret(randomBytes)
  t.match(secret, /^chy_[A-Za-z0-9_-]{49}$/)
  t.ok(isSecret(secret))
  const seen = new Set(Array.from({ length: 1000 }, () => newSecret(randomBytes)))
  t.equal(seen.size, 1000)
  const { token } = await employ('hashed')
  const { rows } = await stores.db.query<{ sha256: Buffer; row: string }>(
    { text: 'select sha256, t::text as row from tokens t where id = $1' },
    [token.id],
  )
  t.same(rows[0]?.sha256, createHash('sha256').update(token.secret).digest())
  t.notOk(rows[0]?.row.includes(token.secret.slice(4, 20)))
  t.notOk((await access.listTokens('hashed')).some((listed) => 'secret' in listed))
})

t.test('a token with any one character changed is not a token', async (t) => {
  const secret = newSecret(randomBytes)
  for (let i = 0; i < secret.length; i++) {
    const other = secret[i] === 'A' ? 'B' : 'A'
    t.notOk(isSecret(secret.slice(0, i) + other + secret.slice(i + 1)), `character ${i}`)
  }
  for (const text of ['', secret.slice(1), `${secret}=`, ` ${secret}`, secret.toUpperCase()]) t.notOk(isSecret(text))
})

t.test('nothing in a token acts as a pattern or breaks the query', async (t) => {
  const { token } = await employ('target')
  t.equal((await access.authenticate(token.secret)).principal, 'target')
  const checksum = (body: string): string =>
    createHash('sha256').update('chy_').update(body).digest('base64url').slice(0, 6)
  const whole = (body: string): string => `chy_${body}${checksum(body)}`
  const body = token.secret.slice(4, -6)
  const fuzz = ['*', '%', '_', "'", '\0', '\\', '"', ';', '$1', '\n', '\u00e9', '\ud800']
  for (const mark of fuzz) {
    await t.rejects(access.authenticate(mark), invalid)
    await t.rejects(access.authenticate(mark + token.secret.slice(mark.length)), invalid)
    // A checksum may end in the mark itself.
    const last = token.secret.endsWith(mark) ? '*' : mark
    await t.rejects(access.authenticate(token.secret.slice(0, -mark.length) + last), invalid)
    const good = whole((body.slice(0, 43 - mark.length) + mark).slice(0, 43))
    t.ok(isSecret(good), 'a right checksum, so that it is looked up')
    await t.rejects(access.authenticate(good), invalid, JSON.stringify(mark))
  }
  await t.rejects(access.authenticate(whole('%'.repeat(43))), invalid)
  await t.rejects(access.authenticate(whole('_'.repeat(43))), invalid)
  await t.rejects(access.authenticate(newSecret(randomBytes)), invalid, 'unknown')
})

slowTest('a token that is revoked stops at once here, and within two seconds elsewhere', async (t) => {
  const other = await open()
  const { token } = await employ('revoked')
  await access.authenticate(token.secret)
  await other.access.authenticate(token.secret)
  await access.revokeToken(token.id, by)
  await t.rejects(access.authenticate(token.secret), invalid)
  await sleep(2_050)
  await t.rejects(other.access.authenticate(token.secret), invalid)
  await access.revokeToken(token.id, by)
  t.ok((await access.listTokens('revoked'))[0]?.revokedAt, 'revoking again changes nothing')
  await t.rejects(access.revokeToken('00000000-0000-4000-8000-000000000000', by), { code: 'token.not_found' })
})

slowTest('a token works until it expires, and not a moment longer', async (t) => {
  await access.createPrincipal('brief', by)
  const expiresAt = new Date(Date.now() + 3_000)
  const { secret } = await access.createToken({ principal: 'brief', label: 'brief', expiresAt }, by)
  t.equal((await access.authenticate(secret)).principal, 'brief')
  await sleep(expiresAt.getTime() - Date.now() + 150)
  await t.rejects(access.authenticate(secret), invalid)
})

t.test('a principal that was disabled is nobody, for good', async (t) => {
  const { token } = await employ('leaver', 'auditor')
  await access.authenticate(token.secret)
  await access.disablePrincipal('leaver', by)
  await access.disablePrincipal('leaver', by)
  await t.rejects(access.authenticate(token.secret), invalid)
  const grant = { principal: 'leaver', role: 'auditor', profiles: null, names: null, revoke: false } as const
  const disabled = { code: 'principal.disabled', detail: 'The principal "leaver" is disabled for good.' }
  await t.rejects(access.createGrant(grant, by), disabled)
  await t.rejects(access.createToken({ principal: 'leaver', label: 'x', expiresAt: null }, by), disabled)
  await t.rejects(access.createPrincipal('leaver', by), disabled, 'and its name is not to be had again')
  t.ok((await access.readPrincipal('leaver')).disabledAt)
  await t.rejects(access.disablePrincipal('nobody', by), { code: 'principal.not_found' })
})

t.test('a grant holds from its making to its revocation, and every change is on the roll', async (t) => {
  const { token, grant } = await employ('granted', 'auditor')
  t.match((await access.authenticate(token.secret)).grants, [
    { role: 'auditor', profiles: null, names: null, revoke: false },
  ])
  const names = { dns: { allow: ['*.example.com'] } }
  const requester = { principal: 'granted', role: 'requester', profiles: ['server'], names, revoke: true } as const
  const { grant: narrow } = await access.createGrant(requester, by)
  t.match((await access.authenticate(token.secret)).grants, [
    { role: 'auditor' },
    { role: 'requester', profiles: ['server'], names, revoke: true },
  ])
  await access.revokeGrant(grant?.id ?? '', by)
  await access.revokeGrant(grant?.id ?? '', by)
  t.same(
    (await access.authenticate(token.secret)).grants.map(({ id }) => id),
    [narrow.id],
  )
  t.same(
    (await access.listGrants('granted')).map(({ id }) => id),
    [narrow.id],
  )
  const { items } = await stores.records.events({ type: 'grant.changed' }, { limit: 1000 })
  const told = items.map(({ entry }) => JSON.parse(entry)).filter(({ principal }) => principal === 'granted')
  t.same(
    told.map(({ change, role }) => [change, role]),
    [
      ['created', 'auditor'],
      ['created', 'requester'],
      ['revoked', 'auditor'],
    ],
    'once each: what changes nothing is no event',
  )
})

t.test('a grant that is held already is not made again, on whichever replica, until it is revoked', async (t) => {
  await access.createPrincipal('twice', by)
  const names = { dns: { allow: ['*.example.com'], deny: ['x.example.com'] } }
  const asked = { principal: 'twice', role: 'requester', profiles: ['server', 'client'], names, revoke: false } as const
  const replicas = [access, (await open()).access, access]
  const answers = await Promise.all(replicas.map((replica) => replica.createGrant(asked, by)))
  t.same(answers.map(({ created }) => created).sort(), [false, false, true])
  t.equal(new Set(answers.map(({ grant }) => grant.id)).size, 1)
  const again = await access.createGrant({ ...asked, profiles: ['client', 'server'] }, by)
  t.same(again, { grant: answers[0]?.grant, created: false }, 'the order of profiles means nothing')
  for (const other of [
    { ...asked, profiles: ['server'] },
    { ...asked, revoke: true },
    { ...asked, names: null, revoke: false },
    { ...asked, names: { dns: { allow: ['*.example.com'] } } },
    { ...asked, role: 'auditor', profiles: null, names: null, revoke: false },
  ] as const)
    t.equal((await access.createGrant(other, by)).created, true)
  await access.revokeGrant(again.grant.id, by)
  const anew = await access.createGrant(asked, by)
  t.ok(anew.created && anew.grant.id !== again.grant.id)
  const { items } = await stores.records.events({ type: 'grant.changed' }, { limit: 1000 })
  t.equal(
    items.filter(({ entry }) => JSON.parse(entry).principal === 'twice').length,
    8,
    'each change once on the roll',
  )
})

t.test('of two administrators who take each other down at once, from two replicas, one stays', async (t) => {
  const replicas = [access, (await open()).access] as const
  const admins = async (): Promise<number> => {
    const { rows } = await stores.db.query<{ n: number }>({
      text: `select count(distinct g.principal)::integer as n from grants g join tokens t using (principal)
        where g.role = 'admin' and not exists (select from grant_revocations r where r.grant_id = g.id)
          and not exists (select from principal_closures c where c.principal = g.principal)
          and not exists (select from token_revocations r where r.token = t.id)`,
    })
    return rows[0]?.n ?? 0
  }
  // The administrator of the bootstrap goes first; then there are always the two.
  let [keeper, ...rest] = [await employ('admin-0', 'admin')]
  t.equal(rest.length, 0)
  await access.disablePrincipal('admin', 'admin-0')
  let name = 'admin-0'
  const ways = ['grant', 'token', 'principal'] as const
  for (const [round, [first, second]] of ways.flatMap((a) => ways.map((b) => [a, b] as const)).entries()) {
    const rivalName = `admin-${round + 1}`
    const rival = await employ(rivalName, 'admin')
    const strike = (
      on: (typeof replicas)[number],
      way: (typeof ways)[number],
      victim: typeof rival,
      victimName: string,
    ) => {
      if (way === 'grant') return on.revokeGrant(victim.grant?.id ?? '', by)
      return way === 'token' ? on.revokeToken(victim.token.id, by) : on.disablePrincipal(victimName, by)
    }
    const outcomes = await Promise.allSettled([
      strike(replicas[0], first, rival, rivalName),
      strike(replicas[1], second, keeper, name),
    ])
    const lost = outcomes.filter(({ status }) => status === 'rejected')
    t.equal(lost.length, 1, `${first} against ${second}`)
    t.match(lost[0], { reason: { code: 'profile.lockout' } })
    t.equal(await admins(), 1)
    if (outcomes[1]?.status === 'fulfilled') [keeper, name] = [rival, rivalName]
  }
  t.equal((await replicas[1].authenticate(keeper.token.secret)).principal, name, 'the one who stays can act')
})

t.test('an administrator whose token ends soon is not the one who stays; others are never in the way', async (t) => {
  const admins = (await access.listGrants()).filter(({ role }) => role === 'admin').map(({ principal }) => principal)
  const open = (await access.listPrincipals()).filter(({ name, disabledAt }) => admins.includes(name) && !disabledAt)
  const tokens = await Promise.all(open.map(({ name }) => access.listTokens(name)))
  const [lasting, ...others] = tokens.flat().filter(({ revokedAt }) => revokedAt === null)
  t.equal(others.length, 0, 'one administrator was left')
  const current = lasting?.principal ?? ''
  await access.createPrincipal('passing', by)
  const { grant } = await access.createGrant(
    { principal: 'passing', role: 'admin', profiles: null, names: null, revoke: false },
    by,
  )
  const inDays = (days: number): Date => new Date(Date.now() + days * 86_400_000)
  const give = (days: number) =>
    access.createToken({ principal: 'passing', label: `${days} days`, expiresAt: inDays(days) }, by)
  const [brief, month] = [await give(1 / 8640), await give(29)]
  for (const take of [
    () => access.revokeToken(lasting?.id ?? '', by),
    () => access.disablePrincipal(current, by),
    () => access.revokeToken(month.id, by).then(() => access.revokeToken(lasting?.id ?? '', by)),
  ])
    await t.rejects(take(), { code: 'profile.lockout' })
  await access.revokeToken(brief.id, by)
  const long = await give(31)
  await access.revokeToken(lasting?.id ?? '', by)
  // Now the only lasting one is of `passing`: it stays, and what is no administrator's may still go.
  await t.rejects(access.revokeGrant(grant.id, by), { code: 'profile.lockout' })
  await t.rejects(access.revokeToken(long.id, by), { code: 'profile.lockout' })
  const { token } = await employ('bystander', 'auditor')
  for (const _twice of [1, 2]) await access.revokeToken(token.id, by)
  await access.disablePrincipal('bystander', by)
})

t.test('a flood of made-up tokens throws no caller out of memory', async (t) => {
  let asked = 0
  const db: Database = {
    ...stores.db,
    query: (statement, values) => {
      if (statement.name === 'select_caller') asked += 1
      return stores.db.query(statement, values)
    },
  }
  const watched = openAccess({ ...stores, db })
  const { token } = await employ('steady', 'auditor')
  const flood = Array.from({ length: 1_500 }, () => newSecret(randomBytes))
  // As many at once as find a connection in time on a busy machine.
  for (let from = 0; from < flood.length; from += 100)
    await Promise.all(flood.slice(from, from + 100).map((secret) => t.rejects(watched.authenticate(secret), invalid)))
  await watched.authenticate(token.secret)
  asked = 0
  await Promise.all(flood.slice(0, 200).map((secret) => watched.authenticate(secret).catch(() => {})))
  const looked = asked
  await watched.authenticate(token.secret)
  t.equal(asked, looked, 'the caller was known all along')
  const { token: fresh } = await employ('crowd', 'auditor')
  await Promise.all(Array.from({ length: 50 }, () => watched.authenticate(fresh.secret)))
  t.equal(asked, looked + 1, 'who come at once are looked up once')
  asked = looked
  const stranger = newSecret(randomBytes)
  for (let i = 0; i < 3; i++) await t.rejects(watched.authenticate(stranger), invalid)
  t.equal(asked, looked + 1, 'a stranger is looked up once')
})

t.test('whoever serves cannot change or remove a record, and neither can the owner', async (t) => {
  const [serving, owner] = [service.database.servingUrl, service.database.ownerUrl].map(
    (connectionString) => new pg.Client({ connectionString }),
  ) as [pg.Client, pg.Client]
  await Promise.all([serving.connect(), owner.connect()])
  t.teardown(() => Promise.all([serving.end(), owner.end()]))
  const codeOf = (client: pg.Client, sql: string): Promise<string> =>
    client.query(sql).then(
      () => 'done',
      (error: { code: string }) => error.code,
    )
  const { rows } = await owner.query<{ table: string; column: string }>(`
    select c.relname as table, (select attname from pg_attribute a where a.attrelid = c.oid and attnum > 0 and attidentity = '' order by attnum limit 1) as column
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') order by 1`)
  const mutable = new Set([
    'approval_standings',
    'replicas',
    'roll',
    'reconciled',
    'token_uses',
    'schema_migrations',
    'leases',
    'crl_files',
    'spent_tokens',
  ])
  const records = rows.filter(({ table }) => !mutable.has(table))
  t.ok(records.length >= 15, records.map(({ table }) => table).join())
  const guarded = await owner.query<{ table: string }>(`
    select tgrelid::regclass::text as table from pg_trigger
    where tgfoid = 'refuse_change'::regproc and tgenabled = 'O' and tgtype & 27 = 27 -- each row, before, delete, update`)
  const guards = new Set(guarded.rows.map(({ table }) => table))
  for (const { table, column } of records) {
    t.ok(guards.has(table), `${table} is guarded, also while there is nothing in it`)
    const { rows: counted } = await owner.query<{ n: number }>(`select count(*)::integer as n from ${table}`)
    for (const sql of [
      `update ${table} set ${column} = ${column}`,
      `delete from ${table}`,
      `truncate ${table} cascade`,
    ]) {
      t.equal(await codeOf(serving, sql), '42501', `serving: ${sql}`)
      // A trigger for each row has nothing to refuse in an empty table; and a month of refusals is the owner's to end.
      const ownersToEnd = /^(refusals|accesses)_/.test(table)
      const harmless = sql.startsWith('truncate') ? ownersToEnd : counted[0]?.n === 0
      t.equal(await codeOf(owner, sql), harmless ? 'done' : '23001', `owner: ${sql}`)
    }
  }
  for (const sql of [
    'insert into roll values (1, 0, now())',
    'delete from roll',
    'truncate roll',
    'insert into reconciled values (1, now())',
    'delete from token_uses',
    'delete from spent_tokens',
    'update spent_tokens set until = until',
    'select maintain_spent_tokens()',
    'update replicas set seen_at = seen_at',
    'delete from approval_standings',
    'update approval_standings set state = state',
    'update roll set id = 1',
    'update token_uses set token = token',
    `insert into schema_migrations select * from schema_migrations`,
    'drop table entries',
    'alter table entries disable trigger all',
    'create table mine (id integer)',
    `select maintain_refusals('0 days')`,
    `select maintain_accesses('0 days')`,
    `select adopt_other('refusals')`,
    `select * from month_partitions('refusals')`,
    `select grant_serving('chancery')`,
  ])
    t.equal(await codeOf(serving, sql), '42501', `serving: ${sql}`)
  for (const sql of [
    'update roll set size = size - 1',
    `update roll set time = time - interval '1 ms'`,
    'delete from roll',
    'truncate roll',
  ])
    t.equal(await codeOf(owner, sql), '23001', `owner: ${sql}`)
  t.equal(await codeOf(serving, 'update roll set size = 0'), '23001', 'serving: the head never goes back')
})

import { randomBytes } from 'node:crypto'
import { copyFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { type Database, openDatabase } from '../../src/db/database.ts'
import { assertMigrated, migrate } from '../../src/db/migrate.ts'
import { readHashes } from '../../src/db/tree.ts'
import { codec } from '../../src/server/codec.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'
import { quiet as log } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'

const folderOf = async (test: Test, files: Readonly<Record<string, string>>): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-migrations-'))
  test.teardown(() => rm(folder, { recursive: true }))
  for (const [name, sql] of Object.entries(files)) await writeFile(join(folder, name), sql)
  return folder
}

/** An empty database, a folder of migrations, and what tests do with them. */
const given = async (test: Test, files: Readonly<Record<string, string>>) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(test, { empty: true })
  const directory = await folderOf(test, files)
  const owner = openDatabase({ url: ownerUrl, max: 2, log, applicationName: 'test' })
  const serving = openDatabase({ url: servingUrl, max: 2, log, applicationName: 'test' })
  test.teardown(() => Promise.all([owner.close(), serving.close()]))
  return {
    owner,
    ownerUrl,
    servingUrl,
    serving,
    directory,
    run: () => migrate({ ownerUrl, servingRole: 'chancery', log, directory }),
  }
}

const two = {
  '0001_first.sql': 'create table first (n int); insert into first values (1);',
  '0002_second.sql': 'alter table first add column m int not null default 2; create table second ();',
}

t.test('migrations are applied in order, once', async (t) => {
  const { owner, run } = await given(t, two)
  t.equal(await run(), 2)
  t.equal(await run(), 2)
  const { rows } = await owner.query({ text: 'select n, m from first' })
  t.strictSame(rows, [{ n: 1, m: 2 }])
})

t.test('rows that a policy hides from the owner as well are not passed over', async (t) => {
  const { owner, run, directory } = await given(t, two)
  const asked = t.capture(Socket.prototype, 'setKeepAlive', Socket.prototype.setKeepAlive)
  await run()
  t.match(
    asked(),
    [{ args: [true, 5_000] }],
    'nor is a server that is gone while a migration takes its time waited for',
  )
  await owner.query({ text: 'alter table first enable row level security' })
  await owner.query({ text: 'alter table first force row level security' })
  await writeFile(join(directory, '0003_third.sql'), 'update first set n = 3;')
  await t.rejects(run(), { message: /row-level security policy for table "first"/ })
  await owner.query({ text: 'alter table first no force row level security' })
  t.equal(await run(), 3)
  t.strictSame((await owner.query({ text: 'select n from first' })).rows, [{ n: 3 }])
})

t.test('five that migrate at once apply each migration once', async (t) => {
  const slow = { ...two, '0003_third.sql': 'select pg_sleep(0.2); insert into first values (3, 3);' }
  const { owner, run } = await given(t, slow)
  t.strictSame(await Promise.all([run(), run(), run(), run(), run()]), [3, 3, 3, 3, 3])
  const { rows } = await owner.query({ text: 'select n from first order by n' })
  t.strictSame(rows, [{ n: 1 }, { n: 3 }])
})

t.test('a migration has its time whatever the role says, and its turn ends with its process', async (t) => {
  const { owner, run } = await given(t, {
    '0001_first.sql': `
      create table told as
      select current_setting(name) as value
      from unnest(array['statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout']) name`,
  })
  const { rows } = await owner.query<{ name: string }>({ text: 'select current_database() as name' })
  for (const setting of ['statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout'])
    await owner.query({ text: `alter database ${rows[0]?.name} set ${setting} = '20s'` })
  await run()
  t.strictSame((await owner.query({ text: 'select value from told' })).rows, [
    { value: '0' },
    { value: '0' },
    { value: '1min' },
  ])
})

t.test('whoever waits for another that migrates is told, and waits on whatever the role says', async (t) => {
  const { owner, ownerUrl, directory } = await given(t, { '0001_slow.sql': 'select pg_sleep(1)' })
  const { rows } = await owner.query<{ name: string }>({ text: 'select current_database() as name' })
  await owner.query({ text: `alter database ${rows[0]?.name} set lock_timeout = '200ms'` })
  const told: object[] = []
  const run = () =>
    migrate({ ownerUrl, servingRole: 'chancery', log: { ...log, info: (line: object) => told.push(line) }, directory })
  await Promise.all([run(), run()])
  t.match(told[0], { event: 'migrate.waiting' })
  t.match(
    told.filter((line) => (line as { readonly event: string }).event === 'migrate.applied'),
    [{ version: 1 }],
    'and finds it done',
  )
})

t.test('a migration that fails leaves nothing of itself, and says which line', async (t) => {
  const { owner, run, directory } = await given(t, {
    '0001_first.sql': 'create table first ();',
    '0002_broken.sql': 'create table half ();\n\nselect nonsense;',
  })
  await t.rejects(run(), { message: /^Migration 2 \(broken\) failed in line 3: column "nonsense" does not exist$/ })
  const { rows } = await owner.query({
    text: `select to_regclass('first') is not null as first, to_regclass('half') as half`,
  })
  t.strictSame(rows, [{ first: true, half: null }])
  await writeFile(join(directory, '0002_broken.sql'), 'create table half ();')
  t.equal(await run(), 2, 'mended, it goes on from there')
})

t.test('an applied file that was changed stops with a sentence', async (t) => {
  const { run, directory, serving } = await given(t, two)
  await run()
  await writeFile(join(directory, '0001_first.sql'), `${two['0001_first.sql']} -- harmless?`)
  await t.rejects(run(), { message: /Migration 1 \(first\) was changed after it had been applied/ })
  await t.rejects(assertMigrated(serving, directory), { message: /was changed after it had been applied/ })
})

t.test('a gap, a double and a wrong name stop with a sentence', async (t) => {
  const { run, directory } = await given(t, { '0001_first.sql': '', '0003_third.sql': '' })
  await t.rejects(run(), { message: /have a gap or a double: 0003_third.sql stands where number 2 belongs/ })
  await rm(join(directory, '0003_third.sql'))
  await copyFile(join(directory, '0001_first.sql'), join(directory, '0001_again.sql'))
  await t.rejects(run(), { message: /0001_first.sql stands where number 2 belongs/ })
  await rm(join(directory, '0001_again.sql'))
  await writeFile(join(directory, 'extra.sql'), '')
  await t.rejects(run(), { message: /is not called NNNN_name.sql/ })
})

t.test('a database that is newer than the files stops with a sentence', async (t) => {
  const { run, directory, serving } = await given(t, two)
  await run()
  await rm(join(directory, '0002_second.sql'))
  await t.rejects(run(), { message: /is at version 2 and this Chancery knows 1: use a newer Chancery/ })
  await t.rejects(assertMigrated(serving, directory), { message: /use a newer Chancery/ })
})

t.test('the side that serves refuses a schema that is behind, and takes one that is not', async (t) => {
  const { run, directory, serving } = await given(t, two)
  await t.rejects(assertMigrated(serving, directory), {
    message: /at version 0 and this Chancery needs 2: run "chancery migrate"/,
  })
  await run()
  await t.resolves(assertMigrated(serving, directory))
})

t.test('the role that serves may read the versions but not write them', async (t) => {
  const { run, serving } = await given(t, two)
  await run()
  await t.rejects(serving.query({ text: 'delete from schema_migrations' }), { code: '42501' })
  await t.rejects(serving.query({ text: 'create table mine ()' }), { code: '42501' })
})

t.test('a role that serves finds nothing to do where the owner has migrated, and may not migrate itself', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t, { empty: true })
  const directory = await folderOf(t, two)
  const as = (url: string) => migrate({ ownerUrl: url, servingRole: 'chancery', log, directory })
  await t.rejects(as(servingUrl), { code: '42501' })
  await as(ownerUrl)
  t.equal(await as(servingUrl), 2)
})

t.test('grant_serving is called with the role where the schema has it', async (t) => {
  const { run, serving } = await given(t, {
    '0001_grants.sql': `
      create table things (n int);
      create function grant_serving(serving name) returns void language plpgsql as $$
        begin execute format('grant select on things to %I', serving); end $$;`,
  })
  await run()
  await t.resolves(serving.query({ text: 'select * from things' }))
})

t.test(
  'what a migration makes is granted with it: who serves meanwhile goes on where the next one fails',
  async (t) => {
    const { run, serving } = await given(t, {
      '0001_grants.sql': `
      create table things (n int);
      create function grant_serving(serving name) returns void language plpgsql as $$
        begin execute format('grant select, insert on all tables in schema public to %I', serving); end $$;`,
      '0002_trigger.sql': `
      create table seen ();
      create function look() returns trigger language plpgsql as $$ begin perform from seen; return null; end $$;
      create trigger look after insert on things for each row execute function look();`,
      '0003_fails.sql': 'select 1 / 0',
    })
    await t.rejects(run(), { message: /^Migration 3/ })
    await t.resolves(serving.query({ text: 'insert into things values (1)' }))
  },
)

t.test('rows that logical replication has brought are followed by those that come', async (t) => {
  const { owner, run } = await given(t, {
    '0001_numbers.sql': 'create table states (id bigint generated always as identity primary key, state text)',
  })
  await run()
  for (const id of [1, 7]) {
    await owner.query({ text: `insert into states overriding system value values ($1, 'active')` }, [id])
    await run()
    await owner.query({ text: `insert into states (state) values ('halted')` })
    const { rows } = await owner.query({ text: 'select id, state from states order by id desc limit 1' })
    t.strictSame(rows, [{ id: id + 1, state: 'halted' }])
  }
})

const openSuperuser = async (t: Test, ownerUrl: string): Promise<Database> => {
  const who = /\/\/[^@]*@/
  const url = ownerUrl.replace(who, who.exec((await openTestServer()).superuserUrl)?.[0] ?? '')
  const superuser = openDatabase({ url, max: 1, log, applicationName: 'test' })
  t.teardown(superuser.close)
  return superuser
}

t.test("what is somebody else's in our schema is told of where it stops the grants", async (t) => {
  const { owner, ownerUrl, run } = await given(t, {
    '0001_grants.sql': `
      create table things (n int);
      create function grant_serving(serving name) returns void language plpgsql as $$
        begin
          execute format('revoke all on all tables in schema public from %I', serving);
          execute format('grant select on all tables in schema public to %I', serving);
        end $$;`,
  })
  const superuser = await openSuperuser(t, ownerUrl)
  await superuser.query({ text: 'create table "Heartbeat" (n int)' })
  await t.rejects(run(), {
    message:
      /^"Heartbeat" in the schema public is .+ \("alter table public\."Heartbeat" set schema …"\), or, where it is/,
  })
  t.strictSame((await owner.query({ text: `select to_regclass('things') as things` })).rows, [{ things: null }])
  for (const [right, isEnough] of Object.entries({ select: true, references: true, trigger: false, delete: false })) {
    await superuser.query({ text: `grant ${right} on "Heartbeat" to chancery_owner` })
    if (isEnough) await t.resolves(run(), right)
    else await t.rejects(run(), { message: /^"Heartbeat" in the schema public is somebody else's/ }, right)
    await superuser.query({ text: `revoke ${right} on "Heartbeat" from chancery_owner` })
  }
  await superuser.query({ text: 'alter extension plpgsql add table "Heartbeat"' })
  await t.rejects(run(), {
    message: /have an administrator move it \("alter extension plpgsql set schema …"\), and run/,
  })
  await superuser.query({ text: 'create schema watched; alter table "Heartbeat" set schema watched' })
  await t.resolves(run())
})

t.test("numbers of somebody else's tables are his", async (t) => {
  const { ownerUrl, run } = await given(t, {})
  await run()
  const superuser = await openSuperuser(t, ownerUrl)
  await superuser.query({
    text: 'create table others (id serial primary key); insert into others values (7); grant select on others to chancery_owner',
  })
  await t.resolves(run())
})

t.test('the migrations of this installation apply to an empty database, and are what serving expects', async (t) => {
  const { ownerUrl, servingUrl } = await openTestDatabase(t, { empty: true })
  const version = await migrate({ ownerUrl, servingRole: 'chancery', log })
  const files = await readdir(join(import.meta.dirname, '../../migrations'))
  t.equal(version, files.filter((name) => name.endsWith('.sql')).length)
  const serving = openDatabase({ url: servingUrl, max: 1, log, applicationName: 'test' })
  t.teardown(() => serving.close())
  await t.resolves(assertMigrated(serving))
})

t.test('a database with records of before is brought up to date, and they stay as they were', async (t) => {
  const migrations = join(import.meta.dirname, '../../migrations')
  const [first = ''] = (await readdir(migrations)).sort()
  const { owner, serving, run, directory } = await given(t, {})
  await copyFile(join(migrations, first), join(directory, first))
  t.equal(await run(), 1)
  const select = {
    text: 'select id, at, principal, profile, code, digest, detail, violations from refusals order by at',
  }
  await serving.query({
    text: `insert into refusals (id, at, principal, code, digest, detail, violations)
      select gen_random_uuid(), now() - make_interval(months => m), 'ci', 'csr.pem', 'd', 'x', '[]' from unnest(array[0, 5]) m`,
  })
  const { rows: before } = await owner.query(select)
  for (const name of await readdir(migrations)) await copyFile(join(migrations, name), join(directory, name))
  await run()
  await owner.query({ text: `select maintain_refusals('400 days')` })
  t.same((await serving.query(select)).rows, before)
  const { rows } = await serving.query({ text: 'select distinct checks, checks_left_out from refusals' })
  t.strictSame(rows, [{ checks: null, checks_left_out: 0 }], 'what nobody kept is not made up')
})

t.test('keys of issuers of before are known, each as that of the first who had it', async (t) => {
  const migrations = join(import.meta.dirname, '../../migrations')
  const files = (await readdir(migrations)).sort()
  const { owner, run, directory } = await given(t, {})
  const before = files.slice(0, files.indexOf('0010_issuer_guards.sql'))
  for (const name of before) await copyFile(join(migrations, name), join(directory, name))
  await run()
  const [one, two] = ['11'.repeat(32), '22'.repeat(32)]
  const events = [
    { type: 'issuer.requested', issuer: 'a', spki: one },
    { type: 'key.opened', issuer: 'a', spki: one },
    { type: 'key.opened', issuer: 'b', spki: two },
    { type: 'issuer.requested', issuer: 'c', spki: one },
  ]
  await owner.query({
    text: `with head as (update roll set size = ${events.length}, time = '2026-01-01' where id = 1)
      insert into entries (index, type, time, leaf_hash, body)
      select place - 1, e->>'type', '2026-01-01', sha256('\\x00' || convert_to(e::text, 'UTF8')), e::text
      from jsonb_array_elements('${JSON.stringify(events)}') with ordinality as e (e, place)`,
  })
  for (const name of files) await copyFile(join(migrations, name), join(directory, name))
  await run()
  const { rows } = await owner.query({
    text: `select encode(key_sha256, 'hex') as key, issuer from issuer_keys order by key`,
  })
  t.same(rows, [
    { key: one, issuer: 'a' },
    { key: two, issuer: 'b' },
  ])
})

t.test('while refusals are being sorted by who and when, whoever searches is on record as before', async (t) => {
  const migrations = join(import.meta.dirname, '../../migrations')
  const files = (await readdir(migrations)).sort()
  const { owner, serving, run, directory } = await given(t, {})
  for (const name of files.slice(0, 28)) await copyFile(join(migrations, name), join(directory, name))
  await run()
  for (const name of files.slice(0, 29)) await copyFile(join(migrations, name), join(directory, name))
  const done = await owner.transaction(async (tx) => {
    // An index is made once nobody writes: this one holds it up, as many rows would.
    await tx.query({ text: 'lock table refusal_counts in row exclusive mode' })
    const migrated = run()
    const waits = { text: `select from pg_locks where not granted and relation = 'refusal_counts'::regclass` }
    while ((await owner.query(waits)).rows.length === 0) await sleep(10)
    await serving.query({ text: copied('json') })
    return { migrated }
  })
  await done.migrated
  await owner.query({ text: `select maintain_accesses('90 days')` })
  await t.rejects(serving.query({ text: copied('sheet') }), /accesses_format_check/)
  await serving.query({ text: copied('tiles') })
})

const copied = (format: string): string => `
  insert into accesses (id, principal, act, records, filter, continues, format, size)
  values (gen_random_uuid(), 'eve', 'began', 'events', '{}', false, '${format}', 1)`

slowTest('a roll of before becomes a tree', async (t) => {
  const migrations = join(import.meta.dirname, '../../migrations')
  const files = (await readdir(migrations)).sort()
  for (const size of [0, 1, 255, 256, 513, 66_000]) {
    const { owner, run, directory } = await given(t, {})
    for (const name of files.slice(0, files.indexOf('0012_roll_tree.sql')))
      await copyFile(join(migrations, name), join(directory, name))
    await run()
    const text = `with head as (update roll set size = ${size}, time = '2026-01-01' where id = 1)
      insert into entries (index, type, time, leaf_hash, body)
      select i, 'principal.created', '2026-01-01', sha256('\\x00' || convert_to(i::text, 'UTF8')), i::text
      from generate_series(0, ${size - 1}) i`
    if (size > 0) await owner.query({ text })
    for (const name of files) await copyFile(join(migrations, name), join(directory, name))
    await run()
    const leaves = await readHashes(owner, { level: 0, from: 0, count: size })
    const { edge, completed } = extend(emptyEdge(codec.hasher), leaves, codec.hasher)
    const { rows } = await owner.query<{ root: Buffer }>({ text: 'select root from roll' })
    t.ok(rows[0]?.root.equals(edge.root), `the root of ${size}`)
    const stored = await owner.query({ text: 'select level, index, hash from subtrees order by level, index' })
    const order = completed.toSorted((a, b) => a.level - b.level || a.index - b.index)
    t.same(
      stored.rows,
      order.map(({ hash, ...place }) => ({ ...place, hash: Buffer.from(hash) })),
    )
  }
})

t.test('a roll of before becomes a tree beside nobody who knows none', async (t) => {
  const migrations = join(import.meta.dirname, '../../migrations')
  const files = (await readdir(migrations)).sort()
  const { owner, run, directory, ownerUrl, servingUrl } = await given(t, {})
  for (const name of files.slice(0, files.indexOf('0012_roll_tree.sql')))
    await copyFile(join(migrations, name), join(directory, name))
  t.equal(await run(), 11)
  await owner.query({
    text: `with head as (update roll set size = 1, time = '2026-01-01' where id = 1)
      insert into entries (index, type, time, leaf_hash, body)
      values (0, 'principal.created', '2026-01-01', sha256('\\x00' || convert_to('0', 'UTF8')), '0')`,
  })
  for (const name of files) await copyFile(join(migrations, name), join(directory, name))
  const others = `select from pg_stat_activity
    where datname = current_database() and (application_name = 'chancery' or usename = 'chancery')`
  for (const url of [servingUrl, `${servingUrl}&application_name=pki`]) {
    const old = openDatabase({ url, max: 1, log, applicationName: 'chancery' })
    await old.query({ text: 'select' })
    await t.rejects(run(), {
      message:
        /\(1 in pg_stat_activity as "chancery", or of the role "chancery"\), .*: stop all that serve it, then run the same command again\. A pooler/,
    })
    const { rows } = await owner.query({ text: 'select max(version) as version from schema_migrations' })
    t.same(rows, [{ version: 11 }], 'what was applied before stays')
    await old.close()
    // The server ends what a client has left a moment later.
    while ((await owner.query({ text: others })).rows.length > 0) await sleep(20)
  }
  const named = `${ownerUrl}&application_name=chancery`
  t.equal(await migrate({ ownerUrl: named, servingRole: 'chancery', log, directory }), files.length, 'we are no other')
})

t.test(
  'a certificate stays that of one issuer while it comes to be told by its digest, also to who serves',
  async (t) => {
    const migrations = join(import.meta.dirname, '../../migrations')
    const files = (await readdir(migrations)).sort()
    const { serving, run, directory } = await given(t, {})
    for (const name of files.slice(0, files.indexOf('0032_large_certificates.sql')))
      await copyFile(join(migrations, name), join(directory, name))
    t.equal(await run(), 31)
    await serving.query({ text: `insert into authorities (name) values ('default')` })
    const text = `insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards)
    values ($1, 'default', $2, '{}', 'file:key', 'http://pki.example', 1) on conflict do nothing`
    const add = async (name: string, certificate: Buffer, db: Pick<typeof serving, 'query'> = serving) =>
      (await db.query({ name: 'add', text }, [name, certificate])).rowCount
    // An index compresses, and these cannot be.
    const [small, large, raced] = [randomBytes(500), randomBytes(7_500), randomBytes(7_500)]
    t.equal(await add('small', small), 1)
    await t.rejects(add('large', large), { code: '54000' })
    for (const name of files) await copyFile(join(migrations, name), join(directory, name))
    await run()
    t.equal(await add('large', large), 1, 'by the statement that was prepared before')
    for (const certificate of [small, large]) t.equal(await add('other', certificate), 0)
    let second: Promise<number | null> | undefined
    await serving.transaction(async (tx) => {
      t.equal(await add('first', raced, tx), 1)
      second = add('second', raced)
    })
    t.equal(await second, 0, 'of two at once it is that of the first')
  },
)

t.test(
  'a database whose encoding lacks characters of the schema is turned down before anything is in it',
  async (t) => {
    const { superuserUrl, ownerUrl: anyOwnerUrl } = await openTestServer()
    const superuser = new pg.Client({ connectionString: superuserUrl })
    await superuser.connect()
    const name = `latin_${process.pid}_${Date.now()}`
    await superuser.query(
      `create database ${name} encoding 'LATIN1' locale_provider libc locale 'C' template template0`,
    )
    t.teardown(async () => {
      await superuser.query(`drop database ${name}`)
      await superuser.end()
    })
    const inLatin = (url: string): string => url.replace(/(@[^/]*)\/[^?]*/, `$1/${name}`)
    await t.rejects(migrate({ ownerUrl: inLatin(anyOwnerUrl), servingRole: 'chancery', log }), {
      message: /encoding is LATIN1.*create it anew with "encoding 'UTF8' template template0"/,
    })
  },
)

t.test('a search_path that leads to another schema is turned down before anything is there', async (t) => {
  const { ownerUrl } = await openTestDatabase(t, { empty: true })
  const owner = await openSql(t, ownerUrl)
  await owner.query('create schema chancery_owner')
  const name = (await owner.query('select current_database() as name')).rows[0].name
  await t.rejects(migrate({ ownerUrl, servingRole: 'chancery', log }), {
    message:
      /leads to the schema chancery_owner, and all that Chancery has is in public: set it \("alter role … set search_path = public"\)/,
  })
  t.equal((await owner.query(`select to_regclass('schema_migrations') as found`)).rows[0].found, null)
  await owner.query(`alter database ${name} set search_path = public`)
  await migrate({ ownerUrl, servingRole: 'chancery', log })
})

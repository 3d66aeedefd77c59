import { chmod, copyFile, rename } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { diagnosisText } from '../../src/cli/doctor.ts'
import { unwise } from '../../src/cli/preflight.ts'
import { placeOf } from '../../src/config/config.ts'
import { openDatabase } from '../../src/db/database.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openTestDatabase, openTestServer } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { tamper } from '../helpers/tamper.ts'
import { csrFor } from '../http/people.ts'

const service = await openTestService(t)
const settings = {
  ...bare,
  CHANCERY_DATA: service.config.dataDir,
  CHANCERY_PUBLIC_URL: 'http://pki.test',
  CHANCERY_DATABASE_URL: service.database.servingUrl,
  CHANCERY_MIGRATION_URL: service.database.ownerUrl,
}
const doctor = (env: Readonly<Record<string, string>> = {}, ...args: readonly string[]): Promise<Run> =>
  runChancery(['doctor', ...args], { env: { ...settings, ...env } })

t.test('a development installation is told all that production would refuse, in sentences', async (t) => {
  const { code, out } = await doctor()
  t.equal(code, exitCodes.refused)
  for (const sentence of [
    /^Production does not start:$/m,
    / {2}- .*production wants keys in a security module.*\.$/im,
    / {2}- A root's key is within reach, in .*offline-root: take it offline\.$/m,
    /^Besides:$/m,
    / {2}- The first administrator's token lies in .*admin\.token: keep it elsewhere\.$/m,
    / {2}- The key of the issuer etcd is in a file \(file:keys\/etcd\.pem\): bring .*\.$/m,
  ])
    t.match(out, sentence)
  t.notMatch(out, /does not open|expires within|no issuer/, 'and nothing that is well')
})

t.test('what is fit for production is said to be that, and nothing else is', async (t) => {
  for (const [refused, unwise, text] of [
    [[], [], 'Fit for production.'],
    [['A.'], [], 'Production does not start:\n  - A.'],
    [[], ['B.'], 'Production starts, but:\n  - B.'],
    [['A.'], ['B.'], 'Production does not start:\n  - A.\nBesides:\n  - B.'],
  ] as const)
    t.equal(diagnosisText({ refused, unwise }), text)
})

t.test('machines get JSON', async (t) => {
  const { code, out } = await doctor({}, '--json')
  t.equal(code, exitCodes.refused)
  const { refused, unwise } = JSON.parse(out)
  t.ok(refused.length >= 6 && unwise.length >= 1)
  const allowed = await doctor({ CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes' }, '--json')
  t.match(JSON.parse(allowed.out).unwise, [/admin's|administrator/, /is in a file/])
})

slowTest(
  'a roll of which nothing was kept here is refused, until somebody says that it is the right one',
  async (t) => {
    const anchor = service.config.roll.anchor as string
    const refused = async (env: Readonly<Record<string, string>> = {}): Promise<readonly string[]> =>
      JSON.parse((await doctor(env, '--json')).out).refused.filter((one: string) =>
        /^No checkpoint of the roll/.test(one),
      )
    t.same(await refused(), [])
    // One that is taken away from under the service is soon there again.
    const away = { CHANCERY_ROLL_ANCHOR: `${anchor}.away/anchor` }
    const [sentence = '', ...others] = await refused(away)
    t.match(sentence, /was kept here \(.*anchor\), so that .* set CHANCERY_ALLOW_UNSEEN_ROLL=yes for one start\.$/)
    t.same(others, [])
    const saying = { ...away, CHANCERY_ALLOW_UNSEEN_ROLL: 'yes' }
    t.same(await refused(saying), [])
    const told = /^CHANCERY_ALLOW_UNSEEN_ROLL is set, .* take it out once each replica has started\.$/
    const unwise = async (env: Readonly<Record<string, string>>): Promise<boolean> =>
      JSON.parse((await doctor(env, '--json')).out).unwise.some((one: string) => told.test(one))
    t.ok(await unwise(saying), 'and if that stays, it is told')
    t.notOk(await unwise(away))
    t.same(await refused({ CHANCERY_ROLL_ANCHOR: 'none' }), [], 'which says it for good')
  },
)

slowTest('issuers of one authority with different numbers of lists are told, while both may sign', async (t) => {
  const told = async (): Promise<readonly string[]> =>
    JSON.parse((await doctor({}, '--json')).out).unwise.filter((one: string) => /numbers of lists/.test(one))
  t.same(await told(), [], 'of two authorities they are nobody else’s')
  const root = openTestRoot()
  const bring = async (name: string, shards: number): Promise<void> => {
    const body = { name, authority: 'etcd', subject: named(name) }
    const { csr } = (await service.request('POST', '/v1/issuer-requests', { body })).json
    const chain = root.certify(csr) + root.pem
    t.equal((await service.request('PUT', `/v1/issuers/${name}`, { body: { chain, shards } })).status, 201)
  }
  await bring('etcd-2', 128)
  t.same(await told(), [])
  await bring('etcd-3', 1)
  t.match(await told(), [
    /^Issuers of the authority etcd have .* \(etcd has 128 lists, etcd-2 has 128 lists, etcd-3 has one list\): make sure /,
  ])
  for (const name of ['etcd-2', 'etcd-3'])
    t.equal((await service.request('POST', `/v1/issuers/${name}/moves`, { body: { move: 'discard' } })).status, 200)
  t.same(await told(), [])
})

t.test('keys that do not open, issuers that are gone, and an open data folder are told', async (t) => {
  const { dataDir } = service.config
  const key = join(dataDir, 'keys', 'etcd.pem')
  await rename(key, `${key}.away`)
  await chmod(dataDir, 0o755)
  await service.request('POST', '/v1/issuers/front-proxy/moves', { body: { move: 'halt', reason: 'a test' } })
  const { out } = await doctor()
  await chmod(dataDir, 0o700)
  await rename(`${key}.away`, key)
  t.match(out, /Others may enter the data folder .*: chmod 700 it\./)
  t.match(out, /The key of the issuer etcd does not open: /)
  t.match(out, /No issuer of the authority front-proxy is active\./)
})

t.test('another key in the place of an issuer’s is told, though it opens and signs', async (t) => {
  const folder = join(service.config.dataDir, 'keys')
  const key = join(folder, 'etcd.pem')
  await rename(key, `${key}.away`)
  await copyFile(join(folder, 'kubernetes.pem'), key)
  const { out } = await doctor()
  await rename(`${key}.away`, key)
  t.match(
    out,
    / - The key at file:keys\/etcd\.pem is not the one of the issuer etcd, which signs nothing without that\./,
  )
  t.notMatch(out, /the one of the issuer kubernetes|does not open/)
})

slowTest('certificates that are valid though their key was reported are told, until they are revoked', async (t) => {
  await service.request('POST', '/v1/grants', { body: { principal: 'admin', role: 'operator' } })
  const csr = csrFor('reported.example.com')
  const issue = async (): Promise<string> =>
    (await service.request('POST', '/v1/certificates', { body: { csr, profile: 'server' } })).json.serial
  const revoke = (serial: string, reason: string) =>
    service.request('POST', `/v1/certificates/${serial}/revocation`, { body: { reason } })
  const [one = '', two = '', three = ''] = [await issue(), await issue(), await issue()]
  t.notMatch((await doctor()).out, 'reported as compromised')
  const { json } = await revoke(one, 'keyCompromise')
  const order = `chancery revoke-many --key ${json.keySha256} --reason keyCompromise.`
  t.match((await doctor()).out, ` - 2 certificates are valid whose keys were reported as compromised: ${order}\n`)
  await revoke(two, 'certificateHold')
  t.match((await doctor()).out, ` - A certificate is valid whose key was reported as compromised: ${order}\n`)
  await revoke(three, 'keyCompromise')
  t.notMatch((await doctor()).out, 'reported as compromised')
})

t.test('keys are opened at once, since each may keep the others waiting', async (t) => {
  const db = openDatabase({ url: service.database.servingUrl, max: 2, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  const asked: string[] = []
  const open = async (uri: string): Promise<never> => {
    asked.push(uri)
    for (let i = 0; asked.length < 5 && i < 100; i += 1) await new Promise((resolve) => setTimeout(resolve, 20))
    throw new Error(asked.length < 5 ? 'It was asked alone.' : 'It hangs.')
  }
  const told = await unwise(service.config, db, { open }, new Date())
  t.equal(told.filter((one) => one.endsWith('does not open: It hangs')).length, 4, told.join('\n'))
  t.match(told.at(-1), /^the key of the roll does not open, .*: It hangs$/)
})

t.test('a key of the roll that does not open, or is another one, is told', async (t) => {
  const { out } = await doctor({ CHANCERY_ROLL_KEY: 'file:roll/away.pem' })
  t.match(out, / - The key of the roll does not open, and nothing is issued without it: .*away\.pem/)
  const other = await doctor({ CHANCERY_ROLL_KEY: 'file:keys/default.pem' })
  t.match(other.out, / - The key at file:keys\/default\.pem is not the one of the roll on record: nothing is issued /)
  t.notMatch(other.out, /key of the issuer \w+ does not open/)
})

slowTest('clocks that cannot be trusted are told', async (t) => {
  const ahead = (by: string): Promise<void> =>
    tamper(service.database, `update roll set time = time + interval '${by}'`)
  await ahead('1 hour')
  const { out } = await doctor()
  await ahead('-1 hour')
  t.match(
    out,
    / - Nothing is issued, .* while the database's clock is 3\d{3}\.\d s behind the last event on the roll\./,
  )
  t.notMatch((await doctor()).out, /clock/)
})

slowTest('a database that only reads, as a standby, is told', async (t) => {
  const url = `${service.database.servingUrl}&options=-c%20default_transaction_read_only=on`
  const { out } = await doctor({ CHANCERY_DATABASE_URL: url })
  t.match(
    out,
    /^Production does not start:\n.*^ {2}- The database only reads \(.*in CHANCERY_DATABASE_URL\.\n.*^Besides:/ms,
  )
  t.notMatch((await doctor()).out, /only reads/)
})

slowTest('row level security in the way is told, and where', async (t) => {
  const owner = await openSql(t, service.database.ownerUrl)
  await owner.query('alter table approvals enable row level security')
  const told =
    /^ {2}- Row level security keeps the serving role chancery from the table approvals \(alter table .*\)\.$/m
  const turnedDown =
    /^The database turns this down: .* "revocations"; "chancery migrate" of the owner of the tables .* row level security/m
  t.match((await doctor()).out, told)
  await owner.query('alter table revocations enable row level security')
  t.match(await doctor(), {
    code: exitCodes.usage,
    err: turnedDown,
  })
  for (const place of [[service.database.servingUrl], []])
    t.match(
      await runChancery(['roll', 'verify', '--database', ...place], { env: settings }),
      {
        code: exitCodes.usage,
        err: turnedDown,
      },
      'what is hidden is not verified',
    )
  await owner.query(`
    alter table revocations disable row level security; alter table approvals disable row level security`)
  t.notMatch((await doctor()).out, /row level/i)
})

slowTest('a database without room on its disk is told, though it takes what is small', async (t) => {
  const shadow = 'public.lo_from_bytea(oid, bytea)'
  await tamper(
    service.database,
    `create function ${shadow} returns oid language plpgsql as
      $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$`,
  )
  t.teardown(() => tamper(service.database, `drop function ${shadow}`))
  const url = `${service.database.servingUrl}&options=-c%20search_path=public,pg_catalog`
  t.match((await doctor({ CHANCERY_DATABASE_URL: url })).out, /^ {2}- The database has no room on its disk: give it /m)
  t.notMatch((await doctor()).out, /no room/)
})

slowTest('a collation that sorts in another way than when the database was made is told', async (t) => {
  const told = async (): Promise<string> =>
    /^ {2}- The database was made where texts .*$/m.exec((await doctor()).out)?.[0] ?? ''
  t.equal(await told(), '')
  const server = await openTestServer()
  const { database } = placeOf(service.database.servingUrl)
  await server.asSuperuser((superuser) =>
    superuser.query(`update pg_database set datcollversion = '0.9' where datname = $1`, [database]),
  )
  t.match(
    await told(),
    new RegExp(
      `by version 0\\.9 of its collation, and here that is [^,]+, .*: as its owner "reindex \\(concurrently\\) database ${database}", then "alter database ${database} refresh collation version"\\.$`,
    ),
  )
  const owner = await openSql(t, service.database.ownerUrl)
  await owner.query(`reindex (concurrently) database ${database}`)
  await owner.query(`alter database ${database} refresh collation version`)
  t.equal(await told(), '', 'and no more once that is done')
})

slowTest('before the first start, a roll that is about to have no name of its own is told', async (t) => {
  const { servingUrl } = await openTestDatabase(t)
  const env = { CHANCERY_DATABASE_URL: servingUrl, CHANCERY_DATA: join(service.config.dataDir, 'not-there-yet') }
  const told = async (more: Readonly<Record<string, string>> = {}): Promise<string> => {
    const { code, out, err } = await doctor({ ...env, ...more })
    t.equal(code, exitCodes.refused, err)
    return out
  }
  t.match(
    await told(),
    /^ {2}- The first start calls the roll localhost\/roll for good, .*set CHANCERY_NAMES before, /m,
  )
  t.match(await told({ CHANCERY_NAMES: '127.0.0.1,ca.example.com' }), / calls the roll 127\.0\.0\.1\/roll for good/)
  t.notMatch(await told({ CHANCERY_NAMES: 'ca.example.com,localhost' }), 'calls the roll')
  t.notMatch(await told({ CHANCERY_ROLL_ORIGIN: 'ca.example.com/roll' }), 'calls the roll')
  t.notMatch((await doctor()).out, 'calls the roll', 'and later it is too late')
})

t.test('records that are not there are one sentence', async (t) => {
  const { code, err } = await doctor({ CHANCERY_DATABASE_URL: 'postgresql://chancery@127.0.0.1:1/none' })
  t.not(code, 0)
  t.match(err, /127\.0\.0\.1:1/)
  t.notMatch(err, /at .*\.ts/)
})

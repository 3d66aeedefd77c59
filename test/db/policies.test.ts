import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import type { Precondition } from '../../src/ca/policies.ts'
import type { Database } from '../../src/db/database.ts'
import { openPolicies } from '../../src/db/policies.ts'
import type { Problem } from '../../src/errors.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { type Profile, parseProfile } from '../../src/policy/profile.ts'
import { slowTest } from '../helpers/slow.ts'
import { openTestStores } from './stores.ts'

const { stores, open } = await openTestStores(t)
const { policies, records, db } = stores
const by = 'admin'

const document = (name: string, validity = '24h'): Record<string, unknown> => ({
  name,
  authority: 'default',
  validity: { default: validity, max: '30d' },
  keys: [{ ec: ['P-256'] }],
  subject: { commonName: { from: 'csr' }, others: 'refuse' },
  names: { dns: { allow: ['*.example.com'] } },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
})

const changesOf = async (name: string): Promise<readonly { version: number; sha256: string }[]> => {
  const { items } = await records.events({ type: 'profile.changed' }, { limit: 1000 })
  return items
    .map(({ entry }) => JSON.parse(entry))
    .filter(({ profile }) => profile.name === name)
    .map(({ profile, sha256 }) => ({ version: profile.version, sha256 }))
}

t.test('each change is a version that stays, named by the hash of its canonical text', async (t) => {
  const first = await policies.put(document('kept'), by, { ifNoneMatch: '*' })
  t.match(first, { created: true, stored: { profile: { name: 'kept', version: 1 }, createdBy: by } })
  const second = await policies.put(document('kept', '12h'), 'other', {
    ifMatch: ['0'.repeat(64), first.stored.profile.sha256],
  })
  t.match(second, { created: true, stored: { profile: { version: 2 }, createdBy: 'other' } })
  t.equal(policies.current('kept')?.version, 2, 'it holds at once where it was made')
  t.same(
    (await policies.versions('kept')).map(({ profile }) => profile.version),
    [2, 1],
  )
  t.match((await policies.read('kept', 1)).profile, { version: 1, sha256: first.stored.profile.sha256 })
  t.equal((await policies.read('kept')).profile.version, 2)
  for (const { profile } of await policies.versions('kept'))
    t.equal(createHash('sha256').update(canonicalJson(profile.document)).digest('hex'), profile.sha256)
  const { rows } = await db.query<{ document: string; sha256: Buffer }>({
    text: `select document, sha256 from profiles where name = 'kept'`,
  })
  for (const row of rows)
    t.same(createHash('sha256').update(row.document).digest(), row.sha256, 'over the stored octets')
  t.same(await changesOf('kept'), [
    { version: 1, sha256: first.stored.profile.sha256 },
    { version: 2, sha256: second.stored.profile.sha256 },
  ])
})

t.test('several are put by one change of the roll, all or none', async (t) => {
  await policies.put(document('there'), by, {})
  const some = [document('one-of-two'), document('there')]
  await t.rejects(policies.putAll(some, by, { ifNoneMatch: '*' }), { code: 'precondition.failed' })
  t.equal(policies.current('one-of-two'), undefined)
  await t.rejects(policies.read('one-of-two'), { code: 'profile.not_found' })
  t.same(await changesOf('one-of-two'), [])

  const both = await policies.putAll([...some, document('two-of-two')], by, {})
  t.same(
    both.map(({ created, stored }) => [stored.value.name, created]),
    [
      ['one-of-two', true],
      ['there', false],
      ['two-of-two', true],
    ],
  )
  t.equal(policies.current('one-of-two')?.version, 1, 'it holds at once where it was made')
  t.equal((await changesOf('one-of-two')).length, 1)
  t.equal((await changesOf('two-of-two')).length, 1)
  const { rows } = await db.query<{ transactions: number }>({
    text: `select count(distinct xmin::text)::int as transactions from profiles where name ~ '-of-two$'`,
  })
  t.equal(rows[0]?.transactions, 1)
})

t.test('the same content, however it is written, makes no version and no event', async (t) => {
  const { stored } = await policies.put(document('same'), by, {})
  const turned = Object.fromEntries(Object.entries(document('same')).reverse())
  const again = await policies.put(turned, 'other', { ifMatch: [stored.profile.sha256] })
  t.match(again, { created: false, stored: { profile: { version: 1 }, createdBy: by } })
  t.equal((await changesOf('same')).length, 1)
})

t.test('a content that was there before comes back as a new version', async (t) => {
  const first = await policies.put(document('back'), by, {})
  await policies.put(document('back', '12h'), by, {})
  const third = await policies.put(document('back'), by, {})
  t.match(third, { created: true, stored: { profile: { version: 3, sha256: first.stored.profile.sha256 } } })
})

t.test('a precondition that does not hold changes nothing', async (t) => {
  const { stored } = await policies.put(document('guarded'), by, { ifNoneMatch: '*' })
  const refused: readonly [string, Record<string, unknown>, Precondition][] = [
    ['it exists', document('guarded', '12h'), { ifNoneMatch: '*' }],
    ['it exists, with the same content', document('guarded'), { ifNoneMatch: '*' }],
    ['another hash', document('guarded', '12h'), { ifMatch: ['0'.repeat(64)] }],
    ['other hashes', document('guarded', '12h'), { ifMatch: ['0'.repeat(64), '1'.repeat(64)] }],
    ['it does not exist', document('nowhere'), { ifMatch: [stored.profile.sha256] }],
  ]
  for (const [what, body, precondition] of refused)
    await t.rejects(policies.put(body, by, precondition), { code: 'precondition.failed' }, what)
  t.equal((await policies.read('guarded')).profile.version, 1)
  await t.rejects(policies.read('nowhere'), { code: 'profile.not_found' })
})

t.test('of ten who change the same version at once, from two replicas, one does', async (t) => {
  const other = await open()
  const { stored } = await policies.put(document('contested'), by, {})
  const { sha256 } = stored.profile
  const attempts = Array.from({ length: 10 }, (_, i) =>
    (i % 2 ? policies : other.policies).put(document('contested', `${i + 1}h`), `by-${i}`, { ifMatch: [sha256] }),
  )
  const outcomes = await Promise.allSettled(attempts)
  t.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') t.match(outcome.reason, { code: 'precondition.failed' })
  t.same(
    (await policies.versions('contested')).map(({ profile }) => profile.version),
    [2, 1],
  )
})

t.test('without a precondition ten changes at once are ten versions without a gap', async (t) => {
  const other = await open()
  await Promise.all(
    Array.from({ length: 10 }, (_, i) =>
      (i % 2 ? policies : other.policies).put(document('busy', `${i + 1}h`), by, {}),
    ),
  )
  t.same(
    (await policies.versions('busy')).map(({ profile }) => profile.version),
    [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
  )
  t.same(
    (await changesOf('busy')).map(({ version }) => version),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  )
})

t.test('another replica decides by the new version within two seconds', async (t) => {
  const other = await open()
  await policies.put(document('travels'), by, {})
  await policies.put(document('travels', '12h'), by, {})
  // Two seconds, in which it was not stopped.
  for (let looks = 0; other.policies.current('travels')?.version !== 2 && looks < 80; looks += 1) await sleep(25)
  t.equal(other.policies.current('travels')?.version, 2)
  t.same(other.policies.current('travels')?.document, policies.current('travels')?.document)
})

t.test('an answer that was overtaken by a change does not put the older version back', async (t) => {
  await policies.put(document('overtaken'), by, {})
  let held: Promise<unknown> | undefined
  const slow: Database = {
    ...db,
    query: async (statement, values) => {
      const answer = await db.query(statement, values)
      if (statement.name === 'select_newer_profiles') await held
      return answer as never
    },
  }
  const parse = (document: unknown, version: number): Profile => parseProfile(document, { version })
  const replica = await openPolicies({ ...stores, db: slow, parse })
  t.teardown(replica.close)
  await policies.put(document('overtaken', '2h'), by, {})
  const gate = Promise.withResolvers<void>()
  held = gate.promise
  const refreshed = replica.refresh()
  await sleep(100)
  await replica.put(document('overtaken', '3h'), by, {})
  gate.resolve()
  await refreshed
  t.equal(replica.current('overtaken')?.version, 3)
})

t.test('what memory holds never goes back while others write', async (t) => {
  const other = await open()
  let newest = 0
  const watch = setInterval(() => {
    const seen = other.policies.current('forward')?.version ?? 0
    if (seen < newest) t.fail(`from ${newest} back to ${seen}`)
    newest = Math.max(newest, seen)
  }, 1)
  for (let i = 1; i <= 15; i++) {
    await (i % 2 ? policies : other.policies).put(document('forward', `${i}h`), by, {})
    if (i % 3 === 0)
      await Promise.all([other.policies.refresh(), other.policies.put(document('forward', `${i + 100}m`), by, {})])
  }
  clearInterval(watch)
  await other.policies.refresh()
  t.equal(other.policies.current('forward')?.version, (await policies.read('forward')).profile.version)
})

t.test(
  'a broken document is refused with all of its faults, an unknown authority by name; neither is a version',
  async (t) => {
    const broken = { ...document('broken'), validity: { default: '60d', max: '30d' }, keys: [], extra: 1 }
    const refused = await policies.put(broken, by, {}).catch((error: unknown) => error)
    t.match(refused, { code: 'profile.invalid' })
    t.ok(((refused as Problem).options.violations ?? []).length >= 2)
    await t.rejects(policies.put({ ...document('homeless'), authority: 'nowhere' }, by, {}), {
      code: 'authority.not_found',
    })
    for (const name of ['broken', 'homeless']) await t.rejects(policies.versions(name), { code: 'profile.not_found' })
  },
)

// Last: nobody can open these records any more.
slowTest('a document that only a newer Chancery can read keeps nobody from following the others', async (t) => {
  await policies.put(document('followed'), by, {})
  const other = await open()
  const told: string[] = []
  const watching = await openPolicies({
    ...{ db, roll: stores.roll },
    log: { ...stores.log, warn: (line: object) => void told.push(String((line as { readonly err: unknown }).err)) },
    parse: (written, version) => parseProfile(written, { version }),
  })
  t.teardown(watching.close)
  await db.query({
    text: `insert into profiles (name, version, sha256, authority, document, created_by)
      values ('a-newer-one', 1, sha256(''), 'default', '{"name":"a-newer-one","tomorrow":true}', 'admin')`,
  })
  await other.policies.put(document('followed', '12h'), by, {})
  await t.rejects(policies.refresh(), /version 1 of the profile a-newer-one cannot be read/, 'as no fault of who asks')
  t.equal(policies.current('followed')?.version, 2)
  t.equal(policies.current('a-newer-one'), undefined)
  const names = (await policies.list()).map(({ profile }) => profile.name)
  t.ok(names.includes('followed') && !names.includes('a-newer-one'), 'the others are listed')
  await sleep(4_000)
  t.match(told, [/version 1 of the profile a-newer-one cannot be read/])
  t.equal(told.length, 1, 'which is told once, and not at each look')
})

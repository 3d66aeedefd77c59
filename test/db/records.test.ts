import { createHash } from 'node:crypto'

import pg from 'pg'
import t from 'tap'

import { sentAlong } from '../../src/ca/issuers/bundle.ts'
import type { CertificateFilter, OpenWalk, Page, PageRequest, Records } from '../../src/ca/records.ts'
import type { Database, Statement } from '../../src/db/database.ts'
import { selectIssuers } from '../../src/db/issuers.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { codec } from '../../src/server/codec.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { openExplaining } from '../helpers/explain.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { growTree } from '../helpers/tree.ts'
import { openTestStores } from './stores.ts'

const { service, stores, issue } = await openTestStores(t)
const { records, db } = stores

/** Every page, of one kind of list. */
const all = async <T>(read: (page: PageRequest) => Promise<Page<T>>, limit = 3): Promise<readonly T[]> => {
  const items: T[] = []
  let cursor: string | undefined
  do {
    const page = await read({ limit, ...(cursor !== undefined && { cursor }) })
    if (page.items.length > limit) throw new Error('a page is longer than asked for')
    if (page.next !== undefined && page.items.length < limit) throw new Error('a page is short, and not the last')
    items.push(...page.items)
    cursor = page.next
  } while (cursor !== undefined)
  return items
}
const find = async (filter: CertificateFilter, limit = 3): Promise<readonly string[]> =>
  (await all((page) => records.certificates(filter, page), limit)).map(({ serial }) => serial)

t.test(
  'a name is found exactly or by its wildcard, and every name below a suffix; nothing in it is a pattern',
  async (t) => {
    const made = new Map<string, string>()
    for (const [label, ...names] of [
      ['www', 'dns:www.find.example.com'],
      ['apex', 'dns:find.example.com'],
      ['wild', 'dns:*.find.example.com'],
      ['both', 'dns:both.twofold.example', 'dns:*.twofold.example', 'dns:twofold.example'],
      ['deep', 'dns:a.b.find.example.com'],
      ['like', 'dns:wwwxfind.example.com'],
      ['under', 'dns:w_w.find.example.com'],
      ['twice', 'dns:one.find.example.com', 'dns:two.find.example.com', 'dns:three.elsewhere.test'],
      ['longer', 'dns:www.find.example.com.evil.test'],
      ['hyphen', 'dns:www.find-example.com'],
      ['v4', 'ip:10.20.30.40'],
      ['v6', 'ip:fd00::1:2'],
      ['uri', 'uri:spiffe://example.com/ns/Prod/sa/web'],
      ['mail', 'email:Someone@example.com'],
      // Of another kind, although its letters lie within com.looks..com.looks/.
      ['looks', 'email:com.looks.like@example.com', 'dns:www.looks.com'],
      ['only', 'email:com.looks.like.too@example.com'],
    ] as const)
      made.set(label, (await issue(names)).serial)
    const labels = async (name: string): Promise<readonly string[]> => {
      const serials = await find({ name })
      t.equal(new Set(serials).size, serials.length, `${name}: none twice`)
      return serials.map((serial) => [...made].find(([, of]) => of === serial)?.[0] ?? serial).sort()
    }
    const below = ['deep', 'twice', 'under', 'wild', 'www']
    const cases: readonly (readonly [name: string, found: readonly string[]])[] = [
      ['www.find.example.com', ['wild', 'www']],
      ['WWW.Find.Example.COM', ['wild', 'www']],
      ['dns:www.find.example.com', ['wild', 'www']],
      ['DNS:www.find.example.COM', ['wild', 'www']],
      ['any.find.example.com', ['wild']],
      ['find.example.com', ['apex']],
      ['dns:*.find.example.com', ['wild']],
      ['dns:*.example.com', []],
      ['dns:find.*.com', []],
      ['both.twofold.example', ['both']],
      ['other.twofold.example', ['both']],
      ['twofold.example', ['both']],
      ['a.both.twofold.example', []],
      ['x.example', []],
      ['*.find.example.com', below],
      ['*.FIND.example.com', below],
      ['*.b.find.example.com', ['deep']],
      ['a.b.find.example.com', ['deep']],
      ['*.example.com', ['apex', 'like', ...below].sort()],
      ['*.com', ['apex', 'hyphen', 'like', 'looks', ...below].sort()],
      ['*.test', ['longer', 'twice']],
      ['*.looks.com', ['looks']],
      ['*.20.10', []],
      ['com.looks.like.too@example.com', ['only']],
      ['three.elsewhere.test', ['twice']],
      ['*.*.find.example.com', []],
      ['*.', []],
      ['*', []],
      ['**.find.example.com', []],
      ['find.example.co', []],
      ['*.ind.example.com', []],
      ['%.find.example.com', []],
      ['%', []],
      ['w_w.find.example.com', ['under', 'wild']],
      ['___.find.example.com', ['wild']],
      ['b.find.example.com', ['wild']],
      ['www.find.example.com.', []],
      ['.find.example.com', []],
      ["www' or true --", []],
      ['www\\.find.example.com', []],
      ['www\0.find.example.com', []],
      ['\ud800.find.example.com', []],
      ['10.20.30.40', ['v4']],
      ['ip:10.20.30.40', ['v4']],
      ['dns:10.20.30.40', []],
      ['ip:www.find.example.com', []],
      ['10.20.30.4', []],
      ['*.20.30.40', []],
      ['fd00::1:2', ['v6']],
      ['FD00:0:0:0:0:0:1:2', ['v6']],
      ['ip:fd00:0::1:2', ['v6']],
      ['fd00::', []],
      ['spiffe://example.com/ns/Prod/sa/web', ['uri']],
      ['uri:spiffe://example.com/ns/Prod/sa/web', ['uri']],
      ['URI:spiffe://example.com/ns/Prod/sa/web', ['uri']],
      ['spiffe://example.com/ns/prod/sa/web', []],
      ['spiffe://example.com/ns/Prod/sa/', []],
      ['Someone@example.com', ['mail']],
      ['Someone@EXAMPLE.com', ['mail']],
      ['email:Someone@Example.com', ['mail']],
      ['dns:Someone@example.com', []],
      ['someone@example.com', []],
      ['@example.com', []],
    ]
    for (const [name, found] of cases) t.same(await labels(name), found, JSON.stringify(name))
  },
)

t.test('each filter alone and all together find what they say', async (t) => {
  await stores.access.createPrincipal('filtered', 'admin')
  const issued = await issue(['dns:filters.example.com'], { principal: 'filtered', subject: 'Filter, "Inc"' })
  const record = await records.certificate(issued.serial)
  t.same(record.certificate, issued.certificate)
  t.same(record.chain, issued.chain)
  t.match(record, {
    principal: 'filtered',
    profile: { name: 'all', version: 1 },
    issuer: 'default',
    status: 'valid',
    index: issued.index,
  })
  const { facts } = parseCertificate(issued.certificate)
  t.same([record.names, record.notBefore, record.notAfter], [facts.names, facts.notBefore, facts.notAfter])
  t.equal(record.keySha256, createHash('sha256').update(facts.spki).digest('hex'))
  const second = (of: Date, by: number): Date => new Date(of.getTime() + by * 1000)
  const filters: CertificateFilter = {
    serial: issued.serial,
    name: 'filters.example.com',
    subject: record.subject,
    profile: 'all',
    principal: 'filtered',
    issuer: 'default',
    status: 'valid',
    key: record.keySha256,
    issuedAfter: second(record.issuedAt, -1),
    issuedBefore: second(record.issuedAt, 1),
    expiresAfter: record.notAfter,
    expiresBefore: second(record.notAfter, 1),
  }
  t.same(await find(filters), [issued.serial])
  const misses: CertificateFilter = {
    serial: '0'.repeat(32),
    name: 'other.example.com',
    subject: `${record.subject}x`,
    profile: 'server',
    principal: 'chancery',
    issuer: 'etcd',
    status: 'expired',
    key: '0'.repeat(64),
    issuedAfter: second(record.issuedAt, 1),
    issuedBefore: second(record.issuedAt, -1),
    expiresAfter: second(record.notAfter, 1),
    expiresBefore: record.notAfter,
  }
  for (const field of Object.keys(filters) as (keyof CertificateFilter)[]) {
    t.ok((await find({ [field]: filters[field] }, 1000)).includes(issued.serial), `${field} finds it`)
    t.notOk((await find({ [field]: misses[field] }, 1000)).includes(issued.serial), `${field} misses it`)
    t.same(await find({ ...filters, [field]: misses[field] }), [], `all, with another ${field}`)
  }
  t.same(await find({ status: 'revoked' }), [])
  await t.rejects(records.certificate('0'.repeat(32)), { code: 'certificate.not_found' })
})

t.test('pages are complete and hold nothing twice, while others issue', async (t) => {
  const before = await Promise.all(
    Array.from({ length: 25 }, (_, i) => issue([`dns:p${i}.pages.example.com`, `dns:q${i}.pages.example.com`])),
  )
  const wanted = before.map(({ serial }) => serial).sort()
  let stop = false
  const busy = (async () => {
    for (let i = 0; !stop; i++) await issue([`dns:during${i}.pages.example.com`])
  })()
  for (const filter of [{ name: '*.pages.example.com' }, { profile: 'all' }, {}, { principal: 'admin' }] as const) {
    const found = await find(filter, 4)
    t.equal(new Set(found).size, found.length, `${JSON.stringify(filter)}: none twice`)
    t.same(
      wanted.filter((serial) => !found.includes(serial)),
      [],
      `${JSON.stringify(filter)}: none missing`,
    )
  }
  const events = await all((page) => records.events({}, page), 7)
  t.same(
    events.map(({ index }) => index),
    events.map((_, i) => i),
    'events: each index once, in order',
  )
  stop = true
  await busy
  const newest = await find({ profile: 'all' }, 5)
  const indexes = await Promise.all(
    newest.slice(0, 10).map(async (serial) => (await records.certificate(serial)).index),
  )
  t.same(
    indexes,
    [...indexes].sort((a, b) => b - a),
    'newest first',
  )
})

t.test('names that were altered in the records are none, and no fault of the search', async (t) => {
  const names = ['dns:b.shown.example.com', 'ip:10.9.8.7', 'dns:a.shown.example.com', 'email:Someone@example.com']
  const { serial } = await issue(names)
  const shown = async () => (await records.certificates({ serial }, { limit: 1 })).items[0]?.names
  t.equal((await shown())?.length, 4)
  t.same((await records.certificate(serial)).names, await shown())
  const client = await openSql(t, service.database.ownerUrl)
  for (const [kept, left] of [
    ['\\x3003820161', [{ kind: 'dns', value: 'a' }]],
    ['\\x30ff', []],
  ] as const) {
    await client.query('begin; alter table outcomes disable trigger user')
    await client.query(`update outcomes set names = $1 where encode(serial, 'hex') = $2`, [kept, serial])
    await client.query('alter table outcomes enable trigger user; commit')
    t.same(await shown(), left)
  }
})

t.test(
  'each certificate of a search is read once, whatever number of its names is found, and others get their turn',
  async (t) => {
    const names = (i: number) => Array.from({ length: 20 }, (_, j) => `dns:n${j}-${i}.once.example.com`)
    const made = await Promise.all(Array.from({ length: 30 }, (_, i) => issue(names(i))))
    let [read, inOneGo, longest] = [0, 0, 0]
    const namesOf = (octets: Buffer) => {
      read += 1
      inOneGo += 1
      longest = Math.max(longest, inOneGo)
      const until = performance.now() + 2
      while (performance.now() < until);
      return readNames(octets)
    }
    const searches = openRecords({ db, codec, namesOf, sentAlong })
    const found: string[] = []
    let watching = true
    const watch = (): void => {
      inOneGo = 0
      if (watching) setImmediate(watch)
    }
    setImmediate(watch)
    for (const limit of [1000, 7]) {
      found.length = 0
      let [pages, cursor]: [number, string | undefined] = [0, undefined]
      read = 0
      do {
        const filter = { name: '*.once.example.com' }
        const page: Page<{ serial: string }> = await searches.certificates(filter, {
          limit,
          ...(cursor !== undefined && { cursor }),
        })
        found.push(...page.items.map(({ serial }) => serial))
        cursor = page.next
        pages += 1
      } while (cursor !== undefined)
      t.same([...found].sort(), made.map(({ serial }) => serial).sort())
      t.ok(read <= made.length * pages, `${read} certificates were read for ${pages} pages of at most ${limit}`)
      if (limit === 1000) t.equal(read, made.length)
    }
    watching = false
    // Each takes two milliseconds here: thirty in one go, were it not for the turns. The end of one search and the beginning
    // of the next may fall into one round.
    t.ok(longest <= 6, `${longest} certificates were read in one turn of the event loop`)
  },
)

t.test('issuers are read once in some seconds, and again after a failure', async (t) => {
  let asked = 0
  let failing = true
  const watched: Database = {
    ...db,
    query: async (statement, values) => {
      asked += 1
      if (failing) throw new Error('no issuers now')
      return db.query(statement, values)
    },
  }
  const { issuers } = openRecords({ db: watched, codec, namesOf: () => [], sentAlong })
  await t.rejects(issuers(), { message: 'no issuers now' })
  failing = false
  asked = 0
  const answers = await Promise.all([issuers(), issuers(), issuers()])
  t.same(await issuers(), answers[0])
  t.same(answers[0]?.map(({ name }) => name).sort(), ['default', 'etcd', 'front-proxy', 'kubernetes'])
  t.equal(asked, 1)
})

t.test('refusals are found by each filter, newest first, in pages', async (t) => {
  const { url } = service
  t.ok(url)
  for (let i = 0; i < 7; i++)
    await service.request('POST', '/v1/certificates', {
      body: { csr: `nonsense ${i}`, profile: i % 2 ? 'server' : 'client' },
    })
  const read = async (filter: Parameters<Records['refusals']>[0]) => all((page) => records.refusals(filter, page), 2)
  const everything = await read({ code: 'csr.pem' })
  t.equal(everything.length, 7)
  t.equal(new Set(everything.map(({ id }) => id)).size, 7)
  t.same(
    everything.map(({ at }) => at.getTime()),
    everything.map(({ at }) => at.getTime()).sort((a, b) => b - a),
  )
  t.same(everything[0]?.digest, createHash('sha256').update('nonsense 6').digest('hex'))
  t.equal((await read({ profile: 'server' })).length, 3)
  t.equal((await read({ principal: 'admin', profile: 'client', code: 'csr.pem' })).length, 4)
  t.equal((await read({ principal: 'nobody' })).length, 0)
  const middle = everything[3]?.at ?? new Date()
  t.ok((await read({ after: middle })).every(({ at }) => at >= middle))
  t.ok((await read({ before: middle })).every(({ at }) => at < middle))
})

t.test('a cursor belongs to its filters, and one that was made up gets no further than being refused', async (t) => {
  await Promise.all(['c1', 'c1', 'c2'].map((name) => issue([`dns:${name}.cursor.example.com`], { subject: 'cursor' })))
  type List = (cursor?: string) => Promise<Page<unknown>>
  const certificates =
    (filter: CertificateFilter): List =>
    (cursor) =>
      records.certificates(filter, { limit: 1, ...(cursor !== undefined && { cursor }) })
  const lists: Readonly<Record<string, List>> = {
    certificates: certificates({}),
    below: certificates({ name: '*.cursor.example.com' }),
    named: certificates({ name: 'c1.cursor.example.com' }),
    subject: certificates({ subject: 'CN=cursor' }),
    profile: certificates({ profile: 'all', issuedAfter: new Date(0) }),
    refusals: (cursor?: string) => records.refusals({}, { limit: 1, ...(cursor !== undefined && { cursor }) }),
    events: (cursor?: string) => records.events({}, { limit: 1, ...(cursor !== undefined && { cursor }) }),
  }
  const refused = { code: 'request.cursor' }
  for (const [name, list] of Object.entries(lists)) {
    const { next = '' } = await list()
    t.ok(next, name)
    t.equal((await list(next)).items.length, 1)
    for (const spoiled of [`${next}A`, `${next}=`, `${next} `, `.${next}`])
      await t.rejects(list(spoiled), refused, `${name}: ${spoiled}`)
    const keyset = JSON.parse(Buffer.from(next, 'base64url').toString()) as unknown[]
    const forged = (...parts: readonly unknown[]): string =>
      Buffer.from(JSON.stringify([...keyset.slice(0, 3), ...parts])).toString('base64url')
    for (const bound of [[-1], ['x', 1], [1, 1e17], [1, -1], [1, 0.5], [1.5, 1], [null, 1], [2 ** 53, 1]]) {
      const cursor = Buffer.from(JSON.stringify([keyset[0], ...bound, ...keyset.slice(3)])).toString('base64url')
      await t.rejects(list(cursor), refused, `${name} bound to ${bound}`)
    }
    for (const parts of [
      [],
      ['x'],
      [1.5],
      [-1],
      [1e300],
      [null],
      [[]],
      [{}],
      ['x', 'y'],
      [1, 1],
      ['2026-02-31', 'x'],
      ['\0', 1],
      ['\ud800', 1],
      ['a', 1, 2],
      [1e18, '00000000-0000-0000-0000-000000000000'],
      ['1', '1'],
      ["'; drop table entries; --", 1e18],
      [1e18],
      [2 ** 53],
      ['9223372036854775808'],
      ['c1', 2 ** 53],
      ['c1', -1],
      ['c1', '1'],
    ])
      await t.rejects(list(forged(...parts)), refused, `${name}: ${JSON.stringify(parts)}`)
    for (const text of [
      '',
      'x',
      '!',
      next.slice(0, -3),
      Buffer.from('{}').toString('base64url'),
      Buffer.from('[1]').toString('base64url'),
    ])
      await t.rejects(list(text), refused, `${name}: ${text}`)
  }
  // The values of a cursor may be made up within their shape: they lead to another place, never out of the filters.
  for (const [filter, ...keyset] of [
    [{ name: '*.cursor.example.com' }, '', 0],
    [{ name: '*.cursor.example.com' }, 'com.example.a', 2 ** 53 - 1],
    [{ profile: 'all', principal: 'admin' }, 2 ** 53 - 1],
    [{ subject: 'CN=cursor' }, 2 ** 53 - 1],
  ] as const) {
    const wanted = (await records.certificates(filter, { limit: 1000 })).items
    const { next: own = '' } = await records.certificates(filter, { limit: 1 })
    const [tag, size, time] = JSON.parse(Buffer.from(own, 'base64url').toString()) as unknown[]
    const cursor = Buffer.from(JSON.stringify([tag, size, time, ...keyset])).toString('base64url')
    t.same((await records.certificates(filter, { limit: 1000, cursor })).items, wanted, JSON.stringify(keyset))
  }
  const { next = '' } = await records.certificates({ profile: 'all' }, { limit: 1 })
  for (const filter of [{}, { profile: 'server' }, { profile: 'all', principal: 'admin' }, { principal: 'all' }])
    await t.rejects(records.certificates(filter, { limit: 1, cursor: next }), refused, JSON.stringify(filter))
})

t.test('what a query holds that no record can is no error of ours', async (t) => {
  for (const query of ['name=%00', 'name=a%00b', 'subject=%00', 'name=%ED%A0%80', 'name=*.', 'name=%25', 'subject=%27'])
    t.ok([200, 400].includes((await service.request('GET', `/v1/certificates?${query}`)).status), query)
})

t.test('an issuance is told by exactly the octets that its leaf is over', async (t) => {
  const { serial, index, leafHash, certificate } = await issue(['dns:entry.example.com'])
  const { items } = await records.events({ serial }, { limit: 5 })
  t.equal(items.length, 1)
  t.match(items[0], { index, leafHash: leafHash.toString('hex') })
  t.equal(createHash('sha256').update(`\0${items[0]?.entry}`).digest('hex'), leafHash.toString('hex'))
  t.match(JSON.parse(items[0]?.entry ?? ''), { serial, certificate: certificate.toString('base64') })
  const types = ['certificate.issued', 'profile.changed', 'principal.created'] as const
  for (const type of types) {
    const found = await all((page) => records.events({ type }, page), 20)
    t.ok(found.length > 0 && found.every(({ entry }) => JSON.parse(entry).type === type), type)
  }
  t.same(await all((page) => records.events({ type: 'no.such' }, page)), [])
  t.equal((await records.events({ fromIndex: index }, { limit: 1 })).items[0]?.index, index)
})

t.test('a span of time is a range of the roll, found without an index of its own', async (t) => {
  const { rows } = await db.query<{ asked: string; found: number; wanted: number }>({
    text: `
      select t::text as asked, first_entry_from(t) as found,
        coalesce((select min(index) from entries where time >= t), (select size from roll)) as wanted
      from entries, unnest(array[time, time - interval '1 us', time + interval '1 us']) t
      union all select t::text, first_entry_from(t), w
      from (values ('-infinity'::timestamptz, 0), ('infinity', (select size from roll)), (null, 0)) v (t, w)`,
  })
  t.ok(rows.length > 100)
  t.same(
    rows.filter(({ found, wanted }) => found !== wanted),
    [],
  )
  const made = await Promise.all([1, 2, 3].map(async () => issue(['dns:span.example.com'], { subject: 'span' })))
  await new Promise((resolve) => setTimeout(resolve, 5))
  const { serial } = await issue(['dns:span.example.com'], { subject: 'span' })
  const { issuedAt } = await records.certificate(serial)
  const before = made.map((issued) => issued.serial).sort()
  for (const filter of [{}, { subject: 'CN=span' }, { name: 'span.example.com' }, { name: '*.example.com' }]) {
    const later = await find({ ...filter, issuedAfter: issuedAt }, 2)
    t.same(later, [serial], JSON.stringify(filter))
    const earlier = await find({ ...filter, issuedBefore: issuedAt }, 2)
    t.same(before.filter((one) => !earlier.includes(one)).concat(earlier.filter((one) => one === serial)), [])
    t.same(await find({ ...filter, issuedAfter: issuedAt, issuedBefore: issuedAt }), [])
    t.same(await find({ ...filter, issuedAfter: new Date('9999-12-31T23:59:59Z') }), [])
    t.same(await find({ ...filter, issuedBefore: new Date(0) }), [])
  }
})

slowTest('no search reads a table from end to end, or sorts more than its page', async (t) => {
  await grow(20_000)
  const asked: { statement: Statement; values: readonly unknown[]; index: string }[] = []
  let index = ''
  const watched: Database = {
    ...db,
    query: (statement, values = []) => {
      // Of issuers there are a few, and the head of the roll is one row.
      if (statement.text !== selectIssuers.text && statement.name !== 'select_bounds') {
        // The newest of a table that is dated by itself, whatever it is searched by.
        const by = statement.name === 'select_bounds_of_refusals' ? 'refusals_\\w+_pkey' : index
        asked.push({ statement, values, index: by })
      }
      return db.query(statement, values)
    },
  }
  const searches = openRecords({ db: watched, codec, namesOf: readNames, sentAlong })
  const newest = (await records.certificates({ profile: 'all' }, { limit: 1 })).items[0]
  if (newest === undefined) throw new Error('nothing was found')
  const { serial, keySha256, issuedAt, notAfter } = newest
  const span = { issuedAfter: new Date(issuedAt.getTime() - 60_000), issuedBefore: new Date(issuedAt.getTime() + 1) }
  const moment = { issuedAfter: issuedAt, issuedBefore: new Date(issuedAt.getTime() + 1) }
  const limit = 20
  /** With its second page, where there is one. */
  const ask = async <F>(open: OpenWalk<F, unknown>, filter: F, by: string) => {
    index = by
    const walk = await open(filter)
    // Grown entries have no leaf of their own; what was asked is what counts here.
    const { next } = await walk.page(limit).catch(() => ({ next: undefined }))
    if (next !== undefined) await walk.page(limit)
  }
  for (const [filter, by] of [
    [{ serial }, 'outcomes_pkey'],
    [{ name: 'www.find.example.com' }, 'certificate_names_by_name'],
    [{ name: 'web.wild.test' }, 'certificate_names_by_name'],
    [{ name: 'web.both.test' }, 'certificate_names_by_name'],
    [{ name: 'any.wild.test', profile: 'all' }, 'certificate_names_by_name'],
    [{ name: '*.find.example.com' }, 'certificate_names_by_name'],
    [{ name: '*.find.example.com', profile: 'all' }, 'certificate_names_by_name'],
    [{ name: '*.example.com' }, 'certificate_names_by_name'],
    [{ name: '*.example.com', ...span }, 'certificate_names_by_name'],
    [{ name: '*.grown.test' }, 'certificate_names_by_name'],
    [{ name: '*.grown.test', ...moment }, '(outcomes_entry_key|certificate_names_by_name)'],
    [{ name: '*.grown.test', principal: 'grown-1' }, 'certificates_along_principal'],
    [{ name: '10.20.30.40' }, 'certificate_names_by_name'],
    [{ subject: 'CN=grown-77' }, 'certificates_along_subject'],
    [{ subject: 'CN=grown-many' }, 'certificates_along_subject'],
    [{ subject: 'CN=grown-many', principal: 'grown-1' }, 'certificates_along_(principal|subject)'],
    [{ subject: `CN=${'x'.repeat(200)}` }, 'certificates_along_subject'],
    [{ profile: 'all' }, '(outcomes_entry_key|certificates_along_(profile|issuer))'],
    [{ profile: 'server' }, 'certificates_along_profile'],
    [{ profile: 'all', issuer: 'etcd' }, '(outcomes_entry_key|certificates_along_(profile|issuer))'],
    [{ profile: 'all', ...span }, '(outcomes_entry_key|certificates_along_(profile|issuer))'],
    [{ profile: 'all', status: 'valid' }, 'certificates_(of_expiry|along_profile)'],
    [{ principal: 'robot', status: 'valid' }, 'certificates_(of_expiry|along_principal)'],
    [{ principal: 'filtered' }, 'certificates_along_principal'],
    [{ principal: 'grown-1' }, 'certificates_along_principal'],
    [{ principal: 'robot', ...span }, '(outcomes_entry_key|certificates_along_(principal|issuer))'],
    [{ principal: 'robot', issuer: 'etcd' }, '(outcomes_entry_key|certificates_along_(principal|issuer))'],
    [{ principal: 'grown-1', profile: 'all' }, 'certificates_along_principal'],
    [{ originNamespace: 'ns-3' }, '(outcomes_entry_key|certificates_of_namespace)'],
    [{ originNamespace: 'ns-3', ...span }, '(outcomes_entry_key|certificates_of_namespace)'],
    [{ originNamespace: 'none' }, '(outcomes_entry_key|certificates_of_namespace)'],
    [{ originUser: 'user-9' }, 'certificates_of_user'],
    [{ originUser: 'user-9', originNamespace: 'ns-3' }, 'certificates_of_user'],
    [{ originUser: 'user-9', principal: 'robot' }, 'certificates_(of_user|along_principal)'],
    [{ originObject: 'uid-333' }, 'certificates_of_object'],
    [{ originNamespace: 'ns-3', status: 'valid' }, 'certificates_of_(expiry|namespace)'],
    [{ issuer: 'default' }, '(outcomes_entry_key|certificates_along_issuer)'],
    [{ issuer: 'etcd' }, 'certificates_along_issuer'],
    [{ issuer: 'default', status: 'revoked' }, '(certificates_along_issuer|revocations|outcomes_entry_key)'],
    [{ issuer: 'default', name: '*.grown.test' }, '(certificates_along_issuer|certificate_names_by_name)'],
    [{ key: keySha256 }, 'certificates_of_key'],
    [{ key: createHash('sha256').update('shared').digest('hex') }, '(outcomes_entry_key|certificates_of_key)'],
    [span, 'outcomes_entry_key'],
    [{ status: 'valid' }, 'certificates_of_expiry'],
    [{ status: 'expired' }, 'certificates_of_expiry'],
    [{ status: 'revoked' }, '(outcomes_entry_key|revocations)'],
    [{ expiresAfter: notAfter, expiresBefore: new Date(notAfter.getTime() + 1) }, 'certificates_of_expiry'],
    [{ expiresBefore: notAfter, principal: 'grown-1' }, 'certificates_(of_expiry|along_principal)'],
    [{}, 'outcomes_entry_key'],
  ] as const)
    await ask(searches.walk.certificates, filter, by)
  for (const [filter, by] of [
    [{ serial }, 'outcomes_pkey'],
    [{ fromIndex: newest.index }, 'entries_pkey'],
    [{ type: 'profile.changed' }, 'entries_by_type'],
    [{ type: 'certificate.issued' }, 'outcomes_entry_key'],
    [{ type: 'certificate.issued', principal: 'grown-1' }, 'certificates_along_principal'],
    [{ principal: 'grown-1' }, 'certificates_along_principal'],
    [{ principal: 'filtered', type: 'principal.created' }, 'entries_(by_type|along_principal)'],
    [{ principal: 'admin' }, 'entries_along_actor'],
    [{ by: 'admin' }, 'entries_along_actor'],
    [{ by: 'admin', type: 'principal.created' }, 'entries_(by_type|along_actor)'],
    [{ by: 'nobody', after: issuedAt }, 'entries_along_actor'],
    [{}, 'entries_pkey'],
  ] as const)
    await ask(searches.walk.events, filter, by)
  for (const [filter, by] of [
    [{ code: 'key.type' }, 'refusals_\\d+_code_at_idx'],
    [{ code: 'key.type', principal: 'grown-7' }, 'refusals_\\d+_(code|principal)_at_idx'],
    [{ code: 'san.forbidden', profile: 'grown-7' }, 'refusals_\\d+_((code|profile)_at_idx|pkey)'],
    [{ profile: 'grown-7' }, 'refusals_\\w+_profile_at_idx'],
    [{ principal: 'grown-7' }, 'refusals_\\w+_principal_at_idx'],
    [{ digest: '0'.repeat(64) }, 'refusals_\\w+_digest_idx'],
    [{}, 'refusals_\\w+_pkey'],
  ] as const)
    await ask(searches.walk.refusals, filter, by)
  t.ok(asked.length > 100)
  const { explain, close } = await openExplaining(service.database.servingUrl)
  t.teardown(close)
  for (const { statement, values, index: wanted } of asked) {
    const plan = (await explain(statement, values)).join('\n')
    const said = `${JSON.stringify(values)}\n${statement.text}\n${plan}`
    const scanned = [...plan.matchAll(/Seq Scan on (\w+)/g)].map(([, table]) => table)
    t.same(
      scanned.filter((table) => big.has(table ?? '')),
      [],
      said,
    )
    t.match(plan, new RegExp(` (using|on) ${wanted}\\b`), said)
    const read = [...plan.matchAll(/actual time=\S+ rows=([\d.]+) loops/g)].map(([, rows]) => Number(rows))
    t.ok(Math.max(...read) <= 10 * (limit + 1), said)
  }
})

/** The month before this one, of which there is always a partition. */
const lastMonth = new Date(new Date().setUTCDate(0)).toISOString().slice(0, 7).replace('-', '')
const big = new Set(['outcomes', 'intents', 'entries', 'certificate_names', `refusals_${lastMonth}`])

/** Adds certificates and refusals by plain SQL, within what the triggers allow, and lets the planner know. */
const grow = async (n: number): Promise<void> => {
  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  await owner.query('begin')
  await owner.query('update roll set size = size + $1, time = greatest(time, now())', [n])
  await owner.query(
    `with base as (select size - $1::bigint as start from roll),
    numbers as (select i, decode(md5(i::text), 'hex') as serial from generate_series(0, $1::bigint - 1) i),
    sample as (select * from intents order by created_at desc limit 1),
    meant as (insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
      select n.serial, 'admin', 1, sha256(n.serial), s.issuer, 1, s.profile, s.profile_version, s.tbs, sha256(n.serial) from numbers n, sample s),
    entered as (insert into entries (index, type, time, leaf_hash, serial)
      select start + i, 'certificate.issued', (select time from roll), sha256(serial), serial from numbers, base),
    named as (insert into certificate_names (serial, kind, name, entry)
      select serial, 'dns', 'test.grown.n' || i, start + i from numbers, base
      union all select serial, 'dns', 'test.wild.*', start + i from numbers, base where i % 2 = 0
      union all select serial, 'dns', 'test.wild.web', start + i from numbers, base where i % 3 = 0
      union all select serial, 'dns', 'test.both.' || label, start + i from numbers, base, unnest(array['*', 'web']) label where i % 2 = 1)
    insert into outcomes (serial, kind, entry, at, signature, principal, profile, issuer, subject, key_sha256, not_before, not_after,
        origin_namespace, origin_user, origin_object)
      select n.serial, 'certificate', start + i, now(), '\\x00',
        case i % 2 when 0 then 'robot' else 'grown-' || i % 500 end, 'all', s.issuer,
        case i % 4 when 0 then '' when 1 then 'CN=grown-many' else 'CN=grown-' || i end,
        case i % 2 when 0 then sha256('shared') else sha256(n.serial) end, now(), now() + interval '1 day',
        case when i % 3 = 0 then 'ns-' || i % 7 end, case when i % 3 = 0 then 'user-' || i % 500 end, case when i % 3 = 0 then 'uid-' || i end
      from numbers n, sample s, base`,
    [n],
  )
  await owner.query(
    `insert into refusals (id, at, principal, profile, code, digest, detail, violations)
    select gen_random_uuid(), date_trunc('month', now(), 'UTC') - interval '14 days' - i * interval '1 second', 'grown-' || i % 50, 'grown-' || i % 50,
      case when i % 500 = 0 then 'key.type' else 'san.forbidden' end, sha256(''), '', '[]' from generate_series(1, $1::bigint) i`,
    [n],
  )
  await growTree(owner)
  await owner.query('commit')
  await owner.query('analyze')
  await owner.end()
}

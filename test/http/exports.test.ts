import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { request as httpRequest } from 'node:http'
import { request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setImmediate as nextRound, setTimeout as sleep } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import type { Access } from '../../src/ca/access/access-log.ts'
import type { EventRecord, Page, Walk } from '../../src/ca/records.ts'
import { Problem } from '../../src/errors.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from './people.ts'
import { callerFor, openStandIn, reached } from './stand-in.ts'

let service: TestService
let owner: pg.Client
let auditor: string
let requester: string

t.before(async () => {
  service = await openTestService(t)
  await service.service.publishCrls()
  owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  t.teardown(() => owner.end())
  auditor = await employ(service, 'eve', 'auditor')
  requester = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  await owner.query(
    `insert into refusals (id, at, principal, profile, code, digest, detail, violations)
    select gen_random_uuid(), clock_timestamp() - i * interval '1 second', 'crowd', 'server', 'csr.pem', sha256(i::text::bytea),
      case i when 7 then '=1+1' when 8 then '''quoted' when 9 then E'two\\r\\nlines, "quoted"' else repeat('x', 4000) end, '[]'
    from generate_series(1, 3500) i`,
  )
})

const get = (path: string, accept = 'application/x-ndjson', token = auditor, method = 'GET') =>
  service.request(method, path, { token, headers: { accept } })
const linesOf = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const issue = (name: string, token = requester) =>
  service.request('POST', '/v1/certificates', { token, body: { csr: csrFor(name), profile: 'server' } })
const accesses = async (query = '') =>
  (await service.request('GET', `/v1/accesses?limit=20&${query}`, { token: auditor })).json.items

/** The cells of each row, by RFC 4180 and no more. */
const parseCsv = (text: string): string[][] => {
  const rows: string[][] = []
  let row: string[] = []
  for (const [, quoted = '', end] of text.matchAll(/"((?:[^"]|"")*)"(,|\r\n)/g)) {
    row.push(quoted.replaceAll('""', '"'))
    if (end === ',') continue
    rows.push(row)
    row = []
  }
  return rows
}

t.test('an export of thousands is whole, in either form, and says in its last line what it is', async (t) => {
  const answer = await get('/v1/refusals?principal=crowd')
  t.equal(answer.status, 200)
  t.equal(answer.headers['content-type'], 'application/x-ndjson')
  const lines = linesOf(answer.text)
  const { end } = lines.pop()
  t.equal(lines.length, 3_500)
  t.equal(new Set(lines.map(({ id }) => id)).size, 3_500)
  t.match(end, {
    complete: true,
    records: 'refusals',
    filter: { principal: 'crowd' },
    rows: 3_500,
    range: { from: null },
  })
  t.equal(end.range.before, end.boundTo.time)
  t.ok(end.boundTo.size > 0)
  const { rows: heads } = await owner.query(
    `select encode(root, 'base64') as root from roll where id = 1 and size = $1`,
    [end.boundTo.size],
  )
  t.equal(end.boundTo.root, heads[0]?.root, 'the checkpoint that it is bound to')
  const page = (await get('/v1/refusals?principal=crowd', 'application/json')).json
  t.same(lines.slice(0, 100), page.items, 'the lines are what JSON has as items')

  const csv = await get('/v1/refusals?principal=crowd', 'text/csv')
  const [header, ...rows] = parseCsv(csv.text)
  t.same(header, [
    'id',
    'at',
    'principal',
    'profile',
    'code',
    'detail',
    'digest',
    'offset',
    'violations',
    'checks',
    'checksLeftOut',
    'origin',
  ])
  const last = rows.pop() ?? []
  t.equal(rows.length, 3_500)
  t.ok([...rows, last].every((row) => row.length === header?.length))
  t.equal(last[0], 'end')
  t.match(JSON.parse(last[1] ?? ''), { complete: true, rows: 3_500, records: 'refusals' })
  t.same([...new Set(last.slice(2))], [''])
  const details = rows.map((row) => row[5])
  t.ok(details.includes("'=1+1.") && details.includes("''quoted."), 'no cell begins a formula')
  const undone = rows.map((row) => row.map((cell) => (cell.startsWith("'") ? cell.slice(1) : cell)))
  t.same(
    undone.map(([id, , , , , detail]) => [id, detail]),
    lines.map(({ id, detail }) => [id, detail]),
    'one apostrophe taken from each cell that has one gives what was there',
  )
  t.same(
    rows.map((row) => JSON.parse(row[8] ?? '')),
    lines.map(({ violations }) => violations),
    'lists are JSON, empty ones as well',
  )
})

t.test('an export of nothing is whole as well, with its columns', async (t) => {
  const [line, ...none] = linesOf((await get('/v1/certificates?name=nowhere.example.com')).text)
  t.same(none, [])
  t.match(line, { end: { complete: true, rows: 0, filter: { name: 'nowhere.example.com' } } })
  const rows = parseCsv((await get('/v1/certificates?name=nowhere.example.com', 'text/csv')).text)
  t.equal(rows.length, 2)
  t.same(rows[0], [
    ...['serial', 'status', 'subject', 'names', 'profile', 'profileVersion', 'principal', 'issuer', 'keySha256'],
    ...[
      'notBefore',
      'notAfter',
      'issuedAt',
      'index',
      'reason',
      'revokedAt',
      'invalidityDate',
      'revokedBy',
      'revocationIndex',
      'origin',
    ],
  ])
  for (const path of ['/v1/events?type=issuer.halted', '/v1/accesses?principal=nobody'])
    t.match(linesOf((await get(path)).text), [{ end: { rows: 0, complete: true } }])
})

t.test('a page of nothing has its columns in CSV, those of any other', async (t) => {
  for (const [path, columns] of [
    [
      '/v1/requests',
      'id,state,principal,profile,plan,digest,required,approvals,createdAt,expiresAt,index,end,serial,obstacle',
    ],
    [
      '/v1/revocations',
      'digest,state,search,reason,invalidityDate,by,index,total,revoked,skipped,orderedAt,startedAt,finishedAt',
    ],
  ] as const)
    t.same(parseCsv((await get(path, 'text/csv')).text), [columns.split(',')], path)
})

t.test('a certificate is told in CSV by flat columns, and its revocation too', async (t) => {
  const { serial } = (await issue('flat.example.com')).json
  await service.request('POST', `/v1/certificates/${serial}/revocation`, { body: { reason: 'superseded' } })
  const [header = [], row = []] = parseCsv((await get(`/v1/certificates?serial=${serial}`, 'text/csv')).text)
  const told = Object.fromEntries(header.map((name, i) => [name, row[i]]))
  t.match(told, {
    serial,
    status: 'revoked',
    names: 'dns:flat.example.com',
    profile: 'server',
    profileVersion: '1',
    principal: 'ci',
    reason: 'superseded',
    revokedBy: 'admin',
    invalidityDate: /^$/,
  })
  t.match(told['revocationIndex'], /^\d+$/)
})

t.test('an export holds exactly what was on the roll at its size, while others issue', async (t) => {
  await issue('before.example.com')
  const busy = { stop: false }
  const issuing = (async () => {
    for (let i = 0; !busy.stop; i += 1) await issue(`during${i}.example.com`)
  })()
  for (const path of [
    '/v1/certificates',
    '/v1/certificates?name=*.example.com',
    '/v1/events',
    '/v1/certificates?status=valid',
  ]) {
    const lines = linesOf((await get(path)).text)
    const { end } = lines.pop()
    t.equal(end.rows, lines.length)
    t.equal(end.range.before, end.boundTo.size)
    const all = lines.map(({ index }) => index).sort((a, b) => a - b)
    const { rows } = await owner.query(
      path === '/v1/events'
        ? 'select index from entries where index < $1 order by index'
        : `select entry as index from outcomes o where kind = 'certificate' and entry < $1 ${
            path.includes('example')
              ? `and exists (select from certificate_names n where n.entry = o.entry and n.name > 'com.example.' and n.name < 'com.example/')`
              : ''
          } ${path.includes('valid') ? `and not exists (select from revocations r where r.serial = o.serial and r.entry < $1)` : ''} order by entry`,
      [end.boundTo.size],
    )
    t.same(
      all,
      rows.map(({ index }) => Number(index)),
      path,
    )
  }
  busy.stop = true
  await issuing
})

t.test('with a limit or a cursor it is a page, whatever its form', async (t) => {
  const first = await get('/v1/refusals?principal=crowd&limit=2')
  t.equal(linesOf(first.text).length, 2)
  const next = /^<([^>]+)>; rel="next"$/.exec(String(first.headers['link']))?.[1] ?? ''
  const second = await get(next, 'text/csv')
  t.equal(parseCsv(second.text).length, 3)
  t.match(second.headers['link'], /rel="next"/)
})

t.test('a count is exact where it is cheap', async (t) => {
  const counted = async (path: string) => (await get(path, 'application/json')).json.count
  t.same(await counted('/v1/refusals?principal=crowd&count=true&limit=1'), { rows: 3_500, exact: true })
  t.same(await counted('/v1/refusals?principal=crowd&limit=1'), undefined)
  t.same(await counted('/v1/refusals?principal=crowd&count=false&limit=1'), undefined)
  const { json } = await get('/v1/events?count=true', 'application/json')
  t.same(json.count, { rows: json.boundTo.size, exact: true })
  t.same(await counted('/v1/certificates?name=flat.example.com&count=true'), { rows: 1, exact: true })
})

t.test('each search and each export is a row, and so is reading those, once', async (t) => {
  const reader = await employ(service, 'mallory', 'auditor')
  await get('/v1/certificates?name=*.example.com&limit=3', 'application/json', reader)
  await get('/v1/events?type=issuer.halted', 'text/csv', reader)
  const rows = await accesses('principal=mallory')
  t.match(rows, [
    { act: 'completed', records: 'events', filter: { type: 'issuer.halted' }, format: 'csv', rows: 0 },
    { act: 'began', records: 'events', filter: { type: 'issuer.halted' }, format: 'csv', rows: null, export: null },
    {
      act: 'searched',
      records: 'certificates',
      filter: { name: '*.example.com' },
      format: 'json',
      rows: 3,
      continues: false,
    },
  ])
  t.equal(rows.length, 3)
  t.equal(rows[0].export, rows[1].id)
  t.ok(rows.every(({ size }: Access) => size > 0))
  t.equal((await accesses('principal=mallory')).length, 3, 'reading them does not change what is read of another')
  const { next } = (await get('/v1/accesses?limit=1', 'application/json', reader)).json
  await get(`/v1/accesses?limit=1&cursor=${next}`, 'application/json', reader)
  t.match(await accesses('principal=mallory&records=accesses'), [
    { act: 'searched', continues: true, rows: 1 },
    { act: 'searched', continues: false, rows: 1 },
  ])
  const exported = linesOf((await get('/v1/accesses?principal=mallory', 'application/x-ndjson', reader)).text)
  t.equal(exported.filter(({ act }) => act === 'began').length, 1, 'an export of them does not hold itself')
  t.equal((await accesses('principal=mallory&act=began')).length, 2)
  t.equal((await accesses('principal=mallory&before=2020-01-01T00:00:00Z')).length, 0)
  t.equal((await accesses('principal=mallory&after=2020-01-01T00:00:00Z&act=completed')).length, 2)

  await get('/v1/certificates', 'application/json', requester)
  await get('/v1/certificates', 'application/x-ndjson', requester)
  t.same(await accesses('principal=ci'), [], 'what is one’s own is nobody else’s matter')
  await get('/v1/events?by=%00', 'application/json', reader)
  t.match((await accesses('principal=mallory'))[0], { filter: { by: '\ufffd' } }, 'even what no record can have')
})

t.test('HEAD gives away nothing, and is no export, with the fields of one', async (t) => {
  const reader = await employ(service, 'heads', 'auditor')
  const compare = async (path: string): Promise<void> => {
    for (const accept of ['text/csv', 'application/x-ndjson']) {
      const head = await get(path, accept, reader, 'HEAD')
      t.equal(head.status, 200)
      t.equal(head.text, '')
      // There is nothing that could be chunked; the rest differs from one call to the next.
      const { 'transfer-encoding': _, ...headers } = (await get(path, accept)).headers
      const { 'x-request-id': __, date: ___, link: ____, ...lasting } = headers
      t.match(head.headers, lasting, `${path} ${accept}`)
      t.same(Object.keys(head.headers).sort(), Object.keys(headers).sort(), `${path} ${accept}`)
    }
  }
  await compare('/v1/events')
  await compare('/v1/certificates')
  t.same(await accesses('principal=heads'), [])
  await compare('/v1/events?limit=2')
  await compare('/v1/refusals?principal=nobody&limit=2')
})

const noon = '2026-11-25T12:00:00Z'

t.test('what is malformed is named by its field', async (t) => {
  const cases: readonly (readonly [query: string, field: string, reason: RegExp])[] = [
    ['certificates?serial=xyz', '/serial', /must be 32 hexadecimal digits/],
    ['certificates?serial=4a4a', '/serial', /must be 32 hexadecimal digits/],
    ['certificates?profile=No_Such', '/profile', /must be 1 to 63 lower-case/],
    ['certificates?key=AB', '/key', /must be 64 lower-case hexadecimal/],
    ['certificates?issuedAfter=yesterday', '/issuedAfter', /must be a time that exists/],
    ['certificates?issuedAfter=2026-11-25T08:00:00+00:00', '/issuedAfter', /in a query a \+ is %2B/],
    ['certificates?issuedAfter=2026-02-31T00:00:00Z', '/issuedAfter', /must be a time that exists/],
    ['certificates?revokedBefore=2027-02-29T00:00:00Z', '/revokedBefore', /must be a time that exists/],
    ['certificates?limit=0', '/limit', /must be a whole number from 1 to 1000/],
    ['certificates?at=-1', '/at', /must be a whole number/],
    ['certificates?at=999999999', '/at', /is more than the \d+ entries/],
    ['certificates?count=maybe', '/count', /./],
    ['certificates?status=fine', '/status', /./],
    ['certificates?cursor=%20', '/cursor', /must be `next`/],
    ['certificates?surprise=1', '/surprise', /is not a known field/],
    ['events?fromIndex=1.5', '/fromIndex', /must be a whole number/],
    ['events?after=2026-13-01T00:00:00Z', '/after', /./],
    ['events?before=2026-04-31T12:00:00%2B02:00', '/before', /must be a time that exists/],
    ['refusals?digest=xyz', '/digest', /must be 64/],
    ['refusals?code=!', '/code', /./],
    ['accesses?act=looked', '/act', /./],
    ['certificates?name=ip:shop.example.com', '/name', /is no name that a certificate has: an IP address is not/],
    ['certificates?name=dns:*.com', '/name', /fewer than two labels/],
    ['certificates?name=10.0.0.0/8', '/name', /is no name that a certificate has: an IP address is not/],
    ['certificates?name=::ffff:10.0.0.1', '/name', /an IPv4 address inside/],
    ['certificates?name=1.2.3', '/name', /an IP address is not/],
    ['certificates?name=web.example.com:443', '/name', /a DNS name is not labels/],
    ['certificates?name=*.a@b', '/name', /a DNS name is not labels/],
    ['certificates?name=CN%3Da/b', '/name', /a DNS name is not labels/],
    ['certificates?name=web@', '/name', /not a plain address/],
    ['certificates?name=https://*.x', '/name', /a host that has a wildcard/],
    ['certificates?name=spiffe://a%20b', '/name', /is not spiffe:/],
    ['certificates?subject=web', '/subject', /is no subject that a certificate has: it is not as RFC 4514 writes it/],
    ['certificates?subject=CN%3Dweb,%20O%3DExample', '/subject', /from character 7 on/],
    ['certificates?subject=XY%3Dweb', '/subject', /XY is not a known attribute type/],
    ['events?type=certificate.isued', '/type', /^is no type of entry; did you mean certificate\.issued\?$/],
    ['events?type=no.such', '/type', /^is no type of entry: docs\/roll\.md has all/],
    ['events?type=constructor.x', '/type', /^is no type of entry/],
    ['refusals?code=san.forbiden', '/code', /^is no code of a problem; did you mean san\.forbidden\?$/],
    ['refusals?code=unheard.of', '/code', /^is no code of a problem: docs\/errors\.md has all/],
    ...['issued', 'expires', 'revoked'].map(
      (span) =>
        [
          `certificates?${span}After=2026-11-25T08:00:01Z&${span}Before=2026-11-25T08:00:00Z`,
          `/${span}Before`,
          new RegExp(`^is before /${span}After$`),
        ] as const,
    ),
    ...['events', 'refusals', 'accesses'].map(
      (of) =>
        [
          `${of}?after=2026-11-25T08:00:00%2B01:00&before=2026-11-25T06:59:59Z`,
          '/before',
          /^is before \/after$/,
        ] as const,
    ),
    ['events?fromIndex=3&beforeIndex=2', '/beforeIndex', /^is before \/fromIndex$/],
    ['refusals?at=0', '/at', /is not a known field/],
    ['accesses?at=5', '/at', /is not a known field/],
  ]
  for (const [query, field, reason] of cases) {
    const { status, json } = await get(`/v1/${query}`, 'application/json')
    t.equal(status, 400, query)
    t.equal(json.code, 'request.malformed', query)
    t.equal(json.violations[0].field, field, query)
    t.match(json.violations[0].reason, reason, query)
    t.equal((await get(`/v1/${query}`, 'text/csv')).status, 400, `${query}, as an export`)
  }
  for (const query of ['events?fromIndex=2&beforeIndex=2', `certificates?issuedAfter=${noon}&issuedBefore=${noon}`])
    t.match((await get(`/v1/${query}`, 'application/json')).json, { items: { length: 0 } }, 'an empty span is one')
  const counted = await get('/v1/events?count=true', 'text/csv')
  t.match(counted, { status: 400 })
  t.match(JSON.parse(counted.text), { code: 'request.malformed', violations: [{ field: '/count' }] })
  const { next } = (await get('/v1/events?limit=1', 'application/json')).json
  for (const query of [
    'events?type=issuer.halted',
    'events?principal=eve',
    'events?at=3',
    'refusals?limit=1',
    'certificates?limit=1',
  ])
    t.match(
      (await get(`/v1/${query}&cursor=${next}`, 'application/json')).json,
      { code: 'request.cursor', status: 400 },
      query,
    )
})

/** An answer whose body is read by hand. */
const open = (path: string, token = auditor): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    request(new URL(path, service.url), {
      ca: service.ca,
      headers: { authorization: `Bearer ${token}`, accept: 'application/x-ndjson' },
    })
      .on('response', resolve)
      .on('error', reject)
      .end()
  })

/** What came before the connection broke off; rejects where it did not. */
const brokenOff = async (incoming: IncomingMessage): Promise<string> => {
  let text = ''
  incoming.on('data', (chunk) => {
    text += chunk
  })
  incoming.resume()
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    incoming.once('error', resolve)
    incoming.once('end', () => resolve(undefined))
  })
  if (!error) throw new Error(`the answer looks complete: ${text.slice(-200)}`)
  return text
}

const untilAccess = async (query: string, act: string) => {
  for (;;) {
    const [row] = await accesses(`${query}&act=${act}`)
    if (row) return row
    await sleep(20)
  }
}

t.test('a fault of the database half way ends the connection, without the last line, and is on record', async (t) => {
  const reader = await employ(service, 'unlucky', 'auditor')
  const incoming = await open('/v1/refusals?principal=crowd', reader)
  incoming.pause()
  await owner.query('alter table refusals rename column detail to gone')
  t.teardown(() => owner.query('alter table refusals rename column gone to detail').catch(() => {}))
  const text = await brokenOff(incoming)
  await owner.query('alter table refusals rename column gone to detail')
  t.notMatch(text, /"end":/)
  t.ok(text.length > 0)
  const { rows } = await untilAccess('principal=unlucky', 'broke')
  t.ok(rows >= 1_000 && rows < 3_500, `${rows} rows`)
})

t.test('a client that goes away stops it, and its token taken back, too', async (t) => {
  const reader = await employ(service, 'gone', 'auditor')
  const incoming = await open('/v1/refusals?principal=crowd', reader)
  await once(incoming, 'data')
  incoming.destroy()
  t.ok((await untilAccess('principal=gone', 'broke')).rows < 3_500)

  const leaver = await employ(service, 'leaver', 'auditor')
  const other = await open('/v1/refusals?principal=crowd', leaver)
  other.pause()
  await service.request('DELETE', '/v1/principals/leaver')
  await sleep(1_100)
  t.notMatch(await brokenOff(other), /"end":/)
  t.match(await untilAccess('principal=leaver', 'broke'), { records: 'refusals' })
})

t.test('an export that cannot be recorded is not begun; a search is answered, and told in the log', async (t) => {
  await owner.query('alter table accesses rename column rows to gone')
  t.teardown(() => owner.query('alter table accesses rename column gone to rows').catch(() => {}))
  // More than there is room for: none of them takes a place.
  for (let i = 0; i < 5; i += 1) t.equal((await get('/v1/events')).status, 500)
  t.equal((await get('/v1/events?limit=1', 'application/json')).status, 200)
  await owner.query('alter table accesses rename column gone to rows')
  t.equal((await get('/v1/events')).status, 200)
})

// Over a stand-in, whose walk the test holds in its hands ----------------------------------------------------------------

const event = (index: number): EventRecord => ({ index, leafHash: '0'.repeat(64), entry: 'x'.repeat(1_000) })

/** An API over a walk of so many pages, and what became of it. */
const served = async (t: Test, pages: number, more: Parameters<typeof openStandIn>[0] = {}) => {
  const seen = { pages: 0, acts: [] as string[] }
  const walk = <T>(item: (i: number) => T): Walk<T> => {
    let page = 0
    return {
      bounds: { size: 7, time: new Date(0) },
      range: { from: 0, before: 7 },
      count: async () => ({ rows: 0, exact: true }),
      page: async (limit): Promise<Page<T>> => {
        seen.pages += 1
        page += 1
        const items = Array.from({ length: limit }, (_, i) => item(i))
        return page < pages ? { items, next: String(page) } : { items }
      },
    }
  }
  const standIn = await openStandIn({
    records: reached({
      walk: { events: async () => walk(event), certificateTexts: async () => walk(() => 'x'.repeat(1_000)) },
    }),
    accesses: reached({
      record: async ({ act }: Access) => {
        seen.acts.push(act)
        return 'id'
      },
    }),
    rootAt: async (size) => `root of ${size}`,
    ...more,
  })
  await standIn.app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => standIn.app.close())
  const { port } = standIn.app.server.address() as AddressInfo
  const ask = (path = '/v1/events'): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const headers = { authorization: 'Bearer auditor_', accept: 'application/x-ndjson' }
      httpRequest({ port, path, headers, agent: false }).on('response', resolve).on('error', reject).end()
    })
  return { ...standIn, seen, ask }
}

const textOf = async (incoming: IncomingMessage): Promise<string> => {
  let text = ''
  for await (const chunk of incoming) text += chunk
  return text
}

slowTest('no more is read than the client takes', async (t) => {
  const { seen, ask } = await served(t, 200)
  const incoming = await ask()
  incoming.pause()
  let before = -1
  while (seen.pages !== before) {
    before = seen.pages
    await sleep(100)
  }
  t.ok(seen.pages < 30, `${seen.pages} pages were read for a client that takes nothing`)
  const { end } = JSON.parse((await textOf(incoming)).trimEnd().split('\n').at(-1) ?? '')
  t.match(end, { rows: 200_000, boundTo: { size: 7, root: 'root of 7' } })
  t.equal(seen.pages, 200)
  t.same(seen.acts, ['began', 'completed'])
})

slowTest('beyond four at once others are told to come back, and have their turn later', async (t) => {
  const { ask } = await served(t, 50)
  const answers = await Promise.all([ask(), ask(), ask(), ask()])
  for (const answer of answers) answer.pause()
  const fifth = await ask()
  t.equal(fifth.statusCode, 503)
  t.match(JSON.parse(await textOf(fifth)), { code: 'overload.queue', retryable: true })
  await Promise.all(answers.map(textOf))
  for (;;) {
    const later = await ask()
    const text = await textOf(later)
    if (later.statusCode === 200) break
    t.match(text, /overload/)
    await nextRound()
  }
})

t.test('an export of all ends once its caller may read its own alone', async (t) => {
  let role = 'auditor'
  const bearer = async () => callerFor(role)
  const { ask } = await served(t, 50, { identities: reached({ bearer }) })
  const incoming = await ask('/v1/certificates')
  incoming.pause()
  role = 'requester'
  await sleep(1_100)
  t.notMatch(await brokenOff(incoming), /"end":/)
})

t.test('a service that stops does not wait for an export, which breaks off', async (t) => {
  const { ask, app, seen } = await served(t, 200)
  const incoming = await ask()
  incoming.pause()
  const closing = app.close()
  t.notMatch(await brokenOff(incoming), /"end":/)
  await closing
  t.same(seen.acts, ['began', 'broke'])
})

t.test('a fault of a later page breaks it off; one of the first is a problem', async (t) => {
  let page = 0
  const failing = (at: number) => async () => ({
    bounds: { size: 7, time: new Date(0) },
    range: { from: 0, before: 7 },
    page: async () => {
      page += 1
      if (page >= at) throw new Problem('db.unavailable', 'The database did not finish.')
      return { items: [event(page)], next: 'more' }
    },
  })
  for (const [at, status] of [
    [1, 503],
    [3, 200],
  ] as const) {
    page = 0
    const { ask, seen } = await served(t, 1, { records: reached({ walk: { events: failing(at) } }) })
    const incoming = await ask()
    t.equal(incoming.statusCode, status)
    if (status === 503) t.match(JSON.parse(await textOf(incoming)), { code: 'db.unavailable' })
    else t.notMatch(await brokenOff(incoming), /"end":/)
    t.same(seen.acts, status === 503 ? ['began'] : ['began', 'broke'])
  }
})

t.test('docs/auditing.md has the columns and the indexes that there are', async (t) => {
  const text = await readFile(new URL('../../docs/auditing.md', import.meta.url), 'utf8')
  const section = (title: string): string => text.split(`\n## ${title}\n`)[1]?.split('\n## ')[0] ?? ''
  const rows = [...section('Exports').matchAll(/^\| (\w+) \| ([\w, ]+) \|$/gm)].map(([, of, names]) => [of, names])
  const told = Object.fromEntries(rows.filter(([of]) => of !== 'of'))
  t.same(Object.keys(told).sort(), ['accesses', 'certificates', 'events', 'refusals'])
  for (const [of, names] of Object.entries(told)) {
    const [header = []] = parseCsv((await get(`/v1/${of}?limit=1`, 'text/csv')).text)
    t.equal(header.join(', '), names, of)
  }
  const { rows: indexes } = await owner.query<{ name: string }>(
    `select relname as name from pg_class where relkind in ('i', 'I')`,
  )
  const known = new Set(indexes.map(({ name }) => name))
  const named = [...section('Which index answers what').matchAll(/`([a-z]+_[a-z_]+)`/g)].map(([, name = '']) => name)
  t.ok(named.length > 10)
  t.same(
    named.filter((name) => !known.has(name)),
    [],
  )
})

/** How long what is public may be kept, and when it is told again: a revocation is unknown for no longer than a minute. */
import t, { type Test } from 'tap'

import { Problem } from '../../src/errors.ts'
import { openPublicApp } from '../../src/http/public/app.ts'
import { ocspErrors } from '../../src/x509/ocsp.ts'
import { openStandIn, reached } from './stand-in.ts'

const now = new Date('2026-11-25T00:00:00.500Z')
const start = new Date('2026-11-24T23:59:00Z')
const endingIn = (milliseconds: number): Date => new Date(now.getTime() + milliseconds)

const open = async (t: Test) => {
  const world = { ends: endingIn(3_600_000), sharesDate: false, cacheable: true, isAway: false, begins: start }
  const { deps } = await openStandIn()
  const der = Buffer.from('some octets')
  const list = () => ({
    der,
    sha256: 'x',
    thisUpdate: world.begins,
    nextUpdate: world.ends,
    sharesDate: world.sharesDate,
  })
  const answer = () =>
    world.cacheable
      ? { der, kind: 'good', cacheable: { thisUpdate: start, nextUpdate: world.ends, tag: '"x"' } }
      : { der: ocspErrors.tryLater, kind: 'tryLater' }
  const issuers = [
    { name: 'new', state: 'active', shards: 4, certificate: der },
    { name: 'old', state: 'retired', shards: 4, certificate: der },
    { name: 'ended', state: 'crl-only', shards: 4, certificate: der },
    { name: 'here', state: 'retired', shards: 2, certificate: der },
  ]
  const app = await openPublicApp({
    ...deps,
    clock: () => now,
    crls: { find: (issuer: string) => (issuer === 'here' ? list() : undefined) },
    crlImports: { find: (path: string) => (path === '/root.crl' ? list() : undefined) },
    ocsp: { knows: (issuer: string) => issuer === 'here', answer },
    records: reached({
      issuers: async () => {
        if (world.isAway) throw new Problem('db.unavailable', 'It is away.', { retryAfter: 1 })
        return issuers
      },
    } as object),
  } as never)
  t.teardown(() => app.close())
  const get = async (url: string, headers: Record<string, string> = {}, method: 'GET' | 'HEAD' = 'GET') => {
    const told = await app.inject({ url, headers, method })
    return { status: told.statusCode, headers: told.headers, octets: told.rawPayload, json: () => told.json() }
  }
  return { world, get }
}

const lists = ['/crl/here/0.crl', '/root.crl']
const question = '/ocsp/here/MAA='

t.test('no cache keeps it for longer than a minute, nor beyond its end', async (t) => {
  const { world, get } = await open(t)
  for (const [left, seconds] of [
    [3_600_000, 60],
    [61_000, 60],
    [59_999, 59],
    [30_500, 30],
    [999, 0],
    [0, 0],
    [-5_000, 0],
  ] as const) {
    world.ends = endingIn(left)
    for (const url of lists)
      t.equal((await get(url)).headers['cache-control'], `public, max-age=${seconds}`, `${url} ${left}`)
    const { headers } = await get(question)
    t.equal(headers['cache-control'], `max-age=${seconds}, public, no-transform, must-revalidate`, `OCSP ${left}`)
    t.equal(headers.expires, world.ends.toUTCString())
  }
})

t.test('an answer that says nothing for good is kept by nobody', async (t) => {
  const { world, get } = await open(t)
  world.cacheable = false
  const { headers } = await get(question)
  t.equal(headers['cache-control'], 'no-store')
  for (const name of ['etag', 'expires', 'last-modified']) t.equal(headers[name], undefined, name)
})

t.test(
  'a date tells of a list that it is unchanged where nothing else has that date, of an answer never',
  async (t) => {
    const { world, get } = await open(t)
    const since = { 'if-modified-since': start.toUTCString() }
    t.equal((await get('/crl/here/0.crl', since)).status, 304)
    const before = { 'if-modified-since': new Date(start.getTime() - 1_000).toUTCString() }
    t.equal((await get('/crl/here/0.crl', before)).status, 200, 'whoever has the one before is given this one')
    t.equal((await get('/root.crl', since)).status, 200, 'people date those of roots, perhaps by the day')
    t.equal((await get(question, since)).status, 200)
    world.sharesDate = true
    const { status, headers } = await get('/crl/here/0.crl', since)
    t.equal(status, 200)
    t.equal(headers['last-modified'], since['if-modified-since'], 'which it has all the same')
    for (const form of ['Tue, 24 Nov 2026 23:59:00', '2026-11-25T00:00:00Z', `x ${start.toUTCString()}`]) {
      world.sharesDate = false
      t.equal((await get('/crl/here/0.crl', { 'if-modified-since': form })).status, 200, `${form} is no date of HTTP`)
    }
  },
)

t.test(
  'a list of after a clock was set back is not told to have changed after its answer (RFC 9110 8.8.2.1)',
  async (t) => {
    const { world, get } = await open(t)
    for (const [ahead, date] of [
      [0, now.toUTCString()],
      [1, undefined],
      [86_400_000, undefined],
    ] as const) {
      world.begins = endingIn(ahead)
      for (const url of lists) {
        const { headers } = await get(url)
        t.equal(headers['last-modified'], date, `${url} ${ahead} ms ahead`)
        t.equal(headers.etag, '"x"', 'by which it is asked for')
      }
      const since = { 'if-modified-since': world.begins.toUTCString() }
      t.equal((await get('/crl/here/0.crl', since)).status, date === undefined ? 200 : 304)
    }
  },
)

t.test('of an answer its tag tells that it is unchanged, and HEAD what GET would say', async (t) => {
  const { get } = await open(t)
  for (const [wanted, status] of [
    ['"x"', 304],
    ['W/"x"', 304],
    [' * ', 304],
    ['"y", "x"', 304],
    ['"y"', 200],
    ['x', 200],
  ] as const)
    for (const method of ['GET', 'HEAD'] as const)
      t.equal((await get(question, { 'if-none-match': wanted }, method)).status, status, `${method} ${wanted}`)
  const { headers } = await get(question, { 'if-none-match': '"x"' }, 'HEAD')
  t.equal(headers['content-length'], String('some octets'.length))
})

t.test('a question in a path may be as long as one that is posted', async (t) => {
  const { get } = await open(t)
  const asked = async (octets: number) => {
    const url = `/ocsp/here/${encodeURIComponent(Buffer.alloc(octets).toString('base64'))}`
    return (await get(url)).headers['content-length']
  }
  t.equal(await asked(4_096), String('some octets'.length))
  t.equal(await asked(4_097), String(ocspErrors.malformedRequest.length))
})

t.test('a list that its issuer is to have is not told to be nowhere, but asked for again', async (t) => {
  const { get } = await open(t)
  for (const name of ['new', 'ended']) {
    const { status, headers, json } = await get(`/crl/${name}/3.crl`)
    t.match([status, headers['retry-after'], json()], [503, '5', { code: 'crl.unavailable' }], name)
  }
  for (const path of ['/crl/new/4.crl', '/crl/old/3.crl', '/crl/nobody/3.crl']) {
    const { status, json } = await get(path)
    t.match([status, json()], [404, { code: 'crl.not_found' }], path)
  }
})

t.test('the files of an issuer that has lists are told, a line each, also while the database is away', async (t) => {
  const { world, get } = await open(t)
  world.isAway = true
  const { status, headers, octets } = await get('/crl/new/')
  t.same([status, octets.toString()], [200, '0.crl\n1.crl\n2.crl\n3.crl\n'])
  t.match(headers, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'public, max-age=60' })
  t.equal((await get('/crl/new/', { 'if-none-match': String(headers.etag) })).status, 304)
  const head = await get('/crl/new/', {}, 'HEAD')
  t.same([head.status, head.headers['content-length'], head.headers.etag], [200, '24', headers.etag])
  t.equal((await get('/crl/ended/')).status, 200)
  t.match((await get('/crl/nobody/')).json(), { status: 503, code: 'db.unavailable' })
  world.isAway = false
  for (const path of ['/crl/old/', '/crl/nobody/'])
    t.match((await get(path)).json(), { status: 404, code: 'crl.not_found' }, path)
})

t.test('those of an issuer that has retired are told as long as its last lists are there', async (t) => {
  const { get } = await open(t)
  t.equal((await get('/crl/here/1.crl')).status, 200)
  t.equal((await get('/crl/here/')).octets.toString(), '0.crl\n1.crl\n')
})

t.test('questions about an issuer that is not open here yet are put off, about any other turned away', async (t) => {
  const { world, get } = await open(t)
  for (const issuer of ['new', 'ended']) {
    const { status, headers, octets } = await get(`/ocsp/${issuer}/MAA=`)
    t.equal(status, 200)
    t.same(octets, ocspErrors.tryLater)
    t.match(headers, { 'content-type': 'application/ocsp-response', 'cache-control': 'no-store' })
  }
  for (const issuer of ['old', 'none']) {
    const { status, json } = await get(`/ocsp/${issuer}/MAA=`)
    t.match({ status, json: json() }, { status: 404, json: { code: 'issuer.not_found' } })
  }
  world.isAway = true
  for (const issuer of ['new', 'old', 'none']) {
    const { status, headers, json } = await get(`/ocsp/${issuer}/MAA=`)
    t.match({ status, json: json() }, { status: 503, json: { code: 'db.unavailable' } }, 'while nobody can look')
    t.match(headers, { 'retry-after': '1', 'cache-control': 'no-store' })
  }
  t.equal((await get(question)).status, 200, 'and who is known here needs no look')
})

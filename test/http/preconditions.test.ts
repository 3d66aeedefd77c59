import t from 'tap'

import { openTestService } from '../helpers/service.ts'

const service = await openTestService(t)

const document = (name: string, hours: number): Record<string, unknown> => ({
  name,
  authority: 'default',
  validity: { default: `${hours}h`, max: '30d' },
  keys: [{ ec: ['P-256'] }],
  subject: { others: 'refuse' },
  names: { dns: { allow: ['*.example.com'] } },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
})

/** So many PUTs of different content at once, under one precondition; resolves to their statuses, sorted. */
const putAtOnce = async (name: string, count: number, headers: Readonly<Record<string, string>>) => {
  const answers = await Promise.all(
    Array.from({ length: count }, (_, i) =>
      service.request('PUT', `/v1/profiles/${name}`, { headers, body: document(name, i + 1) }),
    ),
  )
  return answers.map(({ status }) => status).sort()
}
const versionsOf = async (name: string): Promise<readonly number[]> =>
  (await service.request('GET', `/v1/profiles/${name}/versions`)).json.items.map(
    ({ version }: { version: number }) => version,
  )

t.test('of ten who create the same profile at once, one does', async (t) => {
  const statuses = await putAtOnce('created', 10, { 'if-none-match': '*' })
  t.same(statuses, [201, ...new Array(9).fill(412)])
  t.same(await versionsOf('created'), [1])
})

t.test('of ten who change the version that they have seen at once, one does', async (t) => {
  await putAtOnce('seen', 1, { 'if-none-match': '*' })
  const { headers } = await service.request('GET', '/v1/profiles/seen')
  const body = document('seen', 20)
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, i) =>
      service.request('PUT', '/v1/profiles/seen', {
        headers: { 'if-match': String(headers['etag']) },
        body: { ...body, description: `change ${i}` },
      }),
    ),
  )
  t.same(answers.map(({ status }) => status).sort(), [200, ...new Array(9).fill(412)])
  t.same(await versionsOf('seen'), [2, 1])
})

t.test('ten who change whichever version there is all do, one after the other', async (t) => {
  await putAtOnce('whichever', 1, { 'if-none-match': '*' })
  const statuses = await putAtOnce('whichever', 10, { 'if-match': '*' })
  t.same(statuses, new Array(10).fill(200), 'RFC 9110 13.1.1: * is false only where there is none')
  t.equal((await versionsOf('whichever'))[0], (await versionsOf('whichever')).length, 'without a gap')
})

t.test('a profile that does not exist is no version to change', async (t) => {
  t.same(await putAtOnce('nowhere', 3, { 'if-match': '*' }), [412, 412, 412])
  t.equal((await service.request('GET', '/v1/profiles/nowhere')).status, 404)
})

t.test('If-Match takes a list, of which one must be there, to the letter (RFC 9110 13.1.1)', async (t) => {
  await putAtOnce('listed', 1, { 'if-none-match': '*' })
  const there = async () => String((await service.request('GET', '/v1/profiles/listed')).headers['etag'])
  const tag = await there()
  const other = `"${'0'.repeat(64)}"`
  for (const list of [`W/${tag}`, `W/${tag}, ${other}`, `"x", ${other}`, `${tag} x`, `x ${tag}`, `"x`, `"x${tag}`, ','])
    t.same(await putAtOnce('listed', 2, { 'if-match': list }), [412, 412], list)
  t.equal(await there(), tag)
  for (const [i, list] of [`"x", IT`, `"${'0'.repeat(64)}" ,,W/"a,b" ,IT,`, 'IT'].entries()) {
    const headers = { 'if-match': list.replace('IT', await there()) }
    const { status } = await service.request('PUT', '/v1/profiles/listed', {
      headers,
      body: document('listed', 10 + i),
    })
    t.equal(status, 200, list)
  }
})

t.test('what a proxy that compresses makes of an ETag matches nothing, and is told so', async (t) => {
  const [name, first] = ['squeezed', document('squeezed', 1)]
  const put = (headers: Readonly<Record<string, string>>) =>
    service.request('PUT', `/v1/profiles/${name}`, { headers, body: first })
  const made = await put({ 'if-none-match': '*' })
  const got = await service.request('GET', `/v1/profiles/${name}`)
  t.equal(made.headers['cache-control'], 'no-store, no-transform', 'RFC 9110 8.8.1')
  t.equal(got.headers['cache-control'], 'private, no-cache, no-transform')
  const tag = String(got.headers['etag'])
  t.equal(tag, `"${got.json.sha256}"`, 'as is said then')
  t.match(
    (await put({ 'if-match': '"x"' })).json.next,
    'send its new sha256, in quotes',
    'an ETag might be changed again',
  )
  const detail = (list: string) => put({ 'if-match': list }).then(({ status, json }) => `${status} ${json.detail}`)
  const told =
    '412 If-Match holds no ETag of any profile, but one as a proxy makes it that compresses answers: send the sha256 of the version in quotes.'
  for (const suffix of ['-gzip', '--gzip', ';br']) t.equal(await detail(tag.replace(/"$/, `${suffix}"`)), told, suffix)
  for (const changed of [`W/${tag}`, `"x", W/${tag}`, `W/${tag.replace(/"$/, '-zstd"')}`])
    t.equal(await detail(changed), told, changed)
  for (const other of ['"x"', `${tag} x`, tag.replaceAll('"', ''), tag.replace(/"$/, '0"')])
    t.equal(await detail(other), '412 If-Match holds no ETag of any profile.', `${other}: no proxy did that`)
})

t.test('nothing is changed in spite of a condition that its call does not read (RFC 9110 13.1.1, 14.5)', async (t) => {
  await service.request('POST', '/v1/principals', { body: { name: 'kept' } })
  const { id } = (await service.request('POST', '/v1/tokens', { body: { principal: 'kept', label: 'kept' } })).json
  const fields = { 'if-match': '"x"', 'if-none-match': '*', 'content-range': 'bytes 0-1/2' }
  for (const [name, value] of Object.entries(fields)) {
    const headers = { [name]: value }
    const detail = new RegExp(`^This call does not heed ${name}: send it without[.]$`, 'i')
    const refused = { status: 400, json: { code: 'request.malformed', detail } }
    t.match(await service.request('DELETE', `/v1/tokens/${id}`, { headers }), refused)
    t.match(await service.request('DELETE', '/v1/principals/kept', { headers }), refused)
    t.match(await service.request('POST', '/v1/principals', { headers, body: { name: 'other' } }), refused)
  }
  const headers = { 'if-match': '*', 'content-range': fields['content-range'] }
  t.match(await service.request('PUT', '/v1/profiles/seen', { headers, body: document('seen', 30) }), { status: 400 })
  t.match((await service.request('GET', '/v1/principals/kept')).json, { disabledAt: null })
  const { items } = (await service.request('GET', '/v1/tokens?principal=kept', { headers: { 'if-match': '"x"' } })).json
  t.match(items, [{ id, revokedAt: null }], 'a read hangs on nothing')
  t.equal((await service.request('HEAD', '/v1/tokens', { headers: { 'if-match': '"x"' } })).status, 200)
  t.equal((await service.request('GET', '/v1/principals/other')).status, 404)
})

import t from 'tap'

import { openTestService } from '../helpers/service.ts'
import { csrFor } from './people.ts'

const service = await openTestService(t)

/** Every GET that there is, of something that is there. */
const openUrls = async (): Promise<readonly string[]> => {
  const body = { csr: csrFor('web.example.com'), profile: 'server' }
  const { serial } = (await service.request('POST', '/v1/certificates', { body })).json
  const { paths = {} } = service.service.app.swagger() as { paths?: Record<string, Record<string, unknown>> }
  return Object.keys(paths)
    .filter((path) => paths[path]?.['get'])
    .map((path) =>
      path
        .replace('{serial}', serial)
        .replace('{version}', '1')
        .replace('{code}', 'csr.pem')
        .replace('{path}', '0/000.p/1')
        .replace(/(authorities|issuers)\/\{name\}/, '$1/default')
        .replace('principals/{name}', 'principals/admin')
        .replace('{name}', 'server')
        // Others may come in between.
        .replace(/events$/, 'events?limit=1'),
    )
}

/** A proof that is longer by now is of a roll that has grown between the two. */
const atRest = async (url: string) => {
  for (let tries = 1; ; tries += 1) {
    const [get, head] = [await service.request('GET', url), await service.request('HEAD', url)]
    if (!url.endsWith('/proof') || tries === 5) return [get, head] as const
    if ((await service.request('GET', url)).text === get.text) return [get, head] as const
  }
}

t.test('HEAD is answered wherever GET is, with its header fields and without its body (RFC 9110 9.3.2)', async (t) => {
  const urls = await openUrls()
  t.ok(urls.length > 15)
  const more = [
    '/openapi.json',
    '/docs/',
    '/v1/certificates?limit=0',
    `/v1/certificates/${'4a'.repeat(16)}`,
    '/nowhere',
  ]
  for (const url of [...urls, ...more]) {
    const [get, head] = await atRest(url)
    t.equal(head.status, get.status, url)
    t.equal(head.text, '', `${url} has no body`)
    // What is measured has moved on in between, and so have those who looked.
    const passing = [
      'date',
      'x-request-id',
      'link',
      ...(['/metrics', '/v1/accesses'].includes(url) ? ['content-length'] : []),
    ]
    const lasting = ({ headers }: typeof get) =>
      Object.fromEntries(Object.entries(headers).filter(([name]) => !passing.includes(name)))
    t.same(lasting(head), lasting(get), url)
    t.same(Object.keys(head.headers).sort(), Object.keys(get.headers).sort(), url)
  }
  const csv = await service.request('HEAD', '/v1/certificates', { headers: { accept: 'text/csv' } })
  t.match(csv.headers['content-type'], /^text\/csv/)
  t.equal((await service.request('HEAD', '/v1/events', { token: null })).status, 401)

  const file = `${service.publicUrl}/issuers/default.cer`
  const [get, head] = [await fetch(file), await fetch(file, { method: 'HEAD' })]
  for (const name of ['etag', 'content-type', 'content-length', 'cache-control'])
    t.equal(head.headers.get(name), get.headers.get(name), name)
  const tag = get.headers.get('etag') ?? ''
  const unchanged = await fetch(file, { method: 'HEAD', headers: { 'if-none-match': tag } })
  t.equal(unchanged.status, 304)
  t.equal(unchanged.headers.get('content-length'), get.headers.get('content-length'), 'as RFC 9110 8.6 has it')
  t.equal((await fetch(`${service.publicUrl}/nowhere`, { method: 'HEAD' })).status, 404)
})

t.test('whoever names the tag that an answer has is told that it is the same, wherever there is one', async (t) => {
  const tagged: string[] = []
  for (const url of await openUrls()) {
    const { headers } = await service.request('GET', url)
    const tag = headers['etag']
    if (tag === undefined) continue
    tagged.push(url.split('/').slice(1, 3).join('/'))
    for (const wanted of [tag, '*', `"x", W/${tag}`] as string[]) {
      const get = await service.request('GET', url, { headers: { 'if-none-match': wanted } })
      t.match(get, { status: 304, text: /^$/, headers: { etag: tag } }, `${url} ${wanted}`)
      t.match(get.headers['cache-control'], /no-cache|immutable/, 'it may be kept for that')
      const head = await service.request('HEAD', url, { headers: { 'if-none-match': wanted } })
      t.match(head, { status: 304, headers: { 'content-length': headers['content-length'] } }, 'as RFC 9110 8.6 has it')
    }
    t.equal((await service.request('GET', url, { headers: { 'if-none-match': '"x"' } })).status, 200)
  }
  const calls = ['roll/tile', 'v1/authorities', 'v1/certificates', 'v1/certificates', 'v1/profiles', 'v1/profiles']
  t.same(tagged.sort(), calls)
})

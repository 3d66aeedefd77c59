/** Bodies of requests as plain data, or as a problem that says what is wrong. */
import fastify from 'fastify'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { addParsers } from '../../src/http/bodies.ts'
import type { App } from '../../src/http/fastify.ts'

const app = fastify()
app.setErrorHandler((error, _request, reply) =>
  reply.code(422).send(isProblem(error) ? `${error.code}: ${error.detail}` : 'unknown'),
)
addParsers(app as unknown as App)
app.post('/', async ({ body }) => ({ body }))
t.teardown(() => app.close())

const send = async (type: 'json' | 'yaml', body: string | Buffer): Promise<string> =>
  (await app.inject({ method: 'POST', url: '/', headers: { 'content-type': `application/${type}` }, body })).body

t.test('JSON and YAML come out as the same plain data', async (t) => {
  const text = JSON.stringify({ body: { name: 'server', keys: [{ ec: ['P-256'] }], n: 3 } })
  t.equal(await send('json', '{"name":"server","keys":[{"ec":["P-256"]}],"n":3}'), text)
  t.equal(await send('yaml', 'name: server\nkeys: [ { ec: [P-256] } ]\nn: 3\n'), text)
})

t.test('what cannot be parsed is a problem of the request', async (t) => {
  for (const [type, body, found] of [
    ['json', '{', /^request\.malformed: The body is not JSON\.$/],
    ['json', Buffer.from([0x22, 0xff, 0x22]), /^request\.malformed: The body is not UTF-8\.$/],
    ['json', '-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n', /^csr\.key_material/],
    ['yaml', 'a: [', /^request\.malformed: The body is not plain YAML: /],
    ['yaml', 'a: 1\na: 2\n', /keys must be unique/],
    ['yaml', 'a: &x 1\nb: *x\n', /has an alias, which is not taken/],
    ['yaml', 'a: !!set {}\n', /Unresolved tag/],
    ['yaml', '['.repeat(16_000), /^request\.malformed/],
    ['yaml', 'a: 1\n---\nb: 1\n', /multiple documents/],
    ['yaml', 'x'.repeat(16 * 1024 + 1), /^request\.too_large/],
  ] as const)
    t.match(await send(type, body), found, String(body).slice(0, 30))
})

t.test('JSON that nests deeper than any schema is a problem of the request', async (t) => {
  t.match(
    await send('json', '['.repeat(10_000) + ']'.repeat(10_000)),
    /^request\.malformed: The body nests deeper than 16\.$/,
  )
})

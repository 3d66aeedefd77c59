import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as nextRound } from 'node:timers/promises'

import fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'

import { columnsOf, encodeCsv, type Row } from '../../src/http/api/csv.ts'
import { sendPage } from '../../src/http/api/page.ts'
import { sendPieces } from '../../src/http/pieces.ts'

/** As many and as large as the refusals of a page can be. */
const rows: readonly Row[] = Array.from({ length: 1_000 }, (_, i) => ({ id: i, checks: `ä${'x'.repeat(16_000)}` }))

const columns = columnsOf(['id', 'checks'])

const serve = async (t: Test, routes: (app: FastifyInstance) => void): Promise<string> => {
  const app = fastify({ exposeHeadRoutes: true })
  routes(app)
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
}

const pages = (t: Test) =>
  serve(t, (app) => {
    app.decorateRequest('pattern', '')
    app.get('/large', (request, reply) => sendPage(request, reply, { items: rows, columns, next: 'c' }))
    app.get('/small', (request, reply) => sendPage(request, reply, { items: rows.slice(0, 2), columns }))
  })

t.test('a large page is the same page, in every form, and others have their turn while it is sent', async (t) => {
  const url = await pages(t)
  const get = (path: string, accept: string) => fetch(`${url}${path}`, { headers: { accept } })
  let rounds = 0
  let sending = true
  const counted = (async () => {
    for (; sending; rounds += 1) await nextRound()
  })()
  const json = await get('/large', 'application/json')
  t.same(await json.json(), { items: rows, next: 'c' })
  sending = false
  await counted
  t.ok(rounds > 150, `${rounds} rounds of the loop`)
  t.equal(json.headers.get('transfer-encoding'), 'chunked')
  t.match(json.headers.get('content-type'), /^application\/json/)
  t.match(json.headers.get('link'), /cursor=c>; rel="next"/)

  const lines = (await (await get('/large', 'application/x-ndjson')).text()).split('\n')
  t.same(
    lines.slice(0, -1).map((line) => JSON.parse(line)),
    rows,
  )
  const csv = await get('/large', 'text/csv')
  t.equal(await csv.text(), encodeCsv(rows, columns))
  t.equal(csv.headers.get('content-type'), 'text/csv; charset=utf-8; header=present')
  const head = await fetch(`${url}/large`, { method: 'HEAD' })
  t.match(head.headers.get('link'), /rel="next"/)
  t.equal(await head.text(), '')
})

t.test('a small page goes with its length', async (t) => {
  const url = await pages(t)
  const response = await fetch(`${url}/small`)
  const text = await response.text()
  t.same(JSON.parse(text), { items: rows.slice(0, 2) })
  t.equal(response.headers.get('content-length'), String(Buffer.byteLength(text)))
  t.equal(response.headers.get('transfer-encoding'), null)
})

t.test('nothing at all is an empty body', async (t) => {
  const url = await serve(t, (app) => {
    app.get('/', (_request, reply) => sendPieces(reply, []))
  })
  t.equal(await (await fetch(url)).text(), '')
})

t.test('no more is made than the client takes, and nothing any more once it has left', async (t) => {
  let made = 0
  const ended = Promise.withResolvers<void>()
  const url = await serve(t, (app) => {
    app.get('/', (_request, reply) =>
      sendPieces(
        reply,
        (function* () {
          try {
            for (; made < 10_000; made += 1) yield 'x'.repeat(65_536)
          } finally {
            ended.resolve()
          }
        })(),
      ),
    )
  })
  const request = httpRequest(url).end()
  const [response] = await once(request, 'response')
  await once(response, 'readable')
  for (let before = -1; before !== made; await new Promise((resolve) => setTimeout(resolve, 50))) before = made
  t.ok(made < 1_000, `${made} pieces for a client that does not read`)
  request.destroy()
  await ended.promise
  t.ok(made < 1_000)
  t.equal((await fetch(`${url}/other`)).status, 404, 'others are served')
})

t.test('a fault half way never looks like an end', async (t) => {
  const url = await serve(t, (app) => {
    app.get('/', (_request, reply) =>
      sendPieces(
        reply,
        (function* () {
          for (let i = 0; i < 10; i += 1) yield 'x'.repeat(65_536)
          throw new Error('no more')
        })(),
      ),
    )
  })
  const response = await fetch(url)
  t.equal(response.status, 200)
  await t.rejects(response.text())
})

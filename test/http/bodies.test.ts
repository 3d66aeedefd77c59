/** When bodies are parsed: what is in them is for test/http/json.test.ts. */
import { setTimeout as sleep } from 'node:timers/promises'

import fastify from 'fastify'
import t from 'tap'

import { addParsers } from '../../src/http/bodies.ts'
import { batchBodyLimit, batchPath, bodyLimit } from '../../src/http/bounds.ts'
import type { App } from '../../src/http/fastify.ts'

t.test('a large body is parsed when it has its turn, and what is no larger than others at once', async (t) => {
  const turns: (() => void)[] = []
  const app = fastify({ bodyLimit: batchBodyLimit })
  app.decorateRequest('pattern', '')
  app.addHook('onRequest', async (request) => {
    request.pattern = request.routeOptions.url ?? ''
  })
  addParsers(app as unknown as App, () => new Promise((resolve) => turns.push(resolve)))
  app.post(batchPath, async ({ body }) => (body as unknown[]).length)
  t.teardown(() => app.close())
  const send = async (octets: number): Promise<string> => {
    const body = JSON.stringify(['a'.repeat(octets - 4)])
    const headers = { 'content-type': 'application/json' }
    return (await app.inject({ method: 'POST', url: batchPath, headers, body })).body
  }

  t.equal(await send(bodyLimit), '1')
  t.equal(turns.length, 0)
  let parsed = 0
  const both = [send(bodyLimit + 1), send(batchBodyLimit)].map((sent) => sent.finally(() => (parsed += 1)))
  while (turns.length < 2) await sleep(1)
  t.equal(parsed, 0)
  turns.shift()?.()
  t.equal(await Promise.race(both), '1')
  t.equal(parsed, 1)
  turns.shift()?.()
  t.same(await Promise.all(both), ['1', '1'])
})

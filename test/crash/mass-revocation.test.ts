/**
 * An order to revoke many, whose instance is killed half-way. By default of a few thousand certificates;
 * `CHANCERY_MASS_CERTIFICATES=100000` makes it as many as anybody likes.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import pg from 'pg'
import t, { type Test } from 'tap'

import { openTestDatabase } from '../helpers/database.ts'
import { fill, nameOf } from '../helpers/filling.ts'
import { type Instance, startInstance } from '../helpers/instance.ts'
import { massFacts } from '../helpers/mass.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'

const certificates = Number(process.env['CHANCERY_MASS_CERTIFICATES'] ?? 6_000)

t.setTimeout(600_000)

const openPlace = async (t: Test) => {
  const database = await openTestDatabase({ teardown: () => {} })
  const data = await mkdtemp(join(tmpdir(), 'chancery-mass-'))
  const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()])
  const started: Instance[] = []
  const start = async (i: 0 | 1): Promise<Instance> => {
    const instance = startInstance({
      data,
      port: ports[i],
      publicPort: ports[i === 0 ? 2 : 3],
      servingUrl: database.servingUrl,
      ownerUrl: database.ownerUrl,
    })
    started.push(instance)
    await instance.ready()
    return instance
  }
  const owner = new pg.Client({ connectionString: database.ownerUrl })
  await owner.connect()
  t.teardown(async () => {
    for (const instance of started) instance.signal('SIGKILL')
    await Promise.all(started.map(({ exited }) => exited))
    await owner.end()
    await database.close()
    await rm(data, { recursive: true, force: true })
  })
  const call = async (
    i: 0 | 1,
    method: string,
    path: string,
    body?: object,
  ): Promise<{ status: number; json: never }> =>
    send({
      port: ports[i],
      ca: await readFile(join(data, 'root.pem'), 'utf8'),
      token: (await readFile(join(data, 'admin.token'), 'utf8')).trim(),
      ...{ method, path, body },
    })
  const count = async (text: string): Promise<number> => (await owner.query<{ n: number }>(text)).rows[0]?.n ?? -1
  return { start, call, owner, count, database }
}

interface Call {
  readonly port: number
  readonly ca: string
  readonly token: string
  readonly method: string
  readonly path: string
  readonly body: object | undefined
}

const send = ({ port, ca, token, method, path, body }: Call): Promise<{ status: number; json: never }> =>
  new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) }
    const agent = new Agent({ keepAlive: false })
    const outgoing = request({ host: '127.0.0.1', port, ca, method, path, headers, agent }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, json: JSON.parse(text) as never }))
    })
    outgoing.on('error', reject)
    outgoing.end(body && JSON.stringify(body))
  })

/** An order of all of them, given to the first instance. */
const openOrder = async (t: Test) => {
  const place = await openPlace(t)
  const first = await place.start(0)
  await place.call(0, 'POST', '/v1/grants', { principal: 'admin', role: 'operator' })
  /** On a machine that is busy the first may be told to come again. */
  const issue = async (name: string) => {
    for (;;) {
      const answer = await place.call(0, 'POST', '/v1/certificates', { csr: csrFor(name), profile: 'server' })
      if (answer.status === 201) return answer
      t.comment(JSON.stringify(answer.json))
      if (answer.json['retryable'] !== true) throw new Error(`no certificate for ${name}`)
      await pause(200)
    }
  }
  const made = await issue(nameOf(0))
  const beside = await issue('beside.example.com')
  await fill(place.owner, { serial: made.json['serial'], first: 1, last: certificates - 1 })
  const ask = { search: { profile: 'server', issuedAfter: '2026-01-01T00:00:00Z' }, reason: 'superseded' }
  const revoked = `select count(*)::integer as n from revocations where change = 'revoked'`
  const order = async (): Promise<string> => {
    const { digest, asOf } = (await place.call(0, 'POST', '/v1/revocations', ask)).json as Record<string, string>
    const ordered = await place.call(0, 'POST', '/v1/revocations', { ...ask, digest, asOf })
    t.equal(ordered.status, 202)
    return digest as string
  }
  /** Resolves when so many have been revoked. */
  const until = async (n: number): Promise<number> => {
    for (;;) {
      const found = await place.count(revoked)
      if (found >= n) return found
      await pause(5)
    }
  }
  const done = async (i: 0 | 1, digest: string): Promise<Record<string, unknown>> => {
    for (;;) {
      const { json } = await place.call(i, 'GET', `/v1/revocations/${digest}`)
      if (json['state'] === 'done') return json
      await pause(100)
    }
  }
  return { ...place, first, beside: beside.json['serial'] as string, order, until, done, revoked }
}

// One more than were filled in: the one beside them has the same profile.
const planned = certificates + 1
const exactly = {
  ...{ planned, revoked: planned, passed: 0, rows: planned, once: planned, events: planned },
  ...{ twice: 0, others: 0, unlike: 0, done: 1 },
}

slowTest(
  'killed half-way, resumed by another instance: each certificate of the plan once, and none else',
  async (t) => {
    const { start, first, order, until, done, database, count, revoked } = await openOrder(t)
    const began = performance.now()
    const digest = await order()
    await until(planned / 2)
    first.signal('SIGKILL')
    await first.exited
    const half = await count(revoked)
    t.ok(half >= planned / 2 && half < planned, `${half} of ${planned} at the kill`)
    t.match(await massFacts(database.ownerUrl, digest), { rows: half, revoked: half, twice: 0, unlike: 0, done: 0 })
    await start(1)
    const report = await done(1, digest)
    t.comment(
      `${planned} certificates, killed at ${half}, done after ${((performance.now() - began) / 1000).toFixed(1)} s`,
    )
    t.match(report, { state: 'done', total: planned, revoked: planned, skipped: { expired: 0, revoked: 0 } })
    t.match(await massFacts(database.ownerUrl, digest), exactly)
  },
)

slowTest('two instances: where the one at work is killed, the other takes over within seconds', async (t) => {
  const { start, first, order, until, done, database } = await openOrder(t)
  const second = await start(1)
  // So that it is the first that has the lease.
  second.signal('SIGSTOP')
  const digest = await order()
  await until(1)
  second.signal('SIGCONT')
  const half = await until(planned / 3)
  first.signal('SIGKILL')
  await first.exited
  const killed = performance.now()
  await until(half + 300)
  const idle = performance.now() - killed
  t.comment(`went on ${(idle / 1000).toFixed(1)} s after the kill`)
  t.ok(idle < 30_000, 'without anybody doing anything')
  t.match(await done(1, digest), { revoked: planned })
  t.match(await massFacts(database.ownerUrl, digest), exactly)
  second.signal('SIGTERM')
  t.equal(await second.exited, 0)
})

slowTest('an instance that stops hands over at once, and does not wait for the whole order', async (t) => {
  const { start, first, order, until, done, database, count, revoked } = await openOrder(t)
  const second = await start(1)
  second.signal('SIGSTOP')
  const digest = await order()
  await until(planned / 4)
  second.signal('SIGCONT')
  const stopped = performance.now()
  first.signal('SIGTERM')
  t.equal(await first.exited, 0)
  t.comment(`stopped after ${((performance.now() - stopped) / 1000).toFixed(1)} s, at ${await count(revoked)}`)
  t.match(await done(1, digest), { revoked: planned })
  t.match(await massFacts(database.ownerUrl, digest), exactly)
})

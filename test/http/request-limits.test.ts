/** Limits of requests of a principal: two replicas together, within the bound that docs/identities.md names. */
import { once } from 'node:events'
import { Agent, request as httpsRequest } from 'node:https'

import t, { type Test } from 'tap'

import type { Limits } from '../../src/policy/limits.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSql } from '../helpers/sql.ts'
import { openHoldersOf } from './holders.ts'
import { csrFor, employ } from './people.ts'

const one = await openTestService(t)
const two = await openTestService(t, {}, one)
const replicas: readonly TestService[] = [one, two]
const db = await openSql(t, one.database.ownerUrl)

const requester = (name: string, limits: Limits) => employ(one, name, 'requester', { profiles: ['server'], limits })

const look = (service: TestService, token: string): Promise<Answer> =>
  service.request('GET', '/v1/authorities', { token })

/** A call whose body does not come yet: once it is let in, it is under way until it is ended. */
const linger = (t: Test, { url, ca }: TestService, token: string) => {
  const agent = new Agent({ ca })
  t.teardown(() => agent.destroy())
  const body = JSON.stringify({ csr: 'x', profile: 'server' })
  const call = httpsRequest(new URL('/v1/certificates', url), {
    agent,
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      'content-length': String(body.length),
    },
  })
  call.on('error', () => {})
  call.flushHeaders()
  const answered = once(call, 'response').then(([response]) => {
    response.resume()
    return response.statusCode as number
  })
  answered.catch(() => {})
  return {
    answered,
    end: () => {
      call.end(body)
      return answered
    },
    abort: () => call.destroy(),
  }
}

/** Resolves when it answers so, which may take until another instance knows. */
const until = async (status: number, ask: () => Promise<Answer>): Promise<Answer> => {
  for (let tries = 0; ; tries += 1) {
    const answer = await ask()
    if (answer.status === status || tries === 60) return answer
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

slowTest('requests a second hold for both replicas together, and are not lost between them', async (t) => {
  const rate = 20
  const token = await requester('hasty', { requestsPerSecond: rate })
  const began = performance.now()
  const counted = { in: 0, refused: 0 }
  let refused: Answer | undefined
  const worker = async (service: TestService): Promise<void> => {
    // Longer where the machine is too busy to ask so much as would be refused.
    while (performance.now() - began < 2_500 || refused === undefined) {
      const answer = await look(service, token)
      if (answer.status === 200) counted.in += 1
      else {
        counted.refused += 1
        refused = answer
      }
    }
  }
  await Promise.all([...replicas, ...replicas, ...replicas].map(worker))
  const seconds = (performance.now() - began) / 1000
  t.ok(counted.in <= rate * (seconds + 2), `${counted.in} in ${seconds} s`)
  t.ok(counted.in >= rate, `${counted.in} were let in`)
  t.ok(counted.refused > 0, 'more were asked than were let in')
  t.match(refused, { status: 429, json: { code: 'limit.requests', retryable: true, retryAfter: 1 } })
  t.match(refused?.json.limit, { name: 'requestsPerSecond', value: rate, freesAt: String })
  t.equal(refused?.headers['retry-after'], '1')
  t.equal((await until(200, () => look(one, token))).status, 200, 'a moment later it goes on')
})

slowTest('whoever asks no faster than its limit is never refused, whichever replica it asks', async (t) => {
  const token = await requester('steady', { requestsPerSecond: 50, concurrent: 1 })
  for (let i = 0; i < 30; i += 1) {
    const answer = await look(replicas[i % 2] as TestService, token)
    t.equal(answer.status, 200, answer.text)
  }
})

t.test('the smallest limit of all grants of a principal holds, and other principals have their own', async (t) => {
  const token = await requester('twice', { requestsPerSecond: 1000 })
  await one.request('POST', '/v1/grants', {
    body: { principal: 'twice', role: 'auditor', limits: { requestsPerSecond: 1 } },
  })
  const other = await requester('neighbour', { requestsPerSecond: 1000 })
  const answers = await Promise.all(Array.from({ length: 12 }, () => look(one, token)))
  const refused = answers.filter(({ status }) => status === 429)
  t.ok(refused.length >= 8, `${refused.length} of 12`)
  t.equal(refused[0]?.json.limit.value, 1)
  for (const { status } of await Promise.all(Array.from({ length: 12 }, () => look(one, other)))) t.equal(status, 200)
})

t.test('requests in progress are limited to the share of each instance, and one that ends makes room', async (t) => {
  const token = await requester('wide', { concurrent: 4 })
  const calls = [one, one, two, two].map((service) => linger(t, service, token))
  for (const service of replicas) {
    const answer = await until(429, () => look(service, token))
    t.match(answer, { status: 429, json: { code: 'limit.concurrent', retryable: true } })
    t.match(answer.json.limit, { name: 'concurrent', value: 4 })
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }
  for (const call of calls) t.equal(await call.end(), 400)
  for (const service of replicas) t.equal((await look(service, token)).status, 200)
})

t.test('a batch counts its items as requests, and has no more under way than it may', async (t) => {
  const token = await requester('bulk', { requestsPerSecond: 4, concurrent: 2 })
  const items = Array.from({ length: 12 }, () => ({ csr: csrFor('a.example.com'), profile: 'server' }))
  const answer = await one.request('POST', '/v1/certificates/batch', { token, body: { items } })
  t.equal(answer.status, 200, answer.text)
  const codes: string[] = answer.json.items.map(({ problem }: { problem?: { code: string } }) => problem?.code ?? '201')
  t.ok(codes.includes('201') && codes.includes('limit.requests'), codes.join(' '))
  const limited = codes.filter((code) => code === 'limit.requests').length
  t.equal(codes.filter((code) => code === '201').length + limited, 12)
})

t.test('whoever holds a certificate has the limits of all grants of its principal', async (t) => {
  const token = await employ(one, 'holding', 'requester', { profiles: ['server'] })
  await one.request('POST', '/v1/grants', {
    body: { principal: 'holding', role: 'auditor', limits: { requestsPerSecond: 1 } },
  })
  const { hold, issue } = openHoldersOf(one)
  const mine = await issue(['a.example.com'], { token })
  const connection = hold(t, mine)
  const info = () => connection.request('GET', `/v1/certificates/${mine.serial}/renewal-info`, { token: null })
  const statuses: number[] = []
  for (let i = 0; i < 12; i += 1) statuses.push((await info()).status)
  t.ok(statuses.includes(429), statuses.join(' '))
})

t.test('an instance seen at a time to come is dropped once its clock was set back', async (t) => {
  const gone = '00000000-0000-4000-8000-000000000001'
  await db.query(`insert into replicas values ($1, now() + interval '1 hour')`, [gone])
  await db.query('select note_replica(gen_random_uuid())')
  t.same((await db.query('select from replicas where id = $1', [gone])).rows, [])
})

t.test('what was refused is a metric, by its limit', async (t) => {
  const { text } = await one.request('GET', '/metrics')
  for (const limit of ['requestsPerSecond', 'concurrent'])
    t.match(text, new RegExp(`^chancery_limited_total\\{limit="${limit}"\\} [1-9]`, 'm'))
})

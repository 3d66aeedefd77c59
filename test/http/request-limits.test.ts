/** Limits of requests of a principal: two replicas together, within the bound that docs/identities.md names. */
import { once } from 'node:events'
import { Agent, request as httpsRequest } from 'node:https'

import t, { type Test } from 'tap'

import type { Limits } from '../../src/policy/limits.ts'
import { drill } from '../helpers/drill.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
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

/** Resolves when so many of a principal's are leased, on all instances; null: none. */
const underWay = async (principal: string, count: number | null): Promise<void> => {
  for (;;) {
    const { rows } = await db.query('select sum(slots)::integer as n from slot_leases where principal = $1', [
      principal,
    ])
    if (rows[0].n === count) return
    await new Promise((resolve) => setTimeout(resolve, 20))
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

drill('requests a second hold for both replicas together, and are not lost between them', async (t) => {
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

drill('whoever asks no faster than its limit is never refused, whichever replica it asks', async (t) => {
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

t.test('requests under way hold for both replicas together', async (t) => {
  const token = await requester('wide', { concurrent: 3 })
  const calls = [one, two, one].map((service) => linger(t, service, token))
  await underWay('wide', 3)
  for (const service of replicas) {
    const answer = await look(service, token)
    t.match(answer, { status: 429, json: { code: 'limit.concurrent', retryable: true } })
    t.match(answer.json.limit, { name: 'concurrent', value: 3 })
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }
  const [first] = calls
  t.equal(await first?.end(), 400, 'one has ended')
  for (const service of [two, one]) t.equal((await until(200, () => look(service, token))).status, 200)
  for (const call of calls.slice(1)) await call.end()
})

t.test('many at once are let in up to the limit, exactly', async (t) => {
  const token = await requester('crowded', { concurrent: 5 })
  const calls = Array.from({ length: 12 }, (_, i) => linger(t, replicas[i % 2] as TestService, token))
  const refused = new Set<object>()
  await new Promise<void>((resolve) => {
    for (const call of calls)
      void call.answered.then((status) => {
        if (status === 429 && refused.add(call).size === 7) resolve()
      })
  })
  await underWay('crowded', 5)
  for (const service of replicas) t.equal((await look(service, token)).status, 429)
  t.equal(refused.size, 7)
  for (const call of calls.filter((call) => !refused.has(call))) t.equal(await call.end(), 400)
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

t.test('where the shares cannot be had, whoever has limits is told to come back, and nobody else', async (t) => {
  const tokens = {
    rate: await requester('unlucky', { requestsPerSecond: 10 }),
    slots: await requester('unlucky-too', { concurrent: 10 }),
    free: await employ(one, 'free', 'requester', { profiles: ['server'] }),
  }
  const away = async (): Promise<void> => {
    await db.query('alter table rate_buckets rename to rate_buckets_away')
    await db.query('alter table slot_leases rename to slot_leases_away')
  }
  const back = async (): Promise<void> => {
    await db.query('alter table if exists rate_buckets_away rename to rate_buckets')
    await db.query('alter table if exists slot_leases_away rename to slot_leases')
  }
  await away()
  t.teardown(back)
  for (const token of [tokens.rate, tokens.slots]) {
    const answer = await look(one, token)
    t.match(answer, { status: 503, json: { code: 'limit.unavailable', retryable: true } })
    t.ok(answer.headers['retry-after'])
  }
  t.equal((await look(one, tokens.free)).status, 200)
  await back()
  for (const token of [tokens.rate, tokens.slots]) t.equal((await look(one, token)).status, 200)
})

t.test('an instance that goes leaves what it had to the others', async (t) => {
  const third = await openTestService(t, {}, one)
  const token = await requester('mover', { concurrent: 1 })
  const call = linger(t, third, token)
  await underWay('mover', 1)
  t.equal((await look(two, token)).status, 429)
  call.abort()
  await third.close()
  t.equal((await until(200, () => look(two, token))).status, 200)
})

t.test('who has nothing under way any more holds nothing that others could use', async (t) => {
  const token = await requester('broad', { concurrent: 64 })
  t.equal((await look(one, token)).status, 200)
  await underWay('broad', null)
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

t.test('what nobody has touched for a while is forgotten', async (t) => {
  const token = await requester('away', { requestsPerSecond: 5 })
  t.equal((await look(one, token)).status, 200)
  await db.query(`update rate_buckets set at = at - interval '2 minutes' where principal = 'away'`)
  const crashed = '00000000-0000-4000-8000-000000000000'
  await db.query(
    `insert into slot_leases values ('away', $1, 1, now() - interval '2 minutes'), ('here', $1, 1, now())`,
    [crashed],
  )
  await db.query('insert into rate_buckets values ($1, 1, now())', ['here'])
  await db.query('select note_replica($1), forget_replica(gen_random_uuid())', [crashed])
  for (const table of ['rate_buckets', 'slot_leases']) {
    const { rows } = await db.query(`select principal from ${table} where principal in ('away', 'here')`)
    t.same(rows, [{ principal: 'here' }], table)
  }
  await db.query('select forget_replica($1)', [crashed])
  await db.query(`select take_rate('away', 5, 1)`)
})

t.test('what was dated ahead by a clock that was set back holds nobody up', async (t) => {
  const rate = await requester('early', { requestsPerSecond: 5 })
  const slots = await requester('earlier', { concurrent: 1 })
  const gone = '00000000-0000-4000-8000-000000000001'
  t.equal((await look(one, rate)).status, 200)
  await db.query(`update rate_buckets set tokens = 0, at = at + interval '1 hour' where principal = 'early'`)
  t.equal((await until(200, () => look(two, rate))).status, 200, 'its bucket fills from now on')

  await db.query(`insert into slot_leases values ('earlier', $1, 1, now() + interval '1 hour')`, [gone])
  t.equal((await look(one, slots)).status, 429, 'an instance that lives has not lost what it has')
  const lasting = `select from slot_leases where principal = 'earlier' and until > now() + interval '10 seconds'`
  t.same((await db.query(lasting)).rows, [], 'and keeps it no longer than any other, unless it renews it')

  await db.query(`insert into replicas values ($1, now() + interval '1 hour')`, [gone])
  const [row] = (await db.query('select note_replica(gen_random_uuid()) as alive, $1::uuid as id', [gone])).rows
  t.same(
    (await db.query('select from replicas where id = $1', [row.id])).rows,
    [],
    'nor is an instance that is gone alive',
  )
  await db.query('select forget_replica($1)', [gone])
})

t.test('a bucket has at most what is of one second, and a clock that is set back puts nothing into it', async (t) => {
  for (const [tokens, at, most, found] of [
    [0, "now() - interval '50 seconds'", 100, { taken: 10, wait_ms: 0, tokens: 0 }],
    [10, "now() - interval '50 seconds'", 4, { taken: 4, wait_ms: 0, tokens: 6 }],
    [2.5, "now() + interval '1 hour'", 10, { taken: 2, wait_ms: 0, tokens: 0.5 }],
    [0.5, "now() + interval '1 hour'", 10, { taken: 0, wait_ms: 50, tokens: 0.5 }],
  ] as const) {
    await db.query(`insert into rate_buckets values ('bucket', $1, ${at})`, [tokens])
    const [taken] = (await db.query(`select taken, wait_ms from take_rate('bucket', 10, $1)`, [most])).rows
    const [left] = (await db.query(`delete from rate_buckets where principal = 'bucket' returning tokens`)).rows
    t.same({ ...taken, ...left }, found)
  }
})

t.test(
  'places are counted by principal, as far as somebody still has them, and given back for that one alone',
  async (t) => {
    const [mine, others, gone] = [1, 2, 3].map((n) => `00000000-0000-4000-8000-00000000001${n}`)
    await db.query(
      `insert into slot_leases values ('shared', $2, 2, now() + interval '8 seconds'),
      ('shared', $3, 1, now() - interval '1 second'), ('apart', $1, 1, now() + interval '8 seconds')`,
      [mine, others, gone],
    )
    const take = async (principal: string, wanted: number) =>
      (await db.query('select take_slots($1, $2, 4, $3) as given', [mine, principal, wanted])).rows[0].given
    t.same([await take('shared', 9), await take('apart', 9), await take('shared', 0)], [2, 4, 0])
    const left = `delete from slot_leases where principal in ('shared', 'apart') and replica = $1 returning principal, slots`
    t.same((await db.query(left, [mine])).rows, [{ principal: 'apart', slots: 4 }])
  },
)

t.test('what was refused is a metric, by its limit', async (t) => {
  const { text } = await one.request('GET', '/metrics')
  for (const limit of ['requestsPerSecond', 'concurrent'])
    t.match(text, new RegExp(`^chancery_limited_total\\{limit="${limit}"\\} [1-9]`, 'm'))
})

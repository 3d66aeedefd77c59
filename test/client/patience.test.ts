/** A server that does not say when to renew: it is asked by one order for all, and what is due does not wait for it. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { type LogLine, lookAfter, type Standing, type Ward } from '../../src/client/issue/daemon.ts'
import { type IntoOptions, issueInto, readTask, wardOf } from '../../src/client/issue/new-certificate.ts'
import { type Client, openClient } from '../../src/client/rest.ts'
import { Failure } from '../../src/lib/failure.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder } from './folders.ts'

t.setTimeout(300_000)
const minute = 60_000
const hour = 60 * minute
const service = await openTestService(t)
const client = await openClient({ server: service.url }, { CHANCERY_DATA: service.config.dataDir })

/** Time that goes by only where it is said to. */
const newClock = () => {
  let elapsedMs = 0
  const start = Date.now()
  return {
    now: () => start + elapsedMs,
    elapsed: () => elapsedMs,
    pass: (ms: number) => {
      elapsedMs += ms
    },
  }
}
type Clock = ReturnType<typeof newClock>

interface Trouble {
  /** Said of each call; undefined where it is answered. */
  of(path: string): Failure | undefined
}

interface Called {
  readonly path: string
  readonly at: number
}

/** Notes each call, and takes half a minute where there is no answer. */
const troubled = (clock: Clock, trouble: Trouble, calls: Called[]): Client => {
  const wrap = (inner: Client): Client => ({
    ...inner,
    as: (identity) => wrap(inner.as(identity)),
    call: async (method, path, call) => {
      calls.push({ path: path.replace(/[0-9a-f]{32}/, ':serial'), at: clock.elapsed() })
      const failure = trouble.of(path)
      if (failure === undefined) return inner.call(method, path, call)
      if (failure.problem === undefined) clock.pass(30_000)
      throw failure
    },
  })
  return wrap(client)
}

/** What the server said is old, as hours later. */
const forgetAdvice = async (folder: string, clock: Clock): Promise<void> => {
  const file = join(folder, '.chancery/renewal-info.json')
  const advice = JSON.parse(await readFile(file, 'utf8'))
  await writeFile(file, JSON.stringify({ ...advice, askAt: new Date(clock.now() - 1).toISOString() }))
}

/** The server's time stands still, so what is new may be due already by ours. */
const isRenewed = ({ event, text }: LogLine): boolean =>
  event === 'renewed' || (event === 'failed' && /is to be renewed already/.test(text))

const silence = new Failure('later', 'No answer within 30 s.')
const isAdvice = (path: string): boolean => path.endsWith('/renewal-info')

/** Orders that are in place, and were asked about long ago; the last is of an hour, and due soon. */
const openOrders = async (t: Test, count: number) => {
  const clock = newClock()
  const calls: Called[] = []
  let trouble: Trouble = { of: () => undefined }
  const ours = troubled(clock, { of: (path) => trouble.of(path) }, calls)
  const wards: Ward[] = []
  let last: Standing | undefined
  for (let i = 0; i < count; i += 1) {
    const isShort = i === count - 1
    const options = { profile: 'server', name: [`a${i}.example.com`], out: await newFolder(t) }
    const short = isShort ? { validity: '1h', renewBefore: '30%' } : {}
    const task = await readTask({ ...options, ...short }, client.origin)
    const ward = wardOf(task, { now: clock.now, openClient: async () => ours })
    last = await ward.pass(new AbortController().signal)
    wards.push(ward)
  }
  const lines: (LogLine & { readonly at: number })[] = []
  /** For so long, or until the last is new. */
  const run = async (next: Trouble, ms: number): Promise<void> => {
    trouble = next
    for (const { name } of wards) await forgetAdvice(name, clock)
    calls.length = 0
    const end = clock.elapsed() + ms
    const ending = new AbortController()
    await lookAfter(wards, {
      ...{ now: clock.now, elapsed: clock.elapsed, chance: () => 0.5, signal: ending.signal },
      sleep: async (wait) => {
        clock.pass(wait)
        if (clock.elapsed() > end) ending.abort()
      },
      log: (line) => {
        lines.push({ ...line, at: clock.elapsed() })
        if (isRenewed(line)) ending.abort()
      },
    })
  }
  return { clock, calls, lines, run, due: (last as Standing).renewAt.getTime() }
}

slowTest('where nothing else hangs, what is due is renewed when it is due', async (t) => {
  const { clock, calls, lines, run, due } = await openOrders(t, 20)
  clock.pass(due - clock.now() - 14 * minute)
  await run({ of: (path) => (isAdvice(path) ? silence : undefined) }, hour)
  t.ok(isRenewed(lines.at(-1) as LogLine))
  t.ok(clock.now() - due < 2 * minute, `${(clock.now() - due) / 1_000} s after it was due`)
  const asked = calls.filter(({ path }) => isAdvice(path))
  t.ok(asked.length < 12, `${asked.length} were asked`)
  const others = calls.filter(({ path }) => !isAdvice(path)).map(({ path }) => path)
  t.same(others, ['/v1/certificates/:serial/renewal', '/v1/certificates/:serial/bundle'])
})

slowTest('while nobody answers and nothing is due, one order asks for all, and it is said', async (t) => {
  const { calls, lines, run } = await openOrders(t, 10)
  await run({ of: () => silence }, 10 * minute)
  t.ok(calls.length > 2 && calls.length < 12, `${calls.length} calls`)
  const unreachable = lines.filter(({ event }) => event === 'unreachable')
  t.equal(unreachable.length, calls.length)
  t.match(unreachable[0]?.text, /^The server does not say when to renew: No answer within 30 s\. Next try in \d+ s\.$/)
  t.ok(new Set(unreachable.map(({ name }) => name)).size > 1, 'each in its turn')
})

t.test('a server that wants to be asked later is asked later, by all', async (t) => {
  const { calls, run } = await openOrders(t, 5)
  const problem = { code: 'limit.requests', retryAfter: 1_200, retryable: true }
  await run({ of: (path) => (isAdvice(path) ? new Failure('later', 'too many', problem) : undefined) }, 19 * minute)
  t.equal(calls.length, 1)
})

t.test('all are asked for once it answers again', async (t) => {
  const { clock, calls, run } = await openOrders(t, 5)
  const isAway = (): boolean => clock.elapsed() < 5 * minute
  await run({ of: (path) => (isAway() && isAdvice(path) ? silence : undefined) }, 20 * minute)
  t.equal(calls.filter(({ at }) => at >= 5 * minute).length, 5)
  t.ok(calls.length < 12, `${calls.length} in all`)
})

t.test('what is due is asked for before anybody is asked whether it is', async (t) => {
  const { clock, calls, run, due } = await openOrders(t, 1)
  clock.pass(due - clock.now() + 1_000)
  await run({ of: () => undefined }, hour)
  t.equal(calls[0]?.path, '/v1/certificates/:serial/renewal')
})

t.test('a command that comes by a timer asks a server that hangs once, not for each order', async (t) => {
  const orders: IntoOptions[] = []
  for (const name of ['a', 'b', 'c'])
    orders.push({ profile: 'server', name: [`${name}.example.com`], out: await newFolder(t), renewBefore: '30%' })
  const shown: string[] = []
  const out = { show: (_: unknown, text: string) => void shown.push(text) } as Parameters<typeof issueInto>[2]
  await issueInto(orders, client, out)
  const calls: Called[] = []
  await issueInto(orders, troubled(newClock(), { of: () => silence }, calls), out)
  t.equal(calls.length, 1)
  t.equal(shown.filter((text) => text.includes('nothing to do')).length, 3)
})

t.test('a clock that is far ahead makes nobody ask again and again', async (t) => {
  /** By a clock that is so much ahead: each is due when it comes. */
  const tries = async (lifeMs: number, forMs: number): Promise<readonly number[]> => {
    const clock = newClock()
    const ending = new AbortController()
    const seen: number[] = []
    const pass: Ward['pass'] = async () => {
      seen.push(clock.elapsed())
      const notBefore = new Date(clock.now() - 10 * lifeMs)
      const notAfter = new Date(notBefore.getTime() + lifeMs)
      return { serial: `${seen.length}`, notBefore, notAfter, renewAt: notBefore, issued: true, failure: undefined }
    }
    const sleep = async (wait: number): Promise<void> => {
      clock.pass(wait)
      if (clock.elapsed() > forMs) ending.abort()
    }
    const { now, elapsed } = clock
    const deps = { now, elapsed, sleep, chance: () => 0.5, log: () => {}, signal: ending.signal }
    await lookAfter([{ name: 'ahead', pass, look: async () => undefined, note: async () => {} }], deps)
    return seen
  }
  const day = await tries(30 * 24 * hour, 24 * hour)
  t.ok(day.length >= 16 && day.length <= 24, `${day.length} in a day`)
  const short = await tries(hour, 6 * hour)
  const gaps = short.slice(1).map((at, i) => at - (short[i] ?? 0))
  t.ok(
    gaps.every((gap) => gap >= hour / 2 && gap < hour),
    'and there is always one that holds',
  )
})

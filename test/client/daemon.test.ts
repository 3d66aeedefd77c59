/** When the daemon tries and when it waits, in time that is simulated; then as a process, in time that is not. */
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { type LogLine, lookAfter, type Standing, type Status, type Ward } from '../../src/client/issue/daemon.ts'
import { ExecFailure } from '../../src/client/issue/hook.ts'
import { dueAt, momentOf, pauseOf, readRenewBefore } from '../../src/client/issue/renewal.ts'
import { wordsOf } from '../../src/client/issue/words.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { chanceryFor, startChancery } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder, readShown } from './folders.ts'
import { newTime } from './time.ts'

t.setTimeout(300_000)
const minute = 60_000
const hour = 60 * minute
const start = Date.UTC(2026, 10, 25)
const life = { notBefore: new Date(start), notAfter: new Date(start + 100 * hour) }

t.test('how much is to be left is a share of the life or a time, and never all of it', async (t) => {
  const at = (before: string): number => (dueAt(life, readRenewBefore(before)).getTime() - start) / hour
  t.equal(at('30%'), 70)
  t.equal(at('10h'), 90)
  t.equal(at('1d'), 76)
  t.equal(at('720h'), 50, 'more than there ever is')
  t.equal(at('100h'), 50)
  for (const text of ['0%', '100%', '30', '-1h', '1w', '', '1.5h']) t.throws(() => readRenewBefore(text), Failure, text)
})

t.test('moments of renewal are spread, before what must be left is touched', async (t) => {
  const moments = Array.from({ length: 64 }, (_, i) => {
    const digest = Buffer.from([i * 4, 0, 0, 0])
    return (momentOf(life, { share: 0.3 }, digest).getTime() - start) / hour
  })
  t.equal(Math.max(...moments), 70)
  t.ok(Math.min(...moments) > 55 && Math.min(...moments) < 56)
  t.equal(new Set(moments).size, 64)
  const late = momentOf(life, { share: 0.99 }, Buffer.from('ffffffff', 'hex')).getTime()
  t.ok(late > start, 'never before it began')
})

t.test('pauses grow to a bound, are spread, and honour what the server asks for', async (t) => {
  const of = (failures: number, more = {}): number =>
    pauseOf({ failures, life: 720 * hour, retryAfter: undefined, chance: 0, ...more }) / 1_000
  t.same(
    [1, 2, 3, 4, 7, 8, 9, 1_000_000].map((n) => of(n)),
    [2, 4, 8, 16, 128, 256, 300, 300],
  )
  t.equal(of(9, { life: 40 * minute }), 60, 'a certificate of minutes has no time for pauses of minutes')
  t.equal(of(1, { chance: 1 }), 3)
  t.equal(of(1, { retryAfter: 30 }), 30)
  t.equal(of(1, { retryAfter: 1e9 }), 3_600, 'but not for ever')
  t.equal(of(9, { life: undefined }), 300)
})

t.test('a command line is words, with nothing that a shell would do', async (t) => {
  t.same(wordsOf(` nginx  -s reload `), ['nginx', '-s', 'reload'])
  t.same(wordsOf(`a 'b c' "d \\"e\\" $f" g\\ h ''  i'j'"k"`), ['a', 'b c', 'd "e" $f', 'g h', '', 'ijk'])
  t.same(wordsOf(`a;b | c > d *`), ['a;b', '|', 'c', '>', 'd', '*'])
  for (const text of ['', '  ', `a 'b`, 'a "b', 'a\\']) t.throws(() => wordsOf(text), Failure, text)
})

interface Scripted {
  readonly tries: number[]
  readonly lines: LogLine[]
  readonly notes: Status[]
}

interface Watching {
  readonly hours: number
  readonly from?: number
  readonly jumps?: readonly (readonly [at: number, to: number])[]
  readonly wards?: number
  /** What a daemon finds that was started anew. */
  readonly there?: Standing | Failure
  /** Nothing can be written. */
  readonly full?: boolean
}

/** One ward whose tries end as the script says, watched for so long; `jumps` set the wall's clock. */
const watch = async (
  script: (at: number, standing: Standing, ward: number) => Standing,
  { from = start, hours, jumps = [], wards = 1, there, full = false }: Watching,
): Promise<Scripted> => {
  const time = newTime(from)
  const ending = new AbortController()
  const seen: Scripted = { tries: [], lines: [], notes: [] }
  const newWard = (_: unknown, i: number): Ward => {
    let held: Standing = standing(time.now())
    return {
      name: `ward ${i}`,
      pass: async () => {
        seen.tries.push(time.elapsed())
        held = script(time.elapsed(), held, i)
        return held
      },
      look: async () => {
        if (there instanceof Failure) throw there
        return there
      },
      note: async (status) => {
        if (full) throw new Error('ENOSPC')
        seen.notes.push(status)
      },
    }
  }
  const { now, elapsed, sleep } = time
  const deps = { now, elapsed, sleep, chance: () => 0.5, log: (line: LogLine) => seen.lines.push(line) }
  const watching = lookAfter(Array.from({ length: wards }, newWard), { ...deps, signal: ending.signal })
  for (const [at, to] of jumps) {
    await time.run(at, 1)
    time.set(to)
  }
  await time.run(hours * hour, 1)
  ending.abort()
  await watching
  return seen
}

/** A certificate of an hour, new now, to be renewed after forty minutes. */
const standing = (now: number, more: Partial<Standing> = {}): Standing => ({
  serial: `${now}`,
  notBefore: new Date(now),
  notAfter: new Date(now + hour),
  renewAt: new Date(now + 40 * minute),
  issued: true,
  failure: undefined,
  ...more,
})

const away = (): never => {
  throw new Failure('later', 'cannot be reached')
}

t.test('it renews each time it is due, and rests in between', async (t) => {
  const { tries, lines, notes } = await watch((at) => standing(start + at), { hours: 24 })
  t.equal(tries.length, 36 + 1)
  for (const [i, at] of tries.entries()) t.ok(at - i * 40 * minute < 1_000)
  t.ok(lines.every(({ event }) => event === 'renewed'))
  t.match(notes.at(-1), { state: 'fresh', failure: null, failures: 0 })
})

t.test('it goes on where its status cannot be written', async (t) => {
  const { tries, lines } = await watch((at) => standing(start + at), { hours: 2, full: true })
  t.equal(tries.length, 3 + 1)
  t.match(lines[0], { event: 'failed', text: /status cannot be written: ENOSPC/ })
})

t.test('a server that is away for a day is not hammered, whoever many there are to be renewed', async (t) => {
  const { tries, lines, notes } = await watch((at) => (at < 24 * hour ? away() : standing(start + at)), {
    hours: 24.5,
    wards: 20,
  })
  const outage = tries.filter((at) => at < 24 * hour)
  // Without a certificate yet: five minutes at most, and half of it by chance.
  t.ok(outage.length < (24 * 60) / 6 + 15, `${outage.length} tries`)
  t.ok(outage.length > (24 * 60) / 8)
  const late = outage.slice(20)
  const perMinute = late.map((at) => late.filter((other) => other >= at && other < at + minute).length)
  t.ok(Math.max(...perMinute) <= 2, 'whoever waits asks one by one')
  t.equal(tries.length - outage.length, 20, 'then all get theirs')
  t.equal(lines.filter(({ event }) => event === 'unreachable').length, outage.length)
  t.match(notes[0], { state: 'missing', failure: 'cannot be reached', failures: 1 })
})

t.test('a server that was away and is back has as much patience as before', async (t) => {
  let back: number | undefined
  const isAway = (at: number): boolean => at < hour || (back !== undefined && at < back + 41 * minute)
  const script = (at: number): Standing => {
    if (isAway(at)) away()
    back ??= at
    return standing(start + at)
  }
  const { tries } = await watch(script, { hours: 2 })
  const again = tries.filter((at) => at > (back ?? 0) && at < (back ?? 0) + 41 * minute)
  t.ok(again.length >= 4, `${again.length} tries in a minute`)
})

t.test('a moment that has moved is told', async (t) => {
  const later = { notAfter: new Date(start + 10 * hour), renewAt: new Date(start + 8 * hour) }
  const moved = { ...later, issued: false, renewAt: new Date(start + 6 * hour) }
  const script = (at: number, held: Standing): Standing => ({ ...held, ...(at < hour ? later : moved) })
  const { notes } = await watch(script, { hours: 3 })
  t.same(
    notes.map(({ renewAt }) => renewAt),
    [later, moved].map(({ renewAt }) => renewAt.toISOString()),
  )
})

t.test('what is refused is tried again without holding up the others', async (t) => {
  let refused = 0
  const script = (at: number, held: Standing): Standing => {
    if (held.serial !== 'refused' && at === 0 && refused === 0) {
      refused += 1
      throw new Failure('refused', 'not like this')
    }
    return standing(start + at)
  }
  const { tries, lines } = await watch(script, { hours: 0.5, wards: 3 })
  t.same(
    tries.map((at) => at < 1),
    [true, true, true, false],
    'the other two were not kept waiting',
  )
  t.ok((tries.at(-1) ?? 0) < 4_000, 'nor does it wait for them')
  t.same(
    lines.map(({ event }) => event),
    ['failed', 'renewed', 'renewed', 'renewed'],
  )
})

t.test('what the server asks for is waited for', async (t) => {
  const problem = { status: 429, code: 'limit.requests', retryAfter: 120, retryable: true }
  const script = (at: number): Standing => {
    if (at < 10 * minute) throw new Failure('later', 'too many', problem)
    return standing(start + at)
  }
  const { tries } = await watch(script, { hours: 0.5 })
  const gaps = tries.slice(1).map((at, i) => at - (tries[i] ?? 0))
  t.ok(
    gaps.every((gap) => gap >= 120_000 && gap <= 181_000),
    gaps.join(' '),
  )
})

t.test('what is said to whoever asks, by the server or a proxy in its place, holds for all', async (t) => {
  const limits = ['requests', 'concurrent', 'address_requests', 'address_concurrent', 'room', 'failed_authentication']
  for (const code of ['', 'rate.limited', ...limits.map((limit) => `limit.${limit}`)]) {
    const script = (at: number): Standing => {
      if (at < 10 * minute) throw new Failure('later', 'answered 429', { code, retryAfter: 120 })
      return standing(start + at)
    }
    const { tries, lines } = await watch(script, { hours: 0.2, wards: 3 })
    t.ok(tries.filter((at) => at < 10 * minute).length <= 6, `${code}: ${tries.length} tries`)
    t.match(lines[0], { event: 'unreachable' })
  }
})

t.test('people who have said no are not asked again by each try', async (t) => {
  for (const code of ['approval.rejected', 'approval.withdrawn', 'approval.expired', 'approval.failed']) {
    const script = (): Standing => {
      throw new Failure('conflict', 'ended', { code, retryable: false })
    }
    const { tries } = await watch(script, { hours: 24 })
    t.ok(tries.length >= 16 && tries.length <= 24, `${tries.length} in a day`)
  }
})

t.test('an order that has reached its limit holds up no other, wherever it stands in the list', async (t) => {
  const problem = { status: 429, code: 'limit.certificates_per_day', retryAfter: 80_000, retryable: true }
  for (const limited of [0, 1, 2]) {
    const fresh = new Set<number>()
    const script = (at: number, _: Standing, ward: number): Standing => {
      if (ward === limited) throw new Failure('later', 'a limit is reached', problem)
      fresh.add(ward)
      return standing(start + at)
    }
    const { lines } = await watch(script, { hours: 0.5, wards: 3 })
    t.equal(fresh.size, 2)
    t.equal(lines.filter(({ event }) => event === 'unreachable').length, 0)
  }
})

t.test('while the server turns one away for all, each is tried in its turn', async (t) => {
  const problem = { status: 429, code: 'limit.address_requests', retryAfter: 60, retryable: true }
  const tried: number[] = []
  const script = (_at: number, _: Standing, ward: number): Standing => {
    tried.push(ward)
    throw new Failure('later', 'too many', problem)
  }
  await watch(script, { hours: 0.5, wards: 3 })
  t.ok(tried.length > 9)
  t.same(tried.slice(0, 9), [0, 1, 2, 0, 1, 2, 0, 1, 2])
})

t.test('what is due goes before what is only looked at', async (t) => {
  const tried: number[] = []
  const late = { notAfter: new Date(start + 100 * hour), renewAt: new Date(start + 90 * hour) }
  const script = (at: number, _: Standing, ward: number): Standing => {
    tried.push(ward)
    return standing(start + at, ward === 0 ? late : {})
  }
  await watch(script, { hours: 0.2, wards: 2, jumps: [[10 * minute, start + 10 * hour]] })
  t.same(tried.slice(0, 4), [0, 1, 1, 0])
})

t.test('a clock that is set is noticed within a minute, and no pause depends on it', async (t) => {
  const forward = await watch((at) => standing(start + at), { hours: 2, jumps: [[10 * minute, start + 10 * hour]] })
  t.ok((forward.tries[1] ?? 0) - 10 * minute <= minute, 'a machine that slept')
  const back = (at: number): Standing => (at > hour ? standing(start + at) : at === 0 ? standing(start) : away())
  const { tries } = await watch(back, { hours: 2, jumps: [[45 * minute, start - 1_000 * hour]] })
  const outage = tries.filter((at) => at > 41 * minute && at < hour)
  t.ok(outage.length > 5, `${outage.length} tries go on while the clock is weeks back`)
})

t.test('a pause ends while the machine sleeps, and by no more than it has slept', async (t) => {
  const script = (): Standing => {
    throw new Failure('conflict', 'ended', { code: 'approval.rejected', retryable: false })
  }
  const slept = await watch(script, { hours: 1, jumps: [[10 * minute, start + 10 * hour]] })
  t.equal(slept.tries.length, 2, 'as it would have been without a sleep of hours')
  t.ok((slept.tries[1] ?? 0) - 10 * minute <= minute, 'when it wakes')
  /** Ten minutes of sleep for each of ten awake. */
  const naps = Array.from({ length: 18 }, (_, i): [number, number] => [
    (i + 1) * 10 * minute,
    start + (i + 1) * 20 * minute,
  ])
  const { tries } = await watch(script, { hours: 3, jumps: naps })
  t.equal(tries.length, 5, 'one in each 75 minutes of the six hours')
})

t.test('by a clock that was ahead and is set right, what is there is told as fresh within a minute', async (t) => {
  const held = standing(start)
  const script = (at: number): Standing => ({ ...held, issued: at === 0 })
  const right = 10 * minute
  const watching = { from: start + 50 * minute, hours: 0.2, jumps: [[right, start + right]] as const }
  const { tries, notes } = await watch(script, watching)
  t.match(notes[0], { state: 'failing' }, 'it was due when it came')
  t.match(notes.at(-1), { state: 'fresh', failure: null })
  t.ok((tries.at(-1) ?? 0) - right <= minute)
})

t.test('a certificate that is due when it comes is not asked for again and again', async (t) => {
  const { tries, lines } = await watch((at) => standing(start + at, { renewAt: new Date(start) }), { hours: 1 })
  t.ok(tries.length < 60, `${tries.length} tries in an hour`)
  t.match(lines.at(-1), { event: 'failed', text: /one of the two clocks is wrong/ })
})

t.test('a command that fails does not hide that the certificate is new', async (t) => {
  const failure = new Failure('later', 'exec failed', { code: 'exec.failed' })
  let times = 0
  const script = (_at: number, held: Standing): Standing => {
    times += 1
    if (times === 1) return { ...held, failure }
    return { ...held, issued: false, failure: times < 4 ? failure : undefined }
  }
  const { lines, notes } = await watch(script, { hours: 0.5, wards: 1 })
  t.same(
    lines.map(({ event }) => event),
    ['renewed', 'failed', 'failed', 'failed', 'kept'],
  )
  t.same(
    notes.map(({ state }) => state),
    ['failing', 'failing', 'failing', 'failing', 'fresh'],
  )
  t.match(notes[0], { serial: `${start}`, failure: 'exec failed' })
})

t.test('what a command has printed is in the log, and in no note that others read', async (t) => {
  const failure = new ExecFailure('/bin/reload ended with 3', '-----BEGIN PRIVATE KEY-----')
  const { lines, notes } = await watch((_, held) => ({ ...held, failure }), { hours: 0.1 })
  t.match(lines.at(-1), { event: 'failed', text: /reload ended with 3: -----BEGIN PRIVATE KEY-----/ })
  t.match(notes[0], { state: 'failing', failure: /reload ended with 3\nThe same command/ })
  t.match(notes.at(-1), { state: 'failing', failure: /reload ended with 3\nThe same command/ })
  t.notMatch(JSON.stringify(notes), /PRIVATE KEY/)
})

t.test('after a start what is there is told of, though nobody answers', async (t) => {
  const there = standing(start, { issued: false })
  const { notes } = await watch(away, { hours: 2, there })
  t.match(notes[0], { state: 'failing', serial: there.serial, notAfter: there.notAfter.toISOString() })
  t.match(notes.at(-1), { state: 'expired', serial: there.serial, failure: 'cannot be reached' })
  for (const none of [{}, { there: new Failure('usage', 'cannot be read') }]) {
    const { tries, notes } = await watch(away, { hours: 0.1, ...none })
    t.match(notes[0], { state: 'missing', serial: null })
    t.ok(tries.length > 1)
  }
})

t.test('it has expired once the second that its notAfter names is over (RFC 5280 4.1.2.5)', async (t) => {
  for (const [ms, state] of [
    [999, 'failing'],
    [1_000, 'expired'],
  ] as const) {
    const there = standing(start - hour, { issued: false })
    const { notes } = await watch(away, { from: start + ms, hours: 0.01, there })
    t.match(notes[0], { state, notAfter: new Date(start).toISOString() }, `${ms} ms after it`)
  }
})

slowTest('as a process it issues, says how it stands, and ends at SIGTERM', async (t) => {
  const service = await openTestService(t)
  const out = await newFolder(t)
  const orders = join(out, 'orders.yaml')
  const names = ['a', 'b'].map((name) => join(out, name))
  const exec = `"touch ${join(out, 'told')}"`
  await writeFile(
    orders,
    names
      .map((path) => `- { profile: server, names: [${path.at(-1)}.example.com], out: ${path}, exec: ${exec} }\n`)
      .join(''),
  )
  const child = startChancery(service, ['issue', '--orders', orders, '--daemon'])
  t.teardown(() => void child.kill('SIGKILL'))
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk
      if (said.split('\n').length > 2) resolve()
    })
    child.stderr?.on('data', (chunk: Buffer) => reject(new Error(String(chunk))))
  })
  for (const path of names) {
    const shown = await readShown(path)
    t.match(
      said,
      new RegExp(`^20\\S+Z renewed +${path}: ${shown?.serial} is new, valid until 20\\S+Z; to be renewed at 20`, 'm'),
    )
    t.match(JSON.parse(await readFile(join(path, '.chancery/status.json'), 'utf8')), {
      state: 'fresh',
      serial: shown?.serial,
    })
  }
  t.equal(await readFile(join(out, 'told'), 'utf8'), '')
  child.kill('SIGTERM')
  // It would sleep for a minute otherwise.
  const [code] = await once(child, 'exit', { signal: AbortSignal.timeout(20_000) })
  t.equal(code, 0)

  const chancery = chanceryFor(service)
  const again = await chancery(['issue', '--orders', orders, '--renew-before', '30%'])
  t.equal(again.code, 0, again.err)
  t.equal(again.out.match(/nothing to do/g)?.length, 2, 'the same file without --daemon')
  for (const [text, sentence] of [
    ['a: b', /not a list/],
    ['- [', /not YAML/],
    ['- a', /order 1 is not a mapping/],
    ['- { profile: server, name: x }', /name is unknown; there are profile, names/],
    ['- { profile: server, names: [1] }', /names is not a list of texts/],
    ['- { profile: server, names: [a.example.com], keyMode: 0640, out: x }', /keyMode is not a text/],
    ['- { profile: server, names: [a.example.com] }', /--out/],
  ] as const) {
    await writeFile(orders, text)
    t.match(await chancery(['issue', '--orders', orders]), { code: exitCodes.usage, err: sentence }, text)
  }
  t.match(await chancery(['issue', '--orders', orders, '--out', out]), {
    code: exitCodes.usage,
    err: /goes into the file/,
  })
})

slowTest('two that look after the same folder keep one certificate in it', async (t) => {
  const service = await openTestService(t)
  const folder = await newFolder(t)
  const out = join(folder, 'shared')
  const args = ['issue', '--profile', 'server', '--name', 'shared.example.com', '--out', out, '--daemon']
  const children = [startChancery(service, args), startChancery(service, args)]
  const ends = children.map((child) => once(child, 'exit'))
  await Promise.all(children.map((child) => once(child.stdout as NodeJS.ReadableStream, 'data')))
  const shown = await readShown(out)
  const { json } = await service.request('GET', '/v1/certificates?name=shared.example.com')
  t.same(
    json.items.map(({ serial }: { serial: string }) => serial),
    [shown?.serial],
  )
  for (const child of children) child.kill('SIGTERM')
  t.same(await Promise.all(ends), [
    [0, null],
    [0, null],
  ])
})

slowTest('while a request hangs it ends as well, and takes the question up again later', async (t) => {
  const service = await openTestService(t)
  const out = await newFolder(t)
  const { server } = service.service.app
  const [listener] = server.listeners('request')
  server.removeAllListeners('request')
  const asked = once(server, 'request')
  const args = ['issue', '--profile', 'server', '--name', 'hang.example.com', '--out', out]
  const child = startChancery(service, [...args, '--daemon'])
  t.teardown(() => void child.kill('SIGKILL'))
  await asked
  child.kill('SIGTERM')
  // Half a minute is its patience with a server otherwise.
  const [code] = await once(child, 'exit', { signal: AbortSignal.timeout(20_000) })
  t.equal(code, 0)
  server.removeAllListeners('request')
  server.on('request', listener as never)
  const { idempotencyKey } = JSON.parse(await readFile(join(out, '.chancery/pending.json'), 'utf8'))
  t.ok(idempotencyKey)
  t.equal((await chanceryFor(service)(args)).code, 0)
  t.ok(await readShown(out))
})

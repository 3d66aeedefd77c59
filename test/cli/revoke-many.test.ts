/** `chancery revoke-many` and `revocations`: what is shown, what is asked, and how somebody sees how far it has come. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'

import t from 'tap'

import { openAnswers } from '../../src/cli/answers.ts'
import { type OrderAnswer, type PlanAnswer, planText, reportText, revokeMany } from '../../src/cli/revoke-many.ts'
import type { Answer } from '../../src/client/rejected.ts'
import type { Client } from '../../src/client/rest.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { openOutput } from '../../src/lib/output.ts'
import { durationText, exactDurationText, openProgress, progressText } from '../../src/lib/progress.ts'
import { issueAt } from '../helpers/certificates.ts'
import { blocksOf } from '../helpers/docs.ts'
import { chanceryFor, envFor, putCommand, type Run } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

let service: TestService

t.before(async () => {
  service = await openTestService(t)
  await service.request('POST', '/v1/grants', { body: { principal: 'admin', role: 'operator' } })
})

const chancery = (args: readonly string[]): Promise<Run> => chanceryFor(service)(args)
const issue = async (name: string): Promise<string> => (await issueAt(service, { name })).serial

slowTest('without anybody to ask, the plan is shown, and how to order exactly it', async (t) => {
  await issue('a.plan.example.com')
  await issue('b.plan.example.com')
  const args = ['revoke-many', '--name', '*.plan.example.com', '--reason', 'superseded']
  const shown = await chancery(args)
  t.equal(shown.code, 0)
  t.match(shown.out, /^2 certificates would be revoked as superseded: name \*\.plan\.example\.com\.\n/)
  t.match(shown.out, /^PROFILE {2}CERTIFICATES\nserver {3}2$/m)
  t.match(shown.out, /^The lists of default grow by 2 entries, 1 kB in [12] shards\.$/m)
  const [, digest = '', asOf = ''] = /--digest ([0-9a-f]{64}) --as-of (\S+)\n$/.exec(shown.err) ?? []
  t.match(shown.err, 'Nothing was ordered. To order exactly this, add --digest')
  t.match(JSON.parse((await chancery([...args, '--json'])).out), { digest, count: 2 })
  t.same(JSON.parse((await chancery(['revocations', 'list', '--json'])).out), [])

  const ordered = await chancery([...args, '--digest', digest, '--as-of', asOf])
  t.equal(ordered.code, 0)
  t.match(
    ordered.out,
    /^2 of 2 certificates are revoked as superseded: name \*\.plan\.example\.com\.\nOrdered by admin at /,
  )
  t.match(ordered.out, /^Done at /m)
  t.match(ordered.err, /^Ordered by admin: 2 certificates to be revoked as superseded, whatever happens here/)
  t.match(ordered.err, /^2 of 2 \(100 %\)$/m, 'lines, where there is no terminal')
  t.notMatch(ordered.err, '\x1b')
  t.match((await chancery(['revocations', 'list'])).out, /^[0-9a-f]{64} {2}done {3}2 +2 +superseded {2}admin/m)
  t.equal((await chancery(['revocations', 'show', digest, '--follow'])).out, ordered.out)
  t.match(JSON.parse((await chancery(['revocations', 'show', digest, '--json'])).out), { digest, state: 'done' })
  t.match(
    (await chancery(args)).out,
    /^There is nothing to revoke: .*\nLeft alone: 0 that have expired, 2 revoked already/,
  )
})

slowTest('a script that has looked before orders at once', async (t) => {
  const serial = await issue('a.yes.example.com')
  const args = ['revoke-many', '--name', 'a.yes.example.com', '--principal', 'admin', '--reason', 'keyCompromise']
  const done = await chancery([...args, '--yes', '--json', '--invalidity-date', '2026-11-01T00:00:00Z'])
  t.match(JSON.parse(done.out), { state: 'done', revoked: 1, invalidityDate: '2026-11-01T00:00:00.000Z' })
  t.match(done.err, 'No certificate will be issued for any of their keys again.', 'and sees the plan all the same')
  t.match((await chancery(['certificate', 'show', serial])).out, /^status +revoked$/m)
  await issue('b.yes.example.com')
  const away = await chancery([
    'revoke-many',
    '--name',
    'b.yes.example.com',
    '--reason',
    'superseded',
    '--yes',
    '--no-follow',
  ])
  t.match(away.out, /^Ordered by admin: 1 certificate to be revoked /m)
})

t.test('what the command line, the plan and the service refuse', async (t) => {
  const reason = ['--reason', 'superseded']
  const cases: [readonly string[], number, RegExp][] = [
    [['revoke-many', ...reason], exitCodes.usage, /at least one of --profile, --name/],
    [['revoke-many', '--profile', 'server'], exitCodes.usage, /--reason/],
    [['revoke-many', '--profile', 'server', '--reason', 'why'], exitCodes.refused, /request\.malformed/],
    [['revoke-many', '--profile', 'nowhere', ...reason], exitCodes.missing, /profile\.not_found/],
    [
      ['revoke-many', '--profile', 'server', ...reason, '--digest', 'ab'.repeat(32)],
      exitCodes.conflict,
      /revocation\.plan/,
    ],
    [['revocations', 'show', 'ab'.repeat(32)], exitCodes.missing, /revocation\.not_found/],
    [['revocations', 'show', '..'], exitCodes.usage, /is no name/],
  ]
  for (const [args, code, sentence] of cases) {
    const run = await chancery(args)
    t.equal(run.code, code, args.join(' '))
    t.match(run.err, sentence)
    t.equal(run.out, '')
  }
})

slowTest('docs/operations.md: planned by one, ordered by another, as it stands there', async (t) => {
  const blocks = await blocksOf('docs/operations.md')
  const folder = await mkdtemp(join(tmpdir(), 'chancery-many-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const env = { ...envFor(service), PATH: await putCommand(folder) }
  const serial = await issue('docs.example.com')
  const type = (name: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const commands = ['-ceu', '-o', 'pipefail', blocks.get(name) ?? 'exit 9']
      execFile('bash', commands, { env, cwd: folder }, (error, out) => (error ? reject(error) : resolve(out)))
    })
  t.match(await type('revoke-many-plan'), /^1 certificate would be revoked as superseded/)
  const added = await issue('later.example.com')
  t.match(await type('revoke-many-order'), /^1 of 1 certificates are revoked as superseded(.|\n)*\nDone at /m)
  t.match((await chancery(['certificate', 'show', serial])).out, /^status +revoked$/m)
  t.match((await chancery(['certificate', 'show', added])).out, /^status +valid$/m)
})

t.test('bounds without the digest of their plan order nothing, nor are they passed over', async (t) => {
  await issue('a.bounds.example.com')
  const args = ['revoke-many', '--name', 'a.bounds.example.com', '--reason', 'superseded']
  const [, asOf = ''] = /--as-of (\S+)\n$/.exec((await chancery(args)).err) ?? []
  await issue('a.bounds.example.com')
  const refused = await chancery([...args, '--yes', '--as-of', asOf])
  t.match(refused, { code: 2, out: /^$/, err: /^--as-of .* give both, or neither\.\n$/ })
  t.match((await chancery(args)).out, /^2 certificates would be revoked/)
})

// At a terminal -----------------------------------------------------------------------------------------------------------

const plan: PlanAnswer = {
  digest: 'abcdef01'.repeat(8),
  asOf: '7@2026-11-25T08:00:00.000Z',
  search: { name: 'x\u001b[2J' },
  reason: 'superseded',
  count: 100_000,
  byProfile: { items: [{ name: 'server', count: 100_000 }], others: { names: 0, count: 0 } },
  byPrincipal: { items: [{ name: 'ci', count: 99_000 }], others: { names: 3, count: 1_000 } },
  byIssuer: { items: [{ name: 'default', count: 100_000 }], others: { names: 0, count: 0 } },
  crlGrowth: [{ issuer: 'default', entries: 99_998, octets: 4_900_000, shards: 128 }],
  skipped: { expired: 4_105, revoked: 17 },
}
const order: OrderAnswer = {
  digest: plan.digest,
  state: 'running',
  search: plan.search,
  reason: 'superseded',
  by: 'ops',
  index: 8,
  total: 100_000,
  revoked: 0,
  skipped: { expired: 0, revoked: 0 },
  orderedAt: '2026-11-25T08:00:00.000Z',
  startedAt: null,
  finishedAt: null,
}
const done: OrderAnswer = {
  ...order,
  state: 'done',
  revoked: 99_990,
  skipped: { expired: 9, revoked: 1 },
  startedAt: '2026-11-25T08:00:01.000Z',
  finishedAt: '2026-11-25T08:00:31.000Z',
}

/** A terminal at which these lines are typed, in front of a service that answers this when it is asked how far it is. */
const atTerminal = (typed: readonly string[], steps: (OrderAnswer | Failure)[] = [done]) => {
  const asked: { method: string; body: unknown; at: number }[] = []
  const shown = { out: '', err: '' }
  const input = new PassThrough()
  input.end(typed.map((line) => `${line}\n`).join(''))
  const call: Client['call'] = async (method, _path, { body } = {}) => {
    asked.push({ method, body, at: performance.now() })
    const step = method === 'GET' ? (steps.length > 1 ? steps.shift() : steps[0]) : undefined
    if (step instanceof Failure) throw step
    const value = step ?? (body && 'digest' in (body as object) ? order : plan)
    return {
      status: 200,
      headers: { 'retry-after': '1' },
      octets: Buffer.alloc(0),
      text: '',
      json: <T>() => value as T,
    } satisfies Answer
  }
  const tell = (text: string): void => {
    shown.err += text
  }
  const client: Client = { origin: service.url, hasToken: true, as: () => client, call, stream: async () => {} }
  const deps = {
    client,
    out: openOutput(false, (text) => {
      shown.out += text
    }),
    answers: openAnswers(input),
    tell,
    progress: () => openProgress({ isTerminal: true, columns: 100, write: tell, now: () => performance.now() }),
  }
  const options = { name: 'x', reason: 'superseded', follow: true }
  return { run: (more = {}) => revokeMany({ ...options, ...more }, deps), asked, shown }
}

t.test('at a terminal, the first digits of the digest are typed before anything is ordered', async (t) => {
  const { run, asked, shown } = atTerminal(['yes', 'ABCDEF01'])
  await run()
  t.match(shown.out, 'name x\\u001b[2J', 'nothing in it steers the terminal')
  t.match(
    shown.err,
    /^Type the first 8 digits of the digest to revoke 100,000 certificates: That is not it\. Once more: /,
  )
  t.match(asked, [
    { method: 'POST' },
    { method: 'POST', body: { digest: plan.digest, asOf: plan.asOf } },
    { method: 'GET' },
  ])
  t.ok(shown.err.endsWith(`\r[${'#'.repeat(40)}] 100,000 of 100,000 (100 %)\x1b[K\n`))
  t.match(shown.out, '10 had changed and were passed by: 9 expired, 1 revoked otherwise.')
  t.match(shown.out, 'Done at 2026-11-25T08:00:31.000Z, 30 s after it was begun, 3,333/s.')

  const unsure = atTerminal(['no', 'no', 'no'])
  await t.rejects(unsure.run(), { message: 'Not confirmed. Nothing was ordered.' })
  t.equal(unsure.asked.length, 1)
  const silent = atTerminal([])
  await t.rejects(silent.run(), { message: 'Not confirmed. Nothing was ordered.' })
})

slowTest('an instance that is away for a while is waited for; what is final is told', async (t) => {
  const away = new Failure('later', 'cannot be reached', { retryAfter: 3 })
  const { run, asked, shown } = atTerminal(['abcdef01'], [{ ...order, revoked: 40_000 }, away, done])
  await run()
  t.match(shown.err, /\[#{16}\.{24}\] 40,000 of 100,000 \(40 %\)/)
  t.match(shown.err, 'The service does not answer; trying again. The order is kept.')
  t.match(shown.out, 'Done at')
  const [first = 0, second = 0, third = 0] = asked.filter(({ method }) => method === 'GET').map(({ at }) => at)
  // Timers may fire a millisecond early.
  t.ok(second - first > 990, 'as the answer said')
  t.ok(third - second > 2_990, 'and as whoever has not answered it')
  const lost = atTerminal(['abcdef01'], [new Failure('denied', 'revoked')])
  await t.rejects(lost.run(), { message: 'revoked' })
  t.match(lost.shown.err, `The order is kept, and is carried out: chancery revocations show ${plan.digest} --follow`)
})

t.test('a plan and a report in words', async (t) => {
  t.same(planText(plan).slice(0, 2), [
    '100,000 certificates would be revoked as superseded: name x\\u001b[2J.',
    'Left alone: 4,105 that have expired, 17 revoked already, in a way that this reason does not replace.',
  ])
  t.ok(planText(plan).includes('and 1,000 of 3 others'))
  t.ok(planText(plan).includes('The lists of default grow by 99,998 entries, 4.9 MB in 128 shards.'))
  const growth = { issuer: 'whole', entries: 20, octets: 1_000, shards: 1 }
  t.ok(planText({ ...plan, crlGrowth: [growth] }).includes('The lists of whole grow by 20 entries, 1 kB in one shard.'))
  t.match(reportText(order), /No instance has begun yet\.$/)
  t.match(reportText({ ...order, startedAt: order.orderedAt }), /Begun at 2026-11-25T08:00:00\.000Z\.$/)
})

t.test('a bar on a terminal, lines elsewhere', async (t) => {
  let text = ''
  let now = 0
  const open = (isTerminal: boolean, columns = 80) => {
    text = ''
    now = 0
    return openProgress({
      isTerminal,
      columns,
      write: (more) => {
        text += more
      },
      now: () => now,
    })
  }
  const bar = open(true)
  bar.update(0, 1_000)
  now = 2_000
  bar.update(500, 1_000)
  bar.end()
  const clear = '\x1b[K'
  t.equal(
    text,
    `\r[${'.'.repeat(22)}] 0 of 1,000 (0 %)${clear}\r[${'#'.repeat(11)}${'.'.repeat(11)}] 500 of 1,000 (50 %), 250/s, 2 s left${clear}\n`,
  )
  const narrow = open(true, 30)
  narrow.update(0, 1_000)
  now = 1_000
  narrow.update(500, 1_000)
  t.equal(text, `\r0 of 1,000 (0 %)${clear}\r500 of 1,000 (50 %), 500/s, 1${clear}`, 'never longer than a line')
  const lines = open(false)
  for (; now <= 10_000; now += 1_000) lines.update(now / 100, 1_000)
  lines.update(1_000, 1_000)
  lines.end()
  t.same(text.trimEnd().split('\n').length, 4)
  t.notMatch(text, '\x1b')
  t.equal(progressText({ done: 7, total: 9, made: 0, seconds: 0 }), '7 of 9 (77 %)')
  t.same([0.2, 59, 60, 3_599, 7_500].map(durationText), ['1 s', '59 s', '1 min 0 s', '59 min 59 s', '2 h 5 min'])
  t.same(
    [0, 0.2, 59, 60, 90, 3_601, 7_500, 86_400, 2_592_001].map(exactDurationText),
    ['0 s', '1 s', '59 s', '1 min', '1 min 30 s', '1 h 1 s', '2 h 5 min', '1 d', '30 d 1 s'],
    'what people agree to is told to the second',
  )
})

/** Approvals by the command: docs/approvals.md typed as it stands, and what an approver is shown, asked and told. */
import { execFile } from 'node:child_process'
import { hash } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { decide } from '../../src/cli/request.ts'
import type { RequestAnswer } from '../../src/client/approval-request.ts'
import { Awaited, assertAnswered, untilDecided } from '../../src/client/issue/approval.ts'
import { type Answer, askedMs, secondsOf } from '../../src/client/rejected.ts'
import type { Client } from '../../src/client/rest.ts'
import { openClient } from '../../src/client/rest.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { exitCodes, Failure } from '../../src/lib/failure.ts'
import { openOutput } from '../../src/lib/output.ts'
import { blocksOf } from '../helpers/docs.ts'
import { type Chancery, chanceryFor, envFor, putCommand, startChancery } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { newFolder, readShown } from './folders.ts'

const run = promisify(execFile)
t.setTimeout(300_000)
let service: TestService
let chancery: Chancery

t.before(async () => {
  service = await openTestService(t)
  chancery = chanceryFor(service)
  tokens = await employ(await newFolder(t))
})

const eventsOf = async (id: string): Promise<Record<string, unknown>[]> => openDesk(service).eventsOf(id)

slowTest('from the question to the certificate, as the page tells it', async (t) => {
  const blocks = await blocksOf('docs/approvals.md')
  const service = await openTestService(t)
  const folder = await newFolder(t)
  const env = { ...envFor(service), PATH: await putCommand(join(folder, 'bin')), HOME: folder }
  const typed: string[] = []
  /** In one shell: what one block has found, the next one uses. */
  const type = async (...names: readonly string[]): Promise<string> => {
    typed.push(...names)
    const text = names.map((name) => blocks.get(name) ?? 'false').join('\n')
    const { stdout, stderr } = await run('bash', ['-ceu', '-o', 'pipefail', text], { cwd: folder, env })
    return stdout + stderr
  }
  t.match(await type('profile'), /payments/)
  await type('people')
  t.equal((await stat(join(folder, 'alice.token'))).mode & 0o777, 0o600, 'nobody else reads a token')
  t.match(await type('ask'), /^The request \S+ waits for approval: 0 of 2\. /)
  t.equal(await readShown(join(folder, 'pay')), undefined)
  const said = await type('show', 'approve')
  t.match(
    said,
    /^ID +STATE +PRINCIPAL +PROFILE +APPROVALS +NAMES +EXPIRES-AT\n\S+ +pending +ci +payments@1 +0 of 2 +dns:pay/,
  )
  t.match(said, /^name {8}dns:pay\.example\.com$/m)
  t.match(said, /^\S+ has 1 of 2 approvals\.$/m)
  const [, id = '', serial = ''] = /^(\S+) is issued: serial ([0-9a-f]{32})\.$/m.exec(said) ?? []
  t.match(await type('get'), /^serial [\s\S]*pay\/certificate\.pem: OK\n$/)
  t.equal((await readShown(join(folder, 'pay')))?.serial, serial)
  t.match(await openDesk(service).eventsOf(id), [
    { type: 'request.created', principal: 'ci' },
    { type: 'request.approved', by: 'alice', reason: 'change 4711' },
    { type: 'request.approved', by: 'bob', reason: 'looked at' },
    { type: 'certificate.issued', approval: id, serial },
  ])
  t.same(new Set(typed), new Set(blocks.keys()), 'and there is no other block')
})

/** Files with the tokens of `employApprovers`. */
const employ = async (folder: string): Promise<Readonly<Record<string, string>>> => {
  await wantApprovals(service, 'vault', { required: 1 })
  const people = await employApprovers(service, ['vault'])
  const files = Object.entries(people).map(async ([name, token]) => {
    await writeFile(join(folder, name), token)
    return [name, join(folder, name)] as const
  })
  return Object.fromEntries(await Promise.all(files))
}

let tokens: Readonly<Record<string, string>>

const pendingOf = async (profile: string): Promise<RequestAnswer> => {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const args = ['request', 'list', '--state', 'pending', '--profile', profile, '--json']
    const [found] = JSON.parse((await chancery(args)).out)
    if (found) return found
  }
  throw new Error('no request came within 20 s')
}

/** So many, at least. */
const untilPending = async (profile: string, count: number): Promise<readonly RequestAnswer[]> => {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const { json } = await service.request('GET', `/v1/requests?state=pending&profile=${profile}`)
    if (json.items.length >= count) return json.items
  }
  throw new Error(`${count} requests did not come within 20 s`)
}

const issueArgs = (out: string): readonly string[] => [
  ...['issue', '--token-file', tokens['requester'] ?? '', '--profile', 'vault', '--name', 'vault.example.com'],
  ...['--out', out],
]

const decideArgs = (act: string, { id, digest }: RequestAnswer): readonly string[] => [
  ...['request', act, id, '--token-file', tokens['alice'] ?? '', '--reason', 'why not', '--digest', digest],
]

t.test('who asks waits, is told of the approval, and has the certificate', async (t) => {
  const out = join(await newFolder(t), 'vault')
  const child = startChancery(service, issueArgs(out))
  const ended = once(child, 'exit')
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const request = await pendingOf('vault')
  t.match((await chancery(decideArgs('approve', request))).out, /is issued: serial/)
  t.equal((await ended)[0], 0)
  t.match(said, /^The request \S+ waits for approval: 0 of 1\. Asked until 20/)
  t.match(said, /^1 of 1: alice has approved it\.$/m)
  t.ok(await readShown(out))
})

slowTest('a plan that has changed is issued by nobody, and who asks is told why', async (t) => {
  const out = join(await newFolder(t), 'vault')
  t.match(await chancery([...issueArgs(out), '--no-wait']), {
    code: exitCodes.later,
    err: /waits for approval: 0 of 1/,
  })
  const request = await pendingOf('vault')
  await wantApprovals(service, 'vault', { required: 1 }, { description: 'changed' })
  const decided = await chancery(decideArgs('approve', request))
  t.match(decided, { code: exitCodes.conflict, out: /has failed, and nothing was issued: By now another certificate/ })
  t.match(decided.out, /: the profile vault is at version \d+, and was at \d+\./, 'which is why')
  t.match(await eventsOf(request.id), [
    { type: 'request.created', plan: request.digest },
    { type: 'request.approved', plan: request.digest, by: 'alice' },
    { type: 'request.failed', plan: request.digest, code: 'approval.plan' },
  ])
  const told = await chancery([...issueArgs(out), '--no-wait'])
  t.match(told, { code: exitCodes.conflict, err: /approval\.failed/ })
  t.match(await chancery([...issueArgs(out), '--no-wait']), { code: exitCodes.later }, 'and then it is asked anew')
  const again = await pendingOf('vault')
  t.not(again.id, request.id)
  t.match((await chancery(decideArgs('reject', again))).out, `${again.id} is rejected.`)
  t.match(await chancery([...issueArgs(out), '--no-wait']), {
    code: exitCodes.conflict,
    err: /why not.*\nTalk to whoever rejected it\. To ask anew: the same command\.$/ms,
  })
  t.equal(await readShown(out), undefined)
})

slowTest('who asked withdraws it, and asks anew by the same command', async (t) => {
  const out = join(await newFolder(t), 'vault')
  await chancery([...issueArgs(out), '--no-wait'])
  const { id } = await pendingOf('vault')
  const withdraw = ['request', 'withdraw', id, '--reason', 'wrong name', '--token-file']
  const foreign = await chancery([...withdraw, tokens['alice'] ?? ''])
  t.match(foreign, { code: exitCodes.denied, err: /approval\.not_own/ })
  const taken = await chancery([...withdraw, tokens['requester'] ?? ''])
  t.match(taken, { code: 0, out: new RegExp(`^${id} is withdrawn`) })
  const shown = (await chancery(['request', 'show', id])).out
  t.match(shown, /^ended {7}at \S+ by ci: wrong name$/m)
  t.match(await chancery([...issueArgs(out), '--no-wait']), {
    code: exitCodes.conflict,
    err: /approval\.withdrawn.*\nTo ask anew: the same command\.$/m,
  })
  t.match(await chancery([...issueArgs(out), '--no-wait']), { code: exitCodes.later })
  const again = await pendingOf('vault')
  t.not(again.id, id)
  await chancery(decideArgs('reject', again))
})

t.test('who asks is told what keeps it, once it is approved', async (t) => {
  const [grant] = (await service.request('GET', '/v1/grants?principal=ci')).json.items
  const limits = { certificatesPerDay: 1 }
  const narrow = { principal: 'ci', role: 'requester', profiles: ['vault', 'server'], limits }
  await service.request('POST', '/v1/grants', { body: narrow })
  await service.request('DELETE', `/v1/grants/${grant.id}`)
  const out = join(await newFolder(t), 'vault')
  const child = startChancery(service, issueArgs(out))
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const request = await pendingOf('vault')
  const approved = await chancery(decideArgs('approve', request))
  t.match(approved, {
    code: 0,
    out: /is approved, and is issued as soon as that can be done: limit\.certificates_per_day: /,
  })
  t.match(
    (await chancery(['request', 'show', request.id])).out,
    /^kept by {5}limit\.certificates_per_day: [\s\S]* at 20/m,
  )
  for (const end = Date.now() + 20_000; !said.includes('limit.') && Date.now() < end; )
    await new Promise((resolve) => setTimeout(resolve, 100))
  t.match(said, /^It is approved, and tried again until it expires: limit\.certificates_per_day: /m)
  child.kill()
  await once(child, 'exit')
  await chancery(decideArgs('reject', request))
  const free = { principal: 'ci', role: 'requester', profiles: ['vault'] }
  await service.request('POST', '/v1/grants', { body: free })
  for (const { id, limits: held } of (await service.request('GET', '/v1/grants?principal=ci')).json.items)
    if (held) await service.request('DELETE', `/v1/grants/${id}`)
})

slowTest('several are waited for together, whichever is approved first', async (t) => {
  const folder = await newFolder(t)
  const names = ['one', 'two', 'three', 'four', 'five', 'six']
  const orders = names.map((name) => ({ profile: 'vault', names: [`${name}.example.com`], out: join(folder, name) }))
  await writeFile(join(folder, 'orders.yaml'), JSON.stringify(orders))
  const args = ['issue', '--token-file', tokens['requester'] ?? '', '--orders', join(folder, 'orders.yaml')]
  const child = startChancery(service, args)
  const ended = once(child, 'exit')
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const requests = await untilPending('vault', names.length)
  for (const [i, name] of names.toReversed().entries()) {
    const request = requests.find(({ plan }) => plan.names[0]?.value === `${name}.example.com`) as RequestAnswer
    await chancery(decideArgs(name === 'three' ? 'reject' : 'approve', request))
    if (name === 'three' || i > 1) continue
    while (!(await readShown(join(folder, name)))) await new Promise((resolve) => setTimeout(resolve, 50))
  }
  t.equal((await ended)[0], exitCodes.conflict, 'one was rejected')
  t.match(said, /^\S+\/six: 1 of 1: alice has approved it\.$/m)
  for (const name of names) t.equal((await readShown(join(folder, name))) !== undefined, name !== 'three', name)
  const twice = [...orders, { ...orders[0], out: `${folder}/./one` }]
  await writeFile(join(folder, 'orders.yaml'), JSON.stringify(twice))
  t.match(await chancery(args), { code: exitCodes.usage, err: /Two orders are for \S+\/one; each takes a folder/ })
})

const vaultCsr = async (folder: string): Promise<string> => {
  const extension = ['-addext', 'subjectAltName=DNS:vault.example.com', '-subj', '/']
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(folder, 'key.pem')]
  await run('openssl', ['req', '-new', ...key, ...extension, '-out', join(folder, 'csr')])
  return join(folder, 'csr')
}

slowTest('with --csr and --out, the same command finds the same request', async (t) => {
  const folder = await newFolder(t)
  const csr = await vaultCsr(folder)
  const out = join(folder, 'chain.pem')
  const token = ['--token-file', tokens['requester'] ?? '']
  const args = ['issue', ...token, '--profile', 'vault', '--csr', csr, '--out', out, '--no-wait']
  const first = await chancery(args)
  t.equal(first.code, exitCodes.later)
  t.notMatch(first.err, '--idempotency-key', 'nothing need be remembered')
  t.equal((await stat(`${out}.pending.json`)).mode & 0o777, 0o600)
  const request = await pendingOf('vault')
  t.match(await chancery(args), { code: exitCodes.later, err: `The request ${request.id} waits` })
  t.equal((await untilPending('vault', 1)).length, 1, 'there is one request')
  const other = await chancery([...args, '--validity', '2h'])
  t.notMatch(other.err, request.id, 'another question is another request')
  t.match(await chancery(args), { code: exitCodes.later })
  for (const found of await untilPending('vault', 1)) await chancery(decideArgs('approve', found))
  t.match(await chancery(args), { code: 0, out: /is in \S+chain\.pem\.$/m })
  t.match(await readFile(out, 'utf8'), /^-----BEGIN CERTIFICATE/)
  t.same((await readdir(folder)).sort(), ['chain.pem', 'csr', 'key.pem'], 'the question goes with its answer')
  await writeFile(`${out}.pending.json`, 'junk', { mode: 0o600 })
  t.match(await chancery(args), { code: exitCodes.later }, 'what is none is replaced')
  await chancery(decideArgs('reject', await pendingOf('vault')))
  const rejected = {
    code: exitCodes.conflict,
    err: /approval\.rejected.*whoever rejected it\. To ask anew: the same command\.$/ms,
  }
  t.match(await chancery(args), rejected)
  t.same((await readdir(folder)).sort(), ['chain.pem', 'csr', 'key.pem'], 'and with its end')
})

slowTest('whoever gave the key of a request that has ended is told to give another', async (t) => {
  const csr = await vaultCsr(await newFolder(t))
  const args = ['--token-file', tokens['requester'] ?? '', '--profile', 'vault', '--idempotency-key', 'said']
  const one = ['issue', ...args, '--csr', csr, '--no-wait']
  await chancery(one)
  await chancery(decideArgs('reject', await pendingOf('vault')))
  const anew = /whoever rejected it\. To ask anew: the same command with another --idempotency-key\.$/m
  t.match(await chancery(one), { code: exitCodes.conflict, err: anew })
  const many = ['issue-many', ...args, csr, '--out', await newFolder(t)]
  await chancery(many)
  await chancery(decideArgs('reject', await pendingOf('vault')))
  const byFiles = /^To ask anew for those whose approval has ended: .* with another --idempotency-key or none\.$/m
  t.match(await chancery(many), { code: exitCodes.conflict, err: byFiles })
})

t.test('whoever waits for what goes to standard output is told how to go on', async (t) => {
  const csr = await vaultCsr(await newFolder(t))
  const args = ['issue', '--token-file', tokens['requester'] ?? '', '--profile', 'vault', '--csr', csr]
  const child = startChancery(service, args)
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const request = await pendingOf('vault')
  while (!said.includes('Ctrl-C')) await new Promise((resolve) => setTimeout(resolve, 20))
  child.kill('SIGINT')
  const [, key = ''] = /Ctrl-C, and the same command with --idempotency-key (\S+) goes on later/.exec(said) ?? []
  await chancery(decideArgs('approve', request))
  t.match(await chancery([...args, '--idempotency-key', key]), { code: 0, out: /^-----BEGIN CERTIFICATE/ })
})

t.test('with --csr, the same call with the same key goes on', async (t) => {
  const csr = await vaultCsr(await newFolder(t))
  const args = ['issue', '--token-file', tokens['requester'] ?? '', '--profile', 'vault', '--csr', csr]
  const first = await chancery([...args, '--no-wait'])
  t.equal(first.code, exitCodes.later)
  const [, key = ''] = /--idempotency-key (\S+)$/m.exec(first.err) ?? []
  await chancery(decideArgs('approve', await pendingOf('vault')))
  t.match(await chancery([...args, '--idempotency-key', key]), { code: 0, out: /^-----BEGIN CERTIFICATE/ })
})

t.test('a list that is cut off says so', async (t) => {
  const desk = openDesk(service)
  const requester = await readFile(tokens['requester'] as string, 'utf8')
  const asked = [
    await desk.ask(requester, 'vault', { key: 'cut-1' }),
    await desk.ask(requester, 'vault', { key: 'cut-2' }),
  ]
  const list = ['request', 'list', '--state', 'pending', '--profile', 'vault', '--limit']
  t.match(await chancery([...list, '1']), {
    code: 0,
    err: 'This is the newest, and there are more: see --limit.\n',
  })
  t.match(await chancery([...list, '100']), { code: 0, err: /^$/ })
  for (const { json } of asked) await desk.withdraw(requester, json)
})

const clientOf = (name: string): Promise<Client> =>
  openClient({ server: service.url, tokenFile: tokens[name] as string }, { CHANCERY_DATA: service.config.dataDir })

t.test('who approves what has ended meanwhile is told so', async (t) => {
  const desk = openDesk(service)
  const [requester, bob] = await Promise.all(
    ['requester', 'bob'].map((name) => readFile(tokens[name] as string, 'utf8')),
  )
  const client = await clientOf('alice')
  const ends = {
    rejected: () => desk.reject(bob as string, request),
    withdrawn: () => desk.withdraw(requester as string, request),
  }
  let request: RequestAnswer
  for (const [state, end] of Object.entries(ends)) {
    request = (await desk.ask(requester as string, 'vault', { key: `meanwhile ${state}`.replace(' ', '-') })).json
    let said = ''
    const late: Client = {
      ...client,
      call: async (method, path, ...more) => {
        if (method === 'GET') return client.call(method, path, ...more)
        await end()
        return client.call('GET', `/v1/requests/${request.id}`)
      },
    }
    const out = openOutput(false, (text) => {
      said += text
    })
    const ask = { act: 'approve', id: request.id, reason: 'x', digest: request.digest } as const
    const done = await decide(ask, { client: late, out, answers: undefined, tell: () => {} }).then(
      () => 'done',
      (error: Failure) => error.kind,
    )
    t.equal(done, 'conflict')
    t.match(said, new RegExp(`^${request.id} was ${state}, and nothing was issued: `))
  }
})

t.test('nothing of an answer steers the terminal', async (t) => {
  const desk = openDesk(service)
  const requester = await readFile(tokens['requester'] as string, 'utf8')
  const request = (await desk.ask(requester, 'vault', { key: 'steering' })).json as RequestAnswer
  const client = await clientOf('alice')
  const evil = '\u001b[31mred'
  for (const state of ['pending', 'approved', 'issued', 'rejected', 'withdrawn', 'expired', 'failed'] as const) {
    const answered = { ...request, state, id: evil, serial: evil, required: evil, digest: request.digest }
    const steering: Client = {
      ...client,
      call: async (...call) => ({
        ...(await client.call('GET', `/v1/requests/${request.id}`)),
        json: (() => (call[0] === 'GET' ? { ...request, id: evil } : answered)) as never,
      }),
    }
    let said = ''
    const tell = (text: string): void => {
      said += text
    }
    const answers = { match: async () => true }
    const ask = { act: 'approve', id: request.id, reason: 'x' } as const
    await decide(ask, { client: steering, out: openOutput(false, tell), answers, tell }).catch(() => {})
    t.match(said, '\\u001b[31mred', state)
    t.notMatch(said, evil, state)
  }
  const waits = { ...(await client.call('GET', `/v1/requests/${request.id}`)), status: 202 }
  const told = { ...request, id: evil, required: evil }
  try {
    assertAnswered({ ...waits, json: (() => told) as never })
    t.fail('it waits')
  } catch (error) {
    t.notMatch((error as Error).message, evil)
  }
  await desk.withdraw(requester, request)
})

slowTest('who waits looks again when the service says, and not before', async (t) => {
  const told = {
    ...{ id: 'a', state: 'pending', required: 1, approvals: [], obstacle: null },
    ...{ expiresAt: '2026-11-26T08:00:00Z' },
  }
  const states = ['pending', 'away', 'issued']
  const at: number[] = []
  const call = async (): Promise<Answer> => {
    at.push(performance.now())
    if (states[0] === 'away') throw new Failure('later', `${states.shift()}`, { retryAfter: 3 })
    const request = { ...told, state: states.shift() }
    return { status: 200, headers: { 'retry-after': '2' }, json: () => request } as unknown as Answer
  }
  const answer = { status: 202, headers: { 'retry-after': '1' }, json: () => told } as unknown as Answer
  const awaited = await Promise.resolve()
    .then(() => assertAnswered(answer))
    .catch((error: Awaited) => error)
  if (!(awaited instanceof Awaited)) return t.fail('it does not wait')
  t.match(awaited.problem, { code: 'approval.waiting', retryAfter: 1 }, 'a daemon, too')
  const begun = performance.now()
  await untilDecided(awaited.request, { client: { call } as unknown as Client, tell: () => {}, again: 'the same' })
  const [first = 0, second = 0, third = 0] = at
  // Timers may fire a millisecond early.
  t.ok(first - begun > 990, 'as the 202 said')
  t.ok(second - first > 1_990, 'as the last answer said')
  t.ok(third - second > 2_990, 'and as whoever has not answered it')
})

t.test('what no timer can take is waited for all the same', async (t) => {
  const told = { id: 'a', state: 'pending', required: 1, approvals: [], expiresAt: '2026-11-26T08:00:00Z' }
  t.equal(askedMs(), 0)
  t.equal(askedMs(3_599), 3_599_000)
  for (const field of ['999999999', 'Fri, 31 Dec 9999 23:59:59 GMT']) {
    const retryAfter = secondsOf(field)
    t.equal(askedMs(retryAfter), 3_600_000, 'an hour at most')
    let calls = 0
    const call = async () => {
      calls += 1
      throw new Failure('failed', 'it was not waited for')
    }
    const waiting = { client: { call } as unknown as Client, tell: () => {}, again: 'the same' }
    const request = { ...told, retryAfter } as unknown as Awaited['request']
    await t.rejects(untilDecided(request, { ...waiting, signal: AbortSignal.timeout(100) }), {
      message: 'It was ended while it waited.',
    })
    t.equal(calls, 0)
  }
  for (const field of ['0', '-5', '1.5', 'soon', '', '9'.repeat(12), 'Thu, 01 Jan 1970 00:00:00 GMT'])
    t.equal(secondsOf(field), undefined, field)
})

t.test('nobody approves what was not shown', async (t) => {
  const out = join(await newFolder(t), 'vault')
  await chancery([...issueArgs(out), '--no-wait'])
  const request = await pendingOf('vault')
  const blind = await chancery(decideArgs('approve', request).slice(0, -2))
  t.match(blind, { code: exitCodes.refused, err: `add --digest ${request.digest}` })
  t.match(blind.err, /^name {8}dns:vault\.example\.com$/m)
  const other = await chancery(decideArgs('approve', { ...request, digest: 'ab'.repeat(32) }))
  t.match(other, { code: exitCodes.conflict, err: /not the plan with the digest abab/ })

  const client = await clientOf('alice')
  const deps = (over: Client, typed: string) => ({
    client: over,
    out: openOutput(false, () => {}),
    tell: () => {},
    answers: { match: async (wanted: string) => wanted === typed },
  })
  const ask = { act: 'approve', id: request.id, reason: 'x' } as const
  await t.rejects(decide(ask, deps(client, 'something')), /Not confirmed\. Nothing was approved\./)
  // One that shows another plan than that whose digest it tells.
  const lying: Client = {
    ...client,
    call: async (...call) => {
      const answer = await client.call(...call)
      const told = answer.json<RequestAnswer>()
      const json = () => ({ ...told, plan: { ...told.plan, names: [{ kind: 'dns', value: 'harmless.example.com' }] } })
      return { ...answer, json: json as typeof answer.json }
    },
  }
  await t.rejects(decide(ask, deps(lying, request.digest.slice(0, 8))), /a digest that is not that of the plan/)
  // One that is newer, and whose plans say more than we know of: the digest is right.
  const newer = (change: (plan: RequestAnswer['plan']) => object): Client => ({
    ...client,
    call: async (...call) => {
      const answer = await client.call(...call)
      const told = answer.json<RequestAnswer>()
      if (!told.plan) return answer
      const plan = change(told.plan)
      const json = () => ({ ...told, plan, digest: hash('sha256', canonicalJson(plan)) })
      return { ...answer, json: json as typeof answer.json }
    },
  })
  for (const [change, members] of [
    [(plan) => ({ ...plan, policies: ['1.2.3'] }), 'policies'],
    [(plan) => ({ ...plan, names: [{ ...plan.names[0], scope: 'all' }], ca: true }), 'names.scope, ca'],
    [(plan) => ({ ...plan, profile: { ...plan.profile, by: 'x' } }), 'profile.by'],
    [(plan) => ({ ...plan, keyUsage: [{ id: 'keyCertSign' }] }), 'keyUsage'],
    [(plan) => ({ ...plan, subject: [{ type: 'pseudonym', value: 'x' }] }), 'subject.pseudonym'],
  ] as readonly (readonly [(plan: RequestAnswer['plan']) => object, string])[]) {
    const message = new RegExp(`cannot show: ${members}\\. The server is newer: update the command`)
    await t.rejects(decide(ask, deps(newer(change), '')), { kind: 'usage', message })
  }
  const { keyType: _, ...less } = request.plan
  await t.rejects(
    decide(
      ask,
      deps(
        newer(() => less),
        '',
      ),
    ),
    { kind: 'failed', message: /tells no keyType/ },
  )
  t.equal((await eventsOf(request.id)).length, 1, 'nothing was said')
  await decide(ask, deps(client, request.digest.slice(0, 8)))
  t.match((await eventsOf(request.id)).at(-1), { type: 'certificate.issued', approval: request.id })
  for (const [act, done] of [
    ['approve', 'approved'],
    ['reject', 'rejected'],
  ] as const) {
    const late = await chancery(decideArgs(act, request).slice(0, -2))
    t.match(late, { code: exitCodes.conflict, err: `is issued, and not open any more. Nothing was ${done}.` })
    t.notMatch(late.err, /add --digest/)
  }
})

t.test('what cannot be shown whole can be rejected', async (t) => {
  await chancery([...issueArgs(join(await newFolder(t), 'vault')), '--no-wait'])
  const { id } = await pendingOf('vault')
  const client = await openClient(
    { server: service.url, tokenFile: tokens['alice'] as string },
    { CHANCERY_DATA: service.config.dataDir },
  )
  const said: string[] = []
  const deps = { client, out: openOutput(false, () => {}), tell: (text: string) => void said.push(text) }
  const newer: Client = {
    ...client,
    call: async (method, path, call) => {
      const answer = await client.call(method, path, call)
      const told = answer.json<RequestAnswer>()
      const plan = { ...told.plan, subject: [{ type: 'pseudonym', value: 'x' }] }
      const digest = hash('sha256', canonicalJson(plan))
      // What is sent is the digest of what it has; the test's own server has another.
      const json = () => (method === 'GET' ? { ...told, plan, digest } : told)
      return { ...answer, json: json as typeof answer.json }
    },
  }
  const ask = { act: 'reject', id, reason: 'x' } as const
  const answers = { match: async () => true }
  await t.rejects(decide(ask, { ...deps, answers, client: newer }), { kind: 'conflict', message: /approval\.plan/ })
  t.match(said.join(''), /^subject {5}\[\{"type":"pseudonym"/m)
  t.match(said.join(''), /cannot show: subject\.pseudonym/)
  await decide(ask, { ...deps, answers })
})

t.test('what an explanation says of approvals', async (t) => {
  const { out } = await chancery([
    'explain',
    '--profile',
    'vault',
    '--name',
    'vault.example.com',
    '--token-file',
    tokens['requester'] ?? '',
  ])
  t.match(out, /^This request would be issued once 1 have approved it\.\n/)
})

/** Approvals by the command: docs/approvals.md typed as it stands, and what an approver is shown, asked and told. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import type { Client } from '../../src/commands/client.ts'
import { openClient } from '../../src/commands/client.ts'
import { exitCodes } from '../../src/commands/failure.ts'
import { openOutput } from '../../src/commands/output.ts'
import { decide, type RequestAnswer } from '../../src/commands/request.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { newFolder, readShown } from './folders.ts'
import { type Chancery, chanceryFor, mainFile, startChancery } from './run.ts'

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

t.test('from the question to the certificate, as the page tells it', async (t) => {
  const blocks = await blocksOf('docs/approvals.md')
  const service = await openTestService(t)
  const folder = await newFolder(t)
  await mkdir(join(folder, 'bin'))
  const command = `#!/bin/sh\nexec '${process.execPath}' '${mainFile}' "$@"\n`
  await writeFile(join(folder, 'bin', 'chancery'), command, { mode: 0o755 })
  const env = {
    ...bare,
    PATH: `${join(folder, 'bin')}:${process.env['PATH']}`,
    CHANCERY_URL: service.url,
    CHANCERY_DATA: service.config.dataDir,
    HOME: folder,
  }
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
  t.match(await type('ask'), /^The request \S+ waits for approval: 0 of 2\. /)
  t.equal(await readShown(join(folder, 'pay')), undefined)
  const said = await type('show', 'approve')
  t.match(
    said,
    /^ID +STATE +PRINCIPAL +PROFILE +APPROVALS +NAMES +EXPIRESAT\n\S+ +pending +ci +payments@1 +0 of 2 +dns:pay/,
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
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const request = await pendingOf('vault')
  t.match((await chancery(decideArgs('approve', request))).out, /is issued: serial/)
  t.equal((await once(child, 'exit'))[0], 0)
  t.match(said, /^The request \S+ waits for approval: 0 of 1\. Asked until 20/)
  t.match(said, /^1 of 1: alice has approved it\.$/m)
  t.ok(await readShown(out))
})

t.test('a plan that has changed is issued by nobody, and who asks is told why', async (t) => {
  const out = join(await newFolder(t), 'vault')
  t.match(await chancery([...issueArgs(out), '--no-wait']), {
    code: exitCodes.later,
    err: /waits for approval: 0 of 1/,
  })
  const request = await pendingOf('vault')
  await wantApprovals(service, 'vault', { required: 1 }, { description: 'changed' })
  const decided = await chancery(decideArgs('approve', request))
  t.match(decided, { code: exitCodes.conflict, out: /has failed, and nothing was issued: By now another certificate/ })
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
  t.match(await chancery([...issueArgs(out), '--no-wait']), { code: exitCodes.conflict, err: /why not/ })
  t.equal(await readShown(out), undefined)
})

t.test('with --csr, the same call with the same key goes on', async (t) => {
  const folder = await newFolder(t)
  await run('openssl', [
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/'],
    ...[
      '-addext',
      'subjectAltName=DNS:vault.example.com',
      '-keyout',
      join(folder, 'key.pem'),
      '-out',
      join(folder, 'csr'),
    ],
  ])
  const args = ['issue', '--token-file', tokens['requester'] ?? '', '--profile', 'vault', '--csr', join(folder, 'csr')]
  const first = await chancery([...args, '--no-wait'])
  t.equal(first.code, exitCodes.later)
  const [, key = ''] = /--idempotency-key (\S+)$/m.exec(first.err) ?? []
  await chancery(decideArgs('approve', await pendingOf('vault')))
  t.match(await chancery([...args, '--idempotency-key', key]), { code: 0, out: /^-----BEGIN CERTIFICATE/ })
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

  const client = await openClient(
    { server: service.url, tokenFile: tokens['alice'] as string },
    { CHANCERY_DATA: service.config.dataDir },
  )
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
  t.equal((await eventsOf(request.id)).length, 1, 'nothing was said')
  await decide(ask, deps(client, request.digest.slice(0, 8)))
  t.match((await eventsOf(request.id)).at(-1), { type: 'certificate.issued', approval: request.id })
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

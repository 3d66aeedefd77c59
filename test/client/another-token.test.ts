/** A token that is not taken any more while a command uses it: where there is another, it goes on with that. */
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'
import { parse, stringify } from 'yaml'

import { exitCodes } from '../../src/lib/failure.ts'
import { type DeviceIssuer, openDeviceIssuer, peopleDocument } from '../helpers/device-issuer.ts'
import { type Chancery, chanceryFor, startChancery } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)

let service: TestService
let chancery: Chancery
let issuer: DeviceIssuer
t.before(async () => {
  service = await openTestService(t)
  chancery = chanceryFor(service)
  issuer = await openDeviceIssuer(t)
  const body = peopleDocument(issuer, [{ id: 'alice', claims: { sub: 'alice' }, principal: 'auditing' }])
  const headers = { 'if-none-match': '*' }
  await service.request('PUT', '/v1/identity-providers/people', { headers, body })
  await service.request('POST', '/v1/principals', { body: { name: 'auditing' } })
  await service.request('POST', '/v1/grants', { body: { principal: 'auditing', role: 'auditor' } })
})

/** Somebody who logged in at the provider, which has given up the key of the id token since. */
const logIn = async (more: object = {}) => {
  const home = await newFolder(t)
  const { id_token: idToken, refresh_token: refreshToken } = await issuer.tokens()
  const [head, body] = idToken.split('.')
  const gone = `${head}.${body}.${'A'.repeat(86)}`
  const oidc = { issuer: issuer.url, clientId: 'cli', scope: 'offline_access', ca: issuer.ca, idToken: gone }
  const ca = await readFile(join(service.config.dataDir, 'root.pem'), 'utf8')
  const context = { server: service.url, ca, oidc: { ...oidc, refreshToken, ...more } }
  const file = join(home, 'chancery', 'config.yaml')
  await mkdir(join(home, 'chancery'), { mode: 0o700 })
  await writeFile(file, stringify({ contexts: { people: context } }), { mode: 0o600 })
  return {
    gone,
    kept: async () => parse(await readFile(file, 'utf8')).contexts.people.oidc.idToken as string,
    run: (...args: readonly string[]) => chancery([...args, '--context', 'people'], { XDG_CONFIG_HOME: home }),
  }
}

t.test('an id token whose key is gone is renewed by whichever command meets it', async (t) => {
  for (const command of [
    ['audit', 'refusals'],
    ['audit', 'events', '--ndjson'],
  ]) {
    const { run, gone, kept } = await logIn()
    const { code, err } = await run(...command)
    t.equal(code, 0, `${command.join(' ')}: ${err}`)
    t.not(await kept(), gone, 'and kept')
  }
})

t.test('where there is none to be had, it says what to do', async (t) => {
  const ended = await (await logIn({ refreshToken: 'of another time' })).run('audit', 'refusals')
  t.equal(ended.code, exitCodes.denied)
  t.match(ended.err, /not accepted[\s\S]*Log in again by chancery login/)
  const json = await (await logIn({ refreshToken: 'of another time' })).run('audit', 'refusals', '--json')
  t.equal(JSON.parse(json.err || json.out).code, 'auth.invalid', 'for programs it is the problem of the service')
  issuer.script.push('destroy')
  const away = await (await logIn()).run('audit', 'refusals')
  t.equal(away.code, exitCodes.denied, 'nobody answers there')
  t.match(away.err, 'not accepted')
})

slowTest('who waits for people goes on with the token that takes the place of the first', async (t) => {
  await wantApprovals(service, 'payments', { required: 1 })
  const { requester, alice } = await employApprovers(service, ['payments'])
  const folder = await newFolder(t)
  const [file, out] = [join(folder, 'token'), join(folder, 'pay')]
  await writeFile(file, requester, { mode: 0o600 })
  const args = ['issue', '--token-file', file, '--profile', 'payments', '--name', 'pay.example.com', '--out', out]
  const waiting = startChancery(service, args)
  const ended = once(waiting, 'exit')
  let said = ''
  waiting.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  while (!said.includes('waits for approval')) await once(waiting.stderr as NodeJS.ReadableStream, 'data')
  const next = (await service.request('POST', '/v1/tokens', { body: { principal: 'ci', label: 'the next' } })).json
  await writeFile(file, next.secret)
  const tokens = (await service.request('GET', '/v1/tokens?principal=ci')).json.items
  for (const { id } of tokens) if (id !== next.id) await service.request('DELETE', `/v1/tokens/${id}`)
  const [request] = (await service.request('GET', '/v1/requests')).json.items
  t.match(await openDesk(service).approve(alice, request), { status: 200 })
  const [code] = await ended
  t.equal(code, 0, said)
  t.ok(await readShown(out))
})

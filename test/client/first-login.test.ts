/** The first login of somebody whom nobody has granted anything yet: it counts, and says who is to be granted something. */
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { loginByDevice, mostOfIdToken } from '../../src/client/oidc.ts'
import { readToken, type TokenFault } from '../../src/keys/jwt.ts'
import { openDeviceIssuer, peopleDocument } from '../helpers/device-issuer.ts'
import { bare } from '../helpers/environment.ts'
import { chanceryFor, mainFile, type Run } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder } from './folders.ts'

t.setTimeout(300_000)
const codeIn = (text: string): string => /type the code (\S+)/.exec(text)?.[1] ?? ''

slowTest('who logs in first is told as whom, and need not log in again when something is granted', async (t) => {
  const [issuer, service, home] = [await openDeviceIssuer(t), await openTestService(t), await newFolder(t)]
  const body = peopleDocument(issuer, [{ id: 'person', claims: { sub: '*' }, principal: 'people:{/sub}' }])
  const headers = { 'if-none-match': '*' }
  await service.request('PUT', '/v1/identity-providers/people', { headers, body })
  const anchor = join(home, 'oidc.pem')
  await writeFile(anchor, issuer.ca)
  const place = ['--server', service.url, '--ca', join(service.config.dataDir, 'root.pem')]
  const args = ['login', ...place, '--oidc', issuer.url, '--client-id', 'cli', '--oidc-ca', anchor, '--context', 'own']
  const login = await new Promise<Run>((resolve) => {
    const child = spawn(process.execPath, [mainFile, ...args], { env: { ...bare, XDG_CONFIG_HOME: home } })
    const said = { out: '', err: '' }
    child.stdout.on('data', (chunk: Buffer) => {
      said.out += chunk
    })
    child.stderr.on('data', (chunk: Buffer) => {
      said.err += chunk
      issuer.type(codeIn(said.err))
    })
    child.once('close', (code) => resolve({ code: code ?? -1, ...said }))
  })
  t.match(login, { code: 0, out: `own is the current context: ${service.url} takes the token.\n` })
  t.match(login.err, /note: it may do nothing yet\. .*the principal "people:alice" has not\. \(auth\.forbidden/)

  const own = (): Promise<Run> =>
    chanceryFor(service)(['audit', 'refusals', '--context', 'own'], {
      XDG_CONFIG_HOME: home,
      CHANCERY_URL: service.url,
    })
  t.match(await own(), { code: 4, err: /the principal "people:alice" has not/ })
  const granted = await service.request('POST', '/v1/grants', { body: { principal: 'people:alice', role: 'auditor' } })
  t.equal(granted.status, 201)
  t.match(await own(), { code: 0 })
})

t.test('a token of too many groups is told as what it is', async (t) => {
  const issuer = await openDeviceIssuer(t)
  const provider = { issuer: issuer.url, clientId: 'cli', scope: '', ca: issuer.ca }
  const deps = { elapsed: () => 0, sleep: async () => {}, tell: (text: string) => issuer.type(codeIn(text)) }
  for (const count of [200, 500, 3_000]) {
    issuer.claims = { groups: Array.from({ length: count }, (_, i) => `pki-team-${i}`) }
    const login = loginByDevice(provider, deps)
    if (count === 200) t.ok((await login).idToken)
    else await t.rejects(login, /no id token to log in by: it is one of \d+ characters, and the service takes 8192/)
  }
  const reasonFor = (length: number): string => {
    try {
      readToken('x'.repeat(length))
    } catch (error) {
      return (error as TokenFault).reason
    }
    return ''
  }
  t.equal(reasonFor(mostOfIdToken), 'malformed', 'as many as the service takes')
  t.equal(reasonFor(mostOfIdToken + 1), 'huge')
})

slowTest('whoever is not let in has logged in nowhere', async (t) => {
  const [service, home] = [await openTestService(t), await newFolder(t)]
  const [file, env] = [join(home, 'token'), { XDG_CONFIG_HOME: home }]
  await writeFile(file, 'chy_of_nobody')
  const place = ['--server', service.url, '--ca', join(service.config.dataDir, 'root.pem'), '--token-file', file]
  t.match(await chanceryFor(service)(['login', ...place], env), { code: 4, err: /auth\.invalid/ })
  t.match(await chanceryFor(service)(['context', 'list', '--json'], env), { out: /"items": \[\]|\[\]/ })
})

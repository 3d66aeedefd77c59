/** The first login of somebody whom nobody has granted anything yet: it counts, and says who is to be granted something. */
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { openDeviceIssuer } from '../helpers/device-issuer.ts'
import { bare } from '../helpers/environment.ts'
import { openTestService } from '../helpers/service.ts'
import { newFolder } from './folders.ts'
import { chanceryFor, mainFile, type Run } from './run.ts'

t.setTimeout(60_000)

t.test('who logs in first is told as whom, and need not log in again when something is granted', async (t) => {
  const [issuer, service, home] = [await openDeviceIssuer(t), await openTestService(t), await newFolder(t)]
  const body = {
    name: 'people',
    issuer: issuer.url,
    keys: { discovery: true, ca: issuer.ca },
    algorithms: ['ES256'],
    audience: 'cli',
    lifetime: '1h',
    mappings: [{ id: 'person', claims: { sub: '*' }, principal: 'people:{/sub}' }],
  }
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
      issuer.type(/type the code (\S+)/.exec(said.err)?.[1] ?? '')
    })
    child.once('close', (code) => resolve({ code: code ?? -1, ...said }))
  })
  t.match(login, { code: 0, out: `own is the current context: ${service.url} takes the token.\n` })
  t.match(login.err, /note: it may do nothing yet\. .*the principal "people:alice" has not\. \(auth\.forbidden/)

  const own = (): Promise<Run> =>
    chanceryFor(service)(['refusals', '--context', 'own'], { XDG_CONFIG_HOME: home, CHANCERY_URL: service.url })
  t.match(await own(), { code: 4, err: /the principal "people:alice" has not/ })
  const granted = await service.request('POST', '/v1/grants', { body: { principal: 'people:alice', role: 'auditor' } })
  t.equal(granted.status, 201)
  t.match(await own(), { code: 0 })
})

t.test('whoever is not let in has logged in nowhere', async (t) => {
  const [service, home] = [await openTestService(t), await newFolder(t)]
  const [file, env] = [join(home, 'token'), { XDG_CONFIG_HOME: home }]
  await writeFile(file, 'chy_of_nobody')
  const place = ['--server', service.url, '--ca', join(service.config.dataDir, 'root.pem'), '--token-file', file]
  t.match(await chanceryFor(service)(['login', ...place], env), { code: 4, err: /auth\.invalid/ })
  t.match(await chanceryFor(service)(['context', 'list', '--json'], env), { out: /"items": \[\]|\[\]/ })
})

/** The broker of examples/mqtt, run with its own configuration: who has a certificate comes in, until it is on a list. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import t, { type Test } from 'tap'

import { openTestRoot, named as subjectOf } from '../helpers/ceremony.ts'
import { freePort } from '../helpers/port.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertTools, pathOf, type Ran, run } from '../interop/tools.ts'
import { askFor, type ChancerySide, keyPairFor, openChancerySide } from './chancery-side.ts'
import { home, type Manifest, manifests, render } from './manifests.ts'

t.setTimeout(300_000)
await assertTools('openssl', 'kubectl', 'mosquitto', 'mosquitto_pub', 'mosquitto_sub', 'curl')

const script = join(manifests, 'examples/mqtt/fetch-lists.sh')
const example = await render(join(manifests, 'examples/mqtt'))
const named = (kind: string, name: string): Manifest => {
  const found = example.find((object) => object.kind === kind && object.metadata.name === name)
  if (!found) throw new Error(`there is no ${kind} ${name}`)
  return found
}

interface Broker {
  readonly port: number
  readonly pid: number
  /** What was written so far. */
  log(): string
}

/** With the example's files, but for where they are and who runs it. */
const startBroker = async (t: Test, folder: string): Promise<Broker> => {
  const port = await freePort()
  const text = await readFile(join(manifests, 'examples/mqtt/mosquitto.conf'), 'utf8')
  const configuration = text
    .replace(/^listener 8883$/m, `listener ${port} 127.0.0.1`)
    .replace('/etc/mosquitto/acl', join(folder, 'acl'))
    .replaceAll(/ \/(trust|tls|lists)\//g, ` ${folder}/$1.`)
  await writeFile(join(folder, 'conf'), `${configuration}${process.getuid?.() === 0 ? 'user root\n' : ''}`)
  await writeFile(join(folder, 'acl'), await readFile(join(manifests, 'examples/mqtt/acl')), { mode: 0o600 })
  const broker: ChildProcess = spawn(await pathOf('mosquitto'), ['-c', join(folder, 'conf'), '-v'])
  let said = ''
  for (const stream of [broker.stdout, broker.stderr])
    stream?.on('data', (chunk) => {
      said += chunk
    })
  const ended = once(broker, 'exit')
  t.teardown(async () => {
    broker.kill('SIGKILL')
    await ended
  })
  for (let tries = 0; !said.includes('running'); tries += 1) {
    if (broker.exitCode !== null || tries > 200) throw new Error(`mosquitto does not run:\n${said}`)
    await sleep(50)
  }
  return { port, pid: broker.pid ?? -1, log: () => said }
}

/** A certificate of the example, in files. Resolves to its serial. */
const certify = async (side: ChancerySide, folder: string, name: string, as = name): Promise<string> => {
  const certificate = named('Certificate', name)
  const { key, csr } = await keyPairFor(folder, certificate['spec'])
  const issuer = named('ChanceryIssuer', certificate['spec'].issuerRef.name)
  const { status, json, text } = await side.ask(askFor(certificate, issuer, csr))
  if (status !== 201) throw new Error(text)
  await writeFile(join(folder, `${as}.crt`), json.certificate + json.chain.join(''))
  await writeFile(join(folder, `${as}.key`), key, { mode: 0o600 })
  return json.serial
}

slowTest('a client certificate is accepted, and refused once it is revoked and the lists are read again', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-mqtt-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const side = await openChancerySide(t)
  const { service } = side
  const chancery = chanceryFor(service)
  const at = (name: string): string => join(folder, name)
  await writeFile(at('cluster.yaml'), (await side.clusterDocument()) + side.clusterCa.replace(/^/gm, '    '))
  const profiles = ['ingress', 'service-mtls', 'mqtt-client', 'user-client'].map((name) => `profiles/${name}.yaml`)
  for (const args of [
    ['profile', 'apply', ...profiles.map((name) => join(home, 'deploy/kubernetes/chancery', name))],
    ['identity-provider', 'apply', at('cluster.yaml')],
  ])
    t.equal((await chancery(args)).code, 0)

  await writeFile(at('trust.ca.crt'), service.ca)
  await certify(side, folder, 'mqtt', 'tls.tls')
  const worker = await certify(side, folder, 'mqtt-worker')
  await certify(side, folder, 'mqtt-scaler')

  // The issuer of clients, and another one, as while the one is followed by the other.
  const urls = ['default', 'kubernetes'].map((name) => `${service.publicUrl}/crl/${name}`)
  const lists = { LISTS: urls.join(' '), OUT: at('lists.lists.pem') }
  const fetchLists = async (reload: string): Promise<void> => {
    await service.service.publishCrls()
    const env = { ...process.env, ...lists, RELOAD: reload }
    await promisify(execFile)('sh', [script], { env })
  }
  await fetchLists('false')
  const pem = await readFile(lists.OUT, 'utf8')
  t.equal(pem.match(/BEGIN X509 CRL/g)?.length, 256, 'those of every shard of both')
  const broker = await startBroker(t, folder)

  const connect = (who: string | undefined, ...topic: readonly string[]): Promise<Ran> => {
    const own = who === undefined ? [] : ['--cert', at(`${who}.crt`), '--key', at(`${who}.key`)]
    // The name that the broker's certificate has is not this machine's.
    const way = ['-h', '127.0.0.1', '-p', String(broker.port), '--cafile', at('trust.ca.crt'), '--insecure']
    return run('mosquitto_pub', [...way, ...own, '-q', '1', '-m', 'x', ...topic])
  }
  const said = (text: RegExp): boolean => text.test(broker.log())

  t.match(await connect('mqtt-worker', '-t', 'jobs/1'), { code: 0 }, 'the worker comes in')
  t.ok(said(/u'worker\.messaging'/), 'as who its certificate says')
  t.match(await connect('mqtt-scaler', '-t', 'jobs/1'), { code: 0 }, 'so does the scaler')
  t.ok(said(/Denied PUBLISH from \S+ .*'jobs\/1'/), 'which may only read')
  t.not((await connect(undefined, '-t', 'jobs/1')).code, 0, 'nobody comes in without one')
  t.not((await connect('tls.tls', '-t', 'jobs/1')).code, 0, 'nor as somebody without a common name')

  t.equal((await chancery(['revoke', worker, '--reason', 'privilegeWithdrawn'])).code, 0)
  t.match(await connect('mqtt-worker', '-t', 'jobs/2'), { code: 0 }, 'as long as the broker does not know')
  await fetchLists(`kill -HUP ${broker.pid}`)
  await until(() => said(/[Rr]eloading config/))
  t.not((await connect('mqtt-worker', '-t', 'jobs/3')).code, 0, 'then it is refused')
  // Within the handshake, so that the broker's reason is read.
  const [crt, key] = [at('mqtt-worker.crt'), at('mqtt-worker.key')]
  const pair = ['-cert', crt, '-cert_chain', crt, '-key', key]
  const shaken = await run('openssl', ['s_client', '-tls1_2', '-connect', `127.0.0.1:${broker.port}`, ...pair])
  t.match(shaken.stderr, /alert certificate revoked/, 'for that reason')
  t.match(await connect('mqtt-scaler', '-t', 'jobs/3'), { code: 0 }, 'and the others still come in')

  const before = await stat(lists.OUT)
  await fetchLists('false')
  t.equal((await stat(lists.OUT)).mtimeMs, before.mtimeMs, 'lists that have not changed wake nobody')
  await service.close()
  await t.rejects(fetchLists('false'), 'where they cannot be had')
  t.equal((await stat(lists.OUT)).mtimeMs, before.mtimeMs, 'those that are there stay')
})

/** A server that answers so. Resolves to its URL. */
const listen = async (t: Test, answer: RequestListener): Promise<string> => {
  const server = createServer(answer).listen(0, '127.0.0.1')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const page: RequestListener = (_request, response) => response.end('<html>Please log in.</html>')
const redirect: RequestListener = (_request, response) => response.writeHead(302, { location: '/login' }).end()
const empty: RequestListener = (_request, response) => response.end()
const cut: RequestListener = (_request, response) => {
  response.writeHead(200, { 'content-length': 100 }).write('0.crl\n', () => response.destroy())
}
const silent: RequestListener = () => {}
const names =
  (text: string, list = empty): RequestListener =>
  (request, response) =>
    request.url === '/' ? response.end(text) : list(request, response)

/** What somebody says in the place of the service, and what is said of it. */
const astray: readonly (readonly [string, RequestListener, RegExp])[] = [
  ['the names of other files', names('0.crl\n../../lists.pem\n'), /^\S+ does not tell which lists there are$/m],
  ['a page in the place of names', page, /does not tell which/],
  ['a redirection of it', redirect, /does not tell which/],
  ['no names', empty, /does not tell which/],
  ['lines without a name', names(' \n \n'), /^curl: \(3\)/],
  ['names that are cut off', cut, /^curl: \(18\)/],
  ['a name that is cut off', names('0.crl\n1.c', (_, response) => response.writeHead(404).end()), /404/],
  ['a million names', names('0.crl\n'.repeat(1_000_000)), /./],
  ['a page in the place of a list', names('0.crl\n', page), /^a file that was fetched is no list$/m],
  ['a redirection', names('0.crl\n', redirect), /is no list/],
  ['an empty list', names('0.crl\n'), /is no list/],
  ['a list that is cut off', names('0.crl\n', cut), /^curl: \(18\)/],
  ['nothing in the place of names', silent, /^curl: \(28\)/],
  ['nothing in the place of a list', names('0.crl\n', silent), /^curl: \(28\)/],
]

const until = async (holds: () => boolean): Promise<void> => {
  for (const deadline = Date.now() + 20_000; !holds(); await sleep(50))
    if (Date.now() > deadline) throw new Error('it did not come')
}

slowTest(
  'of each issuer as many lists are fetched as it has, and where that is not told nothing is written',
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'chancery-mqtt-'))
    t.teardown(() => rm(folder, { recursive: true }))
    const service = await openTestService(t)
    const root = openTestRoot()
    const ask = { name: 'whole', authority: 'mqtt', subject: subjectOf('Whole') }
    const { csr } = (await service.request('POST', '/v1/issuer-requests', { body: ask })).json
    const body = { chain: root.certify(csr) + root.pem, shards: 1 }
    t.equal((await service.request('PUT', '/v1/issuers/whole', { body })).status, 201)
    await service.service.publishCrls()
    const [whole, parts] = ['whole', 'default'].map((name) => `${service.publicUrl}/crl/${name}`)
    const fetchFrom = (...urls: readonly string[]): Promise<unknown> => {
      const out = { OUT: join(folder, 'lists.pem'), RELOAD: 'false', SECONDS_EACH: '2' }
      const env = { ...process.env, LISTS: urls.join(' '), ...out }
      return promisify(execFile)('sh', [script], { env })
    }
    await fetchFrom(`${whole}`, `${parts}/`)
    const pem = await readFile(join(folder, 'lists.pem'), 'utf8')
    t.equal(pem.match(/BEGIN X509 CRL/g)?.length, 129)
    const refusal = (...urls: readonly string[]) =>
      fetchFrom(...urls).then(
        () => '',
        (error: { stderr: string }) => error.stderr,
      )
    for (const [what, answer, told] of astray) {
      t.match(await refusal(`${whole}`, await listen(t, answer)), told, what)
      t.equal(await readFile(join(folder, 'lists.pem'), 'utf8'), pem, `${what}: those that are there stay`)
    }
    t.match(await refusal(`${service.publicUrl}/crl/nobody`), /404/)
    t.equal(await readFile(join(folder, 'lists.pem'), 'utf8'), pem)
  },
)

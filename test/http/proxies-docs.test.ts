/** docs/proxies.md: what it has nginx do, nginx does. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { request as httpRequest, type RequestOptions } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'

import t from 'tap'

import { ocspErrors } from '../../src/x509/ocsp.ts'
import { newFolder } from '../client/folders.ts'
import { blocksOf } from '../helpers/docs.ts'
import { freePort } from '../helpers/port.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { output, pathOf } from '../interop/tools.ts'

const nginx = await pathOf('nginx')
const service = await openTestService(t, {
  CHANCERY_CLIENT_AUTHORITIES: 'default',
  CHANCERY_TRUSTED_PROXIES: '127.0.0.1',
  CHANCERY_LIMIT_FAILED_AUTHENTICATIONS: '5',
})
const folder = await newFolder(t)
const ports = { api: await freePort(), public: await freePort() }
const root = join(folder, 'ca/root.pem')

const configured = async (): Promise<string> => {
  const blocks = await blocksOf('docs/proxies.md')
  const placed = `${blocks.get('nginx-api')}${blocks.get('nginx-public')}`
    .replace('127.0.0.1:8443', new URL(service.url).host)
    .replace('127.0.0.1:8080', new URL(service.publicUrl).host)
    .replace('listen 443 ssl', `listen 127.0.0.1:${ports.api} ssl`)
    .replace('listen 80', `listen 127.0.0.1:${ports.public}`)
    .replace('/var/lib/chancery/root.pem', root)
    .replaceAll('/etc/nginx/ca/', `${join(folder, 'ca')}/`)
    .replace('/var/cache/nginx/pki', join(folder, 'kept'))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path temp;`)
  // Compressing is what the page turns off.
  const compressing = 'gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;'
  return `daemon off; pid nginx.pid; error_log error.log; worker_processes 1; events {}
    http { access_log off; ${temporary.join(' ')} ${compressing} ${placed} }`
}

interface Asked {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  readonly localAddress?: string
}

const send = (make: typeof httpRequest, options: RequestOptions, { body, ...asked }: Asked) =>
  new Promise<{ status: number; headers: Record<string, unknown>; bytes: Buffer }>((resolve, reject) => {
    const outgoing = make({ ...options, ...asked }, (answer) => {
      const pieces: Buffer[] = []
      answer.on('data', (piece: Buffer) => pieces.push(piece)).once('error', reject)
      answer.once('end', () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, bytes: Buffer.concat(pieces) }),
      )
    })
    outgoing.once('error', reject)
    outgoing.end(body)
  })

const ca = { text: '' }
const ask = (path: string, asked: Asked = {}) =>
  send(httpsRequest as typeof httpRequest, { host: '127.0.0.1', port: ports.api, path, ca: ca.text } as object, asked)
const fetchPublic = (path: string) => send(httpRequest, { host: '127.0.0.1', port: ports.public, path }, {})
const admin = { authorization: `Bearer ${service.adminToken}` }

t.before(async () => {
  const issue = [
    'issue',
    '--profile',
    'server',
    '--name',
    'localhost',
    '--ip',
    '127.0.0.1',
    '--out',
    join(folder, 'ca'),
  ]
  const { code, err } = await chanceryFor(service)(issue)
  if (code !== 0) throw new Error(err)
  // nginx reads some of it as another user.
  await chmod(folder, 0o755)
  for (const name of ['temp', 'kept']) await mkdir(join(folder, name))
  ca.text = await readFile(root, 'utf8')
  await writeFile(join(folder, 'nginx.conf'), await configured())
  const server = spawn(nginx, ['-p', folder, '-c', 'nginx.conf'], { stdio: 'ignore' })
  const ended = once(server, 'exit')
  t.teardown(async () => {
    server.kill('SIGTERM')
    await ended
  })
  for (const deadline = Date.now() + 20_000; ; ) {
    if (
      await ask('/livez').then(
        ({ status }) => status === 200,
        () => false,
      )
    )
      return
    if (Date.now() > deadline) throw new Error(await readFile(join(folder, 'error.log'), 'utf8'))
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
})

t.test('what a client says of itself in the fields of a proxy is not passed on', async (t) => {
  const { status } = await ask('/v1/profiles', { headers: { ...admin, 'client-cert': ':AAAA:' } })
  t.equal(status, 200, 'else there would be two credentials')
  const guess = (from: string, localAddress?: string) =>
    ask('/v1/profiles', {
      headers: { authorization: `Bearer chy_${'A'.repeat(49)}`, 'x-forwarded-for': from },
      ...(localAddress !== undefined && { localAddress }),
    })
  const statuses: number[] = []
  for (let i = 0; i < 30 && statuses.at(-1) !== 429; i += 1) statuses.push((await guess(`192.0.2.${i}`)).status)
  t.equal(statuses.at(-1), 429, 'all are guesses of one address')
  t.equal((await guess('192.0.2.1', '127.0.0.2')).status, 401, 'and others have their own')
})

t.test('an ETag comes through as If-Match takes it, by a proxy that compresses elsewhere', async (t) => {
  const { headers, bytes } = await ask('/v1/profiles/server', { headers: { ...admin, 'accept-encoding': 'gzip' } })
  t.equal(headers['content-encoding'], undefined)
  const { document } = JSON.parse(bytes.toString())
  const changed = await ask('/v1/profiles/server', {
    method: 'PUT',
    headers: { ...admin, 'content-type': 'application/json', 'if-match': String(headers['etag']) },
    body: JSON.stringify(document),
  })
  t.equal(changed.status, 200)
})

t.test('a body as large as a batch may be is ours to judge', async (t) => {
  const body = Buffer.alloc(4 * 1024 * 1024, ' ')
  const headers = { ...admin, 'content-type': 'application/json' }
  const { status, bytes } = await ask('/v1/certificates/batch', { method: 'POST', headers, body })
  t.match({ status, code: JSON.parse(bytes.toString()).code }, { status: 400, code: 'request.malformed' })
})

t.test('paths of OCSP come through to the letter', async (t) => {
  const args = ['-issuer', join(folder, 'ca/chain.pem'), '-serial', '0x40000000000000000000000000000000', '-no_nonce']
  const path = join(folder, 'asked.der')
  await output('openssl', ['ocsp', ...args, '-reqout', path])
  const request = await readFile(path)
  // The serial number stands at its end: one that nobody has, whose request has two slashes.
  let text = ''
  while (!text.includes('//')) {
    randomBytes(15).copy(request, request.length - 15)
    text = request.toString('base64')
  }
  for (const written of [text, encodeURIComponent(text)]) {
    const { headers, bytes } = await fetchPublic(`/ocsp/default/${written}`)
    t.same(bytes, ocspErrors.unauthorized, `${written}: else it would be malformed`)
    t.equal(headers['cache-control'], 'no-store')
  }
})

t.test('what may be kept is, and what may not is asked for each time', async (t) => {
  const answered = async (route: string, status: number): Promise<number> => {
    const { text } = await service.request('GET', '/metrics')
    const line = text.split('\n').find((each) => each.includes(`{route="${route}",status="${status}"}`))
    return Number(line?.split(' ').at(-1) ?? 0)
  }
  for (const [path, route, status, times] of [
    ['/crl/default/0.crl', '/crl/:issuer/:file', 200, 1],
    ['/issuers/default.cer', '/issuers/:file', 200, 1],
    ['/crl/none/0.crl', '/crl/:issuer/:file', 404, 3],
    ['/issuers/none.cer', '/issuers/:file', 404, 3],
  ] as const) {
    const before = await answered(route, status)
    for (let i = 0; i < 3; i += 1) t.equal((await fetchPublic(path)).status, status, path)
    t.equal((await answered(route, status)) - before, times, path)
  }
})

/** A server that staples our answers, as its clients see them: curl insists on a good one. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { freePort } from '../helpers/port.ts'
import { openTestService } from '../helpers/service.ts'
import { assertTools, output, pathOf, run } from '../interop/tools.ts'

t.test('curl --cert-status against an nginx that staples', async (t) => {
  await assertTools('nginx', 'curl', 'openssl')
  const service = await openTestService(t)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-staple-'))
  const at = (name: string): string => join(folder, name)
  await output('openssl', [
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at('key.pem')],
    ...['-subj', '/', '-addext', 'subjectAltName=DNS:localhost', '-out', at('csr.pem')],
  ])
  const csr = await output('openssl', ['req', '-in', at('csr.pem')])
  const issued = await service.request('POST', '/v1/certificates', { body: { csr, profile: 'server' } })
  t.equal(issued.status, 201)
  const { serial, certificate, chain } = issued.json
  await writeFile(at('chain.pem'), [certificate, ...chain].join(''))
  await writeFile(at('trusted.pem'), [...chain, service.ca].join(''))
  await writeFile(at('root.pem'), service.ca)
  await mkdir(at('temp'))
  const port = await freePort()
  await writeFile(at('nginx.conf'), configuration(port, service.publicUrl))

  let nginx: ChildProcess | undefined
  const stop = async (): Promise<void> => {
    const ended = new Promise((resolve) => nginx?.once('exit', resolve))
    nginx?.kill('SIGQUIT')
    await ended
    nginx = undefined
  }
  const start = async (isReady: () => Promise<boolean>): Promise<void> => {
    nginx = spawn(await pathOf('nginx'), ['-p', folder, '-c', 'nginx.conf'], { stdio: 'ignore' })
    const { promise, reject } = Promise.withResolvers<never>()
    nginx.once('error', reject)
    await Promise.race([promise, until(isReady)])
  }
  t.teardown(async () => {
    if (nginx) await stop()
    await rm(folder, { recursive: true, force: true })
  })
  const ask = () =>
    run('curl', ['-sS', '--cert-status', '--cacert', at('root.pem'), '--max-time', '5', `https://localhost:${port}/`])

  // nginx asks when the first client comes, who goes without.
  const handshake = async (): Promise<string> =>
    (await run('openssl', ['s_client', '-connect', `localhost:${port}`, '-status', '-CAfile', at('root.pem')])).stdout
  await start(async () => /OCSP Response Status: successful/.test(await handshake()))
  const good = await ask()
  t.equal(good.code, 0, good.stderr)
  t.equal(good.stdout, 'stapled\n')
  await stop()
  const path = `/v1/certificates/${serial}/revocation`
  t.equal((await service.request('POST', path, { body: { reason: 'superseded' } })).status, 200)
  // It staples no other answer than a good one, and says why.
  await start(async () => {
    await handshake()
    return /certificate status "revoked"/.test(await readFile(at('error.log'), 'utf8'))
  })
  const revoked = await ask()
  t.equal(revoked.code, 91, 'CURLE_SSL_INVALIDCERTSTATUS')
  t.match(revoked.stderr, /OCSP/)
})

const until = async (isReady: () => Promise<boolean>): Promise<void> => {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    if (await isReady()) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error('nginx did not get so far')
}

const configuration = (port: number, publicUrl: string): string => `
daemon off;
master_process off;
pid nginx.pid;
error_log error.log info;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path temp;`).join(' ')}
  server {
    listen 127.0.0.1:${port} ssl;
    server_name localhost;
    ssl_certificate chain.pem;
    ssl_certificate_key key.pem;
    ssl_stapling on;
    ssl_stapling_verify on;
    ssl_stapling_responder ${publicUrl}/ocsp/default;
    ssl_trusted_certificate trusted.pem;
    return 200 "stapled\\n";
  }
}
`

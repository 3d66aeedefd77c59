/** A web server that has its certificate from us, renews it while people read, and drops none of them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { Agent, get } from 'node:https'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'

import t from 'tap'

import { freePort } from '../helpers/port.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { pathOf } from '../interop/tools.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)

interface Fetched {
  readonly serial: string
  readonly octets: number
}

slowTest('from an empty folder to a renewed certificate, without a dropped connection', async (t) => {
  const nginx = await pathOf('nginx')
  const service = await openTestService(t)
  const chancery = chanceryFor(service)
  const folder = await newFolder(t)
  // nginx reads what it serves as another user.
  await chmod(folder, 0o755)
  const web = join(folder, 'web')
  const reload = `'${nginx}' -p '${folder}' -c nginx.conf -s reload`
  // Five minutes of it have gone by; after ten the server's advice may be to renew it.
  const issue = ['issue', '--profile', 'server', '--name', 'localhost', '--validity', '20m', '--out', web]

  const first = await chancery(issue)
  t.equal(first.code, 0, first.err)
  const port = await freePort()
  await mkdir(join(folder, 'temp'))
  await mkdir(join(folder, 'files'))
  await writeFile(join(folder, 'files/small'), 'x')
  await writeFile(join(folder, 'files/large'), Buffer.alloc(octetsOfLarge))
  await writeFile(join(folder, 'nginx.conf'), configuration(port))
  const server = spawn(nginx, ['-p', folder, '-c', 'nginx.conf'], { stdio: 'ignore' })
  t.teardown(() => stop(server))
  const ca = await readFile(join(web, 'root.pem'), 'utf8')
  const fetch = (path: string, agent: Agent, begun = async (): Promise<void> => {}): Promise<Fetched> =>
    new Promise((resolve, reject) => {
      const request = get({ host: 'localhost', port, path, ca, agent }, (answer) => {
        // An older connection goes on with what it began with, so that it is asked as each answer begins.
        const serial = (answer.socket as TLSSocket).getPeerCertificate().serialNumber.toLowerCase()
        if (answer.statusCode !== 200) reject(new Error(`nginx answered ${answer.statusCode}`))
        let octets = 0
        answer.once('error', reject)
        void begun().then(() =>
          answer.on('data', (chunk: Buffer) => {
            octets += chunk.length
          }),
        )
        answer.once('end', () => resolve({ serial, octets }))
      })
      request.once('error', reject)
    })
  const anew = (): Promise<Fetched> => fetch('/small', new Agent({ keepAlive: false }))
  await until(() => anew().then(Boolean, () => false))

  const before = (await readShown(web))?.serial
  t.equal((await anew()).serial, before)
  const idle = await chancery([...issue, '--renew-before', '40%', '--exec', reload])
  t.match(idle, { code: 0, out: /nothing to do/ })

  // Somebody has begun to read what is more than fits on the way, others come all the time.
  const begun = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  const reading = fetch('/large', new Agent({ keepAlive: true }), () => {
    begun.resolve()
    return goOn.promise
  })
  await begun.promise
  let coming = true
  const visitors = (async (): Promise<readonly string[]> => {
    const seen: string[] = []
    while (coming) seen.push((await anew()).serial)
    return seen
  })()
  // Nobody who could ask for another one is there any more: nothing but the certificate itself.
  const tokenless = { CHANCERY_TOKEN_FILE: join(folder, 'none') }
  const renewed = await chancery([...issue, '--renew-before', '80%', '--exec', reload], tokenless)
  t.equal(renewed.code, 0, renewed.err)
  const after = (await readShown(web))?.serial
  t.not(after, before)
  const { json } = await service.request('GET', `/v1/events?serial=${after}`)
  t.equal(JSON.parse(json.items[0].entry).replaces, before, 'it renewed itself over mutual TLS')
  await until(async () => (await anew()).serial === after)
  coming = false
  const seen = await visitors
  t.same([...new Set(seen)], [before, after], `${seen.length} visitors: first the old one, then the new one`)
  goOn.resolve()
  t.same(await reading, { serial: before, octets: octetsOfLarge }, 'who was reading has read to the end')
  t.notMatch(await readFile(join(folder, 'error.log'), 'utf8'), /\[(emerg|alert|crit)\]/)
})

const stop = async (server: ChildProcess): Promise<void> => {
  if (server.exitCode !== null) return
  server.kill('SIGTERM')
  await once(server, 'exit')
}

const until = async (isSo: () => Promise<boolean>): Promise<void> => {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    if (await isSo()) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('it did not come to that')
}

const octetsOfLarge = 32 * 1024 * 1024
const configuration = (port: number): string => `
daemon off;
pid nginx.pid;
error_log error.log info;
worker_processes 1;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path temp;`).join(' ')}
  server {
    listen 127.0.0.1:${port} ssl;
    server_name localhost;
    ssl_certificate web/fullchain.pem;
    ssl_certificate_key web/key.pem;
    root files;
  }
}
`

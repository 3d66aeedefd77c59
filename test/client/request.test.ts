/** Requests that were made elsewhere: what is no request, and where no chain can be written. */
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { issueFor } from '../../src/client/issue/for-request.ts'
import { clientAt } from '../../src/client/rest.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrOn } from '../http/holders.ts'
import { newFolder } from './folders.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
const chancery = chanceryFor(service)
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const csr = csrOn(privateKey, ['sent.example.com'])

slowTest('a key that is named in place of a request goes nowhere', async (t) => {
  const folder = await newFolder(t)
  const asked: string[] = []
  service.service.app.server.on('request', ({ url = '' }) => asked.push(url))
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  for (const [name, content] of [
    ['web.key', pem],
    ['both.pem', `${pem}${csr}`],
    ['sec1.key', privateKey.export({ type: 'sec1', format: 'pem' })],
    ['key.der', privateKey.export({ type: 'pkcs8', format: 'der' })],
    ['sec1.der', privateKey.export({ type: 'sec1', format: 'der' })],
  ] as const) {
    const file = join(folder, name)
    await writeFile(file, content)
    for (const verb of ['issue', 'explain']) {
      const run = await chancery([verb, '--profile', 'server', '--csr', file])
      t.match(run, { code: exitCodes.usage, err: `${file} holds a private key; nothing was sent.` }, `${verb} ${name}`)
    }
  }
  const der = privateKey.export({ type: 'pkcs8', format: 'der' })
  for (const [name, content] of [
    ['key.base64', der.toString('base64')],
    ['key.jwk', JSON.stringify(privateKey.export({ format: 'jwk' }))],
    ['enciphered.der', privateKey.export({ type: 'pkcs8', format: 'der', cipher: 'aes-256-cbc', passphrase: 'x' })],
  ] as const) {
    await writeFile(join(folder, name), content)
    const run = await chancery(['issue', '--profile', 'server', '--csr', join(folder, name)])
    t.match(run, { code: exitCodes.usage, err: 'is not in PEM, and may be a key; nothing was sent.' }, name)
  }
  await writeFile(join(folder, 'empty.csr'), '\n')
  const empty = await chancery(['issue', '--profile', 'server', '--csr', join(folder, 'empty.csr')])
  t.match(empty, { code: exitCodes.usage, err: /empty\.csr is empty; nothing was sent\./ })
  const file = join(folder, 'web.csr')
  await writeFile(file, csr)
  for (const verb of ['issue', 'explain']) {
    const two = await chancery([verb, '--profile', 'server', '--csr', file, '--csr', file])
    t.match(two, { code: exitCodes.usage, err: '--csr names one request; chancery issue-many asks for several.' }, verb)
  }
  t.same(asked, [])
  t.equal((await chancery(['explain', '--profile', 'server', '--csr', file])).code, 0)
  t.equal(asked.length, 1)
})

t.test('- is standard output for a chain, and no folder for a key', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'web.csr')
  await writeFile(file, csrOn(privateKey, ['dash.example.com']))
  const chain = await chancery(['issue', '--profile', 'server', '--csr', file, '--out', '-'])
  t.match(chain, { code: 0, out: /^-----BEGIN CERTIFICATE-----\n/, err: /^$/ })
  const key = await chancery(['issue', '--profile', 'server', '--name', 'dash.example.com', '--out', '-'])
  t.match(key, { code: exitCodes.usage, out: /^$/, err: /^--out is a folder, which - is not; .*\.\/-\.\n$/ })
  const { items } = (await service.request('GET', '/v1/certificates?name=dash.example.com')).json
  const ask = ['certificate', 'proof', items[0].serial]
  const proof = await chancery([...ask, '--out', '-'])
  const { proof: text, ...proven } = JSON.parse(proof.out)
  const { proof: shown, ...same } = JSON.parse((await chancery(ask)).out)
  t.same(proven, same)
  // The roll may have grown in between.
  for (const one of [text, shown]) t.match(one, /^c2sp\.org\/tlog-proof@/)
})

t.test('a proof takes the place of another one, and of nothing that is more', async (t) => {
  const folder = await newFolder(t)
  const asked = { csr: csrOn(privateKey, ['proven.example.com']), profile: 'server' }
  const { text, json } = await service.request('POST', '/v1/certificates', { body: asked })
  const file = join(folder, 'web.proof')
  const ask = ['certificate', 'proof', json.serial, '--out', file]
  for (const there of ['', 'c2sp.org/tlog-proof@v1\nindex 1\n']) {
    await writeFile(file, there)
    t.match(await chancery(ask), { code: 0, err: /^$/ })
    t.match(await chancery(ask), { code: 0, err: /^$/ }, 'the same again')
    t.equal(JSON.parse(await readFile(file, 'utf8')).serial, json.serial)
  }
  for (const there of [text, '{"proof":7}', 'null', '{']) {
    await writeFile(file, there)
    t.match(await chancery(ask), { code: exitCodes.usage, err: /web\.proof is there and is no proof; name another/ })
    t.equal(await readFile(file, 'utf8'), there)
  }
})

t.test('a folder in place of a file is told before anything is issued', async (t) => {
  const folder = await newFolder(t)
  const [file, out] = [join(folder, 'web.csr'), join(folder, 'web')]
  await writeFile(file, csr)
  await mkdir(out)
  const run = await chancery(['issue', '--profile', 'server', '--csr', file, '--out', out])
  t.match(run, { code: exitCodes.usage, err: /web is a folder; name a file .* Nothing was issued\.\n$/ })
  const { items } = (await service.request('GET', '/v1/certificates?name=sent.example.com')).json
  t.same(items, [])
})

t.test('a chain that is there stays whole where the next one finds no room', async (t) => {
  const folder = await newFolder(t)
  const [file, out] = [join(folder, 'chain.pem'), join(folder, 'link.pem')]
  await symlink('chain.pem', out)
  const client = clientAt({ server: service.url, ca: service.ca, token: service.adminToken })
  await service.request('POST', '/v1/grants', {
    body: { principal: 'admin', role: 'requester', profiles: ['server'] },
  })
  const issue = () =>
    issueFor(
      { csr, profile: 'server' },
      { client, out: { show: () => {}, table: () => {} }, idempotencyKey: undefined, file: out, waits: false },
    )
  await issue()
  const before = await readFile(file, 'utf8')
  t.match(before, /^-----BEGIN CERTIFICATE-----/)
  const disk = openFullDisk()
  // The service has room for its own, in this process.
  disk.fill(1_024)
  await t.rejects(issue(), { kind: 'usage', message: /link\.pem cannot be written \(EFBIG\); the same command gets/ })
  disk.free()
  t.equal(await readFile(file, 'utf8'), before)
  t.same((await readdir(folder)).sort(), ['chain.pem', 'link.pem', 'link.pem.pending.json'])
  // Of a command that was killed half-way.
  const draft = join(folder, `chain.pem.${randomUUID()}`)
  await writeFile(draft, csr)
  await utimes(draft, 0, 0)
  await issue()
  t.not(await readFile(file, 'utf8'), before, 'and then it is there, where the link leads')
  t.same((await readdir(folder)).sort(), ['chain.pem', 'link.pem'])
})

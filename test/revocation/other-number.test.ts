/** An issuer with 128 lists is followed by one with one list, and many are revoked of both. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { parseCrl } from '../../src/x509/crl.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { bare } from '../helpers/environment.ts'
import { runChancery } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { assertTools, run } from '../interop/tools.ts'

await assertTools('openssl', 'certtool')
const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
const folder = await mkdtemp(join(tmpdir(), 'chancery-other-number-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const at = (name: string): string => join(folder, name)
const root = openTestRoot()

const post = async (path: string, body: object) => (await service.request('POST', path, { body })).json
const begin = async (name: string, shards: number): Promise<void> => {
  const { csr } = await post('/v1/issuer-requests', { name, authority: 'default', subject: named(name) })
  const body = { chain: root.certify(csr) + root.pem, shards }
  t.equal((await service.request('PUT', `/v1/issuers/${name}`, { body })).status, 201)
  t.match(await post(`/v1/issuers/${name}/moves`, { move: 'activate' }), { state: 'active' })
}
interface Issued {
  readonly serial: string
  readonly certificate: string
  readonly chain: readonly string[]
}
const issue = async (host: string): Promise<Issued> =>
  post('/v1/certificates', { csr: csrFor(`${host}.example.com`), profile: 'server' })

/** All that there are, as whoever fetches them finds them. */
const listsOf = async (issuer: string): Promise<readonly Buffer[]> => {
  const base = `${service.publicUrl}/crl/${issuer}/`
  const files = (await (await fetch(base)).text()).split('\n').slice(0, -1)
  return Promise.all(files.map(async (file) => Buffer.from(await (await fetch(base + file)).arrayBuffer())))
}
const onLists = (lists: readonly Buffer[]): readonly string[] =>
  lists.flatMap((list) => parseCrl(list).revoked.map(({ serial }) => serial.toString('hex'))).toSorted()
const untilDone = async (digest: string): Promise<object> => {
  for (;;) {
    const order = (await service.request('GET', `/v1/revocations/${digest}`)).json
    if (order.state === 'done') return order
    await sleep(50)
  }
}

t.test('each is on the lists of its own issuer, and both are judged by all of them', async (t) => {
  await begin('wide', 128)
  const wide = [await issue('a.both'), await issue('b.both'), await issue('kept-1')]
  await begin('narrow', 1)
  const narrow = [await issue('c.both'), await issue('d.both'), await issue('kept-2')]
  const gone = [wide.slice(0, 2), narrow.slice(0, 2)].map((some) => some.map(({ serial }) => serial).toSorted())

  const ask = { search: { name: '*.both.example.com' }, reason: 'superseded' }
  const plan = await post('/v1/revocations', ask)
  const growth = Object.fromEntries(plan.crlGrowth.map((one: { issuer: string }) => [one.issuer, one]))
  t.match(growth, { wide: { entries: 2 }, narrow: { entries: 2, shards: 1 } })
  t.match(await post('/v1/revocations', { ...ask, digest: plan.digest }), { state: 'running' })
  t.match(await untilDone(plan.digest), { revoked: 4 })
  await service.service.publishCrls()

  const lists = { wide: await listsOf('wide'), narrow: await listsOf('narrow') }
  t.same([lists.wide.length, lists.narrow.length], [128, 1])
  t.same([onLists(lists.wide), onLists(lists.narrow)], gone)
  const pem = (some: readonly Buffer[]): string => some.map((list) => encodePem('X509 CRL', list)).join('')
  await writeFile(at('root.pem'), root.pem)
  await writeFile(at('lists.pem'), pem([...lists.wide, ...lists.narrow]))
  await writeFile(at('narrow.pem'), pem(lists.narrow))
  for (const [i, { serial, certificate, chain }] of [...wide, ...narrow].entries()) {
    await writeFile(at('chain.pem'), certificate + chain.join(''))
    const wanted = gone.flat().includes(serial) ? /revoked/ : /OK|Verified/
    const [file, rest] = [at('chain.pem'), ['-CAfile', at('root.pem'), '-untrusted', at('chain.pem')]]
    const openssl = await run('openssl', ['verify', '-crl_check', '-CRLfile', at('lists.pem'), ...rest, file])
    t.match(openssl.stdout + openssl.stderr, wanted, `openssl ${i}`)
    if (i < wide.length) continue
    const trusted = ['--load-ca-certificate', at('root.pem'), '--load-crl', at('narrow.pem')]
    const certtool = await run('certtool', ['--verify', ...trusted, '--infile', file])
    t.match(certtool.stdout + certtool.stderr, wanted, `certtool ${i}`)
  }
})

t.test('the one before goes on telling of what it has issued when it is closed, on 128 lists', async (t) => {
  t.match(await post('/v1/issuers/wide/moves', { move: 'close' }), { state: 'crl-only', shards: 128 })
  const { items } = (await service.request('GET', '/v1/certificates?name=kept-1.example.com')).json
  const path = `/v1/certificates/${items[0].serial}/revocation`
  t.equal((await service.request('POST', path, { body: { reason: 'superseded' } })).status, 200)
  await service.service.publishCrls()
  t.ok(onLists(await listsOf('wide')).includes(items[0].serial))
})

slowTest('nothing of it is found wrong, by the roll alone and beside its records', async (t) => {
  const env = { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url }
  const { out: key } = await runChancery(['roll', 'key'], { env })
  for (const from of [[], ['--database', service.database.servingUrl]])
    t.match(await runChancery(['roll', 'verify', '--key', key.trim(), ...from], { env }), {
      code: 0,
      out: /: nothing found\.\n/,
    })
})

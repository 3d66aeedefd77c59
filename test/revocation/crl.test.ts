/** Lists of what is revoked, as relying parties get them, and as openssl, GnuTLS and zlint read them. */
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { type Crl, parseCrl } from '../../src/x509/crl.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { type Issued, issueAt, revokeAt } from '../helpers/certificates.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql } from '../helpers/sql.ts'
import { assertTools, output, run } from '../interop/tools.ts'

let service: TestService
let folder: string

t.before(async () => {
  await assertTools('openssl', 'certtool', 'zlint')
  service = await openTestService(t)
  folder = await mkdtemp(join(tmpdir(), 'chancery-status-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await service.service.publishCrls()
})

const at = (name: string): string => join(folder, name)

const issue = (profile = 'server', more: object = {}): Promise<Issued> => issueAt(service, { profile, ...more })
const revoke = (serial: string, body?: object): Promise<void> => revokeAt(service, serial, body)
const shardOf = (serial: string): number => Buffer.from(serial, 'hex').readUInt32BE(12) % 128
const fetchCrl = async (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> =>
  fetch(new URL(path, service.publicUrl), { headers, method })
const readCrl = async (path: string): Promise<Crl> => parseCrl(Buffer.from(await (await fetchCrl(path)).arrayBuffer()))
const listOf = (serial: string, issuer = 'default'): Promise<Crl> => readCrl(`/crl/${issuer}/${shardOf(serial)}.crl`)
const serials = (list: Crl): string[] => list.revoked.map(({ serial }) => serial.toString('hex'))
const sql = <Row extends object>(text: string, values?: readonly unknown[]): Promise<readonly Row[]> =>
  askSql(service.database.ownerUrl, text, values)

t.test('every shard of every issuer has a list from the beginning, with what caches need', async (t) => {
  const answer = await fetchCrl('/crl/kubernetes/127.crl')
  const der = Buffer.from(await answer.arrayBuffer())
  t.equal(answer.status, 200)
  t.equal(answer.headers.get('content-type'), 'application/pkix-crl')
  t.equal(answer.headers.get('cache-control'), 'public, max-age=60')
  const tag = `"${createHash('sha256').update(der).digest('hex')}"`
  t.equal(answer.headers.get('etag'), tag)
  const list = parseCrl(der)
  const modified = answer.headers.get('last-modified') ?? ''
  t.equal(Date.parse(modified), list.thisUpdate.getTime())
  t.equal(list.number, 1n)
  t.same(list.revoked, [])
  t.same(list.distributionPoint, { url: 'http://pki.test/crl/kubernetes/127.crl', only: 'user' })
  t.equal(list.nextUpdate.getTime() - list.thisUpdate.getTime(), 72 * 3_600_000)
  for (const headers of [
    { 'if-none-match': tag },
    { 'if-none-match': `W/${tag}` },
    { 'if-none-match': `"a, b", ${tag}` },
    { 'if-none-match': '*' },
    { 'if-modified-since': modified },
    { 'if-modified-since': new Date(Date.now() + 60_000).toUTCString() },
  ] as Record<string, string>[]) {
    const unchanged = await fetchCrl('/crl/kubernetes/127.crl', headers)
    t.equal(unchanged.status, 304, JSON.stringify(headers))
    t.equal(unchanged.headers.get('etag'), tag)
  }
  for (const headers of [
    { 'if-none-match': '"other"' },
    { 'if-none-match': '"other"', 'if-modified-since': modified },
    { 'if-modified-since': new Date(Date.parse(modified) - 1000).toUTCString() },
    { 'if-modified-since': 'yesterday' },
  ] as Record<string, string>[])
    t.equal((await fetchCrl('/crl/kubernetes/127.crl', headers)).status, 200, JSON.stringify(headers))
  const head = await fetchCrl('/crl/kubernetes/127.crl', {}, 'HEAD')
  t.equal(head.headers.get('content-length'), String(der.length))
})

t.test('what is no list', async (t) => {
  for (const path of [
    '/crl/kubernetes/128.crl',
    '/crl/nobody/0.crl',
    '/crl/kubernetes/00.crl',
    '/crl/kubernetes/-1.crl',
    '/crl/kubernetes/1.pem',
    '/crl/kubernetes/99999.crl',
    '/crl/other.crl',
    '/crl',
  ]) {
    const answer = await fetchCrl(path)
    t.ok([400, 404].includes(answer.status), path)
    t.match(((await answer.json()) as { code: string }).code, /^(crl\.not_found|request\.(not_found|malformed))$/)
  }
  const posted = await fetchCrl('/crl/kubernetes/1.crl', {}, 'POST')
  t.equal(posted.status, 405)
})

slowTest(
  'a revocation is on the list of its shard, with its reason and dates, and a release takes it off',
  async (t) => {
    const { serial } = await issue()
    const before = await listOf(serial)
    const others = await readCrl(`/crl/default/${(shardOf(serial) + 1) % 128}.crl`)
    await revoke(serial, { reason: 'certificateHold' })
    await service.service.publishCrls()
    const held = await listOf(serial)
    t.equal(held.number, before.number + 1n)
    t.match(held.revoked, [{ reason: 'certificateHold' }])
    t.same(serials(held), [serial])
    t.equal(
      (await readCrl(`/crl/default/${(shardOf(serial) + 1) % 128}.crl`)).number,
      others.number,
      'no other shard was touched',
    )
    await service.service.publishCrls()
    t.equal((await listOf(serial)).number, held.number, 'nothing has changed')
    t.equal((await service.request('DELETE', `/v1/certificates/${serial}/revocation`)).status, 200)
    await service.service.publishCrls()
    t.same(serials(await listOf(serial)), [])
    await revoke(serial, { reason: 'unspecified' })
    await service.service.publishCrls()
    const [entry] = (await listOf(serial)).revoked
    t.equal(entry?.reason, undefined, 'unspecified is said by saying nothing')
    await revoke(serial, { reason: 'keyCompromise', invalidityDate: '2026-11-01T00:00:00Z' })
    await service.service.publishCrls()
    t.same(
      (await listOf(serial)).revoked.map(({ reason, invalidSince, revokedAt }) => [reason, invalidSince, revokedAt]),
      [['keyCompromise', new Date('2026-11-01T00:00:00Z'), entry?.revokedAt]],
    )
  },
)

t.test('what was abandoned may have been signed, and is on the list since its intent', async (t) => {
  const [{ serial = '', intended } = {}] = await sql<{ serial: string; intended: Date }>(`
    insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at)
    select decode('4444' || repeat('00', 13) || '05', 'hex'), principal, 1, digest, issuer, 5, profile, profile_version, tbs,
      plan, now() - interval '5 seconds'
    from intents limit 1 returning encode(serial, 'hex') as serial, created_at as intended`)
  t.equal(await service.service.reconcile(0), 1)
  await service.service.publishCrls()
  const list = await readCrl('/crl/default/5.crl')
  const entry = list.revoked.find((one) => one.serial.toString('hex') === serial)
  t.ok(entry)
  t.equal(entry?.reason, undefined)
  t.equal(entry?.revokedAt.getTime(), Math.floor((intended?.getTime() ?? 0) / 1000) * 1000)
})

slowTest('every list is taken by openssl, GnuTLS and zlint, empty and full', async (t) => {
  const issued = await Promise.all(Array.from({ length: 40 }, () => issue()))
  const reasons = ['keyCompromise', 'affiliationChanged', 'superseded', 'certificateHold', 'unspecified'] as const
  for (const [i, { serial }] of issued.entries())
    await revoke(serial, {
      reason: reasons[i % reasons.length],
      ...(i % 2 === 0 && { invalidityDate: '2026-11-01T00:00:00Z' }),
    })
  await service.service.publishCrls()
  const issuers = (await service.request('GET', '/v1/issuers')).json.items
  let revoked = 0
  for (const { name, certificate, chain } of issuers) {
    await writeFile(at('ca.pem'), [certificate, ...chain].join(''))
    const lists: Crl[] = []
    const pems: string[] = []
    for (let shard = 0; shard < 128; shard += 1) {
      const der = Buffer.from(await (await fetchCrl(`/crl/${name}/${shard}.crl`)).arrayBuffer())
      lists.push(parseCrl(der))
      pems.push(encodePem('X509 CRL', der))
    }
    revoked += lists.reduce((sum, list) => sum + list.revoked.length, 0)
    // Each verifies; a few of each kind are looked at by all.
    const chosen = [
      lists.findIndex(({ revoked: on }) => on.length === 0),
      lists.findIndex(({ revoked: on }) => on.length > 0),
    ]
    for (const shard of chosen.filter((found) => found >= 0)) {
      const pem = pems[shard] as string
      const checked = await run('openssl', ['crl', '-noout', '-text', '-verify', '-CAfile', at('ca.pem')], pem)
      t.match(checked.stdout + checked.stderr, /verify OK/, `${name}/${shard}`)
      t.match(checked.stdout, /Issuing Distribution Point: critical/)
      t.match((await run('certtool', ['--crl-info'], pem)).stdout, /CRL Number \(not critical\)/)
      await writeFile(at('one.crl'), pem)
      const lint = JSON.parse(await output('zlint', ['-format', 'pem', at('one.crl')]))
      // The public web knows no hold (BR 7.2.2); others do.
      const hasHold = lists[shard]?.revoked.some(({ reason }) => reason === 'certificateHold')
      const bad = Object.entries<{ result: string }>(lint).filter(
        ([name, { result }]) =>
          ['error', 'fatal', 'warn'].includes(result) && !(hasHold && name === 'e_cab_crl_has_valid_reason_code'),
      )
      t.same(bad, [], `zlint of ${name}/${shard}`)
    }
    for (const [shard, pem] of pems.entries()) {
      const { stderr } = await run('openssl', ['crl', '-noout', '-verify', '-CAfile', at('ca.pem')], pem)
      if (!/verify OK/.test(stderr)) t.fail(`${name}/${shard}: ${stderr}`)
    }
  }
  t.ok(revoked >= 40)
})

t.test('openssl verify with -crl_check_all agrees, on every seeded profile', async (t) => {
  const issuers = (await service.request('GET', '/v1/issuers')).json.items
  const { serial, certificate, chain } = await issue()
  await writeFile(at('root.pem'), service.ca)
  await writeFile(at('leaf.pem'), certificate)
  await writeFile(at('chain.pem'), chain.join(''))
  t.equal(issuers.length, 4)
  const check = async (): Promise<string> => {
    const lists = ['/crl/root.crl', `/crl/default/${shardOf(serial)}.crl`]
    const pems = await Promise.all(
      lists.map(async (path) => encodePem('X509 CRL', Buffer.from(await (await fetchCrl(path)).arrayBuffer()))),
    )
    await writeFile(at('crls.pem'), pems.join(''))
    const args = ['verify', '-x509_strict', '-crl_check_all', '-extended_crl', '-CRLfile', at('crls.pem')]
    const { stdout, stderr } = await run('openssl', [
      ...args,
      '-CAfile',
      at('root.pem'),
      '-untrusted',
      at('chain.pem'),
      at('leaf.pem'),
    ])
    return stdout + stderr
  }
  t.match(await check(), /leaf\.pem: OK/)
  await revoke(serial)
  await service.service.publishCrls()
  t.match(await check(), /error 23 .*certificate revoked/)
})

t.test('the database holds the order of lists, whoever writes them', async (t) => {
  const insert = (number: number, covers: number, minutes: number): Promise<unknown> =>
    sql(
      `insert into crls (issuer, shard, number, covers, this_update, next_update, revoked, tbs_sha256)
       select issuer, shard, number + $1, covers + $2, this_update + $3 * interval '1 minute', next_update + interval '1 day', 0,
         tbs_sha256 from crls where issuer = 'etcd' and shard = 7 order by number desc limit 1`,
      [number, covers, minutes],
    )
  for (const [what, ...values] of [
    ['a number left out', 2, 0, 0],
    ['knowing less', 1, -1, 0],
    ['dated before', 1, 0, -1],
  ] as const)
    await t.rejects(insert(...(values as [number, number, number])), /would not follow/, what)
  await t.rejects(insert(0, 0, 0), /would not follow/, 'the same number again')
  await t.rejects(sql(`update crls set covers = 0 where issuer = 'etcd' and shard = 7`), /append-only/)
  await t.rejects(sql(`update crl_files set number = number - 1 where issuer = 'etcd' and shard = 7`), /newer/)
})

t.test('the record of a list is older than its signature, and holds its digest', async (t) => {
  const { serial } = await issue()
  await revoke(serial)
  await service.service.publishCrls()
  const list = await listOf(serial)
  const [row] = await sql<{ tbs: string; revoked: number }>(
    `select encode(tbs_sha256, 'hex') as tbs, revoked from crls where issuer = 'default' and shard = $1 and number = $2`,
    [shardOf(serial), String(list.number)],
  )
  t.match(row, { tbs: createHash('sha256').update(list.tbs).digest('hex'), revoked: list.revoked.length })
  const { items } = (await service.request('GET', '/v1/events?type=crls.intended&limit=1000')).json
  const told = items.flatMap(({ entry }: { entry: string }) => JSON.parse(entry).lists)
  t.ok(told.some((one: { tbs: string }) => one.tbs === row?.tbs))
})

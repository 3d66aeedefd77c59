/** Keys of issuers in a real SoftHSM whose token is called otherwise one day: what is on record is corrected, and only for the very key. */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { verifyDatabase } from '../../src/cli/verify-database.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { employ } from '../http/people.ts'
import { dns, newP256, pem, rdn, request, san, seq, tlv } from '../x509/build.ts'
import { openSoftHsm } from './softhsm.ts'

const hsm = await openSoftHsm(t)
await hsm.addToken('other')
const settings = {
  CHANCERY_PKCS11_MODULE: hsm.module,
  CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
  CHANCERY_STAGING_TIME: '0s',
  ...hsm.env,
}

/** What SoftHSM keeps of a token says its label in 32 octets, and its serial number in 16. */
const relabel = async (from: string, to: string): Promise<void> => {
  const tokens = join(hsm.folder, 'tokens')
  for (const folder of await readdir(tokens)) {
    const path = join(tokens, folder, 'token.object')
    const octets = await readFile(path, 'latin1')
    await writeFile(path, octets.replace(from.padEnd(32), to.padEnd(32)), 'latin1')
  }
}
const ask = (service: TestService, name: string, uri: string) =>
  service.request('POST', '/v1/issuer-requests', {
    body: { name, authority: 'etcd', subject: named(name), key: uri },
  })
const stage = async (service: TestService, name: string, csr: string): Promise<void> => {
  const root = openTestRoot()
  const staged = await service.request('PUT', `/v1/issuers/${name}`, { body: { chain: root.certify(csr) + root.pem } })
  t.equal(staged.status, 201, staged.text)
}
const issue = (service: TestService) =>
  service.request('POST', '/v1/certificates', { body: { csr, profile: 'etcd-server' } })
const csr = pem(
  request({
    ...{ signer: newP256(), subject: seq(rdn('2.5.4.3', tlv(0x0c, Buffer.from('kube-etcd')))) },
    extensions: [san(dns('m1.node.cluster.local'))],
  }),
)
const keyOf = (service: TestService, name = 'next') => service.request('GET', `/v1/issuers/${name}/key`)
const relocate = (service: TestService, key: string, more: object = {}, name = 'next') =>
  service.request('PUT', `/v1/issuers/${name}/key`, { body: { key, ...more } })
const faultOf = (service: TestService) => service.service.issuers.byName('next').fault
const until = async (holds: () => boolean): Promise<void> => {
  for (let tries = 0; tries < 100 && !holds(); tries += 1) await new Promise((resolve) => setTimeout(resolve, 100))
}

const before = 'pkcs11:token=ca;object=k'
const now = 'pkcs11:token=renamed;object=k'

slowTest('the key of an issuer whose token has another label', async (t) => {
  const first = await openTestService(t, settings)
  t.equal((await ask(first, 'waits', 'pkcs11:token=other;object=waits')).status, 201)
  await stage(first, 'next', (await ask(first, 'next', before)).json.csr)
  await first.request('POST', '/v1/issuers/next/moves', { body: { move: 'activate' } })
  t.equal((await issue(first)).json.issuer, 'next')
  t.equal((await ask(first, 'third', 'pkcs11:token=ca;object=third')).status, 201, 'a key of its own in the same token')

  await relabel('ca', 'renamed')
  const replica = await openTestService(t, settings, first)
  t.match(faultOf(replica), /^There is no token with label ca/)
  t.match(await issue(replica), { status: 503, json: { code: 'key.unavailable' } })

  t.test('is put on record by nobody but an administrator', async (t) => {
    const operator = await employ(first, 'olga', 'operator')
    const body = { key: now }
    t.equal((await replica.request('PUT', '/v1/issuers/next/key', { token: operator, body })).status, 403)
    t.match((await replica.request('GET', '/v1/issuers/next/key', { token: operator })).json, { key: before })
    const requester = await employ(first, 'ci', 'requester', { profiles: ['server'] })
    t.equal((await replica.request('GET', '/v1/issuers/next/key', { token: requester })).status, 403)
  })

  t.test('is not where there is none, another one, or none that may be', async (t) => {
    for (const [key, status, code, detail] of [
      [
        'pkcs11:token=nowhere;object=k',
        422,
        'issuer.token',
        /^The key of next was not opened there: .*no token with label nowhere/,
      ],
      ['pkcs11:token=renamed;object=none', 422, 'issuer.token', /was not opened there/],
      [
        'pkcs11:token=renamed;object=third',
        422,
        'issuer.key_place',
        /^Another key is there: the key there is [0-9a-f]{64}, and that of next is /,
      ],
      ['pkcs11:token=renamed;object=k?x-signature=ecdsa-sha384', 400, 'request.malformed', /leave x-signature out/],
      ['pkcs11:token=renamed;object=k?pin-value=1234', 400, 'request.malformed', /never holds a PIN/],
      ['pkcs11:token=renamed;manufacturer=x;object=k', 400, 'request.malformed', /name the token by/],
    ] as const)
      t.match(await relocate(replica, key), { status, json: { code, detail, retryable: false } }, key)
    t.equal((await relocate(replica, now, {}, 'nobody')).json.code, 'issuer.not_found')
    t.equal((await keyOf(replica)).json.key, before, 'nothing has changed')
  })

  t.test('is corrected, signs at once, and every instance follows', async (t) => {
    const spki = (await keyOf(replica)).json.spki
    const moved = await relocate(replica, now, { reason: 'the token was labelled anew' })
    t.match(moved, { status: 200, json: { issuer: 'next', key: now, before, spki } }, moved.text)
    t.equal((await issue(replica)).json.issuer, 'next')
    await first.service.issuers.refresh()
    await until(() => first.service.issuers.byName('next').key.id.includes('token=renamed'))
    t.match(first.service.issuers.byName('next').key.id, 'token=renamed', 'also one whose key was open')
    t.equal(faultOf(first), undefined)
    t.equal((await issue(first)).json.issuer, 'next')
    t.match((await relocate(replica, now)).json, { key: now, before: now }, 'again is nothing')
    const { items } = (await replica.request('GET', '/v1/events?type=issuer.relocated')).json
    t.match(
      items.map(({ entry }: { entry: string }) => JSON.parse(entry)),
      [{ issuer: 'next', key: now, before, spki, reason: 'the token was labelled anew', by: 'admin' }],
    )
    t.equal(items.length, 1)
  })

  t.test('is opened there by the next start, and its old place is no other issuer’s', async (t) => {
    const later = await openTestService(t, settings, first)
    t.equal(faultOf(later), undefined)
    t.match((await ask(later, 'fourth', before)).json, { code: 'state.exists' })
    t.match((await ask(later, 'fourth', now)).json, { code: 'state.exists' })
  })

  t.test('so is that of one which waits for its certificate, by the command', async (t) => {
    await relabel('other', 'second')
    const chancery = chanceryFor(replica)
    t.match(
      (await chancery(['issuer', 'key', 'waits'])).out,
      /^The key of waits is at pkcs11:token=other;object=waits\n/,
    )
    const wrong = await chancery(['issuer', 'relocate', 'waits', now])
    t.match(wrong, { code: exitCodes.refused, err: /Another key is there/ })
    const moved = await chancery(['issuer', 'relocate', 'waits', 'pkcs11:token=second;object=waits', '--reason', 'x'])
    t.match(moved, {
      code: 0,
      out: /is at pkcs11:token=second;object=waits\n.*\nBefore: pkcs11:token=other;object=waits\n$/s,
    })
    await stage(replica, 'waits', (await chancery(['issuer', 'csr', 'waits'])).out)
    await replica.service.issuers.byName('waits').opening
    t.equal(replica.service.issuers.byName('waits').fault, undefined)
    t.match(
      (await chancery(['audit', 'events', '--type', 'issuer.relocated'])).out,
      /waits of authority etcd, key .*before .*by admin: "x"/,
    )
    await replica.request('POST', '/v1/issuers/waits/moves', { body: { move: 'discard' } })
    t.match((await relocate(replica, now, {}, 'waits')).json, { code: 'issuer.state', detail: /has retired/ })
  })

  t.test('and the records say of all this what the roll says', async (t) => {
    const findings: Finding[] = []
    const wanted = { keys: { roll: [], witnesses: [] }, checkpoints: [], tell: (one: Finding) => findings.push(one) }
    await verifyDatabase(first.database.servingUrl, { ...wanted, progress: () => {} })
    t.same(findings, [])
  })
})

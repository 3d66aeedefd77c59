/** Records with something of each kind that a roll tells of, made by a service as its callers would. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import type { Test } from 'tap'

import { encodeRootCrlTbs, seal } from '../../src/ca/issuers/ceremony.ts'
import { loadConfig } from '../../src/config/config.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { openTestStores, type TestStores } from '../db/stores.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openTestDatabase, type TestDatabase } from '../helpers/database.ts'
import { wholeCheckpoint } from '../helpers/exported.ts'
import { openInlineKeys } from '../helpers/keys.ts'
import type { TestService } from '../helpers/service.ts'
import { employApprovers, openDesk, wantApprovals } from '../http/approvals.ts'
import { csrOn, holderOf, newKey, openHoldersOf } from '../http/holders.ts'
import { csrFor, employ } from '../http/people.ts'

export interface FilledRecords {
  readonly database: TestDatabase
  /** The newest checkpoint of the roll as it is now, signed, and the key. */
  readonly note: string
  readonly key: string
}

/** Some 400 entries, of which the checkpoint covers all. The service has ended: nobody writes any more. */
export const openFilledRecords = async (t: Test, certificates = 300): Promise<FilledRecords> => {
  const database = await openTestDatabase(t)
  const dataDir = await mkdtemp(join(tmpdir(), 'chancery-filled-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const stores = await openTestStores(t, {}, { config: await loadConfig({ CHANCERY_DATA: dataDir }), database })
  const { service } = stores
  const serials = await issueMany(stores, certificates)
  await revokeSome(service, serials)
  await administer(service)
  await renewSome(t, service)
  await approve(service)
  await askForOthers(service)
  await changeIssuers(service)
  await abandon(service, serials[10] as string)
  const key = JSON.parse((await service.request('GET', '/v1/events?type=roll.opened')).json.items[0].entry).key
  const note = await wholeCheckpoint(service)
  await service.close()
  return { database, key, note }
}

const issueMany = async ({ issue }: TestStores, count: number): Promise<readonly string[]> => {
  const serials: string[] = []
  for (let from = 0; from < count; from += 50) {
    const some = Array.from({ length: Math.min(50, count - from) }, (_, n) => from + n)
    const issued = some.map((i) =>
      issue([`dns:n${i}.example.com`, ...moreNames(i)], i % 5 === 0 ? { subject: `n${i}` } : {}),
    )
    serials.push(...(await Promise.all(issued)).map(({ serial }) => serial))
  }
  return serials
}

/** A few have further names, of all kinds. */
const moreNames = (i: number): readonly string[] =>
  i % 7 === 0
    ? [
        `dns:www.n${i}.example.com`,
        `ip:10.0.${i >> 8}.${i % 256}`,
        `email:n${i}@example.com`,
        `uri:spiffe://example.com/n${i}`,
      ]
    : []

const revokeSome = async (service: TestService, serials: readonly string[]): Promise<void> => {
  const operator = await employ(service, 'ops', 'operator')
  const requester = await employ(service, 'ci', 'requester', {
    ...{ profiles: ['server'], revoke: true },
    names: { dns: { allow: ['*.ci.example.com'] } },
    limits: { certificatesPerDay: 1000, concurrent: 64 },
  })
  const revoke = (serial: string | undefined, body: object, token = operator) =>
    made(service.request('POST', `/v1/certificates/${serial}/revocation`, { token, body }))
  const asked = { csr: csrFor('a.ci.example.com'), profile: 'server' }
  const headers = { 'idempotency-key': 'once' }
  const own = await made(service.request('POST', '/v1/certificates', { token: requester, headers, body: asked }))
  await revoke(own.json.serial, { reason: 'superseded' }, requester)
  for (const [i, reason] of reasons.entries()) await revoke(serials[i], { reason })
  await made(service.request('DELETE', `/v1/certificates/${serials[0]}/revocation`, { token: operator }))
  await revoke(serials[0], { reason: 'certificateHold' })
  // All are of one key: reported, it would keep the one before on hold.
  await revoke(serials[1], { reason: 'keyCompromise', invalidityDate: '2026-01-01T00:00:00Z' })
  const ask = {
    ...{ search: { name: '*.n7.example.com' }, reason: 'superseded' },
    invalidityDate: '2026-02-01T00:00:00Z',
  }
  const order = (more: object) =>
    made(service.request('POST', '/v1/revocations', { token: operator, body: { ...ask, ...more } }))
  const { digest, asOf } = (await order({})).json
  await order({ digest, asOf })
  while ((await service.request('GET', `/v1/revocations/${digest}`)).json.state !== 'done')
    await new Promise((resolve) => setTimeout(resolve, 50))
}

const reasons = ['certificateHold', 'superseded', 'unspecified', 'cessationOfOperation', 'affiliationChanged']

const administer = async (service: TestService): Promise<void> => {
  await employ(service, 'leaver', 'auditor')
  for (const what of ['grants', 'tokens']) {
    const [{ id }] = (await service.request('GET', `/v1/${what}?principal=leaver`)).json.items
    await made(service.request('DELETE', `/v1/${what}/${id}`))
  }
  for (const match of [
    { fingerprint: 'ab'.repeat(32) },
    { spiffeId: 'spiffe://example.com/leaver' },
    { subject: 'MA0xCzAJBgNVBAMMAmNp', issuer: 'MA0xCzAJBgNVBAMMAmNh' },
  ]) {
    const body = { principal: 'leaver', label: 'test', ...match }
    const { id } = (await made(service.request('POST', '/v1/credentials', { body }))).json
    if (!('spiffeId' in match)) await made(service.request('DELETE', `/v1/credentials/${id}`))
  }
  const ifNone = { 'if-none-match': '*' }
  await made(service.request('PUT', '/v1/identity-providers/github', { headers: ifNone, body: github }))
  await made(service.request('DELETE', '/v1/principals/leaver'))
  const { json, headers } = await service.request('GET', '/v1/profiles/server')
  const body = { ...json.document, validity: { ...json.document.validity, max: '77d' } }
  await made(service.request('PUT', '/v1/profiles/server', { headers: { 'if-match': String(headers['etag']) }, body }))
}

/** One request that became a certificate, one for each other end, and one that waits. */
const approve = async (service: TestService): Promise<void> => {
  await wantApprovals(service, 'payments', { required: 2 })
  const { requester, alice, bob, carol } = await employApprovers(service, ['payments'], 'payer')
  const desk = openDesk(service)
  const ask = async () => (await made(desk.ask(requester, 'payments'))).json
  const [issued, rejected, failed, withdrawn] = [await ask(), await ask(), await ask(), await ask(), await ask()]
  for (const token of [alice, bob]) await made(desk.approve(token, issued))
  await made(desk.reject(carol, rejected, 'not before Monday'))
  await made(desk.withdraw(requester, withdrawn))
  await wantApprovals(service, 'payments', { required: 2 }, { description: 'changed' })
  for (const token of [alice, bob]) await made(desk.approve(token, failed))
}

/** Of several namespaces, one of them approved. */
const askForOthers = async (service: TestService): Promise<void> => {
  const profiles = ['server', 'payments']
  const rules = { required: true, namespaces: { deny: ['kube-*'] } }
  const token = await employ(service, 'controller', 'requester', { profiles, onBehalfOf: rules })
  const ask = (namespace: string, more: object = {}) => {
    const object = {
      apiVersion: 'cert-manager.io/v1',
      kind: 'CertificateRequest',
      name: 'web-1',
      uid: `uid of ${namespace}`,
    }
    const onBehalfOf = { user: 'alice@example.com', groups: ['staff'], namespace, object }
    const body = { csr: csrFor(`${namespace}.example.com`), profile: 'server', onBehalfOf, ...more }
    return made(service.request('POST', '/v1/certificates', { token, body }))
  }
  for (const namespace of ['shop', 'team-a', 'team-b']) await ask(namespace)
  await ask('team-c', { onBehalfOf: { namespace: 'team-c', serviceAccount: 'web' } })
  const { json } = await ask('shop', { profile: 'payments' })
  for (const name of ['alice', 'bob']) {
    const { secret } = (await made(service.request('POST', '/v1/tokens', { body: { principal: name, label: 'more' } })))
      .json
    await made(openDesk(service).approve(secret, json))
  }
}

const github = {
  name: 'github',
  issuer: 'https://token.actions.githubusercontent.com',
  // Nobody is there, and nobody elsewhere is asked.
  keys: { url: 'https://127.0.0.1:1/keys' },
  algorithms: ['RS256'],
  audience: 'https://ca.example.com',
  lifetime: '15m',
  mappings: [{ id: 'deploy', claims: { repository: 'example/web' }, principal: 'ci' }],
}

const changeIssuers = async (service: TestService): Promise<void> => {
  const root = openTestRoot()
  const asked = await made(
    service.request('POST', '/v1/issuer-requests', {
      body: { name: 'next', authority: 'default', subject: named('Next') },
    }),
  )
  const chain = root.certify(asked.json.csr) + root.pem
  await made(service.request('PUT', '/v1/issuers/next', { body: { chain, shards: 2 } }))
  await made(service.request('PUT', '/v1/issuers/next/chains', { body: { chains: [chain] } }))
  await made(service.request('POST', '/v1/issuers/next/moves', { body: { move: 'discard', reason: 'a trial' } }))
  const keys = await openInlineKeys(service.config)
  const key = await keys.open('file:offline-root/root.key.pem')
  const certificate = await readFile(join(service.config.dataDir, 'offline-root', 'root.der'))
  const now = Math.floor(Date.now() / 1000) * 1000
  const list = await seal(
    key,
    encodeRootCrlTbs(key, certificate, {
      ...{ number: 2n, revoked: [], thisUpdate: new Date(now - 30_000), nextUpdate: new Date(now + 100 * 86_400_000) },
    }),
  )
  await made(service.request('POST', '/v1/issuers/default/crl', { body: { crl: encodePem('X509 CRL', list) } }))
}

/** Rows of three. */
const renewSome = async (t: Test, service: TestService): Promise<void> => {
  const { issue, renew } = openHoldersOf(service)
  for (const name of ['r1.example.com', 'r2.example.com', 'r3.example.com']) {
    let held = await issue([name])
    for (let i = 0; i < 2; i += 1) {
      const key = newKey()
      held = holderOf(await renew(t, held, { csr: csrOn(key) }), key)
    }
  }
}

/** An intent that nobody ended, as a crash leaves it: like another one, but for its serial. */
const abandon = async (service: TestService, like: string): Promise<void> => {
  const client = new pg.Client({ connectionString: service.database.ownerUrl })
  await client.connect()
  await client.query(
    `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
     select other, principal, 1, digest, issuer, shard, profile, profile_version,
       overlay(tbs placing other from position(serial in tbs)), plan
     from intents, set_byte(serial, 1, get_byte(serial, 1) # 1) as other where serial = decode($1, 'hex')`,
    [`${like}`],
  )
  await client.end()
  await service.service.reconcile(0)
}

const made = async (answering: ReturnType<TestService['request']>) => {
  const answer = await answering
  if (answer.status >= 300) throw new Error(`${answer.status}: ${answer.text}`)
  return answer
}

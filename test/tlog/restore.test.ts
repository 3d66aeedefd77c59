/**
 * The restore drill: a cold copy of the database's files, more of everything, the copy put back. Chancery refuses, names what is
 * missing, and goes on once that was brought back from exported tiles.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { Agent } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import t from 'tap'
import { stringify } from 'yaml'

import { openRollCertificates } from '../../src/auditor/certificates.ts'
import { verifyDatabase } from '../../src/auditor/database.ts'
import { shardOf } from '../../src/ca/issuance/serial.ts'
import { runRecover } from '../../src/cli/log-recover.ts'
import { serve } from '../../src/cli/serve.ts'
import { loadConfig } from '../../src/config/config.ts'
import type { Finding } from '../../src/tlog/findings.ts'
import { parseVerifierKey } from '../../src/tlog/note.ts'
import { openRollVerifier } from '../../src/tlog/verify.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { faultsInRecords } from '../crash/checker.ts'
import { takeBackup } from '../helpers/backup.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { drill } from '../helpers/drill.ts'
import { exportRoll, wholeCheckpoint } from '../helpers/exported.ts'
import { quiet } from '../helpers/log.ts'
import { send } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'
import { sha256 } from './hashing.ts'
import { depsOf, type Stored, storedOf } from './world.ts'

t.setTimeout(300_000)
const data = await mkdtemp(join(tmpdir(), 'chancery-drill-'))
t.teardown(() => rm(data, { recursive: true, force: true }))
const database = await openTestDatabase(t)
const config = await loadConfig({
  CHANCERY_DATA: data,
  CHANCERY_DATABASE_URL: database.servingUrl,
  CHANCERY_MIGRATION_URL: database.ownerUrl,
  CHANCERY_LISTEN: '127.0.0.1:0',
  CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
  CHANCERY_PUBLIC_URL: 'http://pki.test',
})
const silent = { update: () => {}, tell: () => {} }

const open = async () => {
  const { service, addresses, close } = await serve(config, quiet)
  const token = (await readFile(join(data, 'admin.token'), 'utf8')).trim()
  const agent = new Agent({ keepAlive: true, ca: await readFile(join(data, 'root.pem'), 'utf8') })
  const request = (method: string, path: string, body?: unknown, headers = {}) =>
    send({ url: new URL(path, addresses.api), agent, method }, { token, headers, ...(body !== undefined && { body }) })
  const issue = async (name: string, profile = 'server') => {
    const { status, json } = await request('POST', '/v1/certificates', { csr: csrFor(name), profile })
    if (status !== 201) throw new Error(json.detail)
    return { key: json.serial, ...json } as { serial: string; index: number; certificate: string; key: string }
  }
  const revoke = async (serial: string, reason: string) => {
    const { status, text } = await request('POST', `/v1/certificates/${serial}/revocation`, { reason })
    if (status !== 200) throw new Error(text)
  }
  return {
    service,
    publicUrl: addresses.public,
    request,
    issue,
    revoke,
    close: async () => {
      agent.destroy()
      await close()
    },
  }
}

/** As the owner of the records. */
const asOwner = async <T>(work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: database.ownerUrl })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** An intent that nobody will end, like another one. */
const leaveOpen = async (): Promise<string> => {
  const serial = Buffer.concat([Buffer.of(0x77), randomBytes(15)])
  await asOwner((client) =>
    client.query(
      `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
       select $1, principal, 1, digest, issuer, $2, profile, profile_version,
         decode(replace(encode(tbs, 'hex'), encode(serial, 'hex'), $3), 'hex'), plan
       from intents where profile = 'server' limit 1`,
      [serial, shardOf(serial, 128), serial.toString('hex')],
    ),
  )
  return serial.toString('hex')
}

/** What the records say of things that are not entries themselves. */
const told = () =>
  asOwner(async (client) => {
    const texts = {
      outcomes: `select encode(serial, 'hex') as serial, kind, entry, case kind when 'certificate' then at end as at, encode(signature, 'hex') as signature, principal,
        profile, issuer, subject, encode(key_sha256, 'hex') as key, not_before, not_after, origin_namespace, origin_user, origin_object,
        encode(names, 'hex') as names, profile_version, delegated from outcomes where entry is not null order by entry`,
      names:
        'select encode(serial, $$hex$$) as serial, kind, name, entry from certificate_names order by entry, kind, name',
      shards: `select encode(serial, 'hex') as serial, shard, principal, issuer, encode(digest, 'hex') as digest, encode(plan, 'hex') as plan, encode(replaces, 'hex') as replaces,
          encode(first, 'hex') as first, case when serial in (select serial from outcomes where kind = 'certificate') then origin end as origin
        from intents where serial in (select serial from outcomes where entry is not null) order by serial`,
      revocations: `select entry, encode(serial, 'hex') as serial, change, reason, revoked_at, invalid_since, issuer, shard, not_after,
        certificate, by from revocations order by entry`,
      compromised: `select encode(key_sha256, 'hex') as key, entry from compromised_keys order by entry`,
      crls: `select issuer, shard, number, covers, this_update, next_update, revoked, encode(tbs_sha256, 'hex') as tbs from crls order by 1, 2, 3`,
      profiles: `select name, version, encode(sha256, 'hex') as sha256, authority, document, created_by from profiles order by 1, 2`,
      grants:
        'select id, principal, role, profiles, names, revoke, limits, on_behalf_of, created_by from grants order by id',
      grantRevocations: 'select grant_id, revoked_by from grant_revocations order by 1',
      principals: 'select name, created_by from principals order by 1',
      closures: 'select principal, closed_by from principal_closures order by 1',
      credentials: `select id, principal, label, kind, encode(value, 'hex') as value, encode(issuer, 'hex') as issuer, created_by from credentials order by id`,
      credentialRevocations: 'select credential, revoked_by from credential_revocations order by 1',
      providers: 'select name, version, created_by from identity_providers order by 1, 2',
      tokens: 'select id, principal, label, expires_at, created_by from tokens order by id',
      tokenRevocations: 'select token, revoked_by from token_revocations order by 1',
      states: 'select issuer, state, by, reason from issuer_states order by id',
      issuers: `select name, authority, encode(certificate, 'hex') as der, key_uri, shards from issuers order by name`,
      orders: `select encode(plan, 'hex') as plan, entry, search, reason, invalid_since, count, slices, ordered_at, by from mass_revocations order by entry`,
      slices: `select encode(plan, 'hex') as plan, number, certificates from mass_revocation_slices order by 1, 2`,
      sliceOutcomes: `select encode(plan, 'hex') as plan, number, revoked, passed_expired, passed_revoked from mass_revocation_outcomes order by 1, 2`,
      requests: `select id, entry, principal, encode(digest, 'hex') as digest, profile, profile_version, decided, encode(plan, 'hex') as plan, required, created_at, expires_at from approval_requests order by entry`,
      approvals: 'select * from approvals order by entry',
      requestEnds: `select request, kind, entry, encode(serial, 'hex') as serial, by, code, reason from approval_ends order by request`,
      approvedIntents: `select approval, encode(serial, 'hex') as serial from intents where approval is not null order by serial`,
      subtrees: `select level, index, encode(hash, 'hex') as hash from subtrees order by 1, 2`,
      roll: `select size, encode(root, 'hex') as root, time from roll`,
    }
    const found: Record<string, unknown[]> = {}
    for (const [name, text] of Object.entries(texts)) found[name] = (await client.query(text)).rows
    return found
  })

const readRoll = async (request: Awaited<ReturnType<typeof open>>['request']): Promise<Stored[]> => {
  const entries: Stored[] = []
  let cursor = ''
  do {
    const { json } = await request('GET', `/v1/events?limit=1000${cursor}`)
    for (const { index, leafHash, entry } of json.items)
      entries.push({ ...storedOf(index, entry), leaf: Buffer.from(leafHash, 'hex') })
    cursor = json.next ? `&cursor=${json.next}` : ''
  } while (cursor !== '')
  return entries
}

drill('a database that was restored is refused, brought back from tiles, and goes on', async (t) => {
  const tiles = join(data, 'tiles')

  let chancery = await open()
  const before = await Promise.all(['a', 'b', 'c'].map((name) => chancery.issue(`${name}.example.com`)))
  const [first, second] = before as [(typeof before)[0], (typeof before)[0]]
  await chancery.request('POST', '/v1/principals', { name: 'old' })
  const oldToken = (await chancery.request('POST', '/v1/tokens', { principal: 'old', label: 'old' })).json
  const server0 = (await chancery.request('GET', '/v1/profiles/server')).json.document
  await chancery.request(
    'PUT',
    '/v1/profiles/safe',
    { ...server0, name: 'safe', approvals: { required: 1 } },
    { 'if-none-match': '*' },
  )
  await chancery.request('POST', '/v1/grants', { principal: 'admin', role: 'requester', profiles: ['safe'] })
  await chancery.request('POST', '/v1/principals', { name: 'zoe' })
  await chancery.request('POST', '/v1/grants', { principal: 'zoe', role: 'approver', profiles: ['safe'] })
  const zoe = (await chancery.request('POST', '/v1/tokens', { principal: 'zoe', label: 'zoe' })).json.secret
  const askSafe = { csr: csrFor('safe.example.com'), profile: 'safe' }
  const safely = { 'idempotency-key': 'approved-after-the-backup' }
  const safe = (await chancery.request('POST', '/v1/certificates', askSafe, safely)).json
  const open1 = await leaveOpen()
  await chancery.close()
  const backup = await takeBackup(t, database)

  // More of everything.
  chancery = await open()
  const server = (await chancery.request('GET', '/v1/profiles/server')).json.document
  const mine = { ...server, name: 'mine', validity: { default: '2h', max: '10d' } }
  await chancery.request('PUT', '/v1/profiles/mine', mine, { 'if-none-match': '*' })
  await chancery.request('PUT', '/v1/profiles/lost', { ...mine, name: 'lost' }, { 'if-none-match': '*' })
  await writeFile(join(data, 'mine.yaml'), stringify(mine))
  const grant = { principal: 'admin', role: 'requester', profiles: ['mine', 'lost'] }
  await chancery.request('POST', '/v1/grants', grant)
  await chancery.request('POST', '/v1/principals', { name: 'new' })
  await chancery.request('POST', '/v1/tokens', { principal: 'new', label: 'new' })
  const second2 = (await chancery.request('POST', '/v1/grants', { principal: 'new', role: 'auditor' })).json
  await chancery.request('DELETE', `/v1/grants/${second2.id}`)
  await chancery.request('DELETE', `/v1/tokens/${oldToken.id}`)
  const brief = (await chancery.request('POST', '/v1/tokens', { principal: 'new', label: 'brief' })).json
  await chancery.request('DELETE', `/v1/tokens/${brief.id}`)
  await chancery.request('POST', '/v1/principals', { name: 'closed' })
  await chancery.request('DELETE', '/v1/principals/closed')
  for (const match of [
    { fingerprint: 'ab'.repeat(32) },
    { spiffeId: 'spiffe://example.com/new' },
    { subject: 'MA0xCzAJBgNVBAMMAmNp', issuer: 'MA0xCzAJBgNVBAMMAmNh' },
  ]) {
    const tied = await chancery.request('POST', '/v1/credentials', { principal: 'new', label: 'new', ...match })
    if ('subject' in match) await chancery.request('DELETE', `/v1/credentials/${tied.json.id}`)
  }
  const nowhere = { url: 'https://127.0.0.1:1/keys' }
  const provider = { name: 'github', issuer: 'https://github.example.com', keys: nowhere, mappings: [] }
  const believed = { algorithms: ['RS256'], audience: 'https://ca.example.com', lifetime: '15m' }
  await chancery.request('PUT', '/v1/identity-providers/github', { ...provider, ...believed }, { 'if-none-match': '*' })
  const vault = { ...mine, name: 'vault', approvals: { required: 1 } }
  await chancery.request('PUT', '/v1/profiles/vault', vault, { 'if-none-match': '*' })
  await writeFile(join(data, 'vault.yaml'), stringify(vault))
  await chancery.request('POST', '/v1/grants', { ...grant, profiles: ['vault'] })
  await chancery.request('POST', '/v1/principals', { name: 'alice' })
  await chancery.request('POST', '/v1/grants', { principal: 'alice', role: 'approver', profiles: ['vault'] })
  const alice = (await chancery.request('POST', '/v1/tokens', { principal: 'alice', label: 'alice' })).json.secret
  const askVault = async () =>
    (await chancery.request('POST', '/v1/certificates', { csr: csrFor('v.example.com'), profile: 'vault' })).json
  const say = async (what: string, { id, digest }: { id: string; digest: string }, as = alice) =>
    chancery.request('POST', `/v1/requests/${id}/${what}`, { digest, reason: 'x' }, { authorization: `Bearer ${as}` })
  const [kept, turned, waiting] = [await askVault(), await askVault(), await askVault()]
  t.match((await say('approval', kept)).json, { state: 'issued' })
  t.match((await say('rejection', turned)).json, { state: 'rejected' })
  const safeSerial = (await say('approval', safe, zoe)).json.serial
  await chancery.request('POST', '/v1/grants', {
    ...grant,
    profiles: ['server', 'vault'],
    onBehalfOf: { users: { deny: ['mallory'] } },
  })
  const onBehalfOf = { user: 'alice', namespace: 'shop', object: { apiVersion: 'v1', kind: 'X', name: 'x', uid: 'u' } }
  const forOther = { csr: csrFor('other.example.com'), profile: 'server', onBehalfOf }
  const other = (await chancery.request('POST', '/v1/certificates', forOther)).json
  const otherVault = (await chancery.request('POST', '/v1/certificates', { ...forOther, profile: 'vault' })).json
  t.match((await say('approval', otherVault)).json, { state: 'issued' })
  const after = await Promise.all(Array.from({ length: 300 }, (_, i) => chancery.issue(`n${i}.example.com`)))
  const mines = await Promise.all([chancery.issue('m.example.com', 'mine'), chancery.issue('l.example.com', 'lost')])
  // What an order finds and passes by is on no roll.
  const passedBy = await Promise.all(['p', 'q'].map((name) => chancery.issue(`${name}.example.com`, 'mine')))
  for (const { serial } of passedBy) await chancery.revoke(serial, 'keyCompromise')
  const body = { csr: csrFor('key.example.com'), profile: 'server' }
  const asked = { 'idempotency-key': 'asked-before-the-backup' }
  const underWay = (await chancery.request('POST', '/v1/certificates', body, asked)).json
  await leaveOpen()
  await chancery.service.reconcile(0)
  await chancery.revoke(first.serial, 'keyCompromise')
  await chancery.revoke(after[0]?.serial as string, 'certificateHold')
  await chancery.request('DELETE', `/v1/certificates/${after[0]?.serial}/revocation`)
  await chancery.revoke(after[1]?.serial as string, 'certificateHold')
  const order = { search: { profile: 'mine' }, reason: 'superseded' }
  const plan = (await chancery.request('POST', '/v1/revocations', order)).json
  t.match(plan, { count: 1, skipped: { revoked: 2 } }, 'an order over some that are revoked already')
  await chancery.request('POST', '/v1/revocations', { ...order, digest: plan.digest, asOf: plan.asOf })
  while ((await chancery.request('GET', `/v1/revocations/${plan.digest}`)).json.state !== 'done')
    await new Promise((resolve) => setTimeout(resolve, 100))
  await wholeCheckpoint({ ...chancery, database })
  const size = await exportRoll((path) => chancery.request('GET', path), tiles)
  const whole = await told()
  const intent = await asOwner((client) =>
    client.query(`select * from intents where serial = decode($1, 'hex')`, [underWay.serial]),
  )
  await chancery.close()

  // The disaster, and the backup.
  await backup.restore()
  // A backup that was made while a certificate was being signed.
  const {
    fields,
    rows: [row],
  } = intent
  await asOwner((client) =>
    client.query(
      `insert into intents (${fields.map(({ name }) => name).join()}) values (${fields.map((_, i) => `$${i + 1}`).join()})`,
      fields.map(({ name }) => row[name]),
    ),
  )
  await t.rejects(serve(config, quiet), {
    kind: 'usage',
    message: new RegExp(`entries \\d+ to ${size - 1} are missing\\. "chancery roll recover" brings them back`),
  })

  const options = {
    from: tiles,
    profiles: ['mine.yaml', 'vault.yaml'].map((name) => join(data, name)),
    chains: [],
    check: false,
  }
  const looked = await runRecover(config, quiet, { ...options, check: true }, silent)
  await t.rejects(serve(config, quiet), { message: /are missing/ }, 'a look has changed nothing')
  const found = await runRecover(config, quiet, options, silent)
  t.same(found, looked)
  t.equal(found.to, size)
  t.match(
    [...found.byHand].sort(),
    [
      /^The identity provider github, version 1: its document is lost/,
      /^The profile lost, version 1: its document .* is lost/,
      new RegExp(`^The request ${waiting.id} of admin: what was asked is lost`),
      /^The token "alice" of alice: its secret/,
      /^The token "new" of new: its secret/,
    ],
    'and nothing else is to be done by hand',
  )
  t.equal(found.byHand.length, 5)
  const again = await runRecover(config, quiet, options, silent)
  t.same({ from: again.from, byHand: again.byHand }, { from: size, byHand: [] }, 'run again, it finds nothing to do')

  const restored = await told()
  for (const [name, rows] of Object.entries(whole)) {
    const known = name === 'profiles' ? rows.filter((row) => (row as { name: string }).name !== 'lost') : rows
    const now =
      name === 'profiles' ? restored[name]?.filter((row) => (row as { name: string }).name !== 'lost') : restored[name]
    t.same(now, known, `${name} are as they were`)
  }

  chancery = await open()
  t.teardown(() => chancery.close())
  for (const { serial } of [...before, ...after, ...mines]) {
    const { status, json } = await chancery.request('GET', `/v1/certificates/${serial}`)
    if (status !== 200 || json.serial !== serial) t.fail(`${serial} is not found`)
  }
  const lost = (await chancery.request('GET', '/v1/events?type=token.revoked&by=chancery')).json.items
  t.same(
    lost.map(({ entry }: { entry: string }) => JSON.parse(entry).label).sort(),
    ['alice', 'new'],
    'tokens whose secrets are lost are revoked, on the roll',
  )
  const request = async (id: string) => (await chancery.request('GET', `/v1/requests/${id}`)).json
  t.match(await request(kept.id), { state: 'issued', plan: kept.plan, approvals: [{ principal: 'alice' }] })
  while ((await request(waiting.id)).state !== 'failed') await new Promise((resolve) => setTimeout(resolve, 100))
  t.match(await request(waiting.id), { end: { code: 'approval.plan', reason: /lost with the records/ } })
  t.same((await chancery.request('GET', `/v1/certificates/${other.serial}`)).json.origin, onBehalfOf)
  const ofNamespace = (await chancery.request('GET', '/v1/certificates?originNamespace=shop')).json.items
  t.equal(ofNamespace.length, 2, 'by its origin')
  const replayed = await chancery.request('POST', '/v1/certificates', body, asked)
  t.equal(replayed.json.serial, underWay.serial, 'what was asked for under a key is answered by it')
  t.match(
    await chancery.request('POST', '/v1/certificates', askSafe, safely),
    { status: 201, json: { serial: safeSerial } },
    'also where people have approved it since',
  )
  const names = (await chancery.request('GET', '/v1/certificates?name=n299.example.com')).json.items
  t.match(names, [{ serial: after[299]?.serial }], 'by its name too')
  t.match((await chancery.request('GET', `/v1/certificates/${first.serial}`)).json, { status: 'revoked' })
  t.match((await chancery.request('GET', `/v1/certificates/${after[0]?.serial}`)).json, { status: 'valid' })
  const numbers = (await told())['crls']?.length
  await chancery.revoke(after[299]?.serial as string, 'superseded')
  await chancery.revoke(second.serial, 'superseded')
  await chancery.service.publishCrls()
  t.ok(((await told())['crls']?.length ?? 0) > (numbers ?? 0), 'lists go on')
  const { shard, number } = await asOwner(async (client) => {
    const { rows } = await client.query(
      `select shard, (select max(number)::int from crls c where c.issuer = i.issuer and c.shard = i.shard) as number
       from intents i where serial = decode($1, 'hex')`,
      [after[299]?.serial],
    )
    return rows[0]
  })
  const list = await fetch(`${chancery.publicUrl}/crl/default/${shard}.crl`)
  t.equal(Number(parseCrl(Buffer.from(await list.arrayBuffer())).number), number, 'by higher numbers')
  const answered = [...before, ...after, ...mines, await chancery.issue('later.example.com')]
  t.same(await faultsInRecords(database.ownerUrl, answered), [])
  t.equal((await chancery.request('GET', `/v1/certificates/${open1}`)).status, 404)

  const certificates = openRollCertificates(1)
  t.teardown(() => certificates.close())
  const entries = await readRoll(chancery.request)
  t.ok(entries.length > size)
  const { text } = await chancery.request('GET', '/roll/checkpoint')
  const findings: Finding[] = []
  const [key] = entries
    .map(({ octets }) => JSON.parse(Buffer.from(octets).toString()))
    .filter(({ type }) => type === 'roll.opened')
  const verifier = await openRollVerifier({
    ...depsOf(certificates, findings, [await readFile(join(tiles, 'checkpoint'), 'utf8'), text]),
    keys: { roll: [parseVerifierKey(key.key, sha256)] },
  })
  await verifier.add(entries)
  await verifier.finish()
  t.same(findings, [], 'a verifier of the whole roll finds nothing')

  const beside: Finding[] = []
  const [keys, tell] = [{ roll: [], witnesses: [] }, (one: Finding): void => void beside.push(one)]
  await verifyDatabase(database.ownerUrl, { keys, checkpoints: [], tell, progress: () => {} })
  t.same(
    beside.map(({ code, message }) => `${code} ${message}`),
    [
      'row.differs identity_providers: sha256, document of github@1',
      'row.differs profiles: sha256, document of lost@1',
    ],
    'the records beside the entries are as these say, but for what was told',
  )
})

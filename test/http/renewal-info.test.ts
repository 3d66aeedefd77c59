/** When to renew, over the API: who is told, how it is cached, and what the records say of orders that are under way. */
import t from 'tap'

import { openDatabase } from '../../src/db/database.ts'
import { readHeld, readRenewalFacts } from '../../src/db/holders.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { openHoldersOf } from './holders.ts'
import { employ } from './people.ts'

const service = await openTestService(t)
const { issue, hold } = openHoldersOf(service)
const token = await employ(service, 'web', 'requester', { profiles: ['server'] })
const pathOf = ({ serial }: { readonly serial: string }): string => `/v1/certificates/${serial}/renewal-info`

t.test('it is told to whoever may read the certificate, and to itself', async (t) => {
  const held = await issue(['info.example.com'], { token, validity: '24h' })
  const path = pathOf(held)
  const { status, json, headers } = await hold(t, held).request('GET', path)
  t.equal(status, 200)
  const { json: record } = await service.request('GET', `/v1/certificates/${held.serial}`)
  const life = Date.parse(record.notAfter) - Date.parse(record.notBefore)
  t.match(json, { serial: held.serial, reason: 'age' })
  const begin = Date.parse(json.suggestedWindow.start) - Date.parse(record.notBefore)
  t.ok(Math.abs(begin - life / 2) <= 1_000)
  t.ok(Math.abs(Date.parse(json.suggestedWindow.end) - Date.parse(json.suggestedWindow.start) - life / 6) <= 1_000)
  t.match(headers, { 'retry-after': '21600', 'cache-control': 'private, no-cache', etag: /^"[0-9a-f]{32}"$/ })

  const other = await employ(service, 'other', 'requester', { profiles: ['server'] })
  const auditor = await employ(service, 'audit', 'auditor')
  const approver = await employ(service, 'approve', 'approver')
  const codeFor = async (token: string) => {
    const answer = await service.request('GET', path, { token })
    return answer.status === 200 ? 'told' : answer.json.code
  }
  t.same(await Promise.all([token, auditor, other, approver].map(codeFor)), [
    'told',
    'told',
    'certificate.not_found',
    'auth.forbidden',
  ])
  const nowhere = await service.request('GET', pathOf({ serial: '11'.repeat(16) }), { token: auditor })
  t.match(nowhere, { status: 404, json: { code: 'certificate.not_found' } })
  const second = await issue(['second.example.com'], { token })
  t.equal((await hold(t, second).request('GET', path)).json.code, 'auth.missing', 'another one of hers is nobody')
})

t.test('a certificate is told what those who meet it must trust', async (t) => {
  const held = await issue(['trust.example.com'], { token })
  const path = `/v1/certificates/${held.serial}/bundle`
  const roots = await hold(t, held).request('GET', `${path}?anchors=roots`)
  t.match(roots, { status: 200, text: service.ca, headers: { 'content-type': 'application/x-pem-file' } })
  const issuers = (await service.request('GET', '/v1/authorities/default/bundle')).text
  t.equal((await service.request('GET', path, { token })).text, issuers)
  t.equal((await hold(t, await issue(['x.example.com'], { token })).request('GET', path)).json.code, 'auth.missing')
})

t.test('whoever has it already is told so, until it changes', async (t) => {
  const held = await issue(['etag.example.com'], { token })
  const connection = hold(t, held)
  const { headers } = await connection.request('GET', pathOf(held))
  const known = { 'if-none-match': String(headers['etag']) }
  const same = await connection.request('GET', pathOf(held), { headers: known })
  t.equal(same.status, 304)
  t.equal(same.headers['retry-after'], headers['retry-after'])
  await service.request('POST', `/v1/certificates/${held.serial}/revocation`, { body: { reason: 'superseded' } })
  const changed = await connection.request('GET', pathOf(held), { headers: known })
  t.equal(changed.status, 200, 'and it may ask, although it is revoked')
  t.equal(changed.json.reason, 'revoked')
  t.ok(Date.parse(changed.json.suggestedWindow.end) <= Date.now())
})

t.test('an order to revoke many moves it forward for each of its certificates, until they are revoked', async (t) => {
  const serials: string[] = []
  for (let i = 0; i < 5; i += 1) serials.push((await issue([`m${i}.example.com`], { token })).serial)
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(db.close)
  // Nobody carries out what is never committed. Two slices: of the second and third, and of the fifth.
  const undone = new Error('rolled back')
  const ordering = db.transaction(async (tx) => {
    const run = (text: string, values: readonly unknown[]) => tx.query({ text }, values)
    const ordered = async (): Promise<readonly boolean[]> => {
      const times: (string | undefined)[] = []
      for (const serial of serials) times.push((await readRenewalFacts(tx, serial))?.orderedAt?.toISOString())
      return times.map((time) => time === '2026-11-25T00:00:00.000Z')
    }
    const { rows } = await tx.query<{ entry: string }>(
      { text: `select entry::text as entry from outcomes where encode(serial, 'hex') = any ($1) order by entry` },
      [serials],
    )
    const entries = rows.map(({ entry }) => entry)
    const plan = Buffer.alloc(32, 1)
    t.same(await ordered(), [false, false, false, false, false])
    const order = `insert into mass_revocations (plan, entry, search, reason, count, slices, ordered_at, by)
       values ($1, $2, '{}', $3, 3, 2, '2026-11-25T00:00:00Z', 'ops')`
    await run(order, [plan, 1_000_000, 'superseded'])
    const slices = [entries.slice(1, 3), entries.slice(4)]
    for (const [number, slice] of slices.entries())
      await run('insert into mass_revocation_slices (plan, number, certificates) values ($1, $2, $3)', [
        plan,
        number,
        slice,
      ])
    t.same(await ordered(), [false, true, true, false, true])
    const obstacles = async () => {
      const found: unknown[] = []
      for (const serial of serials) found.push((await readHeld(tx, serial))?.obstacle)
      return found
    }
    t.same(await obstacles(), [null, null, null, null, null], 'what comes of it is not in the order')
    const barring = Buffer.alloc(32, 2)
    await run(order, [barring, 1_000_001, 'privilegeWithdrawn'])
    await run('insert into mass_revocation_slices (plan, number, certificates) values ($1, 1, $2)', [
      barring,
      entries.slice(4),
    ])
    t.same(
      await obstacles(),
      [null, null, null, null, 'ordered'],
      'whoever is not to be trusted with one gets no other',
    )
    t.same(await ordered(), [false, true, true, false, false], 'nor is it told to hurry')
    await run(
      `insert into mass_revocation_outcomes (plan, number, revoked, passed_expired, passed_revoked, at)
       values ($1, 1, 1, 0, 0, now())`,
      [barring],
    )
    t.same(await obstacles(), [null, null, null, null, null])
    for (const number of slices.keys())
      await run(
        `insert into mass_revocation_outcomes (plan, number, revoked, passed_expired, passed_revoked, at)
         values ($1, $2, 1, 0, 0, now())`,
        [plan, number],
      )
    t.same(await ordered(), [false, false, false, false, false], 'then each says it by itself')
    throw undone
  })
  await t.rejects(ordering, undone)
})

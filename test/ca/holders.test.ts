/** Certificates in the hands of who asks: of which the records are asked at all. */
import { X509Certificate } from 'node:crypto'

import t from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { requestLimits } from '../../src/ca/access/limits.ts'
import { openHolders } from '../../src/ca/issuance/holders.ts'
import { openDatabase } from '../../src/db/database.ts'
import { readHeld } from '../../src/db/holders.ts'
import { openClientCa } from '../helpers/clients.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { openHoldersOf } from '../http/holders.ts'
import { employ } from '../http/people.ts'

const service = await openTestService(t, { CHANCERY_LIMIT_FAILED_AUTHENTICATIONS: '3' })
const { hold, issue } = openHoldersOf(service)

t.test('of a certificate that does not say that an issuer of ours signed it the records are not asked', async (t) => {
  const asked: string[] = []
  const holder = openHolders({
    read: async (serial) => {
      asked.push(serial)
      return undefined
    },
    mayBeOurs: ({ issuer }) => issuer.includes('Ours'),
    isIssuerTrusted: () => true,
  })
  const foreign = { code: 'renewal.foreign' }
  const serial = '11'.repeat(16)
  await t.rejects(holder(openClientCa('Mine').certify({ serial }).der, serial), foreign)
  t.same(asked, [])
  await t.rejects(holder(openClientCa('Ours').certify({ serial }).der, serial), foreign)
  t.same(asked, [serial])
})

t.test('of what its principal may do only asking comes with it, and all that bounds how much', async (t) => {
  const limits = { requestsPerSecond: 50 }
  const token = await employ(service, 'many', 'requester', { profiles: ['server'] })
  for (const body of [
    { principal: 'many', role: 'operator', limits },
    { principal: 'many', role: 'approver', profiles: ['server'] },
  ])
    t.equal((await service.request('POST', '/v1/grants', { body })).status, 201)
  const { serial, leaf } = await issue(['many.example.com'], { token })
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(db.close)
  const holder = openHolders({
    read: (asked) => readHeld(db, asked),
    mayBeOurs: () => true,
    isIssuerTrusted: (issuer) => issuer !== 'default',
  })
  const der = new X509Certificate(leaf).raw
  const caller = await holder(der, serial)
  t.match(caller, { principal: 'many', proof: { kind: 'holder', held: { serial, isIssuerTrusted: false } } })
  t.same(
    caller?.grants.map(({ role }) => role),
    ['requester'],
  )
  t.same(caller?.limiting?.map(({ role }) => role).sort(), ['approver', 'operator', 'requester'])
  t.match(requestLimits(caller as Caller), limits)
  t.equal(await holder(der, '11'.repeat(16)), null, 'another one is nobody')
  for (const malformed of [der.subarray(1), Buffer.concat([der, Buffer.alloc(1)]), Buffer.alloc(0)])
    await t.rejects(holder(malformed, serial), { code: 'auth.invalid' })
  const signature = Buffer.from(der)
  signature.writeUInt8(signature.readUInt8(der.length - 1) ^ 1, der.length - 1)
  await t.rejects(holder(signature, serial), { code: 'renewal.foreign' }, 'each of its octets is that of the records')
})

t.test('whoever shows one that is not ours has failed; whoever was good there goes on', async (t) => {
  const mine = await issue(['mine.example.com'])
  const info = (serial: string) => `/v1/certificates/${serial}/renewal-info`
  const good = hold(t, mine)
  t.equal((await good.request('GET', info(mine.serial), { token: null })).status, 200)
  const serial = '11'.repeat(16)
  const stranger = hold(t, openClientCa('Mine').certify({ serial }))
  const codes: string[] = []
  for (let i = 0; i < 20; i += 1) codes.push((await stranger.request('GET', info(serial), { token: null })).json.code)
  t.ok(codes.includes('limit.failed_authentication'), codes.join(' '))
  t.ok(codes.filter((code) => code === 'renewal.foreign').length >= 3)
  t.equal((await good.request('GET', info(mine.serial), { token: null })).status, 200)
})

t.test('an issuer of ours is known by its name and its key', async (t) => {
  const { issuers } = service.service
  const [placed] = issuers.all()
  const facts = placed?.issuer.facts
  if (!facts) throw new Error('there is no issuer')
  const leaf = { issuer: facts.subjectDer, ...(facts.keyIdentifier && { authorityKeyIdentifier: facts.keyIdentifier }) }
  t.equal(issuers.mayHaveSigned(leaf), true)
  t.equal(issuers.mayHaveSigned({ ...leaf, authorityKeyIdentifier: Buffer.alloc(20) }), false)
  t.equal(issuers.mayHaveSigned({ ...leaf, issuer: Buffer.from('3000', 'hex') }), false)
})

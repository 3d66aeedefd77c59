/** Certificates in the hands of who asks: of which the records are asked at all. */
import t from 'tap'

import { openHolders } from '../../src/ca/holders.ts'
import { openClientCa } from '../helpers/clients.ts'
import { openTestService } from '../helpers/service.ts'
import { openHoldersOf } from '../http/holders.ts'

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

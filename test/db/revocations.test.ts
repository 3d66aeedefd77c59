/** Changes of one certificate, in the records: by which clock they are judged. */
import { mock } from 'node:test'

import t, { type Test } from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { openRevocations, type Revocations } from '../../src/ca/revocation/revoke.ts'
import { openRevocationStore } from '../../src/db/revocations.ts'
import { openTestStores } from './stores.ts'

// The clock that a test sets stands still, and one that is slow may take some seconds.
const world = await openTestStores(t, { CHANCERY_CLOCK_TOLERANCE: '60s' })
const { stores } = world
const revocations: Revocations = openRevocations({
  store: openRevocationStore(stores),
  keyOf: async () => Buffer.alloc(0),
  verifyProof: async (proof) => JSON.parse(proof),
  isIssuer: async () => false,
  changed: () => {},
})
const operator = { principal: 'ops', proof: { kind: 'own' }, grants: [{ role: 'operator' }] } as unknown as Caller
const ask = (reason: 'superseded' | 'certificateHold', invalidSince: Date | null = null) => ({ reason, invalidSince })

/** What is read in a proof that verifies, made at this moment. */
const proofOf = (serial: string, at: Date): string =>
  JSON.stringify({ serial, issuer: 'default', reason: 'keyCompromise', iat: Math.floor(at.getTime() / 1000) })

/** The clock of this machine, and not the database's, says so from now on, and stands still. */
const setClock = (t: Test, aheadMs: number): void => {
  mock.timers.enable({ apis: ['Date'], now: Date.now() + aheadMs })
  t.teardown(() => mock.timers.reset())
}

const year = 365 * 86_400_000
const skewed = { code: 'clock.skewed', kind: { retryable: true } }

t.test('a clock that is far ahead tells nobody for good that a certificate has expired', async (t) => {
  const [{ serial }, held] = [await world.issue(['dns:a.example.com']), await world.issue(['dns:b.example.com'])]
  await revocations.revoke(held.serial, ask('certificateHold'), operator)
  setClock(t, year)
  await t.rejects(revocations.revoke(serial, ask('superseded'), operator), skewed)
  await t.rejects(revocations.release(held.serial, operator), skewed)
})

t.test('and one that is far behind nobody that a date is yet to come', async (t) => {
  const { serial } = await world.issue(['dns:c.example.com'])
  const since = new Date()
  setClock(t, -year)
  await t.rejects(revocations.revoke(serial, ask('superseded', since), operator), skewed)
})

t.test('nor whoever proves to hold the key that the proof is old', async (t) => {
  const { serial } = await world.issue(['dns:e.example.com'])
  const proof = proofOf(serial, new Date())
  setClock(t, year)
  await t.rejects(revocations.revokeByKey(serial, proof), skewed)
})

t.test('where the clocks differ a little, the time of the database counts', async (t) => {
  const { serial } = await world.issue(['dns:d.example.com'])
  const since = new Date(Math.floor(Date.now() / 1000) * 1000)
  setClock(t, -3_000)
  t.match(await revocations.revoke(serial, ask('superseded', since), operator), { revocation: { invalidSince: since } })
})

t.test(
  'by a wrong clock as well, whoever can mend what is wrong is told that, and what holds already holds',
  async (t) => {
    const [{ serial }, done] = [await world.issue(['dns:f.example.com']), await world.issue(['dns:g.example.com'])]
    const since = new Date(Date.now() - 60_000)
    const { newest } = await revocations.revoke(done.serial, ask('superseded', since), operator)
    setClock(t, -year)
    const nobody = { ...operator, principal: 'nobody', grants: [] }
    const auditor = { ...nobody, grants: [{ role: 'auditor' }] } as unknown as Caller
    const notFound = { code: 'certificate.not_found' }
    await t.rejects(revocations.revoke('ab'.repeat(16), ask('superseded'), operator), notFound)
    await t.rejects(revocations.release('ab'.repeat(16), operator), notFound)
    await t.rejects(revocations.revoke(serial, ask('superseded'), nobody), notFound)
    for (const work of [revocations.revoke(serial, ask('superseded'), auditor), revocations.release(serial, auditor)])
      await t.rejects(work, { code: 'auth.forbidden' })
    const ancient = ask('superseded', new Date('1949-12-31T00:00:00Z'))
    await t.rejects(revocations.revoke(serial, ancient, operator), { code: 'request.malformed' })
    const ofAnother = proofOf(done.serial, new Date())
    await t.rejects(revocations.revokeByKey(serial, ofAnother), {
      code: 'revocation.proof',
      detail: /another certificate/,
    })
    const state = { code: 'revocation.state' }
    await t.rejects(revocations.revoke(done.serial, ask('certificateHold', new Date()), operator), state)
    for (const { serial: one } of [{ serial }, done]) await t.rejects(revocations.release(one, operator), state)
    t.match(await revocations.revoke(done.serial, ask('superseded', since), operator), { newest })
  },
)

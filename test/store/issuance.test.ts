/** The recorder by itself: what becomes of enrolments that meet an outcome of somebody else. */
import { randomBytes } from 'node:crypto'

import t, { type Test } from 'tap'

import { silentMeter } from '../../src/ca/meter.ts'
import type { Enrolment, Intent } from '../../src/ca/recorder.ts'
import { openRecorder } from '../../src/store/issuance.ts'
import { openReplica } from '../helpers/replica.ts'

const open = async (t: Test) => {
  const { stores } = await openReplica(t)
  const recorder = openRecorder({ ...stores, meter: silentMeter, refusalsPerMinute: 60 })
  t.teardown(recorder.close)
  /** Records an intent of the request under this key. */
  const intend = async (key: string, attempt: number): Promise<Intent> => {
    const intent: Intent = {
      request: { principal: 'admin', key, digest: Buffer.alloc(32, key) },
      attempt,
      serial: randomBytes(16),
      issuer: 'default',
      states: ['active'],
      shard: 0,
      profile: { name: 'server', version: 1 },
      tbs: randomBytes(100),
      plan: Buffer.alloc(32),
      keySha256: randomBytes(32),
    }
    t.equal(await recorder.recordIntent(intent), 'recorded')
    return intent
  }
  const outcomesOf = async (...intents: readonly Intent[]): Promise<readonly (string | undefined)[]> => {
    const { rows } = await stores.db.query<{ serial: Buffer; kind: string }>({
      text: 'select serial, kind from outcomes',
    })
    return intents.map(({ serial }) => rows.find((row) => row.serial.equals(serial))?.kind)
  }
  return { recorder, intend, outcomesOf }
}

const signed = (intent: Intent): Enrolment => ({
  intent,
  signature: randomBytes(70),
  event: {
    type: 'certificate.issued',
    serial: intent.serial.toString('hex'),
    certificate: intent.tbs.toString('base64'),
    issuer: intent.issuer,
    principal: intent.request.principal,
    profile: intent.profile,
    request: intent.request.digest.toString('hex'),
    plan: intent.plan.toString('hex'),
  },
  subject: '',
  names: [],
  keySha256: intent.keySha256,
  notBefore: new Date(0),
  notAfter: new Date(1_000),
})

t.test('a second certificate of one request is refused alone, and whoever is in its batch is enrolled', async (t) => {
  const { recorder, intend, outcomesOf } = await open(t)
  const late = await intend('k1', 1)
  const early = await intend('k1', 2)
  const innocent = [await intend('k2', 1), await intend('k3', 1)] as const
  t.match(await recorder.recordCertificate(signed(early)), { index: Number })
  const results = await Promise.allSettled(
    [innocent[0], late, innocent[1]].map((intent) => recorder.recordCertificate(signed(intent))),
  )
  t.match(results[1], { status: 'rejected', reason: { code: 'issuance.abandoned', kind: { retryable: true } } })
  t.match([results[0], results[2]], [{ status: 'fulfilled' }, { status: 'fulfilled' }])
  t.same(await outcomesOf(...innocent), ['certificate', 'certificate'])
  t.same(await outcomesOf(early, late), ['certificate', undefined], 'the reconciler ends the late one')
  t.match(await recorder.findRequest('admin', 'k1'), { open: false, certificate: { serial: early.serial } })
})

t.test('of two intents of one request in the same batch one becomes its certificate', async (t) => {
  const { recorder, intend, outcomesOf } = await open(t)
  const [first, second] = [await intend('k1', 1), await intend('k1', 2)]
  const innocent = await intend('k2', 1)
  const results = await Promise.allSettled(
    [first, innocent, second].map((intent) => recorder.recordCertificate(signed(intent))),
  )
  t.match(results, [
    { status: 'fulfilled' },
    { status: 'fulfilled' },
    { status: 'rejected', reason: { code: 'issuance.abandoned', kind: { retryable: true } } },
  ])
  t.same(await outcomesOf(first, innocent, second), ['certificate', 'certificate', undefined])
})

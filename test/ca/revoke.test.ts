/** What a proof of possession says of a revocation, below HTTP and its limits. */
import t from 'tap'

import { openRevocations, type Standing } from '../../src/ca/revoke.ts'

const serial = '40'.repeat(16)
const now = new Date('2026-11-27T12:00:00Z')

const standing: Standing = {
  serial,
  principal: 'web',
  profile: 'default',
  issuer: 'default',
  shard: 0,
  notAfter: new Date('2027-01-01T00:00:00Z'),
  index: 1,
  keySha256: '',
  revocation: null,
  released: false,
  newest: 1,
}

/** The event that comes of a proof with this invalidity date. */
const revokeSince = async (invalidityDate: string) => {
  let event: unknown
  const { revokeByKey } = openRevocations({
    store: {
      change: async (_serial, decide) => {
        event = decide(standing, now)
        return standing
      },
    },
    keyOf: async () => Buffer.alloc(0),
    verifyProof: async () => ({
      ...{ issuer: 'default', serial, reason: 'keyCompromise' },
      ...{ invalidityDate, iat: now.getTime() / 1000 },
    }),
    clock: () => now,
    isIssuer: async () => false,
    changed: () => {},
  })
  await revokeByKey(serial, '')
  return event
}

t.test('an invalidity date of a proof is one that exists, and is kept as it was said', async (t) => {
  for (const [said, kept] of [
    ['2026-02-28T10:00:00Z', '2026-02-28T10:00:00Z'],
    ['2024-02-29T00:30:00+01:00', '2024-02-28T23:30:00Z'],
    ['2026-02-28T10:00:00.000Z', '2026-02-28T10:00:00Z'],
  ] as const)
    t.match(await revokeSince(said), { invalidityDate: kept })
  for (const bad of [
    '2026-02-30T00:00:00Z',
    '2026-04-31T10:00:00+01:00',
    '2026-02-28T24:00:00Z',
    '2026-02-28T10:60:00Z',
    '2026-02-28T10:00:60Z',
    '2026-13-01T00:00:00Z',
    '2026-00-01T00:00:00Z',
    '2026-02-28T10:00:00+25:00',
  ])
    await t.rejects(revokeSince(bad), { code: 'revocation.proof' }, bad)
})

/** What a proof of possession says of a revocation, and who may do what, below HTTP and its limits. */
import t from 'tap'

import type { Caller, Grant, Role } from '../../src/ca/access/access.ts'
import { openMassRevocations } from '../../src/ca/revocation/mass-revocation.ts'
import {
  decideRevocation,
  openRevocations,
  type RevocationsDeps,
  type Standing,
} from '../../src/ca/revocation/revoke.ts'

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

/** The event that comes of what is asked about this one, as it stands. */
const eventOf = async (
  ask: (revocations: ReturnType<typeof openRevocations>) => Promise<unknown>,
  { as = standing, said }: { readonly as?: Standing; readonly said?: object | string } = {},
) => {
  let event: unknown
  const deps: RevocationsDeps = {
    store: {
      change: async (_serial, decide) => {
        event = decide(as, () => now)
        return as
      },
    },
    keyOf: async () => Buffer.alloc(0),
    verifyProof: async () =>
      typeof said === 'string'
        ? JSON.parse(said)
        : { issuer: 'default', serial, reason: 'keyCompromise', iat: now.getTime() / 1000, ...said },
    isIssuer: async () => false,
    changed: () => {},
  }
  await ask(openRevocations(deps))
  return event
}
const revokeBy = (said: object | string) => eventOf(({ revokeByKey }) => revokeByKey(serial, ''), { said })
const revokeSince = (invalidityDate: string) => revokeBy({ invalidityDate })

t.test('an invalidity date of a proof is one that exists, and is kept as it was said', async (t) => {
  for (const [said, kept] of [
    ['2026-02-28T10:00:00Z', '2026-02-28T10:00:00Z'],
    ['2024-02-29T00:30:00+01:00', '2024-02-28T23:30:00Z'],
    ['2026-02-28T10:00:00.000Z', '2026-02-28T10:00:00Z'],
    ['1950-01-01T00:00:00Z', '1950-01-01T00:00:00Z'],
    ['2026-11-27T12:00:00Z', '2026-11-27T12:00:00Z'],
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

t.test('but not what no list can say, or what is to come', async (t) => {
  for (const bad of ['1949-12-31T23:59:59Z', '2026-11-27T12:00:01Z'])
    await t.rejects(revokeSince(bad), { code: 'request.malformed' }, bad)
})

t.test('a proof names its certificate in any writing of the serial, and no other', async (t) => {
  for (const written of ['4a'.repeat(16), '4A'.repeat(16), Array(16).fill('4A').join(':')]) {
    const as = { ...standing, serial: '4a'.repeat(16) }
    const ask = { as, said: { serial: written } }
    t.match(await eventOf(({ revokeByKey }) => revokeByKey(as.serial, ''), ask), { serial: as.serial }, written)
  }
  for (const said of [{ serial: '41'.repeat(16) }, { serial: 7 }, { issuer: null }, 'null', '7', '[]'])
    await t.rejects(revokeBy(said), { code: 'revocation.proof' }, JSON.stringify(said))
})

const callerAs = (principal: string, ...roles: readonly Role[]): Caller => ({
  principal,
  proof: { kind: 'token', token: 'a' },
  grants: roles.map((role) => ({ role, profiles: ['default'], revoke: true }) as unknown as Grant),
})

t.test('operators revoke any; others their own, where a grant of its profile says so', async (t) => {
  const granted = (principal: string, ...grants: readonly object[]): Caller => ({
    ...callerAs(principal),
    grants: grants.map((grant) => ({ role: 'requester', profiles: ['default'], ...grant }) as unknown as Grant),
  })
  const mute = { revoke: false }
  const may = { revoke: true }
  const revoke = (by: Caller) =>
    eventOf(({ revoke }) => revoke(serial, { reason: 'superseded', invalidSince: null }, by))
  for (const by of [callerAs('ops', 'operator'), granted('web', may), granted('web', mute, may)])
    t.match(await revoke(by), { type: 'certificate.revoked', by: by.principal })
  for (const by of [
    granted('web', mute),
    granted('web', { ...may, profiles: ['other'] }),
    granted('web', { ...may, role: 'approver' }),
    granted('else', may, { role: 'auditor' }),
    granted('else', may, { role: 'admin' }),
  ])
    await t.rejects(revoke(by), { code: 'auth.forbidden' }, JSON.stringify(by))
  await t.rejects(revoke(granted('else', may)), { code: 'certificate.not_found' })
})

t.test('from hold operators release; whose it is not to see does not learn of it', async (t) => {
  const held: Standing = {
    ...standing,
    revocation: { reason: 'certificateHold', revokedAt: now, invalidSince: null, by: 'ops', index: 2 },
  }
  const release = (by: Caller) => eventOf(({ release }) => release(serial, by), { as: held })
  t.match(await release(callerAs('ops', 'operator')), { type: 'certificate.released', serial, by: 'ops' })
  for (const by of [callerAs('web', 'requester'), callerAs('a', 'auditor'), callerAs('a', 'admin')])
    await t.rejects(release(by), { code: 'auth.forbidden' }, JSON.stringify(by))
  for (const by of [callerAs('else', 'requester'), callerAs('else', 'approver')])
    await t.rejects(release(by), { code: 'certificate.not_found' }, JSON.stringify(by))
})

t.test('what has not expired is revoked, to the last millisecond of its last second', async (t) => {
  const decideAt = (ms: number) =>
    decideRevocation(
      standing,
      { reason: 'superseded', invalidSince: null },
      { now: () => new Date(standing.notAfter.getTime() + ms), by: 'ops' },
    )
  t.match(decideAt(999), { type: 'certificate.revoked', serial })
  t.throws(() => decideAt(1_000), { code: 'revocation.expired' })
})

t.test('of many at once, what no rule of revoking forbids is passed by of nobody: the slice fails', async (t) => {
  const order = { reason: 'superseded', by: 'ops', digest: 'ab'.repeat(32) } as const
  const sliceOf = (invalidSince: Date | null, as: Standing) => {
    let decision: unknown
    const { advance } = openMassRevocations({
      store: {
        advance: async (_digest: string, { slice }: { slice: (...all: readonly unknown[]) => unknown }) => {
          decision = slice({ ...order, invalidSince }, [as], now)
        },
      } as never,
      changed: () => {},
    })
    return advance(order.digest).then(() => decision)
  }
  t.match(await sliceOf(now, standing), { changes: [{ change: { serial } }], skipped: { expired: 0, revoked: 0 } })
  const expired = { ...standing, notAfter: new Date(now.getTime() - 1_000) }
  t.same(await sliceOf(now, expired), { changes: [], skipped: { expired: 1, revoked: 0 } })
  // A clock that went back behind the order.
  await t.rejects(sliceOf(new Date(now.getTime() + 1), standing), { code: 'request.malformed' })
})

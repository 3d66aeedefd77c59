/** When a certificate is best renewed, as a pure function of what is on record. */
import t from 'tap'

import { type RenewalFacts, type RenewalReason, renewalInfoOf } from '../../src/ca/issuance/renewal-info.ts'

const hour = 3_600_000
const start = Date.UTC(2026, 10, 25)
const at = (hours: number): Date => new Date(start + hours * hour)

const facts = (more: Partial<RenewalFacts> = {}): RenewalFacts => ({
  serial: '40'.repeat(16),
  principal: 'web',
  notBefore: at(0),
  notAfter: at(72),
  revokedAt: null,
  orderedAt: null,
  isCompromised: false,
  issuer: { name: 'default', state: 'active', since: at(-1_000) },
  ...more,
})

const retiring = (since: Date): Partial<RenewalFacts> => ({ issuer: { name: 'default', state: 'retiring', since } })

t.test('usually from half of the life until two thirds', async (t) => {
  t.same(renewalInfoOf(facts(), false), {
    window: { start: at(36), end: at(48) },
    reason: 'age',
    retryAfter: 6 * 3_600,
  })
})

t.test('it moves forward when the certificate, its key or its issuer is given up', async (t) => {
  const cases: readonly (readonly [RenewalReason, Partial<RenewalFacts>, Date, boolean?])[] = [
    ['revoked', { revokedAt: at(10), orderedAt: at(9), isCompromised: true }, at(10)],
    ['key-compromised', { isCompromised: true, orderedAt: at(9) }, at(0)],
    ['revocation-ordered', { orderedAt: at(9) }, at(9)],
    ['issuer-ended', { issuer: { name: 'default', state: 'crl-only', since: at(5) } }, at(5)],
    ['issuer-ended', { issuer: { name: 'default', state: 'retired', since: at(5) } }, at(5)],
    ['issuer-ended', {}, at(0), true],
  ]
  for (const [reason, more, end, isIssuerRevoked = false] of cases) {
    const info = renewalInfoOf(facts(more), isIssuerRevoked)
    t.same(info.window, { start: new Date(end.getTime() - 1_000), end }, reason)
    t.equal(info.reason, reason)
  }
})

t.test('when its issuer is rotated away, everybody renews within as long a span, from that moment on', async (t) => {
  const after = (since: Date) => {
    const { window, reason } = renewalInfoOf(facts(retiring(since)), false)
    return [window.start, window.end, reason]
  }
  t.same(after(at(10)), [at(10), at(22), 'issuer-retiring'])
  t.same(after(at(40)), [at(36), at(48), 'age'], 'never later than it was')
  t.same(after(at(-5)), [at(0), at(12), 'issuer-retiring'], 'one that was under way then')
})

t.test('how soon it is worth to ask again goes with the life, within bounds', async (t) => {
  const after = (hours: number) => renewalInfoOf(facts({ notAfter: at(hours) }), false).retryAfter
  t.same([after(1 / 60), after(0.25), after(24), after(720), after(9_000)], [60, 225, 21_600, 21_600, 21_600])
  const { window } = renewalInfoOf(facts({ notAfter: new Date(start + 1_000) }), false)
  t.ok(window.end > window.start, 'RFC 9773 4.2, however short it is')
})

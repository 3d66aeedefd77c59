/** A request meets the grants of whoever asks: which one decides, and how many turns of the event loop that takes. */
import t from 'tap'

import type { Caller, Grant } from '../../src/ca/access/access.ts'
import { assertTimely, judge } from '../../src/ca/issuance/draft.ts'
import type { Issuer } from '../../src/ca/issuers/issuer.ts'
import { Problem } from '../../src/errors.ts'
import type { Name } from '../../src/x509/names.ts'
import { context, csrOf, namesOf, profileOf } from '../policy/requests.ts'

const grantFor = (name: string, i: number): Grant => ({
  id: String(i),
  principal: 'tester',
  role: 'requester',
  profiles: ['test'],
  names: { dns: { allow: [name] } },
  revoke: false,
  createdAt: new Date(0),
  createdBy: 'admin',
})

type Given = Partial<Pick<Parameters<typeof judge>[1], 'now' | 'keyStanding' | 'input'>>

/** What came of names under grants for one name each, and how often others had a turn meanwhile. */
const judged = async (
  names: readonly Name[],
  granted: readonly string[],
  { now = context.now, ...given }: Given = {},
) => {
  let turns = 0
  const nextTurn = async (): Promise<void> => {
    turns += 1
  }
  const grants = granted.map(grantFor)
  const caller: Caller = { principal: 'tester', proof: { kind: 'token', id: 'x' } as never, grants }
  const decision = await judge(
    { nextTurn },
    {
      profile: profileOf(),
      issuer: { bounds: context.issuer } as Issuer,
      caller,
      grants,
      csr: csrOf({ names }),
      input: { profile: 'test', csr: '' } as never,
      now,
      ...given,
    },
  )
  return { decision, turns }
}

t.test('the first grant that allows it decides, and each after the first has a turn of its own', async (t) => {
  const { decision, turns } = await judged(namesOf('dns:b.example.com'), ['a.example.com', 'b.example.com', '**.com'])
  t.equal(decision.allowed, true)
  t.equal(turns, 1)
})

t.test('where none allows it, the first is told', async (t) => {
  const { decision, turns } = await judged(namesOf('dns:c.example.com'), ['a.example.com', 'b.example.com'])
  t.match(decision, { allowed: false, violations: [{ check: 'grant.names.dns' }], context: { grantRules: {} } })
  t.same(decision.context.grantRules, { dns: { allow: ['a.example.com'] } })
  t.equal(turns, 1)
})

t.test(
  'what the call asks for is judged, each in place of what the request says, and so is what is on record',
  async (t) => {
    const failed = async (given: Given, options: object = {}) => {
      const input = { profile: 'test', csr: '', ...options } as never
      const { decision } = await judged(namesOf('dns:a.example.com'), ['**'], { input, ...given })
      return decision.allowed ? [] : decision.violations.map(({ check }) => check)
    }
    t.same(await failed({}), [])
    t.same(await failed({}, { names: namesOf('dns:evil.org') }), ['names.dns.allow'])
    t.same(await failed({}, { validity: 1 }), ['validity.min'])
    t.same(await failed({}, { keyUsage: ['cRLSign'] }), ['keyUsage.allow'])
    t.same(await failed({}, { extendedKeyUsage: ['clientAuth'] }), ['extendedKeyUsage.allow'])
    t.match(
      await failed({}, { origin: { user: 'jane' } }),
      [/origin/],
      'nobody may ask for others unless a grant says so',
    )
    t.same(await failed({ keyStanding: 'compromised' }), ['key.compromised'])
  },
)

t.test('without a grant nothing is allowed', async (t) => {
  await t.rejects(judged(namesOf('dns:a.example.com'), []), { code: 'auth.forbidden' })
})

t.test('that the issuer has expired is told of what a later grant allows', async (t) => {
  const granted = ['a.example.com', 'b.example.com', '**.com']
  const late = { now: new Date('2040-01-01T00:00:00Z') }
  const { decision, turns } = await judged(namesOf('dns:b.example.com'), granted, late)
  t.match(decision, { allowed: false, code: 'validity.issuer', violations: [{ check: 'validity.issuer' }] })
  t.same(decision.allowed || decision.violations.length, 1, 'nor that the first one does not')
  t.equal(turns, 1)
  const skewed = new Problem('clock.skewed', 'The clock is wrong.')
  const byWrongClock = (): void => {
    throw skewed
  }
  t.throws(() => assertTimely({ assertClock: () => {} }, decision), { code: 'issuer.expired' })
  t.throws(() => assertTimely({ assertClock: byWrongClock }, decision), skewed, 'unless it is our clock that is wrong')
  const none = await judged(namesOf('dns:c.example.com'), granted.slice(0, 2), late)
  t.throws(() => assertTimely({ assertClock: byWrongClock }, none.decision), skewed)
  t.doesNotThrow(() => assertTimely({ assertClock: () => {} }, none.decision), 'what else is wrong is told')
  const other = await judged(namesOf('dns:c.example.com'), granted.slice(0, 2))
  for (const timely of [other.decision, (await judged(namesOf('dns:a.example.com'), granted)).decision])
    t.doesNotThrow(() => assertTimely({ assertClock: byWrongClock }, timely), 'nothing hangs on a time')
  t.match(none.decision, { allowed: false, code: 'san.forbidden' })
})

t.test('what the profile itself turns down is not tried by another grant', async (t) => {
  const granted = Array.from({ length: 200 }, (_, i) => `n${i}.example.com`)
  const { decision, turns } = await judged(namesOf('dns:a.example.com', 'dns:a.evil.test'), granted)
  t.match(decision, { allowed: false, code: 'san.forbidden' })
  t.ok(decision.allowed || decision.violations.some(({ check }) => check === 'names.dns.allow'))
  t.equal(turns, 0)
})

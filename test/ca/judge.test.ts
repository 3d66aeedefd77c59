/** A request meets the grants of whoever asks: which one decides, and how many turns of the event loop that takes. */
import t from 'tap'

import type { Caller, Grant } from '../../src/ca/access.ts'
import { judge } from '../../src/ca/draft.ts'
import type { Issuer } from '../../src/ca/issuer.ts'
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

/** What came of names under grants for one name each, and how often others had a turn meanwhile. */
const judged = async (names: readonly Name[], granted: readonly string[], now = context.now) => {
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

t.test('without a grant nothing is allowed', async (t) => {
  await t.rejects(judged(namesOf('dns:a.example.com'), []), { code: 'auth.forbidden' })
})

t.test('that the issuer has expired is told of what a later grant allows', async (t) => {
  const granted = ['a.example.com', 'b.example.com', '**.com']
  const late = new Date('2040-01-01T00:00:00Z')
  const { decision, turns } = await judged(namesOf('dns:b.example.com'), granted, late)
  t.match(decision, { allowed: false, code: 'validity.issuer', violations: [{ check: 'validity.issuer' }] })
  t.same(decision.allowed || decision.violations.length, 1, 'nor that the first one does not')
  t.equal(turns, 1)
  const none = await judged(namesOf('dns:c.example.com'), granted.slice(0, 2), late)
  t.match(none.decision, { allowed: false, code: 'san.forbidden' })
})

t.test('what the profile itself turns down is not tried by another grant', async (t) => {
  const granted = Array.from({ length: 200 }, (_, i) => `n${i}.example.com`)
  const { decision, turns } = await judged(namesOf('dns:a.example.com', 'dns:a.evil.test'), granted)
  t.match(decision, { allowed: false, code: 'san.forbidden' })
  t.ok(decision.allowed || decision.violations.some(({ check }) => check === 'names.dns.allow'))
  t.equal(turns, 0)
})

import { createHash } from 'node:crypto'

import t from 'tap'

import { maxKeptOctets, refusalOf } from '../../src/ca/issuance/rejection.ts'
import { Problem } from '../../src/errors.ts'
import type { CheckResult } from '../../src/policy/check.ts'
import { toldOf } from '../../src/policy/decide.ts'

const checkOf = (n: number, outcome: CheckResult['outcome'], value = 'v'): CheckResult => ({
  check: `check.${n}`,
  outcome,
  field: `/names/${n}`,
  value,
  reason: 'because',
})
const sent = Buffer.from('a request')
const asked = { principal: 'ci', profile: 'server', sent }
const refused = (checks: readonly CheckResult[]) =>
  refusalOf(new Problem('san.forbidden', 'because', { extra: toldOf({ checks: () => checks, notes: [] }) }), asked)

t.test('a refusal holds who asked, why not, and the digest of what was sent', async (t) => {
  const violations = [{ check: 'names.dns.allow', field: '/names/0', value: 'x', reason: 'because' }]
  t.same(refusalOf(new Problem('csr.pem', 'is none', { violations, offset: 17 }), asked), {
    principal: 'ci',
    profile: 'server',
    code: 'csr.pem',
    detail: 'is none',
    digest: createHash('sha256').update(sent).digest(),
    offset: 17,
    violations,
    checks: null,
    checksLeftOut: 0,
    origin: null,
  })
  t.same(refusalOf(new Problem('csr.pem', 'is none'), { ...asked, origin: { user: 'alice' } }).origin, {
    user: 'alice',
  })
})

t.test('all checks that fit are kept, to the octet', async (t) => {
  const checks = Array.from({ length: 20 }, (_, n) => checkOf(n, n % 3 ? 'passed' : 'failed'))
  t.same(refused(checks).checks, checks)
  t.equal(refused([]).checksLeftOut, 0)
  t.same(refused([]).checks, [], 'a decision without checks is still one')
  const filling = (more: number) => {
    const room = maxKeptOctets - JSON.stringify([checkOf(0, 'failed', ''), checkOf(1, 'passed')]).length
    return [
      checkOf(0, 'failed', 'ä'.repeat(Math.floor(room / 2)) + 'x'.repeat((room % 2) + more)),
      checkOf(1, 'passed'),
    ]
  }
  t.equal(refused(filling(0)).checksLeftOut, 0)
  t.equal(Buffer.byteLength(JSON.stringify(filling(0))), maxKeptOctets)
  t.match(refused(filling(1)), { checks: [{ check: 'check.0' }], checksLeftOut: 1 })
})

t.test('what failed is kept before what did not, wherever it stands', async (t) => {
  const checks = Array.from({ length: 400 }, (_, n) => checkOf(n, n >= 390 ? 'failed' : n % 2 ? 'passed' : 'skipped'))
  const { checks: kept, checksLeftOut } = refused(checks)
  t.ok(kept && Buffer.byteLength(JSON.stringify(kept)) <= maxKeptOctets)
  t.equal((kept?.length ?? 0) + checksLeftOut, 400)
  t.same(kept?.slice(-10), checks.slice(390))
  t.same(kept?.slice(0, -10), checks.slice(0, 390 - checksLeftOut))
  const failed = Array.from({ length: 400 }, (_, n) => checkOf(n, 'failed'))
  t.same(refused(failed).checks, failed.slice(0, 400 - refused(failed).checksLeftOut))
})

t.test('as many violations as fit are kept, and of those without checks the others are counted', async (t) => {
  const failed = Array.from({ length: 400 }, (_, n) => checkOf(n, 'failed', 'v'.repeat(150)))
  const violations = failed.map(({ outcome: _, ...violation }) => violation)
  const octetsOf = (value: unknown) => Buffer.byteLength(JSON.stringify(value))
  const without = refusalOf(new Problem('renewal.names', 'because', { violations }), asked)
  const { length } = without.violations
  t.same(without.violations, violations.slice(0, length))
  t.ok(octetsOf(without.violations) <= maxKeptOctets)
  t.ok(octetsOf(violations.slice(0, length + 1)) > maxKeptOctets)
  t.equal(without.checks, null)
  t.equal(without.checksLeftOut, 400 - length)

  const extra = toldOf({ checks: () => failed, notes: [] })
  const both = refusalOf(new Problem('san.forbidden', 'because', { violations, extra }), asked)
  t.same(both.violations, without.violations)
  t.equal((both.checks?.length ?? 0) + both.checksLeftOut, 400)
})

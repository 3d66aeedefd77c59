/** What Chancery's answers come to for those who asked: whose fault it is, when it may succeed, and in how many words. */
import t from 'tap'

import { sentenceOf } from '../../src/http/problem.ts'
import {
  bounded,
  type Fault,
  isOfAllowance,
  isSeenByProbe,
  mayPassProbe,
  needsPeople,
  setbackOf,
} from '../../src/kubernetes/decide/outcome.ts'

const problem = (code: string, more: object = {}): Fault => ({
  kind: 'problem',
  problem: { code, detail: 'At 12.30 h it was so.', retryable: false, ...more },
})

t.test('a setback is waited for as long as Chancery says, whosever it is', async (t) => {
  const message = (code: string): string => `At 12.30 h it was so (${code})`
  const later = (code: string, more: object) => ({ kind: 'later', message: message(code), ...more })
  for (const [fault, setback] of [
    [problem('auth.unavailable', { retryAfter: 9 }), later('auth.unavailable', { ofIssuer: true, after: 9 })],
    [problem('auth.expired'), later('auth.expired', { ofIssuer: true })],
    [problem('x.y', { retryable: true, retryAfter: 9 }), later('x.y', { ofIssuer: false, after: 9 })],
    [problem('internal', { status: 500 }), later('internal', { ofIssuer: false, after: 60 })],
    [problem('internal', { status: 500, retryAfter: 61 }), later('internal', { ofIssuer: false, after: 61 })],
    [problem('x.y', { status: 499 }), { kind: 'refused', code: 'x.y', message: message('x.y'), isInvalid: false }],
  ] as const)
    t.same(setbackOf(fault), setback)
})

t.test('what is wrong with the request is told from what only looks like it', async (t) => {
  for (const [code, isInvalid] of [
    ['csr.der', true],
    ['key.type', true],
    ['policy.bind', true],
    ['policy.rule', true],
    ['policy.origin', false],
    ['keys.type', false],
    ['x.csr', false],
  ] as const)
    t.match(setbackOf(problem(code)), { kind: 'refused', isInvalid }, code)
})

t.test('a violation is told with where and of what it is, as far as it is of anything', async (t) => {
  const violations = [
    { check: 'a', field: '', value: '', reason: 'is missing' },
    { check: 'b', field: '/x', value: 'v'.repeat(128), reason: 'is long' },
    { check: 'c', field: '', value: 'v'.repeat(129), reason: 'is longer' },
  ]
  t.match(setbackOf(problem('san.forbidden', { violations, requestId: 'r'.repeat(65) })), {
    message: [
      `At 12.30 h it was so (san.forbidden, request ${'r'.repeat(63)}…)`,
      'a: is missing',
      `b at /x on ${'v'.repeat(128)}: is long`,
      `c on ${'v'.repeat(127)}…: is longer`,
    ].join('; '),
  })
})

t.test('what the sentence says is not told a second time', async (t) => {
  const first = { check: 'names.dns.allow', field: '/names/0', value: 'a.test', reason: 'matches no pattern' }
  const second = { ...first, field: '/names/1', value: 'b.test' }
  const detail = sentenceOf({ code: 'san.forbidden', detail: first.reason, violations: [first, second] })
  t.match(setbackOf(problem('san.forbidden', { detail, violations: [first, second] })), {
    message:
      'The check names.dns.allow failed for "a.test" at /names/0: matches no pattern (san.forbidden); names.dns.allow at /names/1 on b.test: matches no pattern',
  })
})

t.test('the code is told, however long the sentence before it', async (t) => {
  const { message } = setbackOf(problem('x.y', { detail: 'a'.repeat(5_000), retryable: true }))
  t.equal(message, `${'a'.repeat(1_919)}… (x.y)`)
  const code = 'c'.repeat(100)
  t.match(setbackOf(problem(code)), { code: `${'c'.repeat(63)}…` })
})

t.test('what is within its bound is told as it is, and no more of the rest than that', async (t) => {
  t.equal(bounded('abc', 3), 'abc')
  t.equal(bounded('abcd', 3), 'ab…')
  t.equal(bounded('ab😀d', 4), 'ab…', 'not half a character')
  t.equal(bounded('😀abcd', 4), '😀a…', 'nor less than one')
  t.equal(bounded(' a\r\nb\u2028c\u202e ', 10), 'a b c')
  t.equal(bounded('a\ud83d', 10), 'a\ufffd', 'as the API server would write it')
})

t.test('people are needed where waiting mends nothing', async (t) => {
  for (const [fault, needs] of [
    [problem('auth.expired'), true],
    [problem('db.unavailable', { retryable: true }), false],
    [{ kind: 'unreachable', message: 'x' }, false],
    [{ kind: 'misconfigured', message: 'x' }, true],
    [{ kind: 'foreign', message: 'x' }, true],
  ] as const)
    t.equal(needsPeople(fault), needs)
})

/** Nothing can be signed, as whoever only asks how it is is not told. */
const unsigned = [
  ...['key.unavailable', 'key.bad_signature', 'roll.inconsistent', 'roll.unanchored', 'clock.skewed'],
  ...['issuer.none_active', 'issuer.expired'],
]

t.test('what everybody meets who asks through an issuer is the issuer’s', async (t) => {
  for (const code of [...unsigned, 'principal.disabled', 'profile.not_found', 'origin.required', 'db.unavailable'])
    t.match(setbackOf(problem(code)), { kind: 'later', ofIssuer: true }, code)
})

t.test('what an allowance keeps back is the asker’s own', async (t) => {
  for (const code of ['limit.certificates_per_day', 'limit.names_per_day', 'limit.certificates_alive'])
    t.ok(isOfAllowance({ kind: 'fault', fault: problem(code) }), code)
  for (const fault of [problem('limit.rate'), { kind: 'unreachable', message: 'x' } as const])
    t.notOk(isOfAllowance({ kind: 'fault', fault }))
  t.notOk(isOfAllowance({ kind: 'waiting', id: 'x' }))
})

t.test('what only shows itself to who wants a signature is not gone because nobody is told of it', async (t) => {
  for (const [fault, isSeen, mayPass] of [
    ...unsigned.map((code) => [problem(code), false, true] as const),
    [problem('db.unavailable'), true, true],
    [problem('auth.expired'), true, false],
    [{ kind: 'unreachable', message: 'x' }, true, false],
  ] as const)
    t.same([isSeenByProbe(fault), mayPassProbe(fault)], [isSeen, mayPass])
})

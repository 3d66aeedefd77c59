/** What becomes of CertificateRequests, decided over those that the real cert-manager has made. */
import { X509Certificate } from 'node:crypto'

import t from 'tap'

import type { CertificateRequest, Condition, Issuer } from '../../src/kubernetes/api/objects.ts'
import { behalfOf } from '../../src/kubernetes/decide/asking.ts'
import type { Fault, Outcome } from '../../src/kubernetes/decide/outcome.ts'
import {
  type Answered,
  decideAnswer,
  decideRequest,
  hasEnded,
  reasonOf,
  type Step,
  type Write,
} from '../../src/kubernetes/decide/request.ts'
import { issueFor } from './certificates.ts'
import { approved, certificateRequest, denied, factsOf, issuerOf, recorded, withConditions } from './objects.ts'

const now = new Date('2026-11-24T23:20:00.500Z')
const second = '2026-11-24T23:20:00Z'
const web = certificateRequest('11-get-pending-web')

interface Case {
  readonly request?: CertificateRequest
  readonly issuer?: Issuer | undefined
  readonly waited?: number
  readonly retryFor?: number
}

const decide = (options: Case): Step => decideRequest({ request: web, issuer: issuerOf(), now, waited: 0, ...options })

const answer = (
  outcome: Outcome,
  options: Case & Pick<Partial<Answered>, 'roots' | 'requestKey' | 'wasJustTold'> = {},
) =>
  decideAnswer({
    ...{ request: web, issuer: issuerOf(), now, waited: 0, outcome, requestKey: factsOf(web).spki },
    ...options,
  })

const fault = (told: Fault): Outcome => ({ kind: 'fault', fault: told })
const problem = (code: string, retryable: boolean, more: object = {}): Outcome =>
  fault({ kind: 'problem', problem: { code, detail: 'What was wrong.', retryable, ...more } })
const written = (step: { readonly kind: string }): Write => {
  if (step.kind !== 'write') throw new Error(`it is ${step.kind}, and not written`)
  return step as Write
}
const conditionsOf = ({ status }: Write): readonly string[] =>
  status.conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`)

t.test('an approved request is asked for, under its uid', async (t) => {
  const { spec } = web
  t.same(decide({}), {
    kind: 'ask',
    ask: {
      idempotencyKey: 'bff4e410-1cdb-4b60-b562-0e22c3eaff24',
      body: {
        csr: Buffer.from(spec.request, 'base64').toString(),
        profile: 'server',
        validity: '86400s',
        keyUsage: ['digitalSignature'],
        extendedKeyUsage: ['serverAuth'],
        onBehalfOf: {
          ...{ user: spec.username, uid: spec.uid, groups: spec.groups, extra: spec.extra, namespace: 'team-a' },
          object: {
            ...{ apiVersion: 'cert-manager.io/v1', kind: 'CertificateRequest', name: 'web-1' },
            uid: 'bff4e410-1cdb-4b60-b562-0e22c3eaff24',
          },
        },
      },
    },
  })
  const long = { ...web, spec: { ...spec, duration: '2562047h47m16s' } }
  t.match(decide({ request: long }), { ask: { body: { validity: '3155760000s' } } })
  const { duration: _, ...lasting } = spec
  const step = decide({ request: { ...web, spec: lasting } })
  t.ok(step.kind === 'ask' && !('validity' in step.ask.body), 'the profile says how long otherwise')
})

t.test('each recorded request that waits for its certificate is asked for, but for the CA', async (t) => {
  for (const name of [
    '10-get-approved',
    '12-get-pending-web-cluster',
    '14-get-pending-client',
    '15-get-pending-ed25519',
    '21-get-pending-by-pod-account',
    '29-get-next-attempt',
    '31-get-renewal',
    '33-get-approved-by-approver-policy',
  ]) {
    const request = certificateRequest(name)
    const step = decide({ request })
    t.equal(step.kind, 'ask', name)
    if (step.kind !== 'ask') continue
    t.equal(step.ask.idempotencyKey, request.metadata.uid, name)
    t.equal(
      'keyUsage' in step.ask.body,
      request.spec.usages !== undefined,
      `${name}: usages only where some were given`,
    )
  }
  const ca = written(decide({ request: certificateRequest('13-get-pending-sub-ca') }))
  t.same(conditionsOf(ca), ['Ready=False Failed', 'InvalidRequest=True InvalidRequest'])
  t.equal(ca.status.failureTime, second)
})

t.test('a request whose spec was changed after it was made has failed, whatever it says now', async (t) => {
  t.equal(web.metadata.generation, 1)
  const { generation: _, ...metadata } = web.metadata
  t.equal(decide({ request: { ...web, metadata } }).kind, 'ask', 'an API server that does not count')
  const changed = written(decide({ request: { ...web, metadata: { ...metadata, generation: 2 } } }))
  t.same(conditionsOf(changed), ['Ready=False Failed', 'InvalidRequest=True InvalidRequest'])
  t.match(changed.event.note, /changed after it was made/)
})

t.test('who has asked is not told where the issuer says so, nor where nobody is known', async (t) => {
  const silent = decide({ issuer: issuerOf({ onBehalfOf: false }) })
  t.notOk(silent.kind === 'ask' && silent.ask.body.onBehalfOf)
  const { username: _, ...spec } = web.spec
  const nobody = decide({ request: { ...web, spec } })
  t.ok(nobody.kind === 'ask' && nobody.ask.body.onBehalfOf === undefined)
})

const foreign = (issuerRef: object): CertificateRequest =>
  ({ ...web, spec: { ...web.spec, issuerRef: { name: 'default-ca', ...issuerRef } } }) as CertificateRequest

t.test('a kind that our group has not is told of, and nothing written', async (t) => {
  for (const [kind, said] of [
    ['Issuer', 'Issuer'],
    ['chanceryissuer', 'chanceryissuer'],
    ['toString', 'toString'],
    ['', 'not said'],
    [undefined, 'not said'],
  ] as const) {
    const step = decide({ request: withConditions(foreign({ group: 'chancery.dev', kind })) })
    t.match(step, { kind: 'tell', event: { type: 'Warning', reason: 'UnknownKind' } }, said)
    t.ok(
      step.kind === 'tell' && step.event.note.startsWith(`issuerRef.kind is ${said}, which is no kind of chancery.dev`),
    )
  }
  const over = withConditions(foreign({ group: 'chancery.dev' }), { type: 'Ready', status: 'False', reason: 'Failed' })
  t.same(decide({ request: over }), { kind: 'ignore', why: 'ended' })
})

t.test('nothing is done for a request that is another’s, not decided upon, ended, or being deleted', async (t) => {
  for (const [why, request] of [
    ['foreign', foreign({ group: '', kind: 'ChanceryIssuer' })],
    ['foreign', foreign({ kind: 'ChanceryIssuer' })],
    ['foreign', foreign({ group: 'cert-manager.io', kind: 'ChanceryIssuer' })],
    ['undecided', certificateRequest('03-get-no-status')],
    ['undecided', withConditions(web)],
    ['undecided', { ...web, status: { conditions: null } }],
    ['undecided', withConditions(web, { ...approved, status: 'False' })],
    ['deleted', { ...web, metadata: { ...web.metadata, deletionTimestamp: '2026-11-24T23:19:00Z' } }],
    ['ended', withConditions(web, approved, { type: 'InvalidRequest', status: 'True' })],
    ['ended', certificateRequest('28-get-failed')],
    ['ended', recorded<CertificateRequest>('status-writes/03-apply-issued')],
    ['ended', recorded<CertificateRequest>('status-writes/26-apply-failed')],
    ['ended', recorded<CertificateRequest>('status-writes/28-apply-invalid-request')],
    ['ended', recorded<CertificateRequest>('status-writes/29-apply-denied')],
  ] as const)
    t.same(decide({ request }), { kind: 'ignore', why }, JSON.stringify(request.status ?? request.spec.issuerRef))
})

t.test('a denied request is told so, with its time, whether its issuer is there or not', async (t) => {
  for (const request of [certificateRequest('09-get-denied'), withConditions(web, approved, denied)]) {
    const write = written(decide({ request, issuer: undefined }))
    t.same(conditionsOf(write), ['Ready=False Denied'])
    const note = 'an approver has denied the request'
    t.equal(write.status.conditions[0]?.message, note)
    t.same(write.event, { type: 'Warning', reason: 'Denied', action: 'Deny', note })
    t.equal(write.status.failureTime, second)
    t.ok(hasEnded(withConditions(web, ...write.status.conditions)))
  }
})

t.test('an issuer that is missing, not checked, of an older spec, or not ready is waited for', async (t) => {
  for (const [issuer, message] of [
    [undefined, 'ChanceryIssuer default-ca does not exist'],
    [issuerOf({}, null), 'ChanceryIssuer default-ca has not been checked yet'],
    [issuerOf({}, { status: 'Unknown', observedGeneration: 1 }), 'ChanceryIssuer default-ca has not been checked yet'],
    [issuerOf({}, { status: 'True', observedGeneration: 0 }), 'ChanceryIssuer default-ca has not been checked yet'],
    [issuerOf({}, { status: 'False', observedGeneration: 1 }), 'ChanceryIssuer default-ca is not ready'],
  ] as const) {
    t.same(decide({ issuer }), { kind: 'wait' }, 'the first time, nothing is written')
    const again = decide({ issuer, waited: 1 })
    const write = again.kind === 'wait' ? again.write : undefined
    t.same(write?.status, {
      conditions: [{ type: 'Ready', status: 'False', reason: 'Pending', message, lastTransitionTime: second }],
    })
    const said = withConditions(web, approved, ...(write?.status.conditions ?? []))
    t.same(decide({ request: said, issuer, waited: 2 }), { kind: 'wait' }, 'the same is not written twice')
  }
})

t.test('Pending keeps the time at which it became so, though what is said changes', async (t) => {
  const since = '2026-11-24T23:00:00Z'
  const pending: Condition = {
    type: 'Ready',
    status: 'False',
    reason: 'Pending',
    message: 'x',
    lastTransitionTime: since,
  }
  const step = decide({ request: withConditions(web, approved, pending), issuer: undefined, waited: 1 })
  t.equal(step.kind === 'wait' && step.write?.status.conditions[0]?.lastTransitionTime, since)
  const failed = written(answer(problem('san.forbidden', false), { request: withConditions(web, approved, pending) }))
  t.equal(failed.status.conditions[0]?.lastTransitionTime, since, 'still not ready')
})

t.test('what the API server leaves empty of whoever asks is left out, and nobody is nobody', async (t) => {
  const behalf = behalfOf(web, { username: 'alice', uid: '', groups: [], extra: {} })
  t.same(Object.keys(behalf ?? {}), ['user', 'namespace', 'object'])
  t.equal(behalfOf(web, { username: '' }), undefined)
})

t.test('a request that nobody could issue is invalid', async (t) => {
  const spec = (change: object): CertificateRequest => ({ ...web, spec: { ...web.spec, ...change } })
  for (const [change, says] of [
    [{ isCA: true }, /isCA/],
    [{ usages: ['cert sign'] }, /only a CA/],
    [{ usages: ['any'] }, /every usage/],
    [{ usages: ['__proto__'] }, /not known/],
    [{ request: 'not base64' }, /PEM within base64/],
    [{ request: '' }, /too long: Chancery reads 16 KiB/], // nothing is kept of one that is
    [{ duration: '0s' }, /not a duration/],
    [{ duration: '1y' }, /not a duration/],
    [{ duration: '500ms' }, /not a duration/],
  ] as const) {
    const write = written(decide({ request: spec(change) }))
    t.same(conditionsOf(write), ['Ready=False Failed', 'InvalidRequest=True InvalidRequest'], JSON.stringify(change))
    const [ready, invalid] = write.status.conditions
    t.match(ready?.message, says)
    t.equal(invalid?.message, ready?.message)
  }
})

t.test('a certificate is handed over leaf first and without its root, together with Ready', async (t) => {
  const issued = issueFor(factsOf(web).spki, now)
  const write = written(answer({ kind: 'issued', issued }))
  t.same(conditionsOf(write), ['Ready=True Issued'])
  const note = `certificate ${issued.serial} was issued`
  t.equal(write.status.conditions[0]?.message, note)
  t.same(write.event, { type: 'Normal', reason: 'Issued', action: 'Issue', note })
  t.notOk(write.status.ca)
  t.notOk(write.status.failureTime)
  const pem = Buffer.from(write.status.certificate ?? '', 'base64').toString()
  const subjects = pem
    .match(/-----BEGIN[\s\S]+?END CERTIFICATE-----/g)
    ?.map((block) => new X509Certificate(block).subject)
  t.same(subjects, ['CN=leaf', 'CN=Test Intermediate'])
  const withRoots = written(answer({ kind: 'issued', issued }, { roots: issued.root }))
  t.equal(Buffer.from(withRoots.status.ca ?? '', 'base64').toString(), issued.root)
})

t.test('a certificate for another key, one that has expired, and junk are never handed over', async (t) => {
  const other = certificateRequest('15-get-pending-ed25519')
  const good = issueFor(factsOf(web).spki, now)
  for (const [issued, requestKey, says] of [
    [issueFor(factsOf(other).spki, now), factsOf(web).spki, /another key/],
    [good, undefined, /another key/],
    [issueFor(factsOf(web).spki, now, 3_599), factsOf(web).spki, /expired before/],
    [{ ...good, certificate: 'junk' }, factsOf(web).spki, /no certificate/],
    [{ ...good, chain: ['-----BEGIN PRIVATE KEY-----'] }, factsOf(web).spki, /no certificate/],
    [{ ...good, certificate: good.certificate + good.certificate }, factsOf(web).spki, /no certificate/],
  ] as const) {
    const write = written(answer({ kind: 'issued', issued }, { requestKey }))
    t.same(conditionsOf(write), ['Ready=False Failed'], String(says))
    t.match(write.status.conditions[0]?.message, says)
    t.equal(write.event.reason, 'Failed')
    t.notOk(write.status.certificate)
    t.equal(write.status.failureTime, second)
  }
})

t.test('a refusal is for good, says each violation, and names the request at Chancery', async (t) => {
  const violations = [
    { check: 'names.dns.allow', field: '/csr/names/0', value: 'web.team-a.svc', reason: 'matches no pattern' },
    { check: 'validity.max', field: '/validity', value: '', reason: 'is more than 12h' },
  ]
  const write = written(answer(problem('san.forbidden', false, { requestId: 'r-1', violations })))
  t.same(conditionsOf(write), ['Ready=False Failed', 'InvalidRequest=True SanForbidden'])
  t.equal(
    write.status.conditions[0]?.message,
    'What was wrong (san.forbidden, request r-1); names.dns.allow at /csr/names/0 on web.team-a.svc: matches no pattern; validity.max at /validity: is more than 12h',
  )
  t.equal(write.status.failureTime, second)
  t.match(write.event, { type: 'Warning', reason: 'SanForbidden', action: 'Issue', note: /^What was wrong/ })
})

t.test('what a message may hold is bounded, and has no lines of its own', async (t) => {
  const violations = Array.from({ length: 100 }, (_, i) => ({
    ...{ check: 'names.dns.allow', field: `/names/${i}`, value: `a\n\u001b[2J\u202e${'x'.repeat(500)}` },
    reason: 'matches\r\nno pattern',
  }))
  const { message = '' } = written(answer(problem('san.forbidden', false, { violations }))).status.conditions[0] ?? {}
  t.ok(message.length <= 2_048)
  t.notMatch(message, /[\p{Cc}\p{Cf}]/u)
})

t.test('the reason is one that Kubernetes takes, whatever the code', async (t) => {
  for (const [code, reason] of [
    ['san.forbidden', 'SanForbidden'],
    ['key.bad_signature', 'KeyBadSignature'],
    ['..x', 'X'],
    ['1.x', 'Refused'],
    ['…', 'Refused'],
    ['', 'Refused'],
    ['x'.repeat(65), `X${'x'.repeat(63)}`],
  ] as const)
    t.equal(reasonOf(code), reason, code)
})

t.test('refusals that the request is not at fault for leave InvalidRequest out', async (t) => {
  const violations = [{ check: 'grant.origin', field: '/onBehalfOf/namespace', value: 'x', reason: 'is denied' }]
  for (const code of [
    'policy.origin',
    'approval.rejected',
    'approval.expired',
    'idempotency.reused',
    'origin.forbidden',
  ]) {
    const write = written(answer(problem(code, false, { violations })))
    t.same(conditionsOf(write), ['Ready=False Failed'], code)
    t.equal(write.event.reason, 'Failed', code)
  }
})

t.test('a defect of Chancery, and an issuer that ends too soon, are waited for, and said at once', async (t) => {
  for (const [code, status] of [
    ['internal', 500],
    ['policy.lint', 500],
    ['validity.issuer', 422],
  ] as const) {
    const step = answer(problem(code, false, { status }))
    t.match(step, { kind: 'wait', after: 60 }, code)
    t.same(step.kind === 'wait' && step.write && conditionsOf(step.write), ['Ready=False Pending'])
    t.notOk(step.kind === 'wait' && step.ofIssuer, 'others may still be issued')
  }
})

t.test('what any answer says is within a bound, and without commands', async (t) => {
  const long = `a\u001b[31m\n${'A'.repeat(900_000)}`
  const faults: readonly Fault[] = [
    ...(['unreachable', 'misconfigured', 'foreign'] as const).map((kind) => ({ kind, message: long })),
    ...[true, false].flatMap((retryable) =>
      [long, 'auth.expired', 'internal', 'x.y', `${'😀'.repeat(1_500)}\ud83d`, `.${'😀'.repeat(1_500)}`].map(
        (code): Fault => ({
          kind: 'problem',
          problem: { code, status: 503, detail: code.length > 1_000 ? code : long, retryable, requestId: long },
        }),
      ),
    ),
    { kind: 'problem', problem: { code: long, detail: long, retryable: false, requestId: long } },
  ]
  for (const told of faults) {
    const step = answer(fault(told), { waited: 1 })
    const write = step.kind === 'wait' ? step.write : step
    const { message = '', reason = '' } = write?.status.conditions.at(-1) ?? {}
    t.ok(message.length > 0 && message.length <= 2_048, `${message.length}`)
    t.ok(reason.length <= 64)
    t.notMatch(message, /[\p{Cc}\p{Cf}]/u)
    t.ok(message.isWellFormed(), 'nor half a character')
  }
})

t.test('an answer that differs each time is written once a minute', async (t) => {
  const told = (detail: string) => fault({ kind: 'problem', problem: { code: 'x.y', detail, retryable: true } })
  const first = answer(told('one'), { waited: 1 })
  const conditions = first.kind === 'wait' ? (first.write?.status.conditions ?? []) : []
  t.equal(conditions.length, 1)
  const request = withConditions(web, approved, ...conditions)
  t.same(answer(told('two'), { request, waited: 2, wasJustTold: true }), { kind: 'wait' })
  t.match(answer(told('two'), { request, waited: 2 }), { write: { status: {} } })
  const long = problem('limit.certificates_per_day', true, { retryAfter: 3_600 })
  t.match(answer(long, { request, waited: 2, wasJustTold: true }), { after: 3_600, write: { status: {} } })
})

t.test('what may succeed later is waited for, as long as Chancery says', async (t) => {
  t.same(answer(problem('overload.queue', true, { retryAfter: 7 })), { kind: 'wait', after: 7 })
  const limited = answer(problem('limit.certificates_per_day', true, { retryAfter: 3_600 }), { waited: 1 })
  t.equal(limited.kind === 'wait' && limited.after, 3_600)
  t.same(limited.kind === 'wait' && limited.write && conditionsOf(limited.write), ['Ready=False Pending'])
  t.notOk(limited.kind === 'wait' && limited.ofIssuer, 'others may still be issued')
  const alive = answer(problem('limit.certificates_alive', true, { retryAfter: 3_600 }))
  t.match(alive, { kind: 'wait', after: 600 }, 'somebody may revoke meanwhile')
  t.match(answer(problem('x.y', true, { retryAfter: 30 })), { after: 30, write: {} }, 'what takes long is said at once')
  t.same(answer(problem('x.y', true, { retryAfter: 29 })), { kind: 'wait', after: 29 })
})

t.test('faults that all requests of an issuer share are the issuer’s, and the request waits', async (t) => {
  const faults: readonly Fault[] = [
    { kind: 'unreachable', message: 'nobody is there' },
    { kind: 'misconfigured', message: 'no token' },
    { kind: 'foreign', message: 'a proxy answered' },
    ...(
      [
        ['auth.expired', false],
        ['auth.forbidden', false],
        ['auth.unavailable', true],
        ['profile.not_found', false],
        ['origin.required', false],
        ['origin.forbidden', false],
        ['key.unavailable', true],
        ['issuer.none_active', true],
        ['issuer.expired', true],
        ['db.unavailable', true],
      ] as const
    ).map(([code, retryable]): Fault => ({ kind: 'problem', problem: { code, detail: 'It is so.', retryable } })),
  ]
  for (const told of faults) {
    const step = answer(fault(told))
    t.same(step, { kind: 'wait', ofIssuer: told }, JSON.stringify(told))
  }
})

t.test('people who must approve are waited for without a bound, and that is said at once', async (t) => {
  const step = answer({ kind: 'waiting', id: '0193f2b4' }, { retryFor: 1 })
  t.match(step, { kind: 'wait', after: 10, isPoll: true })
  t.same(step.kind === 'wait' && step.write && conditionsOf(step.write), ['Ready=False Pending'])
  t.match(step.kind === 'wait' && step.write?.status.conditions[0]?.message, /request 0193f2b4/)
})

t.test('with a bound, a setback after it is a failure with its time; without one it never is', async (t) => {
  const late = written(answer(problem('overload.queue', true), { retryFor: 60 }))
  t.same(conditionsOf(late), ['Ready=False Failed'])
  t.match(late.status.conditions[0]?.message, /^it could not be issued within 60 s: /)
  t.equal(late.status.failureTime, second)
  t.equal(decide({ issuer: undefined, retryFor: 60 }).kind, 'write')
  const age = (now.getTime() - Date.parse(web.metadata.creationTimestamp)) / 1_000
  const limited = problem('limit.certificates_per_day', true, { retryAfter: 3_600 })
  t.match(answer(limited, { retryFor: age + 60 }), { kind: 'wait', after: 61 }, 'and is not found late')
  t.equal(decide({ issuer: undefined, retryFor: 3_600 }).kind, 'wait')
  t.equal(answer(problem('overload.queue', true), { request: web }).kind, 'wait')
})

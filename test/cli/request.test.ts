/** What an approver is shown and told: as it is, whatever whoever asked has put into it. */
import { hash } from 'node:crypto'

import t from 'tap'

import { requestText } from '../../src/cli/request.ts'
import type { RequestAnswer } from '../../src/client/approval-request.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'

const plan = {
  ...{ authority: 'default', extendedKeyUsage: ['serverAuth'], issuer: 'default', key: 'ab'.repeat(32) },
  ...{ keyType: 'ec-p256', keyUsage: ['digitalSignature'], names: [{ kind: 'dns', value: 'pay.example.com' }] },
  ...{ profile: { name: 'payments', version: 1, sha256: 'cd'.repeat(32) }, revocation: ['crl'], validity: 86_400 },
  subject: [] as RequestAnswer['plan']['subject'],
}
const requestOf = (of: object = {}, more: object = {}): RequestAnswer => ({
  ...{ id: '0193f2b4-7c02-7f11-8a2e-5d0b1c9e4f60', state: 'pending', principal: 'ci', profile: plan.profile },
  ...{
    plan: { ...plan, ...of },
    digest: hash('sha256', canonicalJson({ ...plan, ...of })),
    required: 1,
    approvals: [],
  },
  ...{ createdAt: '2026-11-24T00:00:00Z', expiresAt: '2026-11-25T00:00:00Z', end: null, serial: null, obstacle: null },
  ...more,
})
/** As a terminal of 80 columns shows it. */
const screenOf = (request: RequestAnswer): readonly string[] =>
  requestText(request)
    .split('\n')
    .flatMap((line) => line.match(/.{1,80}/gsu) ?? [''])
const labels = (lines: readonly string[]): readonly string[] =>
  lines.map((line) => line.slice(0, 12).trim()).filter(Boolean)

const honest = labels(screenOf(requestOf()))
const blanks = { spaces: ' ', 'a blank letter': '\u3164', 'Braille without a dot': '\u2800', 'no letter': '\u034f' }

for (const [what, blank] of Object.entries(blanks))
  t.test(`no value makes a row of its own, by ${what}`, async (t) => {
    for (const before of [0, 9, 40, 59, 60, 61]) {
      const row = `valid for${blank.repeat(3)}1 h from when it is issued`
      const value = `${'x'.repeat(before)}${blank.repeat(80 - 12 - before)}${row}`
      const forged = screenOf(requestOf({ subject: [{ type: 'streetAddress', value }] }))
      t.same(labels(forged), honest)
      if (blank !== ' ') t.notMatch(forged.join(''), blank)
      const reasoned = screenOf(requestOf({}, { approvals: [{ principal: 'alice', at: 'now', reason: value }] }))
      t.same(labels(reasoned), honest, 'nor does a reason')
    }
  })

t.test('one letter is not taken for another in what is approved, and a reason is read as it was written', async (t) => {
  const subject = [{ type: 'organization', value: 'Ex\u0430mple' }]
  t.match(requestText(requestOf({ subject })), /^subject {5}.*Ex\\u0430mple$/m)
  const approvals = [{ principal: 'alice', at: 'now', reason: 'geprüft' }]
  t.match(requestText(requestOf({}, { approvals })), /alice at now: geprüft$/m)
  const hidden = [{ principal: 'alice', at: 'now', reason: 'a\u0301 \u00a0b\u2028c' }]
  t.match(requestText(requestOf({}, { approvals: hidden })), /now: a\\u0301 \\u00a0b\\u2028c$/m)
})

t.test('what is long goes on below itself, where no row begins', async (t) => {
  const lines = requestText(requestOf({ names: [{ kind: 'dns', value: `${'x'.repeat(100)}.example.com` }] })).split(
    '\n',
  )
  t.ok(lines.every((line) => line.length <= 80))
  const at = lines.findIndex((line) => line.startsWith('name '))
  t.equal(lines[at], `name        dns:${'x'.repeat(64)}`)
  t.equal(lines[at + 1], `              ${'x'.repeat(36)}.example.com`)
})

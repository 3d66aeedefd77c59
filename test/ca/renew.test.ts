/** What is renewed into what, apart from the records. */
import { generateKeyPairSync } from 'node:crypto'

import t from 'tap'

import type { Caller, Grant, Held } from '../../src/ca/access/access.ts'
import { asRenewal, grantsToRenew } from '../../src/ca/issuance/renew.ts'
import type { Violation } from '../../src/errors.ts'
import type { Profile, RenewalRules } from '../../src/policy/profile.ts'
import type { CertificationRequest } from '../../src/x509/csr.ts'
import type { Subject } from '../../src/x509/subject.ts'
import { namesOf, profileOf } from '../policy/requests.ts'

const profile = { name: 'any', subject: [], renewal: { key: 'any' } } as unknown as Profile
const spki = Buffer.from('key')
const csr = { names: [], subject: [], key: { spki } } as unknown as CertificationRequest
const holding = (...values: readonly string[]): Held =>
  ({ spki, subject: [], names: values.map((value) => ({ kind: 'dns', value })) }) as unknown as Held

t.test('a name that was taken for one once is not certified again', async (t) => {
  t.match(asRenewal(profile, holding('a.example', 'xn--bcher-kva.example'), csr).names, [{}, {}])
  // U+1C80, which looks like a Cyrillic letter and folds to it.
  t.throws(() => asRenewal(profile, holding('a.example', 'xn--23f.example'), csr), { code: 'san.syntax' })
})

// Who may ---------------------------------------------------------------------------------------------------------------

const day = 86_400_000
const end = Date.parse('2030-06-01T00:00:00Z')
const rules: RenewalRules = { within: 30 * 86_400, key: 'new', grace: 0, needsGrant: false }
const mine: Held = {
  serial: 'ab',
  profile: 'server',
  profileVersion: 1,
  issuer: 'default-1',
  subject: [],
  names: namesOf('dns:a.example'),
  spki: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }),
  notAfter: new Date(end),
  since: new Date(end - day),
  obstacle: null,
  isIssuerTrusted: true,
}
const grantFor = (profiles: readonly string[]): Grant => ({ role: 'requester', profiles }) as unknown as Grant
const callerWith = (...grants: readonly Grant[]): Caller => ({ principal: 'web', grants }) as unknown as Caller
interface Given {
  readonly held?: Partial<Held>
  readonly renewal?: Partial<RenewalRules> | null
  readonly now?: number
  readonly grants?: readonly Grant[]
  readonly blocked?: boolean
}
const mayRenew = ({ held, renewal = {}, now = end, grants = [], blocked = false }: Given): readonly Grant[] =>
  grantsToRenew(
    { clock: () => new Date(now), isBlocked: () => blocked },
    { name: 'server', renewal: renewal && { ...rules, ...renewal } } as unknown as Profile,
    callerWith(...grants),
    { ...mine, ...held },
  )

t.test('holding a certificate is a grant for its profile, and for nothing else', async (t) => {
  t.match(mayRenew({}), [
    { id: 'certificate ab', principal: 'web', role: 'requester', profiles: ['server'], names: null, revoke: false },
  ])
  const own = [grantFor(['client']), grantFor(['client', 'server'])]
  t.same(mayRenew({ renewal: { needsGrant: true }, grants: own }), own.slice(1), 'where one is needed, those there are')
})

const turnedDown: readonly (readonly [what: string, given: Given, code: string])[] = [
  ['a profile that lets nobody', { renewal: null }, 'renewal.forbidden'],
  ['a revoked certificate', { held: { obstacle: 'revoked' } }, 'auth.revoked'],
  ['one of a closed principal', { held: { obstacle: 'closed' } }, 'auth.unmapped'],
  ['one whose key was stolen', { held: { obstacle: 'stolen' } }, 'key.blocked'],
  ['one that is about to be revoked', { held: { obstacle: 'ordered' } }, 'auth.revoked'],
  ['one with a key that is blocked by now', { blocked: true }, 'key.blocked'],
  ['an expired one', { now: end + 1000 }, 'auth.expired'],
  ['one whose grace is over', { renewal: { grace: 60 }, now: end + 61_000 }, 'auth.expired'],
  ['one of an issuer that has ended', { held: { isIssuerTrusted: false } }, 'renewal.issuer'],
  ['the last of a row', { now: end - day + rules.within * 1000, renewal: { grace: 90 * 86_400 } }, 'renewal.ended'],
  [
    'one whose principal has no grant, where one is needed',
    { renewal: { needsGrant: true }, grants: [grantFor(['client'])] },
    'auth.forbidden',
  ],
]

for (const [what, given, code] of turnedDown)
  t.test(`${what} is not renewed`, async (t) => {
    t.throws(() => mayRenew(given), { code })
  })

t.test('until the last moment it is', async (t) => {
  t.doesNotThrow(() => mayRenew({ now: end + 999 }), 'the second that notAfter names is within')
  t.doesNotThrow(() => mayRenew({ renewal: { grace: 60 }, now: end + 60_999 }))
  t.doesNotThrow(() => mayRenew({ now: end - day + rules.within * 1000 - 1, renewal: { grace: 90 * 86_400 } }))
})

// Into what -------------------------------------------------------------------------------------------------------------

const attribute = (type: Subject[number]['type'], value: string): Subject[number] => ({ type, value })
const [cn, ou, org] = [
  attribute('commonName', 'a.example'),
  attribute('organizationalUnit', 'shop'),
  attribute('organization', 'Good'),
]
const renewing = profileOf({
  subject: {
    others: 'refuse',
    commonName: { from: 'csr' },
    organization: { fixed: 'Good' },
    locality: { from: 'csr', match: '**', max: 2, required: false },
  },
  names: { dns: { allow: ['**'] } },
  renewal: { within: '30d', key: 'any' },
})
const requestOf = (given: Partial<CertificationRequest>): CertificationRequest =>
  ({ names: [], subject: [], key: { spki: mine.spki }, ...given }) as unknown as CertificationRequest
const names = namesOf('dns:a.example', 'ip:10.0.0.1')
const renewed = (asked: Partial<CertificationRequest>, held: Partial<Held> = {}, fixedThen: Subject = []) => {
  const { names: into, subject } = asRenewal(renewing, { ...mine, names, ...held }, requestOf(asked), fixedThen)
  return { names: into, subject }
}

t.test('the names and the subject are those of the certificate, whatever of them is repeated', async (t) => {
  const held = { subject: [ou, cn] }
  const same = { names, subject: [ou, cn] }
  t.same(renewed({}, held), same)
  t.same(renewed({ names: [...names].reverse() }, held), same)
  t.same(renewed({ subject: [attribute('commonName', 'A.Example')] }, held), same, 'a common name by its normal form')
  t.same(renewed({ subject: [ou, cn] }, held), same)
  t.same(renewed({ subject: [] }, { subject: [org, ou, cn] }), same, 'but for what the profile fixes today')
  t.same(renewed({}, held, [ou]), { names, subject: [cn] }, 'or has fixed then: nobody ever asked for it')
  const fixedElse = [attribute('organizationalUnit', 'else'), attribute('organization', 'shop'), cn]
  t.same(renewed({}, held, fixedElse), same, 'that very value of that very type')
  t.same(
    renewed({ subject: [org] }, held),
    { names, subject: [ou, cn, org] },
    'what is fixed is judged as it is asked for',
  )
  const person = [attribute('commonName', 'Ann'), attribute('locality', 'bern'), attribute('locality', 'basel')]
  for (const one of person) t.same(renewed({ subject: [one] }, { subject: person }).subject, person)
  const beside = attribute('organizationalUnit', 'beside')
  t.same(
    renewed({ subject: [beside] }, held),
    { names, subject: [ou, cn, beside] },
    'what is beside it is judged as ever',
  )
})

const others: readonly (readonly [what: string, asked: Partial<CertificationRequest>, said: readonly string[]])[] = [
  ['another name', { names: [...names, ...namesOf('dns:b.example')] }, ['/names b.example is not in it']],
  ['fewer names', { names: names.slice(0, 1) }, ['/names 10.0.0.1 is left out']],
  [
    'the name as one of another kind',
    { names: namesOf('uri:a.example', 'ip:10.0.0.1') },
    ['/names a.example is not in it', '/names a.example is left out'],
  ],
  [
    'another common name',
    { subject: [attribute('commonName', 'b.example')] },
    ['/subject/commonName b.example is not that of the certificate'],
  ],
  [
    'another writing of what is no name',
    { subject: [attribute('locality', 'BERN')] },
    ['/subject/locality BERN is not that of the certificate'],
  ],
  [
    'what another attribute holds, as the common name',
    { subject: [attribute('commonName', 'shop')] },
    ['/subject/commonName shop is not that of the certificate'],
  ],
]

for (const [what, asked, said] of others)
  t.test(`never for ${what}`, async (t) => {
    const told = (error: { options: { violations: readonly Violation[] } }) =>
      error.options.violations.map(({ field, value, reason }) => `${field} ${value} ${reason}`)
    const error = t.throws(() => renewed(asked, { subject: [ou, cn, attribute('locality', 'bern')] }), {
      code: 'renewal.names',
    })
    t.same(told(error as unknown as Parameters<typeof told>[0]), said)
  })

t.test('the key is the one that the profile wants', async (t) => {
  const into = (key: RenewalRules['key'], spki: Buffer) =>
    asRenewal(
      { ...renewing, renewal: { ...rules, key } },
      mine,
      requestOf({ key: { spki } as CertificationRequest['key'] }),
    )
  const other = Buffer.from('another')
  for (const [key, good, bad] of [
    ['new', other, mine.spki],
    ['same', mine.spki, other],
  ] as const) {
    t.doesNotThrow(() => into(key, good))
    t.throws(() => into(key, bad), { code: 'renewal.key' })
  }
  for (const spki of [other, mine.spki]) t.doesNotThrow(() => into('any', spki))
  t.throws(() => asRenewal({ ...renewing, renewal: null }, mine, requestOf({})), { code: 'renewal.forbidden' })
})

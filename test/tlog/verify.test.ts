/** The verifier finds each thing that can be wrong with a roll, names the entry, and goes on. */
import { hash } from 'node:crypto'

import t from 'tap'

import { openRollCertificates } from '../../src/auditor/certificates.ts'
import { type CrlsIntended, encodeEntry, type RollEvent } from '../../src/tlog/entries.ts'
import { findings as meanings } from '../../src/tlog/findings.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { encodeVerifierKey } from '../../src/tlog/note.ts'
import { openRollVerifier } from '../../src/tlog/verify.ts'
import { hasher, newSigner } from './hashing.ts'
import {
  approved,
  approvedIssue,
  closed,
  created,
  decided,
  digestOf,
  ended,
  granted,
  plan,
  vault,
  wanting,
} from './requests.ts'
import {
  beginning,
  checkpointAt,
  depsOf,
  digest,
  entriesOf,
  event,
  issuer,
  newIssuer,
  roll,
  type Stored,
  serialOf,
  storedOf,
  verifyAll,
} from './world.ts'

t.setTimeout(300_000)
const certificates = openRollCertificates(1)
t.teardown(() => certificates.close())

const provided = (version: number): RollEvent => ({
  ...{ type: 'provider.changed', provider: { name: 'github', version }, sha256: digest, by: 'admin' },
})
const token = (what: 'created' | 'revoked', principal = 'alice'): RollEvent => ({
  ...{ type: `token.${what}`, token: 't', principal, label: '', expires: null, by: 'admin' },
})
const credential = (what: 'created' | 'revoked', principal = 'alice'): RollEvent => ({
  ...{ type: `credential.${what}`, credential: 'c', principal, label: '' },
  ...{ fingerprint: null, spiffe: 'spiffe://x', subject: null, by: 'admin' },
})
const asked = (name: string, spki: string): RollEvent => ({
  ...{ type: 'issuer.requested', issuer: name, authority: 'default', key: 'file:x', spki, by: 'admin' },
})
const staged = { ...(beginning[2] as object), issuer: 'next', state: 'staged' } as RollEvent
const halves = { ...staged, shards: 2 } as RollEvent
const listsOf = (name: string, ...shards: readonly number[]): RollEvent => ({
  ...(event.lists(...shards.map((shard) => [shard, 1, 31] as const)) as CrlsIntended),
  issuer: name,
})
const moved = (name: string, spki: string): RollEvent => ({
  ...{ type: 'issuer.relocated', issuer: name, authority: 'default', key: 'file:x', before: 'file:y' },
  ...{ spki, reason: null, by: 'admin' },
})
const chained = (name: string, ...firsts: readonly string[]): RollEvent => ({
  ...{ type: 'issuer.chained', issuer: name, authority: 'default', chains: firsts.map((one) => [one]), by: 'admin' },
})
const own = hash('sha256', Buffer.from(issuer.certificate, 'base64'))

const done = { ...event.done(digest, 2), skipped: { expired: 1, revoked: 1 } } as RollEvent
const good: readonly RollEvent[] = [
  ...beginning,
  ...Array.from({ length: 20 }, (_, n) => event.issued(n)),
  event.abandoned(20),
  event.revoked(1),
  event.revoked(1, 'keyCompromise'),
  event.revoked(2, 'certificateHold'),
  event.released(2),
  event.revoked(2, 'superseded'),
  event.lists([0, 1, 30], [1, 1, 30]),
  event.lists([0, 2, 31]),
  event.ordered(digest, 4),
  event.revoked(4, 'superseded', { plan: digest }),
  event.revoked(5, 'superseded', { plan: digest }),
  done,
  { type: 'principal.created', principal: 'alice', by: 'admin' },
  { type: 'principal.created', principal: 'bob', by: 'admin' },
  wanting(1),
  wanting(2),
  granted('alice', ['vault-1', 'vault-2']),
  granted('bob', ['vault-2']),
  created('one', 2),
  approved('one', 'alice'),
  approved('one', 'bob'),
  event.issued(50, { approval: 'one', profile: vault(2), plan }),
  created('two', 1),
  created('three', 1),
  approved('three', 'alice'),
  { type: 'request.failed', id: 'three', plan, code: 'approval.plan', reason: 'x' },
  created('turned down', 1),
  approved('turned down', 'alice'),
  ended('rejected', 'turned down', 'alice'),
  created('taken back', 1),
  ended('withdrawn', 'taken back', 'admin'),
  event.moved('retiring', 'active'),
  event.moved('closed', 'retiring'),
]
const entries = entriesOf(good)
const last = entries.length
const seen = new Set<string>()
const codesOf = (found: readonly { readonly index: number; readonly code: string }[]): string[] =>
  found.map(({ index, code }) => {
    seen.add(code)
    return `${index} ${code}`
  })

t.test('a good roll has no findings, in batches of any size, against checkpoints of all sizes', async (t) => {
  const checkpoints = await Promise.all(entries.map((_, size) => checkpointAt(entries, size)))
  const { edge } = extend(
    emptyEdge(hasher),
    entries.map(({ leaf }) => leaf),
    hasher,
  )
  for (const batch of [1, 7, 1000]) {
    const { findings, root } = await verifyAll(entries, certificates, { checkpoints, batch })
    t.same(findings, [])
    t.same(Buffer.from(root ?? []), Buffer.from(edge.root))
  }
})

t.test('verifying goes on where it was left, at any size', async (t) => {
  const checkpoints = [await checkpointAt(entries, last)]
  const wrong: string[] = []
  for (let size = 0; size <= last; size += 1) {
    const first = await verifyAll(entries.slice(0, size), certificates)
    const then = await verifyAll(entries.slice(size), certificates, { from: first.state, checkpoints })
    const all = [...first.findings, ...then.findings]
    if (all.length > 0) wrong.push(`${size}: ${all.map(({ message }) => message).join()}`)
  }
  t.same(wrong, [])
  const { state } = await verifyAll(entries.slice(0, 24), certificates)
  const again = await verifyAll(entriesOf([...good.slice(0, 24), event.issued(3)]).slice(24), certificates, {
    from: state,
  })
  t.same(codesOf(again.findings), ['24 serial.again'], 'it remembers the serials of before')
  const { findings } = await verifyAll([], certificates, {
    from: state,
    checkpoints: [await checkpointAt(entries, 23)],
  })
  t.same(codesOf(findings), ['23 checkpoint.passed'])
})

t.test('nothing is kept of requests that have ended', async (t) => {
  const { state } = await verifyAll(entries, certificates)
  t.same(
    state.history.requests.map(([id]) => id),
    ['two'],
  )
})

type Case = readonly [what: string, after: readonly RollEvent[], codes: readonly string[]]

const past = '2026-11-24T00:00:00.000Z'
const imported: RollEvent = {
  ...{ type: 'crl.imported', issuer: issuer.name, signer: digest, number: '7', thisUpdate: past },
  ...{ nextUpdate: '2027-05-24T00:00:00.000Z', revoked: 1, sha256: digest, by: 'admin' },
}

const orderedAsOf = (size: number): RollEvent =>
  ({ ...event.ordered('cd'.repeat(32), 3), asOf: { size, time: past } }) as RollEvent
const adopted = (database: string, before: string | null): RollEvent => ({
  ...{ type: 'database.adopted', database, before, reason: null, by: 'admin' },
})
const opened = (origin: string, key: string): RollEvent => ({
  ...{ type: 'roll.opened', origin, key, database: '7', succeeds: null, by: 'admin' },
})
const ownKey = encodeVerifierKey(roll.key)

/** Each with the codes that it is found by: of the last event, which come behind all the others. */
const cases: readonly Case[] = [
  ['an issuer of whom nothing was told', [event.issued(90, { issuer: 'other' })], ['reference.missing']],
  ['a principal of whom nothing was told', [event.issued(90, { principal: 'eve' })], ['reference.missing']],
  [
    'a version that is not there yet',
    [event.issued(90, { profile: { name: 'server', version: 2 } })],
    ['reference.missing'],
  ],
  ['no version at all', [event.issued(90, { profile: { name: 'server', version: 0 } })], ['reference.missing']],
  ['a profile that is not there', [event.issued(90, { profile: { name: 'x', version: 1 } })], ['reference.missing']],
  ['a renewal', [event.issued(90), event.issued(91, { replaces: serialOf(90) })], []],
  ['a renewal of nothing', [event.issued(90, { replaces: serialOf(91) })], ['reference.missing']],
  ['a renewal of itself', [event.issued(90, { replaces: serialOf(90) })], ['reference.missing']],
  [
    'a renewal of what nobody got',
    [event.abandoned(90), event.issued(91, { replaces: serialOf(90) })],
    ['reference.missing'],
  ],
  ['a serial again', [event.issued(3)], ['serial.again']],
  ['the serial of an abandoned issuance', [event.abandoned(3)], ['serial.again']],
  [
    "another certificate's serial",
    [event.issued(90, { certificate: issuer.certify(serialOf(91)) })],
    ['certificate.serial'],
  ],
  ['no certificate', [event.issued(90, { certificate: 'MIIB' })], ['certificate.text']],
  [
    'a signature by another key',
    [event.issued(90, { certificate: issuer.certify(serialOf(90), { by: newIssuer('default') }) })],
    ['certificate.signature'],
  ],
  [
    'another issuer in the certificate',
    [event.issued(90, { certificate: newIssuer('other').certify(serialOf(90), { by: issuer }) })],
    ['certificate.issuer'],
  ],
  [
    'a certificate that outlives its issuer',
    [event.issued(90, { certificate: issuer.certify(serialOf(90), { notAfter: new Date('2036-11-02T00:00:00Z') }) })],
    ['certificate.validity'],
  ],
  [
    'nothing in a certificate that ends with its issuer',
    [event.issued(90, { certificate: issuer.certify(serialOf(90), { notAfter: new Date('2036-11-01T00:00:00Z') }) })],
    [],
  ],
  ['a revocation of nothing', [event.revoked(90)], ['reference.missing']],
  ['a revocation under another issuer', [event.revoked(3, 'superseded', { issuer: 'x' })], ['reference.missing']],
  [
    'a revocation under an issuer that has not signed it',
    [staged, event.revoked(3, 'superseded', { issuer: 'next' })],
    ['reference.missing'],
  ],
  ['a revocation of an abandoned one', [event.revoked(20)], ['reference.state']],
  ['a second revocation', [event.revoked(4)], ['reference.state']],
  ['a revocation after that of its key', [event.revoked(1, 'keyCompromise')], ['reference.state']],
  ['a release of what is not on hold', [event.released(3)], ['reference.state']],
  ['a release of what is revoked', [event.released(4)], ['reference.state']],
  ['a plan that was not ordered', [event.revoked(6, 'superseded', { plan: 'cd'.repeat(32) })], ['reference.missing']],
  ['a plan that is done', [event.revoked(6, 'superseded', { plan: digest })], ['reference.state']],
  ['a plan ordered again', [event.ordered(digest, 3)], ['reference.state']],
  ['a plan of what is to come', [orderedAsOf(1000)], ['reference.number']],
  ['nothing in a plan of all that there is', [orderedAsOf(good.length)], []],
  ['a plan of one entry more', [orderedAsOf(good.length + 1)], ['reference.number']],
  ['a plan done that was not ordered', [event.done('cd'.repeat(32), 0)], ['reference.missing']],
  ['a plan done again', [done], ['reference.state']],
  [
    'a plan that did less than it says',
    [event.ordered('cd'.repeat(32), 3), event.done('cd'.repeat(32), 3)],
    ['reference.number'],
  ],
  [
    'a plan that left some out',
    [event.ordered('cd'.repeat(32), 3), event.done('cd'.repeat(32), 0, 2)],
    ['reference.number'],
  ],
  ['a request of nobody', [created('five', 1, { principal: 'eve' })], ['reference.missing']],
  ['a request of no profile', [created('five', 1, { profile: vault(1, 3) })], ['reference.missing']],
  ['a request again', [created('two', 1)], ['reference.state']],
  ['an approval of nothing', [approved('four', 'alice')], ['reference.missing']],
  ['an approval of another plan', [approved('two', 'alice', 'cd'.repeat(32))], ['reference.state']],
  ['an approval of one’s own', [approved('two', 'admin')], ['approval.approver']],
  ['an approval again', [created('five', 2), approved('five', 'bob'), approved('five', 'bob')], ['approval.approver']],
  ['an approval of what has ended', [approved('three', 'alice')], ['reference.missing']],
  ['one without a grant for the profile', [approved('two', 'bob')], ['approval.approver']],
  [
    'one after the grant was revoked',
    [granted('alice', ['vault-1', 'vault-2'], 'revoked'), approved('two', 'alice')],
    ['approval.approver'],
  ],
  ['one by somebody who is disabled', [closed('alice'), approved('two', 'alice')], ['approval.approver']],
  ['a rejection without a grant', [ended('rejected', 'two', 'bob')], ['approval.approver']],
  ['a rejection of one’s own', [ended('rejected', 'two', 'admin')], ['approval.approver']],
  ['a withdrawal by somebody else', [ended('withdrawn', 'two', 'alice')], ['approval.approver']],
  ['a withdrawal of what was withdrawn', [ended('withdrawn', 'taken back', 'admin')], ['reference.missing']],
  ['fewer than the profile wants', [created('five', 1, { profile: vault(2) })], ['approval.required']],
  ['more than the profile wants', [created('five', 2, { profile: vault(1) })], ['approval.required']],
  [
    'a request of a profile that wants none',
    [created('five', 1, { profile: { name: 'server', version: 1 } })],
    ['approval.required'],
  ],
  ['a certificate that nobody was asked for', [event.issued(91, { profile: vault(1) })], ['approval.missing']],
  [
    'one on behalf of another',
    [event.issued(91, { profile: vault(1), origin: { user: 'alice' } })],
    ['approval.missing'],
  ],
  ['one by a renewal', [event.issued(91, { profile: vault(1), replaces: serialOf(3) })], ['approval.missing']],
  [
    'one of another version than was approved',
    [approved('two', 'alice'), wanting(1, 2), approvedIssue('two', 1, { profile: vault(1, 2) })],
    ['approval.missing'],
  ],
  [
    'one of another profile than was approved',
    [approved('two', 'alice'), approvedIssue('two', 1, { profile: { name: 'server', version: 1 } })],
    ['approval.missing'],
  ],
  ['a certificate of nobody’s request', [approvedIssue('four', 1)], ['reference.missing']],
  ['a certificate too many', [approvedIssue('one', 2)], ['reference.missing']],
  ['a certificate without its approvals', [approvedIssue('two', 1)], ['approval.missing']],
  [
    'one of a request that was rejected after it was approved',
    [approved('two', 'alice'), ended('rejected', 'two', 'alice'), approvedIssue('two', 1)],
    ['reference.missing'],
  ],
  ['one of a request that has failed', [approvedIssue('three', 1)], ['reference.missing']],
  [
    'one of another plan than was approved',
    [approved('two', 'alice'), approvedIssue('two', 1, { plan: 'cd'.repeat(32) })],
    ['reference.state'],
  ],
  [
    'one for another than asked',
    [approved('two', 'alice'), approvedIssue('two', 1, { principal: 'alice' })],
    ['reference.state'],
  ],
  [
    'what was decided is not what the digest is of',
    [created('five', 1, { decided: { ...decided, names: [] } })],
    ['approval.plan'],
  ],
  ...Object.entries({
    extendedKeyUsage: ['clientAuth'],
    issuer: 'other',
    key: digest,
    keyUsage: ['keyAgreement'],
    names: [{ kind: 'dns', value: 'harmless.example.com' }],
    origin: { user: 'alice' },
    subject: [],
    validity: 60,
  }).map(([what, value]): Case => {
    const other = { ...decided, [what]: value }
    const of = { plan: digestOf(other) }
    return [
      `a certificate with another ${what} than was approved`,
      [created('five', 1, { decided: other, ...of }), approved('five', 'alice', of.plan), approvedIssue('five', 1, of)],
      ['approval.plan'],
    ]
  }),
  [
    'a certificate of another request than was asked',
    [approved('two', 'alice'), approvedIssue('two', 1, { request: 'cd'.repeat(32) })],
    ['approval.plan'],
  ],
  ['an approval after its time', [created('five', 1, { expires: past }), approved('five', 'alice')], ['approval.time']],
  ['an end before its time', [{ type: 'request.expired', id: 'two', plan }], ['approval.time']],
  ['a list left out', [event.lists([0, 4, 31])], ['reference.number']],
  ['a list again', [event.lists([0, 2, 31])], ['reference.number']],
  ['a list of what is to come', [event.lists([0, 3, 1000])], ['reference.number']],
  ['nothing in a list of all that there is', [event.lists([0, 3, good.length])], []],
  ['a list of one entry more', [event.lists([0, 3, good.length + 1])], ['reference.number']],
  ['nothing in the last of 128 lists', [event.lists([127, 1, 31])], []],
  ['a list more than an issuer has of which nothing is said', [event.lists([128, 1, 31])], ['reference.number']],
  ['nothing in the lists of an issuer that has two', [halves, listsOf('next', 0, 1)], []],
  ['a list more than its entry says', [halves, listsOf('next', 1, 2)], ['reference.number']],
  ['an end of what was never issued, on another list', [event.abandoned(92, { shard: 93 })], ['reference.number']],
  ['a revocation on another list', [event.revoked(6, 'superseded', { shard: 7 })], ['reference.number']],
  [
    'a release on another list',
    [event.revoked(6, 'certificateHold'), { ...event.released(6), shard: 7 } as RollEvent],
    ['reference.number'],
  ],
  ['a list of no issuer', [{ ...event.lists([0, 1, 31]), issuer: 'x' } as RollEvent], ['reference.missing']],
  ['a list that came in for no issuer', [{ ...imported, issuer: 'x' }], ['reference.missing']],
  ['a move from another state', [event.moved('retired', 'retiring')], ['reference.state']],
  ['a move that there is not', [event.moved('activated', 'crl-only')], ['reference.state']],
  ['a move of nothing', [event.moved('retired', 'crl-only', { issuer: 'x' })], ['reference.missing']],
  ['a move in another authority', [event.moved('retired', 'crl-only', { authority: 'x' })], ['reference.missing']],
  [
    'a certificate of an issuer that has ended',
    [event.moved('retired', 'crl-only'), event.issued(90)],
    ['reference.state'],
  ],
  ['an issuer again', [beginning[2] as RollEvent], ['reference.state']],
  [
    'a version left out',
    [{ ...beginning[3], profile: { name: 'server', version: 3 } } as RollEvent],
    ['reference.number'],
  ],
  ['a version of a provider left out', [provided(1), provided(3)], ['reference.number']],
  ['a version of a provider again', [provided(1), provided(2), provided(2)], ['reference.number']],
  ['a principal disabled that there is not', [closed('eve')], ['reference.missing']],
  ['a grant to nobody', [granted('eve', [])], ['reference.missing']],
  ['a grant again', [granted('alice', [])], ['reference.state']],
  ['a grant revoked twice', [granted('bob', [], 'revoked'), granted('bob', [], 'revoked')], ['reference.missing']],
  ['a token of nobody', [token('created', 'eve')], ['reference.missing']],
  ['a token again', [token('created'), token('created')], ['reference.state']],
  ['a token revoked twice', [token('created'), token('revoked'), token('revoked')], ['reference.missing']],
  ['a credential of nobody', [credential('created', 'eve')], ['reference.missing']],
  ['a credential again', [credential('created'), credential('created')], ['reference.state']],
  [
    'a credential revoked twice',
    [credential('created'), credential('revoked'), credential('revoked')],
    ['reference.missing'],
  ],
  ['a request for an issuer that is there', [asked(issuer.name, digest)], ['reference.state']],
  ['nothing in an issuer with the key that was made for it', [asked('next', issuer.spki), staged], []],
  ['nothing in a place of a key that waits', [asked('next', issuer.spki), moved('next', issuer.spki)], []],
  ['a place of another key than waits', [asked('next', issuer.spki), moved('next', digest)], ['reference.key']],
  ['a place of the key of no issuer', [moved('next', digest)], ['reference.missing']],
  ['nothing in a chain that begins with its issuer', [chained(issuer.name, own)], []],
  ['a chain of no issuer', [chained('next', own)], ['reference.missing']],
  [
    'a key of no issuer',
    [{ type: 'key.opened', issuer: 'next', key: 'file:x', spki: digest, attributes: null }],
    ['reference.missing'],
  ],
  ['a principal again', [beginning[1] as RollEvent], ['reference.state']],
  [
    'a principal disabled twice',
    [
      { type: 'principal.disabled', principal: 'admin', by: 'admin' },
      { type: 'principal.disabled', principal: 'admin', by: 'admin' },
    ],
    ['reference.state'],
  ],
  [
    'a token that was never created',
    [{ type: 'token.revoked', token: 'x', principal: 'admin', label: '', expires: null, by: 'admin' }],
    ['reference.missing'],
  ],
  [
    "a key that is not the issuer's",
    [{ type: 'key.opened', issuer: 'default', key: 'file:x', spki: digest, attributes: null }],
    ['reference.key'],
  ],
  ['a chain that begins with another certificate', [chained(issuer.name, digest)], ['reference.key']],
  ['one among chains that begin with their issuer', [chained(issuer.name, own, digest)], ['reference.key']],
  ["a place of a key that is not the issuer's", [moved(issuer.name, digest)], ['reference.key']],
  ['an issuer with another key than was made for it', [asked('next', digest), staged], ['reference.key']],
  ['nothing in a key of the roll under its name', [opened(roll.key.name, ownKey)], []],
  ['a key of the roll under another name', [opened('x', ownKey)], ['reference.key']],
  ['a key of the roll that is none', [opened('x', 'x')], ['reference.key']],
  ['nothing in a move to one server after the other', [adopted('7', null), adopted('9', '7')], []],
  ['nothing in a move from where the roll was opened', [opened(roll.key.name, ownKey), adopted('9', '7')], []],
  ['a move from another server than the last', [adopted('7', null), adopted('9', '8')], ['reference.state']],
  [
    'a move from nowhere after the roll was opened',
    [opened(roll.key.name, ownKey), adopted('9', null)],
    ['reference.state'],
  ],
  [
    'an issuer without a certificate',
    [{ ...(beginning[2] as object), issuer: 'next', certificate: 'MIIB' } as RollEvent],
    ['certificate.text'],
  ],
]

const before = await verifyAll(entries, certificates)

for (const [what, after, codes] of cases) {
  t.test(`found: ${what}`, async (t) => {
    const altered = entriesOf([...good, ...after])
    const expected = codes.map((code) => `${altered.length - 1} ${code}`)
    const { findings } = await verifyAll(altered, certificates)
    t.same(codesOf(findings), expected, findings.map(({ message }) => message).join())
    let from = before.state
    const found: string[] = []
    for (const one of altered.slice(last)) {
      const { findings, state } = await verifyAll([one], certificates, { from })
      found.push(...codesOf(findings))
      from = state
    }
    t.same(found, expected, 'saved after each entry')
  })
}

t.test('an issuer becomes what the service makes of it, and nothing else', async (t) => {
  const states = ['staged', 'active', 'retiring', 'crl-only', 'retired']
  const allowed: Readonly<Record<string, readonly [to: string, ...from: readonly string[]]>> = {
    activated: ['active', 'staged', 'retiring'],
    retiring: ['retiring', 'active'],
    closed: ['crl-only', 'retiring'],
    discarded: ['retired', 'staged'],
    retired: ['retired', 'retiring', 'crl-only'],
    halted: ['crl-only', 'staged', 'active', 'retiring'],
  }
  const of = { issuer: 'next' }
  for (const [move, [to, ...from]] of Object.entries(allowed))
    for (const state of states) {
      // The last one begins elsewhere, and is told so.
      const probe = event.moved('retired', states.find((one) => one !== to) as string, of)
      const events = [...beginning, { ...staged, state } as RollEvent, event.moved(move, state, of), probe]
      const { findings } = await verifyAll(entriesOf(events), certificates)
      const [first, then] = findings.map(({ message }) => message).toReversed()
      t.match(first, new RegExp(`^the issuer next is ${to}, not `))
      t.equal(then, from.includes(state) ? undefined : `an issuer that is ${state} cannot become ${to}`)
    }
})

t.test('what was begun before its time was over, or somebody went, is issued in the minutes after it', async (t) => {
  const first = '2026-11-24T12:01:00.000Z'
  const granting = ['vault-1', 'vault-2']
  const ends: readonly (readonly [what: string, code: string, events: readonly RollEvent[]])[] = [
    ['the time of the request', 'approval.time', []],
    ['a grant to approve', 'approval.missing', [granted('alice', granting, 'revoked')]],
    ['who has approved', 'approval.missing', [closed('alice')]],
    ['who has asked', 'approval.missing', [closed('admin')]],
  ]
  for (const [what, code, events] of ends)
    for (const [after, codes] of [
      [120, []],
      [131, [code]],
    ] as const) {
      const before = [
        ...good,
        created('five', 1, { expires: what.startsWith('the time') ? first : '2027-01-01T00:00:00.000Z' }),
      ]
      const head = entriesOf([...before, approved('five', 'alice'), ...events])
      const ended = what.startsWith('the time') ? Date.parse(first) : timeOf(head.at(-1))
      const text = encodeEntry(approvedIssue('five', 1), new Date(ended + after * 1000))
      const issued = storedOf(head.length, text)
      const expected = codes.map((one) => `${head.length} ${one}`)
      const { findings } = await verifyAll([...head, issued], certificates)
      t.same(codesOf(findings), expected, `${what}, ${after} s`)
      const { state: from } = await verifyAll(head, certificates)
      const went = await verifyAll([issued], certificates, { from })
      t.same(codesOf(went.findings), expected, `${what}, ${after} s, saved before`)
    }
})

t.test('who may approve again has not gone', async (t) => {
  const granting = ['vault-1', 'vault-2']
  const head = entriesOf([
    ...[...good, approved('two', 'alice'), granted('alice', granting, 'revoked')],
    { ...(granted('alice', granting) as object), grant: 'another' } as RollEvent,
  ])
  const text = encodeEntry(approvedIssue('two', 1), new Date(timeOf(head.at(-1)) + 600_000))
  t.same((await verifyAll([...head, storedOf(head.length, text)], certificates)).findings, [])
})

const timeOf = (stored: Stored | undefined): number =>
  Date.parse(JSON.parse(Buffer.from(stored?.octets ?? []).toString()).time)

t.test('found: what is no entry, and the entries after it are read all the same', async (t) => {
  const bad: readonly (readonly [code: string | undefined, text: string])[] = [
    ['entry.text', 'hello'],
    ['entry.text', '[]'],
    ['entry.text', '['.repeat(60_000)],
    ['entry.text', encodeEntry(beginning[0] as RollEvent, new Date()).replace('{', '{ ')],
    ['entry.type', '{"time":"2026-11-24T12:00:24.000Z","type":"certificate.issue","v":1}'],
    ['entry.type', '{"time":"2026-11-24T12:00:24.000Z","type":"constructor","v":1}'],
    ['entry.type', `{"type":"service.started","v":${'['.repeat(30_000)}${']'.repeat(30_000)}}`],
    ['entry.type', '[{}]'.slice(1, -1)],
    ['entry.type', '{"mode":"x","time":"2026-11-24T12:00:24.000Z","type":"service.started","v":2,"version":"1"}'],
    ['entry.form', '{"time":"2026-11-24T12:00:24.000Z","type":"service.started","v":1,"version":"1"}'],
    [
      'entry.form',
      '{"mode":"x","more":1,"time":"2026-11-24T12:00:24.000Z","type":"service.started","v":1,"version":"1"}',
    ],
    ['entry.time', '{"mode":"x","time":"2026-11-24T12:00:22.999Z","type":"service.started","v":1,"version":"1"}'],
    // Of one batch, for example.
    [undefined, '{"mode":"x","time":"2026-11-24T12:00:23.000Z","type":"service.started","v":1,"version":"1"}'],
    ['entry.size', 'x'.repeat(65_536)],
    ['entry.text', 'x'.repeat(65_535)],
  ]
  for (const [code, text] of bad) {
    const octets = Buffer.from(text)
    const altered: { index: number; octets: Buffer }[] = [
      ...entries.slice(0, 24).map(({ index, octets }) => ({ index, octets: Buffer.from(octets) })),
      { index: 24, octets },
      ...entries.slice(24).map(({ index, octets }) => ({ index: index + 1, octets: Buffer.from(octets) })),
    ]
    const { findings } = await verifyAll(altered, certificates)
    // The lists after it cover as many as before, and the plan was of a smaller roll: nothing follows from one entry more.
    t.same(codesOf(findings), code === undefined ? [] : [`24 ${code}`], findings.map(({ message }) => message).join())
  }
})

t.test('found: entries that are missing, doubled or in another order', async (t) => {
  const checkpoint = await checkpointAt(entries, last)
  const without = entries.filter(({ index }) => index !== 10)
  t.same(codesOf((await verifyAll(without, certificates, { checkpoints: [checkpoint] })).findings), [
    '10 entry.order',
    `${last} checkpoint.root`,
  ])
  // Two of them within the batch that has the gap.
  const before = await Promise.all([5, 9, 10].map((size) => checkpointAt(entries, size)))
  t.same(
    codesOf((await verifyAll(without, certificates, { checkpoints: before })).findings),
    ['10 entry.order'],
    'as far as it goes there is a root',
  )
  const gap = entries.filter(({ index }) => index < 10 || index > 12)
  const within = await Promise.all([10, 11, 12, 13, 14, last].map((size) => checkpointAt(entries, size)))
  const { findings } = await verifyAll(gap.slice(0, -1), certificates, { checkpoints: within })
  t.equal(findings[0]?.message, 'entries 10 to 12 are missing')
  t.same(
    codesOf(findings),
    ['10 entry.order', ...[11, 12, 13, 14].map((size) => `${size} checkpoint.root`), `${last} checkpoint.beyond`],
    'there is no root over what is missing, nor after it',
  )
  const doubled = [...entries.slice(0, 11), ...entries.slice(10)]
  t.same(codesOf((await verifyAll(doubled, certificates, { checkpoints: [checkpoint] })).findings), ['10 entry.order'])
  const { state } = await verifyAll(without, certificates)
  t.equal(state.tree, null, 'and there is no root any more')
  const later = entriesOf([...good, event.issued(90)]).slice(last)
  t.same((await verifyAll(later, certificates, { from: state })).findings, [])
})

t.test('found: an altered entry, by its leaf where that is stored, and else by the next checkpoint', async (t) => {
  const checkpoints = [
    await checkpointAt(entries, 9),
    await checkpointAt(entries, 15),
    await checkpointAt(entries, last),
  ]
  const other = storedOf(
    12,
    Buffer.from(entries[12]?.octets ?? [])
      .toString()
      .replace('"admin"', '"admim"'),
  )
  const altered: readonly Stored[] = entries.with(12, other)
  const found = await verifyAll(
    altered.map(({ index, octets }) => ({ index, octets })),
    certificates,
    { checkpoints },
  )
  t.same(codesOf(found.findings), ['12 reference.missing', '15 checkpoint.root', `${last} checkpoint.root`])
  const leaf = entries[12]?.leaf as Uint8Array
  const named = await verifyAll(entries.with(12, { ...other, leaf }), certificates, { checkpoints })
  t.same(codesOf(named.findings).slice(0, 2), ['12 entry.leaf', '12 reference.missing'])
})

t.test('found: an entry of which only the leaf is left, and the tree goes on with it', async (t) => {
  const lost = entries.map(({ index, octets, leaf }) =>
    index === 23 ? { index, octets: undefined, leaf } : { index, octets, leaf },
  )
  const { findings } = await verifyAll(lost, certificates, { checkpoints: [await checkpointAt(entries, last)] })
  t.same(codesOf(findings), ['23 entry.missing'])
})

t.test('found: checkpoints over more than there is, of another fork, by another key, and what is none', async (t) => {
  const fork = entriesOf(good.with(8, event.abandoned(70)))
  const stranger = newSigner('roll.example/1')
  const byStranger = { ...depsOf(certificates, []), keys: { roll: [stranger.key] } }
  const checkpoints = [
    await checkpointAt(entries, last),
    await checkpointAt(fork, 8),
    await checkpointAt(fork, 9),
    'hello',
  ]
  const { findings } = await verifyAll(entries.slice(0, last - 1), certificates, { checkpoints })
  t.same(codesOf(findings), ['0 checkpoint.invalid', '9 checkpoint.root', `${last} checkpoint.beyond`])
  const named = checkpoints.map((note, i) => ({ note, name: `seen/${i}` }))
  const told: string[] = []
  const verifier = await openRollVerifier({
    ...{ ...depsOf(certificates, []), checkpoints: named },
    tell: ({ code, message }) => told.push(`${code} ${/ \((seen\/\d)\)$/.exec(message)?.[1]}`),
  })
  await verifier.add(entries.slice(0, last - 1))
  await verifier.finish()
  const expected = ['checkpoint.invalid seen/3', 'checkpoint.root seen/2', 'checkpoint.beyond seen/0']
  t.same(told, expected, 'each names the file that it is in')
  const found: Parameters<typeof codesOf>[0][number][] = []
  const [note = ''] = checkpoints
  const seen = [{ note }, { note, name: 'seen/by-others' }]
  await openRollVerifier({ ...byStranger, checkpoints: seen, tell: (one) => found.push(one) })
  const why = 'note.unsigned: none of its signatures is by a known key'
  t.same(found, [
    { index: 0, code: 'checkpoint.invalid', message: why },
    { index: 0, code: 'checkpoint.invalid', message: `${why} (seen/by-others)` },
  ])
})

t.test('a message is one short line, whatever names are on the roll', async (t) => {
  const name = `\u001b[2J\u202e\u2028${'x'.repeat(60_000)}`
  const { findings } = await verifyAll(entriesOf([...good, event.issued(90, { principal: name })]), certificates)
  t.same(codesOf(findings), [`${last} reference.missing`])
  t.match(findings[0]?.message, /^there is no principal \ufffd\[2J\ufffd\ufffdx{200,}\u2026$/)
  t.ok((findings[0]?.message.length ?? 0) < 310)
})

t.test('a checker that breaks is an error, and not a finding', async (t) => {
  const broken = { ...certificates, verifyCertificates: () => Promise.reject(new Error('no more threads')) }
  await t.rejects(verifyAll(entries, broken), { message: 'no more threads' })
})

t.test('nor is one that breaks at a checkpoint, and one that says nothing has found nothing good', async (t) => {
  const checkpoints = [await checkpointAt(entries, last)]
  const verify = () => Promise.reject(new Error('no more threads'))
  const broken = openRollVerifier({ ...depsOf(certificates, [], checkpoints), verify })
  await t.rejects(broken, { message: 'no more threads' })
  const { findings } = await verifyAll(entries, { ...certificates, verifyCertificates: async () => [] })
  const issued = good.filter(({ type }) => type === 'certificate.issued')
  t.equal(codesOf(findings).filter((code) => code.endsWith(' certificate.signature')).length, issued.length)
  t.equal(findings.length, issued.length)
})

for (const end of ['finish', 'save'] as const)
  t.test(`signatures that take their time are waited for: ${end}`, async (t) => {
    const found: Parameters<typeof codesOf>[0][number][] = []
    const slow = async (signed: readonly unknown[]) => {
      await new Promise((resolve) => setTimeout(resolve, 20))
      return signed.map(() => false)
    }
    const verifier = await openRollVerifier({
      ...depsOf({ ...certificates, verifyCertificates: slow }, []),
      tell: (one) => found.push(one),
    })
    await verifier.add(entries)
    t.same(found, [])
    await verifier[end]()
    t.equal(found.length, good.filter(({ type }) => type === 'certificate.issued').length)
  })

t.test('while signatures take their time entries are read on, but for many of them', async (t) => {
  const checks: (() => void)[] = []
  const verifyCertificates = (signed: readonly unknown[]) =>
    new Promise<readonly boolean[]>((resolve) => checks.push(() => resolve(signed.map(() => true))))
  const verifier = await openRollVerifier(depsOf({ ...certificates, verifyCertificates }, []))
  const at = good.findIndex(({ type }) => type === 'certificate.issued')
  await verifier.add(entries.slice(0, at))
  for (const one of entries.slice(at, at + 4)) await verifier.add([one])
  let isRead = false
  const fifth = verifier.add(entries.slice(at + 4, at + 5)).then(() => {
    isRead = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  t.same([checks.length, isRead], [5, false])
  checks[0]?.()
  await fifth
  for (const check of checks) check()
  t.equal((await verifier.finish()).size, at + 5)
})

t.test('each entry that is older than any before it is told of', async (t) => {
  const started = (time: string) =>
    Buffer.from(`{"mode":"x","time":"2026-11-24T12:00:${time}Z","type":"service.started","v":1,"version":"1"}`)
  const old = ['22.000', '22.500', '23.000'].map((time, i) => ({ index: 24 + i, octets: started(time) }))
  const { findings } = await verifyAll([...entries.slice(0, 24), ...old], certificates)
  t.same(codesOf(findings), ['24 entry.time', '25 entry.time'])
})

t.test('subtrees are told of as they become complete', async (t) => {
  const many = entriesOf([...beginning, ...Array.from({ length: 600 }, (_, n) => event.abandoned(n))])
  const told: string[] = []
  const deps = {
    ...depsOf(certificates, []),
    completed: ({ level, index }: { level: number; index: number }) => told.push(`${level}/${index}`),
  }
  const verifier = await openRollVerifier(deps)
  await verifier.add(many)
  t.same(told, ['1/0', '1/1'])
})

t.test('every finding that there is has been found above', async (t) => {
  t.same(
    Object.keys(meanings).filter((code) => !seen.has(code)),
    [],
  )
})

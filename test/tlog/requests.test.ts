/** What the verifier remembers of a request that people must approve, where more than one entry of it is looked at. */
import t from 'tap'

import { openRollCertificates } from '../../src/auditor/certificates.ts'
import { encodeEntry, type RollEvent } from '../../src/tlog/entries.ts'
import { approved, approvedIssue, closed, created, decided, digestOf, granted, plan, wanting } from './requests.ts'
import { beginning, entriesOf, issuer, serialOf, storedOf, type Verified, verifyAll } from './world.ts'

const certificates = openRollCertificates(1)
t.teardown(() => certificates.close())

const both = ['vault-1', 'vault-2']
const head: readonly RollEvent[] = [
  ...beginning,
  { type: 'principal.created', principal: 'alice', by: 'admin' },
  { type: 'principal.created', principal: 'bob', by: 'admin' },
  wanting(1),
  wanting(2),
  granted('alice', both),
  granted('bob', ['vault-2']),
  created('one', 1),
  created('two', 2),
]
/** What is found from the end of `head` on, by the place of its event there. */
const codesOf = ({ findings }: Verified): readonly string[] =>
  findings.map(({ index, code }) => `${index - head.length} ${code}`)
const verify = async (...events: readonly RollEvent[]): Promise<readonly string[]> =>
  codesOf(await verifyAll(entriesOf([...head, ...events]), certificates))

const asRequester = { ...(granted('bob', both) as object), grant: 'other', role: 'requester' } as RollEvent
const other = 'cd'.repeat(32)

for (const [what, events, codes] of [
  ['a grant to ask is none to approve', [asRequester, approved('one', 'bob')], ['1 approval.approver']],
  [
    'whoever has asked decides nothing, with whatever grant, and does not count',
    [granted('admin', both), approved('one', 'admin'), approvedIssue('one', 1)],
    ['1 approval.approver', '2 approval.missing'],
  ],
  [
    'one who approves twice counts once',
    [approved('two', 'bob'), approved('two', 'bob'), approvedIssue('two', 2)],
    ['1 approval.approver', '2 approval.missing'],
  ],
  [
    'an approval without a grant is told where it is, and not of the certificate as well',
    [approved('one', 'bob'), approvedIssue('one', 1)],
    ['0 approval.approver'],
  ],
  [
    'one that is created again stays what it was',
    [created('one', 1, { principal: 'bob', plan: other }), approved('one', 'alice'), approvedIssue('one', 1)],
    ['0 approval.plan', '0 reference.state'],
  ],
  [
    'what is no certificate was approved as well as any',
    [approved('one', 'alice'), approvedIssue('one', 1, { certificate: 'MIIB' })],
    ['1 certificate.text'],
  ],
] as readonly (readonly [string, readonly RollEvent[], readonly string[]])[])
  t.test(what, async (t) => {
    t.same(await verify(...events), codes)
  })

t.test('whoever asks on behalf of another is shown to people as in the certificate’s entry', async (t) => {
  const origin = { user: 'alice' }
  const shown = { ...decided, origin }
  const of = { plan: digestOf(shown) }
  const events = [created('five', 1, { decided: shown, ...of }), approved('five', 'alice', of.plan)]
  t.same(await verify(...events, approvedIssue('five', 1, { origin, ...of })), [])
  t.same(await verify(...events, approvedIssue('five', 1, of)), ['2 approval.plan'])
})

t.test('names are in no order', async (t) => {
  const values = ['a.example.com', 'b.example.com']
  const [names, turned] = [values, values.toReversed()].map((of) =>
    of.map((value) => ({ kind: 'dns', value }) as const),
  )
  const certificate = issuer.certify(serialOf(91), { ...(names && { names }) })
  for (const shown of [names, turned, names?.slice(1)].map((one) => ({ ...decided, names: one }))) {
    const of = { plan: digestOf(shown) }
    const events = [created('five', 1, { decided: shown, ...of }), approved('five', 'alice', of.plan)]
    const isAll = shown.names?.length === 2
    t.same(await verify(...events, approvedIssue('five', 1, { certificate, ...of })), isAll ? [] : ['2 approval.plan'])
  }
})

t.test('whatever stands where a plan has lists, what is issued is another certificate', async (t) => {
  for (const what of ['names', 'keyUsage', 'extendedKeyUsage'])
    for (const value of [null, 5, 'x', {}, [5]]) {
      const shown = { ...decided, [what]: value }
      const of = { plan: digestOf(shown) }
      const events = [created('five', 1, { decided: shown, ...of }), approved('five', 'alice', of.plan)]
      t.same(
        await verify(...events, approvedIssue('five', 1, of)),
        ['2 approval.plan'],
        JSON.stringify({ [what]: value }),
      )
    }
})

/** Each begins 130 seconds before its certificate at the earliest, and then nothing may have ended yet. */
t.test('at the very moment at which something ends it has ended', async (t) => {
  const end = '2026-11-24T18:00:00.000Z'
  const at = (event: RollEvent, afterMs: number) => ({ event, time: new Date(Date.parse(end) + afterMs) })
  const five = created('five', 1, { expires: end })
  const soon = Date.parse('2026-11-24T13:00:00.000Z') - Date.parse(end)
  const expired: RollEvent = { type: 'request.expired', id: 'five', plan }
  const yes = approved('five', 'alice')
  const later = created('five', 1)
  const issue = approvedIssue('five', 1)
  for (const [what, events, codes] of [
    ['approved before', [at(five, soon), at(yes, -1)], []],
    ['approved then', [at(five, soon), at(yes, 0)], ['1 approval.time']],
    ['expired before', [at(five, soon), at(expired, -1)], ['1 approval.time']],
    ['expired then', [at(five, soon), at(expired, 0)], []],
    ['begun before its end', [at(five, soon), at(yes, soon), at(issue, 129_999)], []],
    ['begun at its end', [at(five, soon), at(yes, soon), at(issue, 130_000)], ['2 approval.time']],
    ...(
      [
        ['a grant', granted('alice', both, 'revoked')],
        ['who has approved', closed('alice')],
        ['who has asked', closed('admin')],
      ] as const
    ).flatMap(([what, gone]) => [
      [`${what}, before`, [at(later, soon), at(yes, soon), at(gone, 0), at(issue, 129_999)], []] as const,
      [
        `${what}, then`,
        [at(later, soon), at(yes, soon), at(gone, 0), at(issue, 130_000)],
        ['3 approval.missing'],
      ] as const,
    ]),
  ] as const) {
    const entries = events.map(({ event, time }, i) => storedOf(head.length + i, encodeEntry(event, time)))
    t.same(codesOf(await verifyAll([...entriesOf(head), ...entries], certificates)), codes, what)
  }
})

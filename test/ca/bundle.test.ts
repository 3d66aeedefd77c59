/** What is to be trusted and until when, and what is sent along: of issuers with several ways up, in every state. */
import t from 'tap'

import { anchorsOf, sentAlong } from '../../src/ca/issuers/bundle.ts'
import type { IssuerRecord } from '../../src/ca/records.ts'
import { openClientCa } from '../helpers/clients.ts'

const day = 86_400
const now = Math.floor(Date.now() / 1000) * 1000
/** A certificate that ends so many days from now, and its end. */
const certificateFor = (days: number) => {
  const { der } = openClientCa(`for ${days} days`, { to: days * day })
  return der
}
const [root, other] = [certificateFor(3_000), certificateFor(4_000)]

const issuerOf = (name: string, over: Partial<IssuerRecord> & { readonly days?: number } = {}): IssuerRecord => {
  const { days = 1_000, ...rest } = over
  return {
    name,
    state: 'active',
    since: new Date(now),
    certificate: certificateFor(days),
    chain: [root],
    ...rest,
  } as IssuerRecord
}

/** Names of the issuers of each, and the days from now on for which it is needed, by so much validity at the longest. */
const told = (issuers: readonly IssuerRecord[], kind: 'issuers' | 'roots', longestDays: number) =>
  anchorsOf(issuers, kind, longestDays * day).map(({ issuers, neededUntil }) => [
    issuers.join(' '),
    Math.round((neededUntil.getTime() - now) / 1000 / day),
  ])

t.test(
  'an issuer that signs or may sign yet is needed until it ends, one that has stopped until what it signed has',
  (t) => {
    const since = new Date(now - 10 * day * 1000)
    for (const [state, expected] of [
      ['staged', 1_000],
      ['active', 1_000],
      ['retiring', 80],
      ['crl-only', 80],
    ] as const) {
      const issuer = issuerOf('one', { state, since })
      for (const kind of ['issuers', 'roots'] as const) t.same(told([issuer], kind, 90), [['one', expected]], state)
    }
    t.same(told([issuerOf('one', { state: 'retired', since })], 'issuers', 90), [], 'one that has retired for nothing')
    t.same(
      told([issuerOf('one', { state: 'retiring', since })], 'issuers', 9_000),
      [['one', 1_000]],
      'nor past its end',
    )
    t.end()
  },
)

t.test('a root of several is told once, and needed for as long as the longest of them, in whatever order', (t) => {
  const stopped = issuerOf('stopped', { state: 'retiring' })
  const brief = issuerOf('brief', { days: 400 })
  const far = issuerOf('far', { chain: [certificateFor(2_000), root], days: 900 })
  for (const [issuers, names] of [
    [[stopped, brief, far], 'stopped brief far'],
    [[far, brief, stopped], 'far brief stopped'],
    [[brief, far, stopped], 'brief far stopped'],
  ] as const)
    t.same(told(issuers, 'roots', 90), [[names, 900]])
  t.same(told([stopped, brief], 'issuers', 90), [
    ['stopped', 90],
    ['brief', 400],
  ])
  const crossed = issuerOf('crossed', { otherChains: [[certificateFor(2_500), other]] })
  t.same(
    anchorsOf([crossed, brief], 'roots', day).map(({ certificate, issuers }) => [certificate, issuers]),
    [
      [root, ['crossed', 'brief']],
      [other, ['crossed']],
    ],
    'each way up ends at one',
  )
  const twice = issuerOf('twice', { otherChains: [[certificateFor(2_500), root]] })
  t.same(told([twice, brief], 'roots', 90), [['twice brief', 1_000]], 'one with two ways up to it is named once')
  t.end()
})

t.test('what is sent along is the issuer and all between it and its roots, each once', (t) => {
  const [between, cross] = [certificateFor(2_000), certificateFor(2_500)]
  const direct = issuerOf('direct')
  t.same(sentAlong(direct), [direct.certificate])
  const deep = issuerOf('deep', { chain: [between, root], otherChains: [[between, cross, other]] })
  t.same(sentAlong(deep), [deep.certificate, between, cross])
  t.end()
})

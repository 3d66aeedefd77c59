/** Which move of an issuer is made from which state, and what stands against it. */
import t from 'tap'

import type { IssuerRow } from '../../src/ca/issuers/issuer.ts'
import { decideMove, type Move, moves, type World } from '../../src/ca/issuers/issuer-moves.ts'
import { type IssuerState, issuerStates } from '../../src/ca/records.ts'
import { isProblem } from '../../src/errors.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { openTestRoot } from '../helpers/ceremony.ts'

const certificateOf = (days?: number): Buffer => parsePem(openTestRoot('A root', days).pem, 'CERTIFICATE')
const day = 86_400_000
const now = new Date()
const certificate = certificateOf()
const row = (name: string, state: IssuerState, made = certificate): IssuerRow => ({
  name,
  authority: 'a',
  state,
  since: new Date(now.getTime() - 60_000),
  certificate: made,
  chain: [],
  publicUrl: 'http://pki.test',
  shards: 1,
  keyUri: `file:${name}`,
})
const world: World = { now: () => now, stagingMs: 60_000, living: false, keyFault: undefined, isRevoked: false }

t.test('the table of moves: each state, each move', async (t) => {
  const outcome = (state: IssuerState, made: Move, more: Partial<World> = {}): string => {
    try {
      const rows = [row('one', state), row('other', 'active')]
      return decideMove(rows, 'one', made, { ...world, ...more })
        .map(({ issuer, to }) => `${issuer.name}:${to}`)
        .join(' ')
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  const allowed: Readonly<Record<string, string>> = {
    'staged activate': 'one:active other:retiring',
    'retiring activate': 'one:active other:retiring',
    'active retire': 'one:retiring',
    'retiring close': 'one:crl-only',
    'staged discard': 'one:retired',
    'retiring end': 'one:retired',
    'crl-only end': 'one:retired',
    'staged halt': 'one:crl-only',
    'active halt': 'one:crl-only',
    'retiring halt': 'one:crl-only',
  }
  for (const state of issuerStates)
    for (const made of moves)
      t.equal(outcome(state, made), allowed[`${state} ${made}`] ?? 'issuer.state', `${state} ${made}`)
  t.equal(outcome('staged', 'activate', { keyFault: 'it is away' }), 'issuer.state')
  t.equal(outcome('retiring', 'activate', { isRevoked: true }), 'issuer.state')
  t.equal(outcome('active', 'halt', { isRevoked: true }), 'one:crl-only')
  t.equal(outcome('staged', 'activate', { stagingMs: 60_001 }), 'issuer.state')
  const back = outcome('retiring', 'activate', { stagingMs: 60_001 })
  t.equal(back, 'one:active other:retiring', 'one that was active before goes back at once')
  t.equal(outcome('staged', 'activate', { now: () => new Date(Date.now() + 4_000 * day) }), 'issuer.state')
  t.equal(outcome('crl-only', 'end', { living: true }), 'issuer.state')

  const brief = row('brief', 'active', certificateOf(1))
  const later = { ...world, now: () => new Date(now.getTime() + 2 * day), stagingMs: 3 * day }
  t.same(
    decideMove([row('one', 'staged'), brief], 'one', 'activate', later).map(({ to }) => to),
    ['active', 'retiring'],
    'an issuer that has expired serves nobody, so that nobody is helped by waiting for those who fetch the bundle',
  )
})

/** To which states which issuers move, or the checks that stand against it. */
const decided = (rows: readonly IssuerRow[], made: Move, more: Partial<World> = {}): readonly string[] => {
  try {
    return decideMove(rows, 'one', made, { ...world, ...more }).map(({ issuer, to }) => `${issuer.name}:${to}`)
  } catch (error) {
    if (!isProblem(error, 'issuer.state')) throw error
    return (error.options.violations ?? []).map(({ check }) => check)
  }
}

t.test('an issuer is activated while it and all above it on one way up are valid', async (t) => {
  const [brief, later] = [certificateOf(1), { now: () => new Date(now.getTime() + 2 * day) }]
  const one = row('one', 'retiring')
  const refused = ['issuer.valid']
  t.same(decided([{ ...one, certificate: brief }], 'activate', later), refused)
  t.same(decided([{ ...one, chain: [brief] }], 'activate', later), refused, 'its root has expired')
  t.same(decided([{ ...one, chain: [certificate, brief] }], 'activate', later), refused)
  t.same(decided([{ ...one, chain: [certificate], otherChains: [[brief]] }], 'activate', later), ['one:active'])
  t.same(decided([{ ...one, chain: [brief], otherChains: [[certificate]] }], 'activate', later), ['one:active'])
  t.same(decided([{ ...one, chain: [brief], otherChains: [[certificate, brief]] }], 'activate', later), refused)

  const { notBefore, notAfter } = parseCertificate(brief).facts
  for (const [instant, ms, expected] of [
    [notBefore, -1, refused],
    [notBefore, 0, ['one:active']],
    [notAfter, 999, ['one:active']],
    [notAfter, 1_000, refused],
  ] as const)
    t.same(
      decided([{ ...one, certificate: brief }], 'activate', { now: () => new Date(instant.getTime() + ms) }),
      expected,
    )
})

t.test('only active issuers of the same authority count: for who is left, and for who is replaced', async (t) => {
  const other = (state: IssuerState, authority = 'a'): IssuerRow => ({ ...row('other', state), authority })
  const last = ['issuer.last']
  t.same(decided([row('one', 'active'), other('active')], 'retire'), ['one:retiring'])
  t.same(decided([row('one', 'active'), other('active', 'b')], 'retire'), last)
  for (const state of ['staged', 'retiring', 'crl-only', 'retired'] as const)
    t.same(decided([row('one', 'active'), other(state)], 'retire'), last, state)
  const brief = { ...other('active'), certificate: certificateOf(1) }
  const ended = parseCertificate(brief.certificate).facts.notAfter.getTime() + 1_000
  const retireAt = (time: number) => decided([row('one', 'active'), brief], 'retire', { now: () => new Date(time) })
  t.same(retireAt(ended - 1), ['one:retiring'])
  t.same(retireAt(ended), last, 'one that has expired signs nothing')
  for (const rows of [[other('active', 'b')], [other('retiring')], []])
    t.same(decided([row('one', 'staged'), ...rows], 'activate', { stagingMs: day }), ['one:active'], 'nobody is served')
  const two = ['other', 'another'].map((name) => row(name, 'active'))
  const all = ['one:active', 'other:retiring', 'another:retiring']
  t.same(decided([row('one', 'staged'), ...two], 'activate'), all, 'of several none is left active beside it')
  const [alone] = decideMove([row('one', 'active'), ...two], 'one', 'halt', world)
  t.match(alone, { issuer: { name: 'one' }, to: 'crl-only', type: 'issuer.halted' })
})

t.test('all that stands against a move is told at once', async (t) => {
  const rows = [row('one', 'staged', certificateOf(1)), row('other', 'active')]
  const later = {
    now: () => new Date(now.getTime() + 2 * day),
    stagingMs: 3 * day,
    keyFault: 'no token',
    isRevoked: true,
  }
  t.same(decided(rows, 'activate', later), ['issuer.published', 'issuer.valid', 'issuer.revoked', 'issuer.key'])
  t.throws(() => decideMove(rows, 'one', 'activate', { ...world, ...later }), {
    message: /: The issuer one: its chain must .*Z; a certificate .* yet; a CA above has .* one; no token\.$/,
  })
  t.throws(() => decideMove(rows, 'nobody', 'halt', world), { code: 'issuer.not_found', detail: /"nobody"/ })
})

t.test('each move is told on the roll as what it is', async (t) => {
  const typeOf = (state: IssuerState, made: Move) => decideMove([row('one', state)], 'one', made, world)[0]?.type
  t.equal(typeOf('staged', 'activate'), 'issuer.activated')
  t.equal(typeOf('retiring', 'close'), 'issuer.closed')
  t.equal(typeOf('staged', 'discard'), 'issuer.discarded')
  t.equal(typeOf('retiring', 'end'), 'issuer.retired')
  t.equal(typeOf('staged', 'halt'), 'issuer.halted')
  const [retiring] = decideMove([row('one', 'active'), row('other', 'active')], 'one', 'retire', world)
  t.equal(retiring?.type, 'issuer.retiring')
})

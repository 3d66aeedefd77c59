/** Which move of an issuer is made from which state, and what stands against it. */
import t from 'tap'

import type { IssuerRow } from '../../src/ca/issuer.ts'
import { decideMove, type Move, moves, type World } from '../../src/ca/issuer-moves.ts'
import { type IssuerState, issuerStates } from '../../src/ca/records.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { openTestRoot } from '../helpers/ceremony.ts'

const root = openTestRoot()

t.test('the table of moves: each state, each move', async (t) => {
  const now = new Date()
  const certificate = parsePem(root.pem, 'CERTIFICATE')
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
  const world: World = { now, stagingMs: 60_000, living: false, keyFault: undefined, isRevoked: false }
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
  t.equal(outcome('staged', 'activate', { now: new Date(Date.now() + 4_000 * 86_400_000) }), 'issuer.state')
  t.equal(outcome('crl-only', 'end', { living: true }), 'issuer.state')

  const brief = row('brief', 'active', parsePem(openTestRoot('Brief', 1).pem, 'CERTIFICATE'))
  const later = { ...world, now: new Date(now.getTime() + 2 * 86_400_000), stagingMs: 3 * 86_400_000 }
  t.same(
    decideMove([row('one', 'staged'), brief], 'one', 'activate', later).map(({ to }) => to),
    ['active', 'retiring'],
    'an issuer that has expired serves nobody, so that nobody is helped by waiting for those who fetch the bundle',
  )
})

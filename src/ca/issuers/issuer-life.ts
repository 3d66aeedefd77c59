/**
 * The life of an issuer: a key is made for it, a ceremony elsewhere certifies it, and from then on it moves from state
 * to state (`issuer-moves.ts`), each move with an event on the roll. The records and the world come in from outside.
 */

import { Problem } from '../../errors.ts'
import { defaultShards, listsText } from '../../tlog/entries.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { anchorsOf, waysUp } from './bundle.ts'
import { assertChainFits, assertWaysFit } from './certification-path.ts'
import type { IssuerRow } from './issuer.ts'
import { findPlace, relocateKey } from './issuer-key.ts'
import { decideMove, noIssuer } from './issuer-moves.ts'
import { makeRequest } from './issuer-request.ts'
import type { Issuers } from './issuers.ts'
import type { IssuerLife, IssuerLifeDeps, KeyPlace } from './life.ts'

export const openIssuerLife = (deps: IssuerLifeDeps): IssuerLife => {
  const { store, issuers, verify, clock } = deps
  const find = async (name: string): Promise<IssuerRow> => {
    const found = (await store.issuers()).find((issuer) => issuer.name === name)
    if (found) return found
    const isRequested = (await store.requests()).some((request) => request.name === name)
    throw isRequested ? uncertified(name) : noIssuer(name)
  }
  const assertNotImported = async (name: string, certificate: Buffer, shards: number): Promise<void> => {
    const there = (await store.issuers()).find((issuer) => issuer.name === name)
    if (there) throw there.certificate.equals(certificate) ? importedAlready(there, shards) : notRenewed(name)
  }
  const place = async (name: string): Promise<KeyPlace> => {
    const found = await findPlace(deps, name)
    if (found) return found
    throw noIssuer(name)
  }
  return {
    requests: store.requests,
    issuers: store.issuers,
    request: (ask, by) => {
      const keyName = deps.keyNameOf(ask.keyUri)
      return store.inTurn(keyName, () => makeRequest(deps, ask, by))
    },
    stage: async (name, { chain: [certificate, ...above], shards = defaultShards }, by) => {
      if (!certificate) throw noIssuer(name)
      // Before what it would be refused for today: what is on record already need not fit again.
      await assertNotImported(name, certificate, shards)
      const request = (await store.requests()).find((candidate) => candidate.name === name)
      if (!request) throw noIssuer(name)
      await assertChainFits({ chain: [certificate, ...above], csr: request.csr, now: clock(), verify })
      const row = {
        name,
        authority: request.authority,
        state: 'staged',
        certificate,
        chain: above,
        keyUri: request.keyUri,
        keySha256: keySha256Of(parseCertificate(certificate).facts.spki),
        publicUrl: deps.publicUrl,
        shards,
      } as const
      if (!(await store.addIssuer(row, by))) {
        await assertNotImported(name, certificate, shards)
        throw notRenewed(name)
      }
      await issuers.refresh()
      return find(name)
    },
    chain: async (name, chains, by) => {
      const issuer = await find(name)
      if (issuer.state === 'retired') throw retired(name, 'nobody needs a way up from it')
      await assertWaysFit({ issuer: issuer.certificate, above: waysUp(issuer).flat(), chains, now: clock(), verify })
      await store.addChains(
        issuer,
        chains.map(([, ...above]) => above),
        by,
      )
      await issuers.refresh()
      return find(name)
    },
    place,
    relocate: async (name, relocation) => {
      const found = await place(name)
      if ((await store.issuers()).some((issuer) => issuer.name === name && issuer.state === 'retired'))
        throw retired(name, 'nobody needs its key')
      const before = await relocateKey(deps, found, relocation)
      await issuers.refresh()
      await issuers
        .all()
        .find(({ issuer }) => issuer.name === name)
        ?.issuer.probe()
      return { ...found, keyUri: relocation.keyUri, before }
    },
    anchors: async (authority, kind) => {
      const mine = (await store.issuers()).filter((issuer) => issuer.authority === authority)
      if (mine.length === 0) throw new Problem('authority.not_found', 'There is no authority with this name.')
      const gone = kind === 'issuers' ? deps.revoked() : []
      const trusted = mine.filter((issuer) => !gone.includes(issuer.name))
      // Of those that have retired no list is looked at any more, and nobody trusts one.
      if (trusted.length < mine.length && trusted.every(({ state }) => state === 'retired')) throw allRevoked(authority)
      return anchorsOf(trusted, kind, await store.longestValidity(authority))
    },
    move: async (name, move, how) => {
      const issuer = await find(name)
      const keyFault = move === 'activate' ? await keyFaultOf(issuers, issuer) : undefined
      const isRevoked = deps.revoked().includes(name)
      await store.move(async ({ issuers: rows, now, living }) => {
        const world = { now, stagingMs: deps.stagingMs, keyFault, isRevoked }
        // Of one in another state, or that is none, that is told first, and by any clock.
        const decided = decideMove(rows, name, move, { ...world, living: false })
        if (move !== 'end') return decided
        return decideMove(rows, name, move, { ...world, living: await living(name) })
      }, how)
      await issuers.refresh()
      return find(name)
    },
  }
}

/** Whose answer was lost, or who goes on with what another has begun, has nothing left to import. */
const importedAlready = ({ name, state, shards }: IssuerRow, asked: number): Problem => {
  const kept = shards === asked ? '' : ` It has ${listsText(shards)} for good: another number is another issuer's.`
  return new Problem(
    'state.exists',
    `The issuer ${name} was imported already, with this very certificate, and is ${state}.${kept}`,
  )
}

const notRenewed = (name: string): Problem =>
  new Problem(
    'state.exists',
    `The name ${name}, its certificate or its key is that of an issuer already. None is renewed: another one follows it, with a name and a key of its own.`,
  )

const keySha256Of = (spki: Buffer): string => parsePublicKey(spki).sha256.toString('hex')

const keyFaultOf = async (issuers: Issuers, { name }: IssuerRow): Promise<string | undefined> => {
  await issuers.refresh()
  return issuers.byName(name).probe()
}

const allRevoked = (authority: string): Problem =>
  new Problem(
    'issuer.none_active',
    `A CA above has revoked every issuer of the authority ${JSON.stringify(authority)}.`,
    {
      retryAfter: 60,
    },
  )

const uncertified = (name: string): Problem => {
  const reason = 'its key waits for a certificate, which must be imported first'
  return new Problem(
    'issuer.state',
    `The issuer ${name} is requested: ${reason}. A request that is not wanted is left as it is: nothing trusts its key.`,
    { violations: [{ check: 'issuer.state', field: '/name', value: name, reason }] },
  )
}

const retired = (name: string, why: string): Problem =>
  new Problem('issuer.state', `The issuer ${name} has retired: ${why}.`, {
    violations: [{ check: 'issuer.state', field: '/name', value: name, reason: 'it has retired' }],
  })

/** Each is signed once in a period, changed or not. */
export const maxShards = 1024

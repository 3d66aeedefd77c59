/**
 * The life of an issuer: a key is made for it, a ceremony elsewhere certifies it, and from then on it moves from state
 * to state (`issuer-moves.ts`), each move with an event on the roll. The records and the world come in from outside.
 */
import { Problem } from '../../errors.ts'
import type { Keyring } from '../../keys/keyring.ts'
import { listsText, unsaidShards } from '../../tlog/entries.ts'
import type { KeyKind } from '../../x509/algorithms.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import type { CheckSignature } from '../../x509/csr.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import type { Subject } from '../../x509/subject.ts'
import type { IssuerRecord } from '../records.ts'
import type { Now } from '../revocation/revoke.ts'
import { type Anchor, type AnchorKind, anchorsOf, waysUp } from './bundle.ts'
import { assertChainFits, assertWaysFit } from './certification-path.ts'
import type { IssuerRow } from './issuer.ts'
import { findPlace, type KeyPlace, type Relocation, relocateKey } from './issuer-key.ts'
import { type Decided, decideMove, type Move, noIssuer } from './issuer-moves.ts'
import { makeRequest } from './issuer-request.ts'
import type { Issuers } from './issuers.ts'

/** A key that waits for its certificate. */
export interface IssuerRequest {
  readonly name: string
  readonly authority: string
  readonly keyUri: string
  /** PKCS#10, DER. */
  readonly csr: Buffer
  readonly createdAt: Date
  readonly createdBy: string
}

export interface NewIssuerRequest {
  readonly name: string
  readonly authority: string
  readonly subject: Subject
  readonly algorithm: KeyKind
  readonly keyUri: string
}

/** What a ceremony has made of a request, and what is fixed with it. */
export interface Certified {
  /** The issuer, those above it, its root last. */
  readonly chain: readonly Buffer[]
  /** How many lists what it revokes is cut into, for good: 1 to `maxShards`. Each certificate names its own. */
  readonly shards?: number
}

export interface IssuerLife {
  /**
   * Makes the key (or takes the one that is there, of this kind, and neither another issuer's nor the roll's) and a request for its certificate.
   * Throws `state.exists`, `issuer.token`, `key.unavailable`, `request.malformed`, `subject.syntax`.
   */
  request(ask: NewIssuerRequest, by: string): Promise<IssuerRequest>
  requests(): Promise<readonly IssuerRequest[]>
  /** As the records have them now. */
  issuers(): Promise<readonly IssuerRecord[]>
  /** Takes the certificate and the chain above it; the issuer is staged. Throws `issuer.not_found`, `issuer.key`, `issuer.chain`. */
  stage(name: string, certified: Certified, by: string): Promise<IssuerRecord>
  /**
   * Takes the ways up from an issuer, in place of those that it had: each begins with its certificate and ends with a root.
   * Throws `issuer.not_found`, `issuer.chain`, `issuer.state` for one that has retired.
   */
  chain(name: string, chains: readonly (readonly Buffer[])[], by: string): Promise<IssuerRecord>
  /** Where its key is, of one that is to be as well. Throws `issuer.not_found`. */
  place(name: string): Promise<KeyPlace>
  /**
   * Its key is elsewhere from now on, where it was opened and seen to sign; resolves to where it was. Again is nothing.
   * Throws `issuer.not_found`, `issuer.state` for one that has retired, `issuer.key_place`, `issuer.token`, `request.malformed`.
   */
  relocate(name: string, relocation: Relocation): Promise<KeyPlace & { readonly before: string }>
  /**
   * None that a CA above has revoked: whoever fetches it must not go on trusting that. Throws `authority.not_found`, and
   * `issuer.none_active` where no other is left, so that nobody puts an empty file in the place of theirs.
   */
  anchors(authority: string, kind: AnchorKind): Promise<readonly Anchor[]>
  /** Throws `issuer.not_found`, and `issuer.state` with each guard that refuses. Durable, and followed here, when it resolves. */
  move(name: string, move: Move, how: { readonly by: string; readonly reason: string | null }): Promise<IssuerRecord>
}

/** What the records do for it; each resolves when it is durable. */
export interface IssuerStore {
  issuers(): Promise<readonly IssuerRow[]>
  requests(): Promise<readonly IssuerRequest[]>
  /** One at a time of all instances, for each name of a key: two that look first would make two keys. */
  inTurn<T>(keyName: string, work: () => Promise<T>): Promise<T>
  /** False when the name or the key is that of another issuer or request. */
  addRequest(request: Omit<IssuerRequest, 'createdAt'>, spkiSha256: string): Promise<boolean>
  /** The same, of the certificate as well. */
  addIssuer(row: NewIssuer, by: string): Promise<boolean>
  /** Whether a key of an issuer that is called otherwise was ever on record under this URI. */
  isKeyUriOfOther(uri: string, name: string): Promise<boolean>
  /** Where the key of an issuer, or of a request, with this SPKI (SHA-256, hexadecimal) is from now on; resolves to where it was. */
  relocate(
    to: Pick<KeyPlace, 'name' | 'authority' | 'keyUri'>,
    spkiSha256: string,
    how: Pick<Relocation, 'reason' | 'by'>,
  ): Promise<string>
  /** Ways up from an issuer, in place of those that it had. */
  addChains(issuer: IssuerRow, chains: readonly (readonly Buffer[])[], by: string): Promise<void>
  /**
   * Decides and moves while nobody else can, and while no intent is recorded: what `decide` throws leaves all as it was.
   * No replica records an intent afterwards that the new state forbids.
   */
  move(decide: (found: Found) => Promise<readonly Decided[]>, how: { by: string; reason: string | null }): Promise<void>
  /** Seconds that a certificate of the authority was ever allowed to be valid. */
  longestValidity(authority: string): Promise<number>
}

export interface NewIssuer extends Omit<IssuerRow, 'since'> {
  /** Of its SPKI, hexadecimal: one key, one issuer, for good. */
  readonly keySha256: string
}

/** What a move is decided by. */
export interface Found {
  readonly issuers: readonly IssuerRow[]
  /** By the roll's time: the clocks of the replicas differ. */
  readonly now: Now
  /** Whether a certificate of this issuer is still valid by that time, and until when; or one that may have been signed may be. */
  living(issuer: string): Promise<boolean | Date>
}

export interface IssuerLifeDeps {
  readonly store: IssuerStore
  readonly keys: Pick<Keyring, 'open' | 'create'>
  readonly issuers: Issuers
  readonly verify: CheckSignature
  readonly clock: () => Date
  readonly stagingMs: number
  /** A sentence where no key may be under this URI. */
  readonly keyUriFault: (uri: string) => string | undefined
  /** How a URI says that its key signs; undefined where it leaves that to the kind of key. */
  readonly wayToSign: (uri: string) => string | undefined
  /** The same for whatever URIs are of one key in one place. */
  readonly keyNameOf: (uri: string) => string
  /** SPKI of the key that signs the roll: no issuer's. */
  readonly rollKey: Buffer
  /** What new issuers write into certificates, for life. */
  readonly publicUrl: string
  /** Those that a CA above has revoked, on each way up that they have. */
  readonly revoked: () => readonly string[]
}

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
  const oneByOne = openOneByOne()
  return {
    requests: store.requests,
    issuers: store.issuers,
    request: (ask, by) => {
      const keyName = deps.keyNameOf(ask.keyUri)
      return oneByOne(keyName, () => store.inTurn(keyName, () => makeRequest(deps, ask, by)))
    },
    stage: async (name, { chain: [certificate, ...above], shards = unsaidShards }, by) => {
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

/** Of works with the same name, each begins when the one before it has ended: the second finds what the first has made. */
const openOneByOne = () => {
  const last = new Map<string, Promise<unknown>>()
  return <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const mine = (last.get(name) ?? Promise.resolve()).then(work, work)
    last.set(name, mine)
    const done = (): void => {
      if (last.get(name) === mine) last.delete(name)
    }
    mine.then(done, done)
    return mine
  }
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

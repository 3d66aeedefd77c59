/**
 * Who a token of an identity provider makes somebody: its signature by its issuer's keys, then its claims by the newest
 * document. What was verified is remembered until the token ends, or the document or the keys change.
 */
import { hash } from 'node:crypto'

import { Problem } from '../../errors.ts'
import type { KeySet } from '../../keys/key-set.ts'
import type { TokenFigures } from '../../metrics.ts'
import {
  assertWithin,
  decideIdentity,
  type Identity,
  type Provider,
  readSpan,
  refusedText,
  type TokenSpan,
} from '../../policy/identity.ts'
import type { Access, Caller, Grant } from './access.ts'
import type { KeysFault, Providers, StoredProvider } from './providers.ts'

export interface TokensDeps {
  readonly providers: Pick<Providers, 'issuedBy' | 'spend'>
  readonly access: Pick<Access, 'callerNamed'>
  readonly openKeys: (provider: Provider) => KeySet
  readonly clock: () => Date
  /** Reads and verifies; they throw what `faultReason` has a word for. */
  readonly read: (token: string) => { readonly typ: string | undefined; readonly issuer: string }
  readonly verify: (token: string, algorithms: readonly string[], find: KeySet['find']) => Promise<Claims>
  /** Why a token is not what it should be; `unavailable` where that cannot be said; undefined for anything else. */
  readonly faultReason: (error: unknown) => string | undefined
}

type Claims = Readonly<Record<string, unknown>>

export interface Tokens {
  /**
   * Throws auth.*. One that is to be shown once is spent by this, unless its bearer has been let in with it before and is
   * only asked again.
   */
  authenticate(token: string, isAgain: boolean): Promise<Caller>
  readonly keysFault: KeysFault
  figures(): TokenFigures
}

export const openTokens = (deps: TokensDeps): Tokens => {
  const { providers, access, clock } = deps
  const lines = new Map<string, Line>()
  const verified = new Map<string, Verified>()

  const isCurrent = ({ stored: { provider } }: Line): boolean =>
    providers.issuedBy(provider.issuer)?.provider === provider

  const lineOf = (issuer: string): Line => {
    const stored = providers.issuedBy(issuer)
    if (!stored) throw refused('issuer')
    const found = lines.get(issuer)
    if (found && isCurrent(found)) return found
    const line = { stored, keys: deps.openKeys(stored.provider) }
    lines.set(issuer, line)
    return line
  }

  const verify = async (token: string): Promise<Verified> => {
    const { typ, issuer } = deps.read(token)
    const line = lineOf(issuer)
    const { provider } = line.stored
    if (!isOfType(typ, provider.document.type)) throw refused('type')
    const { generation } = line.keys
    const claims = await deps.verify(token, provider.algorithms, line.keys.find)
    const span = readSpan(provider, claims)
    assertWithin(span, clock().getTime())
    const subject = typeof claims.sub === 'string' ? claims.sub : ''
    return { line, span, generation, subject, identity: decideIdentity(provider, claims), isSpent: false }
  }

  /** Before anything of it is read; a token that was refused is looked at again. */
  const recall = async (token: string): Promise<Verified> => {
    const id = hash('sha256', token, 'latin1')
    const known = verified.get(id)
    if (known && isCurrent(known.line) && known.generation === known.line.keys.generation) {
      known.line.keys.keepUp()
      return known
    }
    const found = await verify(token)
    if (verified.size >= mostVerified) verified.clear()
    verified.set(id, found)
    return found
  }

  const spend = async (token: Verified, issuer: string): Promise<void> => {
    const { once } = token.identity
    if (once === null) return
    const until = new Date(token.span.until)
    const isFirst = !token.isSpent && (await providers.spend({ issuer, id: once, until }))
    token.isSpent = true
    if (!isFirst)
      throw new Problem('auth.replayed', 'This token was shown before, and counts once.', { reason: 'jwt.replayed' })
  }

  return {
    // The document is stored by then, and may be another's by now: nothing here is to hide that from who has applied it.
    keysFault: async (issuer) => {
      try {
        return await lineOf(issuer).keys.check()
      } catch {
        return undefined
      }
    },
    figures: () => ({
      verified: verified.size,
      keys: [...lines.values()]
        .filter(isCurrent)
        .flatMap(({ stored, keys: { ageMs } }) =>
          ageMs === undefined ? [] : [{ provider: stored.provider.name, ageSeconds: ageMs / 1000 }],
        ),
    }),
    authenticate: async (token, isAgain) => {
      try {
        const found = await recall(token)
        assertWithin(found.span, clock().getTime())
        const { identity, subject, line } = found
        const { provider } = line.stored
        if (!isAgain) await spend(found, provider.issuer)
        const { principal, grants } = await access.callerNamed(identity.principal, `identity-provider:${provider.name}`)
        const proof = { kind: 'jwt', provider: provider.name, version: provider.version, subject } as const
        return { principal, proof, grants: [...grants, ...grantsOf(line.stored, identity)] }
      } catch (error) {
        throw problemOf(error, deps.faultReason)
      }
    },
  }
}

/** What is known of one version of a provider. */
interface Line {
  readonly stored: StoredProvider
  readonly keys: KeySet
}

interface Verified {
  readonly line: Line
  readonly span: TokenSpan
  /** Of the keys that it was verified by. */
  readonly generation: number
  readonly subject: string
  readonly identity: Identity
  /** Here; the records know of the other replicas. */
  isSpent: boolean
}

/** What its mapping lets it ask for, beside the principal's own grants. */
const grantsOf = ({ provider, createdAt, createdBy }: StoredProvider, identity: Identity): readonly Grant[] =>
  identity.grants.map((grant, i) => ({
    id: `${provider.name}@${provider.version}/${identity.mapping}/${i}`,
    principal: identity.principal,
    role: 'requester',
    ...grant,
    createdAt,
    createdBy,
  }))

/** Absent says JWT (RFC 7519 5.1); media types have no case, and may be written in full (RFC 7515 4.1.9). */
const isOfType = (typ: string | undefined, wanted: string | undefined): boolean => {
  const found = typ?.toLowerCase().replace(/^application\//, '')
  return wanted === undefined ? found === undefined || found === 'jwt' : found === wanted.toLowerCase()
}

/** The same words whatever is wrong: nobody who is trusted vouches for it. */
const refused = (reason: string, cause?: unknown): Problem =>
  new Problem('auth.invalid', refusedText, { reason: `jwt.${reason}`, cause })

const problemOf = (error: unknown, faultReason: TokensDeps['faultReason']): unknown => {
  const reason = faultReason(error)
  if (reason === undefined) return error
  if (reason !== 'unavailable') return refused(reason, error)
  const detail = 'The keys of the issuer of this token cannot be had at present.'
  return new Problem('auth.unavailable', detail, { retryAfter: 5, cause: error, reason: 'jwt.unavailable' })
}

const mostVerified = 10_000

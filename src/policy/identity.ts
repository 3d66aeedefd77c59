/**
 * Identity providers: from the document that was written to the rules that say who a token makes somebody. Pure: a
 * signature has been checked before, and principals are looked up afterwards.
 */
import { hash } from 'node:crypto'

import { Problem, type ProblemCode } from '../errors.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import { type ClaimRule, type Claims, claimAt, readClaimRule } from './claims.ts'
import { listOf } from './document.ts'
import type { MappingDocument, ProviderDocument, TokenAlgorithm } from './identity-document.ts'
import { faultsOfProvider } from './identity-faults.ts'
import { readNameTemplates, readPrincipalTemplate } from './identity-templates.ts'
import type { Limits } from './limits.ts'
import type { NameRules } from './names.ts'
import type { OriginRules } from './origin.ts'

export { type ProviderDocument, ProviderDocumentSchema } from './identity-document.ts'

export interface Provider {
  readonly name: string
  readonly version: number
  /** Of the canonical document, in hexadecimal. */
  readonly sha256: string
  readonly issuer: string
  readonly document: ProviderDocument
  readonly algorithms: readonly TokenAlgorithm[]
  /** Milliseconds. */
  readonly clockMs: number
  readonly lifetimeMs: number
  readonly audiences: ReadonlySet<string>
  readonly mappings: readonly Mapping[]
}

interface Mapping {
  readonly id: string
  readonly rules: readonly ClaimRule[]
  readonly once: boolean
  /** The claims in the name of its principals. */
  readonly named: readonly string[]
  principal(claims: Claims): string | undefined
  /** Undefined where a claim cannot stand in a name. */
  grants(claims: Claims): readonly IdentityGrant[] | undefined
}

/** What a mapping lets somebody ask for. */
export interface IdentityGrant {
  readonly profiles: readonly string[]
  readonly names: NameRules | null
  readonly revoke: boolean
  readonly limits?: Limits
  readonly onBehalfOf?: OriginRules
}

/** Who a token makes somebody. */
export interface Identity {
  readonly mapping: string
  readonly principal: string
  readonly grants: readonly IdentityGrant[]
  /** Where the mapping wants each token to be shown once only: what tells it from others. */
  readonly once: string | null
}

/** Reads a document (YAML or JSON that was parsed already). Throws one `provider.invalid` with every fault and its place. */
export const parseProvider = (input: unknown, at: { readonly version: number; readonly name?: string }): Provider => {
  const { document, faults } = faultsOfProvider(input, at)
  if (document === undefined) {
    const count = faults.length === 1 ? 'one fault' : `${faults.length} faults`
    throw new Problem('provider.invalid', `The document has ${count}.`, { violations: faults })
  }
  const text = canonicalJson(document)
  const stored = JSON.parse(text) as ProviderDocument
  return {
    name: stored.name,
    version: at.version,
    sha256: hash('sha256', text),
    issuer: stored.issuer,
    document: stored,
    algorithms: stored.algorithms,
    clockMs: millisecondsOf(stored.clock ?? '30s'),
    lifetimeMs: millisecondsOf(stored.lifetime),
    audiences: new Set(listOf(stored.audience)),
    mappings: stored.mappings.map(compileMapping),
  }
}

const compileMapping = ({ id, claims, principal, grants = [], once = false }: MappingDocument): Mapping => {
  const template = sound(readPrincipalTemplate(principal))
  const compiled = grants.map(({ profiles, names, revoke = false, limits, onBehalfOf }) => ({
    profiles,
    revoke,
    ...(limits && { limits }),
    ...(onBehalfOf && { onBehalfOf }),
    names: names === undefined ? null : readNameTemplates(names),
  }))
  return {
    id,
    once,
    rules: Object.entries(claims).map(([name, value]) => sound(readClaimRule(name, value))),
    named: template.claims,
    principal: (found) => template.fill((name) => claimAt(found, name)),
    grants: (found) => {
      const filled = compiled.map(({ names, ...rest }) => ({
        ...rest,
        names: names === null ? null : names.fill((name) => claimAt(found, name)),
      }))
      return filled.every(isFit) ? filled : undefined
    },
  }
}

type Filled = Omit<IdentityGrant, 'names'> & { readonly names: NameRules | null | undefined }
const isFit = (grant: Filled): grant is IdentityGrant => grant.names !== undefined

/** What the faults of a document would have told. */
const sound = <T>(read: T | string): T => {
  if (typeof read === 'string') throw new TypeError(read)
  return read
}

const millisecondsOf = (duration: string): number =>
  Number(duration.slice(0, -1)) * ({ s: 1_000, m: 60_000, h: 3_600_000 }[duration.slice(-1)] ?? Number.NaN)

/** From when to when a token is believed, in milliseconds since 1970. */
export interface TokenSpan {
  readonly from: number
  readonly until: number
}

/**
 * When the claims of a token hold; its signature is its issuer's. Throws auth.* for a token that was never for us, or is
 * believed for longer than the document allows.
 */
export const readSpan = (provider: Provider, claims: Claims): TokenSpan => {
  const { exp, iat, nbf } = claims
  for (const [name, value] of Object.entries({ exp, iat, nbf }))
    if (value !== undefined && !isTime(value))
      throw new Problem('auth.invalid', refusedText, { reason: `jwt.claims: ${name}` })
  if (!isTime(exp) || !isTime(iat))
    throw refusal('auth.lifetime', 'no_end', 'This token does not say from when to when it holds.')
  if ((exp - iat) * 1000 > provider.lifetimeMs)
    throw refusal('auth.lifetime', 'lifetime', `This token holds for longer than ${provider.document.lifetime}.`)
  // Whoever else it is for could show it here.
  const audiences = typeof claims.aud === 'string' ? [claims.aud] : Array.isArray(claims.aud) ? claims.aud : []
  if (audiences.length === 0 || !audiences.every((audience) => provider.audiences.has(audience)))
    throw refusal('auth.audience', 'audience', 'This token is not for this service, or not for it alone.')
  const start = Math.max(iat, isTime(nbf) ? nbf : iat)
  return { from: start * 1000 - provider.clockMs, until: exp * 1000 + provider.clockMs }
}

/** Throws `auth.early` and `auth.expired` (RFC 7519 4.1.4: not on or after its end). */
export const assertWithin = ({ from, until }: TokenSpan, now: number): void => {
  if (now < from) throw refusal('auth.early', 'early', 'This token is not valid yet.')
  if (now >= until) throw refusal('auth.expired', 'expired', 'This token has expired.')
}

/** By the first mapping that fits. Throws `auth.unmapped`. */
export const decideIdentity = (provider: Provider, claims: Claims): Identity => {
  const mapping = provider.mappings.find(({ rules }) => rules.every((rule) => rule.fits(claims)))
  if (!mapping) throw refusal('auth.unmapped', 'unmapped', 'No mapping of its identity provider fits this token.')
  const principal = mapping.principal(claims)
  const grants = mapping.grants(claims)
  // By their names alone: values are for nobody's terminal.
  const nowhere = (what: string): Problem =>
    refusal('auth.unmapped', 'value', `${what} of this token cannot stand where the mapping ${mapping.id} puts it.`)
  if (principal === undefined) throw nowhere(`The claim ${mapping.named.join(' or ')}`)
  if (grants === undefined) throw nowhere('A claim')
  return { mapping: mapping.id, principal, grants, once: mapping.once ? idOf(claims) : null }
}

const idOf = ({ jti }: Claims): string => {
  if (typeof jti === 'string' && jti !== '' && jti.length <= 512) return jti
  throw refusal(
    'auth.replayed',
    'no_id',
    'This token has no id (jti), so nobody could tell whether it was shown before.',
  )
}

/** Whole seconds or parts of them since 1970, not beyond what dates can hold. */
const isTime = (value: unknown): value is number =>
  typeof value === 'number' && value >= 0 && value <= 8_640_000_000_000

const refusal = (code: ProblemCode, reason: string, detail: string): Problem =>
  new Problem(code, detail, { reason: `jwt.${reason}` })

/** The same for everything that no trusted issuer vouches for. */
export const refusedText = 'This token is not accepted.'

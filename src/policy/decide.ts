import { type Violation, Problem, type ProblemCode } from '../errors.ts'
import type { CertificationRequest } from '../x509/csr.ts'
import type { KeyUsage } from '../x509/extensions.ts'
import type { PublicKey } from '../x509/keys.ts'
import type { Name } from '../x509/names.ts'
import type { Subject } from '../x509/subject.ts'
import type { NameRules } from './names.ts'
import type { Profile, Revocation } from './profile.ts'

/** What was asked for, read and proved, but not yet judged. */
export interface Ask {
  readonly csr: CertificationRequest
  /** Replaces the names in the CSR as a whole. */
  readonly names?: readonly Name[]
  /** Seconds, both ends included, counted from notBefore. */
  readonly validity?: number
  /** Replaces the usages in the CSR. */
  readonly keyUsage?: readonly KeyUsage[]
  readonly extendedKeyUsage?: readonly string[]
  /** Facts about where the request comes from, by name, as a front end has verified them; for `bind`. */
  readonly origin?: Readonly<Record<string, string>>
}

export interface Context {
  readonly now: Date
  readonly principal: string
  /** Narrower rules of the grant; absent or null: the profile's alone hold. */
  readonly grantRules?: NameRules | null
  readonly issuer: { readonly name: string; readonly notBefore: Date; readonly notAfter: Date; readonly keySha256: string }
}

export interface CheckResult {
  readonly check: string
  readonly outcome: 'passed' | 'failed' | 'skipped'
  /** Where in the request, as a JSON pointer. */
  readonly field: string
  readonly value: string
  readonly reason: string
}

/** What a certificate will hold, but for its serial and its issuer's own fields. */
export interface Plan {
  readonly profile: { readonly name: string; readonly version: number; readonly sha256: string }
  readonly authority: string
  readonly subject: Subject
  readonly names: readonly Name[]
  readonly notBefore: Date
  readonly notAfter: Date
  readonly key: PublicKey
  readonly keyUsage: readonly KeyUsage[]
  readonly extendedKeyUsage: readonly string[]
  readonly revocation: Revocation
}

/** What was dropped, replaced or shortened. */
export interface Note {
  readonly field: string
  readonly reason: string
}

export type Decision =
  | { readonly allowed: true; readonly plan: Plan; readonly checks: readonly CheckResult[]; readonly notes: readonly Note[] }
  | {
      readonly allowed: false
      readonly checks: readonly CheckResult[]
      readonly violations: readonly Violation[]
      /** Of the first check that failed. */
      readonly code: ProblemCode
      readonly notes: readonly Note[]
    }

export type RefusedDecision = Extract<Decision, { readonly allowed: false }>

/** What the strict reader found in the TBS that is about to be signed. */
export interface RecheckFacts {
  readonly subject: Subject
  readonly names: readonly Name[]
  readonly key: PublicKey
  readonly notBefore: Date
  readonly notAfter: Date
  readonly keyUsage?: readonly KeyUsage[]
  readonly extendedKeyUsage?: readonly string[]
  readonly ca: boolean
  /** As in the request: the bindings need it. */
  readonly origin?: Readonly<Record<string, string>>
}

export type { NameRules } from './names.ts'

/** Decides a request: a plan, or every reason why not. Pure and total: a bad request is a refusal, never an exception. */
export const decide = (_profile: Profile, _ask: Ask, _context: Context): Decision => {
  throw new Problem('internal', 'not built yet')
}

/** The rules again, over the TBS as the strict reader sees it. Empty: it may be signed. */
export const recheck = (_profile: Profile, _facts: RecheckFacts, _context: Context): readonly Violation[] => {
  throw new Problem('internal', 'not built yet')
}

/** A refused decision as the problem that the caller gets. */
export const refusal = (decision: RefusedDecision): Problem => {
  const [first] = decision.violations
  return new Problem(decision.code, first?.reason ?? 'The request is refused.', {
    violations: decision.violations,
    extra: { checks: decision.checks, notes: decision.notes },
  })
}

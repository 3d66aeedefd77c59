/** What a check is: what it looks at, and how it says what it found. */

import type { ProblemCode } from '../errors.ts'
import type { KeyUsage } from '../x509/extensions.ts'
import type { PublicKey } from '../x509/keys.ts'
import type { Name, NameKind } from '../x509/names.ts'
import type { Subject } from '../x509/subject.ts'
import type { CompiledRules, NameParts } from './names.ts'
import type { Origin } from './origin.ts'
import type { CompiledOriginRules } from './origin-rules.ts'
import type { Profile } from './profile.ts'
import type { Validity } from './validity.ts'

export interface CheckResult {
  readonly check: string
  readonly outcome: 'passed' | 'failed' | 'skipped'
  /** Where in the request, as a JSON pointer. */
  readonly field: string
  readonly value: string
  readonly reason: string
}

/** A certificate that might be, beside what was asked for. */
export interface Case {
  readonly profile: Profile
  readonly principal: string
  /** On whose behalf it is asked for; undefined: by and for the caller. */
  readonly origin: Origin | undefined
  readonly issuerKey: string
  /** What is on record against this key; undefined: it was not looked up yet. */
  readonly keyStanding: KeyStanding | undefined
  /** The key may be another owner's. */
  readonly sharesKey: boolean
  /** The grant's narrower rules: null where there are none, `malformed` where they cannot be read. */
  readonly grant: CompiledRules | null | 'malformed'
  /** On whose behalf the grant lets its principal ask; null: nobody's. */
  readonly grantOrigin: CompiledOriginRules | null
  readonly key: PublicKey
  readonly asked: Subject
  /** Composed by the profile from what was asked. */
  readonly subject: Subject
  readonly commonName: string | undefined
  readonly names: readonly Name[]
  /** The same by their kind, taken apart. */
  readonly named: Readonly<Record<NameKind, readonly CaseName[]>>
  /** The name that the common name of the request is, if any; that of a fixed one is not looked for. */
  readonly commonNameAs: Name | undefined
  readonly keyUsage: readonly KeyUsage[] | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  readonly validity: Validity
}

export interface CaseName {
  readonly value: string
  readonly parts: NameParts
  /** Where in the request. */
  readonly field: string
}

/** Takes down what the current check finds. */
export interface Say {
  passed(value: string, reason: string, field?: string, id?: string): void
  failed(value: string, reason: string, field?: string, id?: string): void
  skipped(reason: string, field?: string, id?: string): void
}

export interface Check {
  readonly id: string
  readonly code: ProblemCode
  readonly field: string
  /** For the docs: what passes. */
  readonly passes: string
  run(facts: Case, say: Say): void
}

/** Free, or why no certificate may be issued for a key: it has another owner, or it was reported as compromised. */
export type KeyStanding = 'free' | 'held' | 'compromised'

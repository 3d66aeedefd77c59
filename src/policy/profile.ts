/**
 * Profiles: from the document that was written to the rules that decide. A profile is parsed once, when its version is
 * stored or loaded, and everything that a decision needs is compiled here.
 */
import { hash } from 'node:crypto'

import { Problem } from '../errors.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import type { KeyAlgorithmId } from '../x509/algorithms.ts'
import type { KeyUsage } from '../x509/extensions.ts'
import type { NameKind } from '../x509/names.ts'
import { type Binding, compileBinding } from './bind.ts'
import {
  type AttributeDocument,
  type KeyBounds,
  keysOf,
  listOf,
  type ProfileDocument,
  standardExpiry,
} from './document.ts'
import { parseDuration } from './duration.ts'
import { faultsOf } from './faults.ts'
import { type CompiledRules, compileRules } from './names.ts'
import { type CompiledOriginRules, compileOriginRules } from './origin-rules.ts'
import { type AttributeRule, attributeTypes, compileTextPattern } from './subject.ts'
import { usagesOf } from './usages.ts'
import type { ValidityRules } from './validity.ts'

export { type ProfileDocument, ProfileDocumentSchema } from './document.ts'

export type Revocation = 'none' | readonly ('crl' | 'ocsp')[]

/** A rule in CEL, compiled. None yet: documents with rules are refused until there is an evaluator. */
export interface Rule {
  readonly id: string
  readonly message: string
  holds(plan: unknown): boolean
}

export interface NameSettings {
  readonly rules: CompiledRules
  /** How many names of a kind; Infinity where the profile does not say. */
  readonly maxOf: Readonly<Record<NameKind, number>>
  readonly max: number
  /** At least one name of one of these kinds. */
  readonly require: readonly NameKind[]
  readonly wildcards: boolean
  readonly underscores: boolean
  readonly internationalized: boolean
}

/** How a certificate is renewed by whoever holds it. Times are in seconds. */
export interface RenewalRules {
  /** Since the first certificate of the row, which was issued by another right, became valid. */
  readonly within: number
  /** Whether the new certificate has another key, that of the old one, or either. */
  readonly key: 'new' | 'same' | 'any'
  /** After its end. */
  readonly grace: number
  /** Its principal must have a grant for the profile as well. */
  readonly needsGrant: boolean
}

export interface Profile {
  readonly name: string
  readonly version: number
  /** Of the canonical document, in hexadecimal. */
  readonly sha256: string
  readonly authority: string
  readonly document: ProfileDocument
  /** What a plan says about its profile; one object for all plans. */
  readonly reference: { readonly name: string; readonly version: number; readonly sha256: string }
  readonly validity: ValidityRules
  readonly keys: ReadonlyMap<KeyAlgorithmId, KeyBounds>
  readonly keyTitles: string
  /** In the order of a composed subject. */
  readonly subject: readonly AttributeRule[]
  readonly others: 'refuse' | 'drop'
  readonly names: NameSettings
  readonly keyUsage: ReadonlySet<KeyUsage>
  /** The key usages of the profile that a key of this algorithm can serve. */
  readonly keyUsageFor: Readonly<Record<KeyAlgorithmId, readonly KeyUsage[]>>
  readonly extendedKeyUsage: readonly string[]
  readonly revocation: Revocation
  /** Null: certificates are asked for anew. */
  readonly renewal: RenewalRules | null
  /** On whose behalf it may be asked for; null: anybody's, and nobody's. */
  readonly origin: CompiledOriginRules | null
  readonly bind: readonly Binding[]
  readonly rules: readonly Rule[]
  /** How many people must approve a request, and for how many seconds it waits for them; null: none. */
  readonly approvals: { readonly required: number; readonly expires: number } | null
}

/**
 * Reads a profile document (YAML or JSON that was parsed already). Throws one `profile.invalid` that lists every fault
 * with its place as a JSON pointer. The document of the profile is a frozen copy.
 */
export const parseProfile = (input: unknown, at: { readonly version: number; readonly name?: string }): Profile => {
  const { document, faults } = faultsOf(input, at)
  if (document === undefined) {
    const count = faults.length === 1 ? 'one fault' : `${faults.length} faults`
    throw new Problem('profile.invalid', `The profile document has ${count}.`, { violations: faults })
  }
  return compile(document, at.version)
}

const compile = (written: ProfileDocument, version: number): Profile => {
  // As it is stored: its SHA-256 names the version's content.
  const text = canonicalJson(written)
  const document = freeze(JSON.parse(text) as ProfileDocument)
  const sha256 = hash('sha256', text)
  const { name, authority, validity, names, approvals } = document
  const keys = new Map(keysOf(document.keys))
  return {
    name,
    version,
    sha256,
    authority,
    document,
    reference: Object.freeze({ name, sha256, version }),
    validity: {
      default: parseDuration(validity.default),
      max: parseDuration(validity.max),
      shorten: validity.over === 'shorten',
      backdate: parseDuration(validity.backdate ?? '0s'),
    },
    keys,
    keyTitles: [...keys.keys()].join(', '),
    subject: compileSubject(document.subject),
    others: document.subject.others,
    names: compileNames(names ?? {}),
    keyUsage: new Set(document.keyUsage),
    keyUsageFor: usagesOf(document.keyUsage),
    extendedKeyUsage: document.extendedKeyUsage,
    revocation: document.revocation,
    renewal: document.renewal === undefined ? null : compileRenewal(document.renewal),
    origin: document.origin === undefined ? null : compileOriginRules(document.origin),
    bind: (document.bind ?? []).map(compileBinding),
    rules: [],
    approvals: approvals
      ? { required: approvals.required, expires: parseDuration(approvals.expires ?? standardExpiry) }
      : null,
  }
}

const compileRenewal = ({
  within,
  key = 'new',
  grace = '0s',
  grant = false,
}: NonNullable<ProfileDocument['renewal']>): RenewalRules => ({
  within: parseDuration(within),
  key,
  grace: parseDuration(grace),
  needsGrant: grant,
})

const compileSubject = (subject: ProfileDocument['subject']): readonly AttributeRule[] => {
  const rules: AttributeRule[] = []
  for (const type of attributeTypes) {
    const rule = subject[type]
    if (rule !== undefined) rules.push({ type, ...compileAttribute(rule) })
  }
  return rules
}

const compileAttribute = ({ fixed, match, orName, required, max }: AttributeDocument): Omit<AttributeRule, 'type'> => ({
  ...(fixed === undefined ? {} : { fixed: listOf(fixed) }),
  ...(match === undefined ? {} : { match: listOf(match).map(compileTextPattern) }),
  orName: orName ?? false,
  // What has a pattern identifies someone: a certificate without it would be nobody's.
  required: required ?? match !== undefined,
  max: max ?? 1,
})

const compileNames = (names: NonNullable<ProfileDocument['names']>): NameSettings => ({
  rules: compileRules(names),
  maxOf: {
    dns: names.dns?.max ?? Number.POSITIVE_INFINITY,
    ip: names.ip?.max ?? Number.POSITIVE_INFINITY,
    uri: names.uri?.max ?? Number.POSITIVE_INFINITY,
    email: names.email?.max ?? Number.POSITIVE_INFINITY,
  },
  max: names.max ?? Number.POSITIVE_INFINITY,
  require: names.require ?? [],
  wildcards: names.dns?.wildcards ?? false,
  underscores: names.dns?.underscores ?? false,
  internationalized: names.dns?.internationalized ?? false,
})

const freeze = <T>(value: T): T => {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) freeze(member)
    Object.freeze(value)
  }
  return value
}

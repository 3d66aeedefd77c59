import { Problem, type ProblemCode, type Violation } from '../errors.ts'
import type { CertificationRequest } from '../x509/csr.ts'
import type { KeyUsage } from '../x509/extensions.ts'
import type { PublicKey } from '../x509/keys.ts'
import type { Name, NameKind } from '../x509/names.ts'
import type { Subject } from '../x509/subject.ts'
import type { Case, CaseName, Check, CheckResult, KeyStanding, Say } from './check.ts'
import { checks, isDroppedFor } from './checks.ts'
import { type CompiledRules, compileRules, isRuledKind, type NameRules, show, takeApart } from './names.ts'
import type { Origin, OriginRules } from './origin.ts'
import { compileGrantOrigin } from './origin-rules.ts'
import type { Profile, Revocation } from './profile.ts'
import { composeSubject, valuesOf } from './subject.ts'
import { lengthOf, planValidity } from './validity.ts'

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
  /** On whose behalf it is asked for. */
  readonly origin?: Origin
}

export interface Context {
  readonly now: Date
  readonly principal: string
  /** Narrower rules of the grant; absent or null: the profile's alone hold. */
  readonly grantRules?: NameRules | null
  /** On whose behalf the grant lets its principal ask; absent: nobody's. */
  readonly grantOrigin?: OriginRules
  readonly issuer: {
    readonly name: string
    readonly notBefore: Date
    readonly notAfter: Date
    readonly keySha256: string
  }
  /** What is on record against the key of the request; absent: it was not looked up. */
  readonly keyStanding?: KeyStanding
  /** A grant has `sharedKeys`, or the certificate that is renewed has this key. */
  readonly sharesKey?: boolean
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
  /** On whose behalf; absent: its own principal's. */
  readonly origin?: Origin
}

/** What was dropped, replaced or shortened. */
export interface Note {
  readonly field: string
  readonly reason: string
}

/** What each check says: worked out when somebody is told. */
export type Checks = () => readonly CheckResult[]

export type Decision =
  | {
      readonly allowed: true
      readonly plan: Plan
      readonly checks: Checks
      readonly notes: readonly Note[]
    }
  | {
      readonly allowed: false
      readonly checks: Checks
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
  /** As in the request: it is in no certificate, and checks and bindings need it. */
  readonly origin?: Origin
}

export type { CheckResult } from './check.ts'
export type { NameRules } from './names.ts'

/**
 * Decides a request: a plan, or every reason why not. Pure and total: a bad request is a refusal, never an exception.
 * Everything in the plan comes from the profile; only what the profile names is taken from the request, and what is
 * dropped, replaced or shortened is a note.
 */
export const decide = (profile: Profile, ask: Ask, context: Context): Decision => {
  const { csr } = ask
  const asked: Asked = {
    subject: csr.subject,
    key: csr.key,
    names: ask.names ?? csr.names,
    keyUsage: ask.keyUsage ?? csr.keyUsage,
    extendedKeyUsage: ask.extendedKeyUsage ?? csr.extendedKeyUsage,
    validity: ask.validity,
    origin: ask.origin,
  }
  const facts = caseOf(profile, asked, context)
  const { violations, code } = runChecks(facts, new Faults())
  const notes = notesOf(facts, ask)
  const checks = (): readonly CheckResult[] => runChecks(facts, new Minutes()).results
  if (code !== undefined) return { allowed: false, checks, violations, code, notes }
  return { allowed: true, plan: planOf(facts), checks, notes }
}

/**
 * The rules again, over the TBS as the strict reader sees it (incident 25): the facts are judged as if they had been
 * asked for, and must be exactly what the profile would make of them. `context` is the one of the decision. Empty: it
 * may be signed.
 */
export const recheck = (profile: Profile, facts: RecheckFacts, context: Context): readonly Violation[] => {
  const length = lengthOf(facts.notBefore.getTime(), facts.notAfter.getTime())
  const again = caseOf(profile, { ...noUsages, ...facts, validity: length }, context)
  const { violations } = runChecks(again, new Faults())
  const plan = planOf(again)
  for (const [check, field, holds] of samenesses)
    if (!holds(facts, plan)) violations.push({ check, field, value: '', reason: 'is not what the profile makes of it' })
  return violations
}

type Sameness = readonly [check: string, field: string, holds: (facts: RecheckFacts, plan: Plan) => boolean]

const samenesses: readonly Sameness[] = [
  ['recheck.subject', '/subject', (facts, plan) => isSameSubject(facts.subject, plan.subject)],
  ['recheck.keyUsage', '/keyUsage', (facts, plan) => isSameList(facts.keyUsage, plan.keyUsage)],
  [
    'recheck.extendedKeyUsage',
    '/extendedKeyUsage',
    (facts, plan) => isSameList(facts.extendedKeyUsage, plan.extendedKeyUsage),
  ],
  [
    'recheck.validity',
    '/validity',
    (facts, plan) => isSameTime(facts.notBefore, plan.notBefore) && isSameTime(facts.notAfter, plan.notAfter),
  ],
  ['recheck.ca', '/basicConstraints', (facts) => !facts.ca],
]

/**
 * Whether another grant could allow what was refused for these, but for the issuer: what the profile itself turns down, none makes
 * good.
 */
export const hangsOnGrant = (violations: readonly Violation[]): boolean =>
  violations.every((violation) => violation.check.startsWith('grant.') || isOfIssuer(violation))

/** No word about the grant, nor about anything that was asked for but how long. */
export const isOfIssuer = ({ check }: Violation): boolean => check === 'validity.issuer'

/** A refused decision as the problem that the caller gets. */
export const refusal = (decision: RefusedDecision): Problem => {
  const [first] = decision.violations
  return new Problem(decision.code, first?.reason ?? 'The request is refused.', {
    violations: decision.violations,
    extra: toldOf(decision),
  })
}

/** What a problem that comes after a decision tells of it: all that was checked, and last what was found only then. */
export const toldOf = (
  { checks, notes }: Pick<Decision, 'checks' | 'notes'>,
  found: readonly Violation[] = [],
): Told => ({
  checks: [...checks(), ...found.map((violation) => ({ ...violation, outcome: 'failed' as const }))],
  notes,
})

/** Every check of the decision that a problem comes from; null where none was made. */
export const checksOf = ({ options: { extra } }: Problem): readonly CheckResult[] | null =>
  (extra as Partial<Told> | undefined)?.checks ?? null

interface Told extends Readonly<Record<string, unknown>> {
  readonly checks: readonly CheckResult[]
  readonly notes: readonly Note[]
}

/** What is judged: a request, or the facts of a certificate as if they had been asked for. */
interface Asked {
  readonly subject: Subject
  readonly key: PublicKey
  readonly names: readonly Name[]
  readonly keyUsage: readonly KeyUsage[] | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  readonly validity: number | undefined
  readonly origin?: Origin | undefined
}

const caseOf = (profile: Profile, asked: Asked, context: Context): Case => {
  const names = asked.names
  const commonNameAs = commonNameOf(profile, asked.subject, names)
  const subject = writeCommonName(composeSubject(profile.subject, asked.subject), commonNameAs)
  return {
    profile,
    principal: context.principal,
    origin: asked.origin,
    issuerKey: context.issuer.keySha256,
    keyStanding: context.keyStanding,
    sharesKey: context.sharesKey ?? false,
    grant: compileGrant(context.grantRules),
    grantOrigin: compileGrantOrigin(context.grantOrigin),
    key: asked.key,
    asked: asked.subject,
    subject,
    commonName: subject.find(({ type }) => type === 'commonName')?.value,
    names,
    named: byKind(names),
    commonNameAs,
    keyUsage: asked.keyUsage,
    extendedKeyUsage: asked.extendedKeyUsage,
    validity: planValidity(profile.validity, asked.validity, context),
  }
}

const byKind = (names: readonly Name[]): Case['named'] => {
  const named: Record<NameKind, CaseName[]> = { dns: [], ip: [], uri: [], email: [] }
  names.forEach((name, i) => {
    named[name.kind].push({ value: name.value, parts: takeApart(name), field: `/names/${i}` })
  })
  return named
}

const runChecks = <T extends Faults>(facts: Case, taken: T): T => {
  for (const check of checks) {
    taken.check = check
    check.run(facts, taken)
  }
  return taken
}

/** Takes down what is wrong: of most requests, and of each certificate once more, that is all that anybody wants to know. */
class Faults implements Say {
  readonly violations: Violation[] = []
  code: ProblemCode | undefined
  check: Pick<Check, 'id' | 'code' | 'field'> = { id: '', code: 'internal', field: '' }

  passed(_value: string, _reason: string, _field?: string, _id?: string): void {}

  failed(value: string, reason: string, field = this.check.field, id = this.check.id): void {
    this.code ??= this.check.code
    this.violations.push({ check: id, field, value: show(value), reason })
  }

  skipped(_reason: string, _field?: string, _id?: string): void {}
}

/** Takes down what each check says. */
class Minutes extends Faults {
  readonly results: CheckResult[] = []

  override passed(value: string, reason: string, field = this.check.field, id = this.check.id): void {
    this.results.push({ check: id, outcome: 'passed', field, value: show(value), reason })
  }

  override failed(value: string, reason: string, field = this.check.field, id = this.check.id): void {
    this.results.push({ check: id, outcome: 'failed', field, value: show(value), reason })
  }

  override skipped(reason: string, field = this.check.field, id = this.check.id): void {
    this.results.push({ check: id, outcome: 'skipped', field, value: '', reason })
  }
}

const planOf = ({ profile, subject, names, validity, key, origin }: Case): Plan => ({
  profile: profile.reference,
  authority: profile.authority,
  subject,
  names,
  notBefore: new Date(validity.notBefore),
  notAfter: new Date(validity.notAfter),
  key,
  keyUsage: profile.keyUsageFor[key.algorithm.id],
  extendedKeyUsage: profile.extendedKeyUsage,
  revocation: profile.revocation,
  ...(origin && { origin }),
})

const notesOf = (
  { profile, asked, names, commonNameAs, key, keyUsage, extendedKeyUsage, validity }: Case,
  { csr }: Ask,
): readonly Note[] => {
  const notes: Note[] = []
  const note = (field: string, reason: string): void => void notes.push({ field, reason })
  for (const { field, reason } of csr.dropped) note(field, reason)
  if (csr.names.length > 0 && !isSameNames(names, csr.names))
    note('/names', 'the names asked for replace those in the CSR')
  for (const attribute of asked) {
    const { type, value } = attribute
    // Where others are refused, nothing is dropped.
    if (profile.others === 'drop' && !profile.subject.some((rule) => rule.type === type))
      note(`/subject/${type}`, `is dropped: the profile does not take it from the request: ${show(value)}`)
    if (writeCommonName([attribute], commonNameAs)[0] !== attribute)
      note('/subject/commonName', 'is written as the name that it is')
  }
  const served = profile.keyUsageFor[key.algorithm.id]
  const useless = keyUsage?.filter((usage) => isDroppedFor(key, usage)) ?? []
  for (const usage of useless) note('/keyUsage', `${usage} is dropped: ${key.algorithm.id} keys do not serve it`)
  if (keyUsage !== undefined && served.some((usage) => !keyUsage.includes(usage)))
    note('/keyUsage', `is that of the profile: ${served.join(', ')}`)
  if (extendedKeyUsage !== undefined && profile.extendedKeyUsage.some((usage) => !extendedKeyUsage.includes(usage))) {
    note('/extendedKeyUsage', `is that of the profile: ${profile.extendedKeyUsage.join(', ')}`)
  }
  if (validity.granted < validity.asked)
    note('/validity', `is shortened from ${validity.asked} s to ${validity.granted} s`)
  return notes
}

/** The name that the common name asked for is, where the profile takes one that is, and not as an identifier of its own. */
const commonNameOf = (profile: Profile, asked: Subject, names: readonly Name[]): Name | undefined => {
  const [requested] = valuesOf(asked, 'commonName')
  const rule = profile.subject.find(({ type }) => type === 'commonName')
  if (requested === undefined || rule === undefined || rule.fixed !== undefined) return undefined
  const { match, orName } = rule
  if (match && (!orName || match.some((pattern) => pattern.matches(requested)))) return undefined
  return nameThatIs(requested, names)
}

/** The name that a common name is. DNS names are compared without case (RFC 4343), in ASCII. */
const nameThatIs = (commonName: string, names: readonly Name[]): Name | undefined => {
  const lower = isAscii(commonName) ? commonName.toLowerCase() : commonName
  return names.find(({ kind, value }) => value === (kind === 'dns' ? lower : commonName))
}

/** A common name that is one of the names is written as the name is: in its normal form. */
const writeCommonName = (subject: Subject, name: Name | undefined): Subject => {
  if (name?.kind !== 'dns') return subject
  return subject.map((attribute) =>
    attribute.type === 'commonName' && attribute.value !== name.value && attribute.value.toLowerCase() === name.value
      ? { type: 'commonName', value: name.value }
      : attribute,
  )
}

const isAscii = (text: string): boolean => /^[\x20-\x7e]*$/.test(text)

/** Rules of a grant are compiled once for as long as the grant is held in memory. Rules that cannot be read allow nothing. */
const compileGrant = (rules: NameRules | null | undefined): CompiledRules | null | 'malformed' => {
  if (rules === undefined || rules === null) return null
  const known = compiledGrants.get(rules)
  if (known !== undefined) return known
  const compiled = tryCompile(rules)
  compiledGrants.set(rules, compiled)
  return compiled
}

/** What a later version has written, and this one knows nothing of, may be what the grant is narrowed by. */
const tryCompile = (rules: NameRules): CompiledRules | 'malformed' => {
  if (!Object.keys(rules).every(isRuledKind)) return 'malformed'
  try {
    return compileRules(rules)
  } catch {
    return 'malformed'
  }
}

const isSameSubject = (a: Subject, b: Subject): boolean =>
  a.length === b.length && a.every(({ type, value }, index) => type === b[index]?.type && value === b[index]?.value)

const isSameNames = (a: readonly Name[], b: readonly Name[]): boolean =>
  a.length === b.length && a.every(({ kind, value }, index) => kind === b[index]?.kind && value === b[index]?.value)

const isSameList = (a: readonly string[] | undefined, b: readonly string[]): boolean =>
  a !== undefined && a.length === b.length && b.every((item) => a.includes(item))

const isSameTime = (a: Date, b: Date): boolean => a.getTime() === b.getTime()

const noUsages = { keyUsage: undefined, extendedKeyUsage: undefined }
const compiledGrants = new WeakMap<NameRules, CompiledRules | 'malformed'>()

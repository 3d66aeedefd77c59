/**
 * Who may renew a certificate, and into what. Holding it is the right, as far as the profile of today gives it: for the
 * same names, with the key that the profile wants, and for as long after the certificate with which the row began, since
 * whoever has stolen a key could go on for ever.
 */
import { Problem, type ProblemCode, type Violation } from '../../errors.ts'
import type { Profile, RenewalRules } from '../../policy/profile.ts'
import { valuesOf } from '../../policy/subject.ts'
import { hasEnded } from '../../policy/validity.ts'
import type { CertificationRequest } from '../../x509/csr.ts'
import { type KeyBlockList, parsePublicKey } from '../../x509/keys.ts'
import { assertStillNames, type Name } from '../../x509/names.ts'
import type { Attribute, Subject } from '../../x509/subject.ts'
import { type Caller, type Grant, type Held, type HeldObstacle, requesterGrants, ungranted } from '../access/access.ts'

export interface RenewDeps {
  /** Keys that are known to be compromised. */
  readonly isBlocked: KeyBlockList
  readonly clock: () => Date
}

/** The grants under which it is decided: one for this certificate, or the principal's own where the profile wants one. */
export const grantsToRenew = (deps: RenewDeps, profile: Profile, caller: Caller, held: Held): readonly Grant[] => {
  const rules = renewalOf(profile)
  const now = deps.clock().getTime()
  if (held.obstacle !== null) throw turnedDown(held.obstacle)
  const broken = conditions.find(({ holds }) => !holds(held, rules, now))
  if (broken) throw new Problem(broken.code, broken.detail)
  // Whoever has stolen it would else get a certificate for a key that nobody knows of.
  parsePublicKey(held.spki, deps.isBlocked)
  if (!rules.needsGrant) return [holding(caller, held)]
  const grants = requesterGrants(caller, held.profile)
  if (grants.length > 0) return grants
  throw new Problem('auth.forbidden', ungranted(caller, held.profile))
}

/** The records are asked once more when the intent is recorded: much may have come meanwhile. */
export const turnedDown = (obstacle: HeldObstacle): Problem => {
  const { code, detail } = obstacles[obstacle]
  return new Problem(code, detail)
}

export const isHeldObstacle = (end: string): end is HeldObstacle => Object.hasOwn(obstacles, end)

/**
 * The request as it is judged: the names and the subject are those of the certificate, whatever of them is repeated; of what the
 * profile of its day fixed nobody ever asked for anything. Throws
 * `renewal.names` where it says others, `renewal.key` where its key is not what the profile wants, `san.syntax` where a name of
 * the certificate is none any more.
 */
export const asRenewal = (
  profile: Profile,
  held: Held,
  csr: CertificationRequest,
  fixedThen: Subject = [],
): CertificationRequest => {
  const rules = renewalOf(profile)
  assertKey(rules, csr.key.spki.equals(held.spki))
  const isFixed = ({ type }: Attribute): boolean =>
    profile.subject.some((rule) => rule.type === type && rule.fixed !== undefined)
  const isTaken = ({ type }: Attribute): boolean =>
    profile.subject.some((rule) => rule.type === type && rule.fixed === undefined)
  const violations = [...namesBeyond(held, csr), ...attributesBeyond(held, csr.subject.filter(isTaken))]
  if (violations.length > 0)
    throw new Problem('renewal.names', 'The request is for other names than those of the certificate.', { violations })
  // The certificate was read by the rules of its day, and what is issued now is held to those of today.
  assertStillNames(held.names)
  // What the profile fixes is as it says today. What it does not take any more is judged as if it were asked for today, whether
  // the request repeats it or not, and what the request has beside it, as ever.
  const wasFixed = (attribute: Attribute): boolean =>
    !isTaken(attribute) && fixedThen.some((fixed) => isSame(fixed, attribute))
  const own = held.subject.filter((attribute) => !isFixed(attribute) && !wasFixed(attribute))
  const beside = csr.subject.filter((asked) => !isTaken(asked) && !own.some((attribute) => isSame(attribute, asked)))
  return { ...csr, names: held.names, subject: [...own, ...beside] }
}

const renewalOf = ({ name, renewal }: Profile): RenewalRules => {
  if (renewal) return renewal
  throw new Problem('renewal.forbidden', `The profile ${JSON.stringify(name)} lets nobody renew by holding.`)
}

interface Condition {
  readonly code: ProblemCode
  readonly detail: string
  readonly holds: (held: Held, rules: RenewalRules, now: number) => boolean
}

const conditions: readonly Condition[] = [
  {
    code: 'auth.expired',
    detail: 'This certificate has expired.',
    holds: ({ notAfter }, { grace }, now) => !hasEnded(new Date(notAfter.getTime() + grace * 1_000), new Date(now)),
  },
  {
    code: 'renewal.issuer',
    detail: 'The issuer of this certificate has ended, or was halted or revoked.',
    holds: ({ isIssuerTrusted }) => isIssuerTrusted,
  },
  {
    code: 'renewal.ended',
    detail: 'It has been renewed by holding it for as long as the profile allows.',
    holds: ({ since }, { within }, now) => now < since.getTime() + within * 1_000,
  },
]

const obstacles: Readonly<Record<HeldObstacle, Pick<Condition, 'code' | 'detail'>>> = {
  revoked: { code: 'auth.revoked', detail: 'This certificate is revoked.' },
  closed: { code: 'auth.unmapped', detail: 'The principal of this certificate is closed.' },
  stolen: { code: 'key.blocked', detail: 'the key of this certificate was reported as compromised' },
  ordered: { code: 'auth.revoked', detail: 'This certificate is about to be revoked, as was ordered.' },
}

const assertKey = ({ key: wanted }: RenewalRules, isSame: boolean): void => {
  if (wanted === 'new' && isSame) throw new Problem('renewal.key', 'The key is that of the certificate.')
  if (wanted === 'same' && !isSame) throw new Problem('renewal.key', 'The key is not that of the certificate.')
}

/** Names as they are: of this one, none may be left out. */
const namesBeyond = ({ names }: Held, { names: asked }: CertificationRequest): readonly Violation[] => {
  if (asked.length === 0) return []
  const isAmong = (list: readonly Name[], { kind, value }: Name): boolean =>
    list.some((other) => other.kind === kind && other.value === value)
  return [
    ...asked.filter((name) => !isAmong(names, name)).map((name) => violation('/names', name.value, 'is not in it')),
    ...names.filter((name) => !isAmong(asked, name)).map((name) => violation('/names', name.value, 'is left out')),
  ]
}

/** What it says of a type of attribute must be what the certificate says. */
const attributesBeyond = ({ subject }: Held, asked: readonly Attribute[]): readonly Violation[] =>
  asked
    .filter(
      ({ type, value }) => !valuesOf(subject, type).some((held) => held === value || isSameName(held, value, type)),
    )
    .map(({ type, value }) => violation(`/subject/${type}`, value, 'is not that of the certificate'))

const isSame = (one: Attribute, other: Attribute): boolean => one.type === other.type && one.value === other.value

/** A common name that is a DNS name was written in lower case. */
const isSameName = (held: string, asked: string, type: Attribute['type']): boolean =>
  type === 'commonName' && held === asked.toLowerCase()

const violation = (field: string, value: string, reason: string): Violation => ({
  ...{ check: 'renewal.names', field, value, reason },
})

/** For the names of the certificate no rules of a grant need be asked: it was issued under some. */
const holding = ({ principal }: Caller, { serial, profile, since }: Held): Grant => ({
  id: `certificate ${serial}`,
  principal,
  role: 'requester',
  profiles: [profile],
  names: null,
  revoke: false,
  createdAt: since,
  createdBy: principal,
})

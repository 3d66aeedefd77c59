/**
 * The checks, one entry each: a stable id, the problem that a failure is, and where in the request it looks. A decision
 * runs all of them, in this order, and carries what each said. docs/policy.md lists them and is tested against this
 * table both ways.
 */

import { isProblem } from '../errors.ts'
import type { KeyUsage } from '../x509/extensions.ts'
import { isMixedScript } from '../x509/idna.ts'
import type { PublicKey } from '../x509/keys.ts'
import { type NameKind, nameKinds, parseName } from '../x509/names.ts'
import type { AttributeType, Subject } from '../x509/subject.ts'
import type { CaseName, Check, Say } from './check.ts'
import {
  aceLabelsOf,
  type CompiledKind,
  findAllowing,
  findDenying,
  type NameParts,
  type RuledKind,
  show,
  takeApart,
} from './names.ts'
import { originChecks } from './origin-checks.ts'
import type { Profile } from './profile.ts'
import { type AttributeRule, attributeTypes, systemMasters, valuesOf } from './subject.ts'
import { isServedBy } from './usages.ts'
import { minValidity } from './validity.ts'

const keyChecks: readonly Check[] = [
  {
    id: 'key.type',
    code: 'key.type',
    field: '/key',
    passes: 'the algorithm of the key is one that `keys` lists',
    run: ({ profile, key }, say) => {
      if (profile.keys.has(key.algorithm.id)) say.passed(key.algorithm.id, 'is listed by the profile')
      else say.failed(key.algorithm.id, `is not among the keys of the profile: ${profile.keyTitles}`)
    },
  },
  {
    id: 'key.size',
    code: 'key.size',
    field: '/key',
    passes: 'the modulus of an RSA key is within `rsa.min` and `rsa.max`',
    run: ({ profile, key }, say) => {
      const bounds = profile.keys.get(key.algorithm.id)
      if (bounds === undefined || bounds === null) return say.skipped('the type of the key decides its size')
      const range = `${bounds.min} and ${bounds.max} bits`
      if (key.bits >= bounds.min && key.bits <= bounds.max) say.passed(String(key.bits), `is within ${range}`)
      else say.failed(String(key.bits), `is not within ${range}`)
    },
  },
  {
    id: 'key.issuer',
    code: 'key.blocked',
    field: '/key',
    passes: 'the key is not that of the issuer',
    run: ({ key, issuerKey }, say) => {
      const sha256 = key.sha256.toString('hex')
      if (sha256 === issuerKey) say.failed(sha256, 'is the key of the issuer')
      else say.passed(sha256, 'is not the key of the issuer')
    },
  },
  {
    id: 'key.principal',
    code: 'key.in_use',
    field: '/key',
    passes:
      'the key has no other owner, or a grant for this profile has `sharedKeys`; looked up when the intent is recorded',
    run: ({ key, keyStanding, sharesKey }, say) => {
      if (keyStanding === undefined) return say.skipped('is looked up when the intent is recorded')
      const sha256 = key.sha256.toString('hex')
      if (keyStanding !== 'held') say.passed(sha256, 'has no other owner')
      else if (sharesKey) say.passed(sha256, 'has another owner, and may be shared')
      else say.failed(sha256, 'is the key of another principal, or of another on whose behalf it asks')
    },
  },
  {
    id: 'key.compromised',
    code: 'key.blocked',
    field: '/key',
    passes: 'no certificate with this key was revoked as keyCompromise; looked up when the intent is recorded',
    run: ({ key, keyStanding }, say) => {
      if (keyStanding === undefined) return say.skipped('is looked up when the intent is recorded')
      const sha256 = key.sha256.toString('hex')
      if (keyStanding === 'compromised') say.failed(sha256, 'is a key that was reported as compromised')
      else say.passed(sha256, 'is no key that was reported as compromised')
    },
  },
]

const attributeChecks: readonly Check[] = attributeTypes.map((type) => ({
  id: `subject.${type}`,
  code: 'subject.forbidden',
  field: `/subject/${type}`,
  passes: `every \`${type}\` in the request is what \`subject.${type}\` fixes or matches, no more than its \`max\`, and there is one where it is required`,
  run: ({ profile, asked, commonNameAs }, say) => {
    const rule = profile.subject.find((candidate) => candidate.type === type)
    if (rule === undefined) return
    const values = valuesOf(asked, type)
    if (rule.fixed !== undefined) {
      const { fixed } = rule
      const others = values.filter((value) => !fixed.includes(value))
      if (others.length === 0) say.passed(fixed.join(', '), 'is fixed by the profile')
      for (const value of others) say.failed(value, `is not what the profile fixes: ${fixed.join(', ')}`)
      return
    }
    if (values.length > rule.max) say.failed(String(values.length), `is more than ${rule.max} of them`)
    if (values.length === 0) {
      if (rule.required) say.failed('', 'is required')
      else say.skipped('none was asked for')
    }
    for (const value of values) {
      if (rule.match === undefined) {
        say.skipped('names.commonName judges it')
        continue
      }
      const pattern = rule.match.find((candidate) => candidate.matches(value))
      if (pattern !== undefined) say.passed(value, `matches ${pattern.text}`)
      else if (rule.orName && commonNameAs !== undefined) say.passed(value, 'is among the names')
      else say.failed(value, noMatch(rule))
    }
  },
}))

const noMatch = ({ match = [], orName }: AttributeRule): string =>
  `matches none of ${match.map(({ text }) => text).join(', ')}${orName ? ', and is none of the names' : ''}`

const subjectChecks: readonly Check[] = [
  {
    id: 'subject.others',
    code: 'subject.forbidden',
    field: '/subject',
    passes: 'attributes that the profile does not name are absent, or `subject.others` is `drop`',
    run: ({ profile, asked }, say) => {
      const others = asked.filter(({ type }) => !profile.subject.some((rule) => rule.type === type))
      if (others.length === 0) return say.skipped('there are no other attributes')
      for (const { type, value } of others) {
        if (profile.others === 'drop') say.passed(value, 'is dropped', `/subject/${type}`)
        else say.failed(value, `is an attribute that the profile does not take: ${type}`, `/subject/${type}`)
      }
    },
  },
  {
    id: 'subject.systemMasters',
    code: 'subject.forbidden',
    field: '/subject/organization',
    passes: 'no organization is `system:masters`, unless the profile fixes it',
    run: ({ profile, asked, subject }, say) => {
      const claims = ({ type, value }: Subject[number]): boolean => type === 'organization' && value === systemMasters
      if (!asked.some(claims) && !subject.some(claims)) return say.passed('', `is not ${systemMasters}`)
      const fixed = profile.subject.some(
        ({ type, fixed }) => type === 'organization' && fixed?.includes(systemMasters) === true,
      )
      if (fixed) say.passed(systemMasters, 'is fixed by the profile')
      else say.failed(systemMasters, 'passes every authorizer of Kubernetes; only a profile that fixes it grants it')
    },
  },
  {
    id: 'subject.present',
    code: 'san.required',
    field: '/subject',
    passes: 'the certificate has a subject or a name (RFC 5280 4.1.2.6)',
    run: ({ subject, names }, say) => {
      if (subject.length > 0) say.passed(String(subject.length), 'attributes are in the subject')
      else if (names.length > 0) say.passed('', 'is empty, and there are names')
      else say.failed('', 'is empty, and there is no name')
    },
  },
]

const kindChecks = (kind: NameKind): readonly Check[] => [
  {
    id: `names.${kind}.allow`,
    code: 'san.forbidden',
    field: '/names',
    passes: `every ${kind} name matches a pattern of \`names.${kind}.allow\``,
    run: ({ profile, named }, say) => {
      if (named[kind].length === 0) return say.skipped(noneOf[kind])
      const rules = profile.names.rules[kind]
      for (const { value, parts, field } of named[kind]) {
        const pattern = rules === undefined ? undefined : findAllowing(rules.allow, parts)
        if (pattern !== undefined) say.passed(value, `matches ${pattern.text}`, field)
        else if (rules === undefined) say.failed(value, `the profile allows no ${kind} names`, field)
        else say.failed(value, 'matches no pattern of the profile', field)
      }
    },
  },
  {
    id: `names.${kind}.deny`,
    code: 'san.forbidden',
    field: '/names',
    passes: `no ${kind} name${kind === 'dns' ? ', nor one that a wildcard covers,' : ''} matches a pattern of \`names.${kind}.deny\``,
    run: ({ profile, named }, say) => {
      const deny = profile.names.rules[kind]?.deny ?? []
      if (deny.length === 0) return say.skipped('the profile denies none')
      if (named[kind].length === 0) return say.skipped(noneOf[kind])
      for (const { value, parts, field } of named[kind]) {
        const pattern = findDenying(deny, parts)
        if (pattern === undefined) say.passed(value, 'is not denied', field)
        else say.failed(value, `is denied by ${pattern.text}`, field)
      }
    },
  },
  {
    id: `names.${kind}.max`,
    code: 'san.count',
    field: '/names',
    passes: `there are no more ${kind} names than \`names.${kind}.max\``,
    run: ({ profile, named }, say) => {
      const max = profile.names.maxOf[kind]
      if (max === Number.POSITIVE_INFINITY) return say.skipped('the profile sets no bound')
      const count = named[kind].length
      if (count <= max) say.passed(String(count), `is no more than ${max}`)
      else say.failed(String(count), `is more than ${max}`)
    },
  },
]

/** A check of every DNS name for something that a flag of the profile allows. */
const dnsFlag = (
  flag: 'wildcards' | 'underscores' | 'internationalized',
  id: string,
  what: { readonly passes: string; readonly reason: string; has(value: string): boolean },
): Check => ({
  id,
  code: 'san.forbidden',
  field: '/names',
  passes: what.passes,
  run: ({ profile, named }, say) => {
    let found = 0
    for (const { value, field } of named.dns) {
      if (!what.has(value)) continue
      found++
      if (profile.names[flag]) say.passed(value, `the profile sets ${flag}`, field)
      else say.failed(value, what.reason, field)
    }
    if (found === 0) say.skipped('no name needs it')
  },
})

const dnsChecks: readonly Check[] = [
  dnsFlag('wildcards', 'names.dns.wildcard', {
    passes: 'a wildcard name (`*` as the whole left-most label) is asked for only where `names.dns.wildcards` is true',
    reason: 'is a wildcard, and the profile does not allow wildcards',
    has: (value) => value.startsWith('*.'),
  }),
  dnsFlag('underscores', 'names.dns.underscore', {
    passes: 'a DNS name with an underscore is asked for only where `names.dns.underscores` is true',
    reason: 'has an underscore, and the profile does not allow underscores',
    has: (value) => value.includes('_'),
  }),
  dnsFlag('internationalized', 'names.dns.internationalized', {
    passes: 'a DNS name with an `xn--` label is asked for only where `names.dns.internationalized` is true',
    reason: 'has an xn-- label, and the profile does not allow internationalized names',
    has: (value) => aceLabelsOf(value).length > 0,
  }),
  {
    id: 'names.dns.script',
    code: 'san.forbidden',
    field: '/names',
    passes: 'no `xn--` label mixes scripts that do not belong together (UTS 39 5.1)',
    run: ({ named }, say) => {
      let found = 0
      for (const { value, field } of named.dns) {
        const labels = aceLabelsOf(value)
        if (labels.length === 0) continue
        found++
        if (labels.some(isMixedScript)) say.failed(value, 'mixes scripts in one label', field)
        else say.passed(value, 'mixes no scripts', field)
      }
      if (found === 0) say.skipped('no name needs it')
    },
  },
]

const nameChecks: readonly Check[] = [
  {
    id: 'names.max',
    code: 'san.count',
    field: '/names',
    passes: 'there are no more names than `names.max`',
    run: ({ profile, names }, say) => {
      const { max } = profile.names
      if (max === Number.POSITIVE_INFINITY) say.skipped('the profile sets no bound')
      else if (names.length <= max) say.passed(String(names.length), `is no more than ${max}`)
      else say.failed(String(names.length), `is more than ${max}`)
    },
  },
  {
    id: 'names.unique',
    code: 'san.duplicate',
    field: '/names',
    passes: 'no name occurs twice',
    run: ({ names }, say) => {
      if (names.length < 2) return say.skipped('there are no two names')
      const seen = new Set<string>()
      names.forEach(({ kind, value }, index) => {
        if (seen.has(`${kind}:${value}`)) say.failed(value, 'occurs twice', `/names/${index}`)
        seen.add(`${kind}:${value}`)
      })
      if (seen.size === names.length) say.passed(String(names.length), 'names, none twice')
    },
  },
  {
    id: 'names.require',
    code: 'san.required',
    field: '/names',
    passes: 'there is a name of a kind that `names.require` lists',
    run: ({ profile, names }, say) => {
      const { require } = profile.names
      if (require.length === 0) return say.skipped('the profile requires none')
      const found = names.find(({ kind }) => require.includes(kind))
      if (found !== undefined) say.passed(found.value, `is of the kind ${found.kind}`)
      else say.failed('', `there is no name of these kinds: ${require.join(', ')}`)
    },
  },
  {
    id: 'names.commonName',
    code: 'subject.forbidden',
    field: '/subject/commonName',
    passes:
      'a common name that `subject.commonName` neither fixes nor matches is among the names (RFC 9525: it identifies nothing by itself)',
    run: ({ profile, asked, commonNameAs }, say) => {
      const rule = profile.subject.find(({ type }) => type === 'commonName')
      if (rule === undefined) return say.skipped('the profile takes no common name')
      if (rule.fixed !== undefined || rule.match !== undefined)
        return say.skipped('the common name is an identifier by the profile')
      const [value] = valuesOf(asked, 'commonName')
      if (value === undefined) say.skipped('none was asked for')
      else if (commonNameAs !== undefined) say.passed(value, `is the ${commonNameAs.kind} name ${commonNameAs.value}`)
      else say.failed(value, 'is not among the names')
    },
  },
]

const grantNameChecks: readonly Check[] = nameKinds.map((kind) => ({
  id: `grant.names.${kind}`,
  code: 'san.forbidden',
  field: '/names',
  passes: `where the grant has name rules, every ${kind} name matches its \`allow\` and not its \`deny\``,
  run: ({ grant, named }, say) => {
    if (grant === null) return say.skipped('the grant has no name rules')
    if (named[kind].length === 0) return say.skipped(noneOf[kind])
    const rules = grant === 'malformed' ? undefined : grant[kind]
    for (const name of named[kind]) {
      if (rules === undefined) say.failed(name.value, `the grant allows no ${kind} names`, name.field)
      else judgeByGrant(say, rules, name)
    }
  },
}))

const grantChecks: readonly Check[] = [
  ...grantNameChecks,
  {
    id: 'grant.names.commonName',
    code: 'subject.forbidden',
    field: '/subject/commonName',
    passes:
      'where the grant has a rule for common names, one that the profile does not fix matches its `allow` and not its `deny`; and its rules can be read',
    run: ({ grant, profile, commonName }, say) => {
      if (grant === null) return say.skipped('the grant has no name rules')
      if (grant === 'malformed') return say.failed(commonName ?? '', 'the rules of the grant cannot be read')
      if (commonName === undefined) return say.skipped(noneOf.commonName)
      if (isFixed(profile, 'commonName')) return say.skipped('is fixed by the profile')
      if (grant.commonName === undefined) return say.skipped('the grant has no rule for common names')
      const name = { kind: 'commonName', value: commonName } as const
      judgeByGrant(say, grant.commonName, { ...name, parts: takeApart(name), field: '/subject/commonName' })
    },
  },
  {
    id: 'grant.names.emailAddress',
    code: 'subject.forbidden',
    field: '/subject/emailAddress',
    passes:
      'where the grant has a rule for mail addresses, every one in the subject that the profile does not fix matches its `allow` and not its `deny`',
    run: ({ grant, profile, subject }, say) => {
      if (grant === null || grant === 'malformed') return say.skipped('the grant has no name rules')
      if (grant.email === undefined) return say.skipped('the grant has no rule for mail addresses')
      const values = valuesOf(subject, 'emailAddress')
      if (values.length === 0) return say.skipped('there is none in the subject')
      if (isFixed(profile, 'emailAddress')) return say.skipped('is fixed by the profile')
      for (const value of values)
        judgeByGrant(say, grant.email, { value, parts: mailParts(value), field: '/subject/emailAddress' })
    },
  },
]

/** No parser of names has seen it. What is not one plain address, as two with a comma between them, matches nothing. */
const mailParts = (value: string): NameParts => {
  try {
    return takeApart({ kind: 'email', value: parseName('email', value).value })
  } catch (error) {
    if (!isProblem(error, 'san.syntax')) throw error
    return takeApart({ kind: 'email', value: '' })
  }
}

const isFixed = ({ subject }: Profile, of: AttributeType): boolean =>
  subject.some(({ type, fixed }) => type === of && fixed !== undefined)

const judgeByGrant = (say: Say, rules: CompiledKind, { value, parts, field }: CaseName): void => {
  const denied = findDenying(rules.deny, parts)
  const allowed = findAllowing(rules.allow, parts)
  if (denied !== undefined) say.failed(value, `is denied by ${denied.text} of the grant`, field)
  else if (allowed === undefined) say.failed(value, 'matches no pattern of the grant', field)
  else say.passed(value, `matches ${allowed.text} of the grant`, field)
}

const usageChecks: readonly Check[] = [
  {
    id: 'keyUsage.allow',
    code: 'ext.usage',
    field: '/keyUsage',
    passes:
      'every key usage asked for is in `keyUsage`, or is one that the key cannot serve and is dropped; never a CA usage',
    run: ({ profile, key, keyUsage }, say) => {
      if (keyUsage === undefined) return say.skipped('none was asked for')
      if (keyUsage.length === 0) return say.failed('', 'is empty; leave it out to get those of the profile')
      for (const usage of keyUsage) {
        if (profile.keyUsage.has(usage)) say.passed(usage, 'is granted by the profile')
        else if (isDroppedFor(key, usage))
          say.passed(usage, `is nothing that ${key.algorithm.id} keys serve, and is dropped`)
        else say.failed(usage, 'is not granted by the profile')
      }
    },
  },
  {
    id: 'extendedKeyUsage.allow',
    code: 'ext.usage',
    field: '/extendedKeyUsage',
    passes: 'every extended key usage asked for is in `extendedKeyUsage`',
    run: ({ profile, extendedKeyUsage }, say) => {
      if (extendedKeyUsage === undefined) return say.skipped('none was asked for')
      if (extendedKeyUsage.length === 0) return say.failed('', 'is empty; leave it out to get those of the profile')
      for (const usage of extendedKeyUsage) {
        if (profile.extendedKeyUsage.includes(usage)) say.passed(usage, 'is granted by the profile')
        else say.failed(usage, 'is not granted by the profile')
      }
    },
  },
]

/** A usage that makes no sense with this key (cert-manager asks for keyEncipherment with every key). */
export const isDroppedFor = (key: PublicKey, usage: KeyUsage): boolean =>
  usage !== 'keyCertSign' && usage !== 'cRLSign' && !isServedBy(key.algorithm.id, usage)

const validityChecks: readonly Check[] = [
  {
    id: 'validity.min',
    code: 'validity.forbidden',
    field: '/validity',
    passes:
      'the validity is a whole number of seconds, at least two, and ends after now, although it counts from a backdated notBefore',
    run: ({ validity: { asked, elapsed } }, say) => {
      if (!Number.isSafeInteger(asked)) say.failed(String(asked), 'is not a whole number of seconds')
      else if (asked < minValidity) say.failed(String(asked), 'is under 2 s: it ends as it begins')
      else if (asked > elapsed) say.passed(String(asked), 'ends after now')
      else say.failed(String(asked), `is not more than the ${elapsed} s by which notBefore lies back`)
    },
  },
  {
    id: 'validity.max',
    code: 'validity.forbidden',
    field: '/validity',
    passes: 'the validity, both ends included, is at most `validity.max`, or `validity.over` is `shorten`',
    run: ({ profile, validity: { asked } }, say) => {
      const { max, shorten } = profile.validity
      // Also as its author wrote it: nobody knows days by their seconds.
      const most = `${max} s (${profile.document.validity.max})`
      if (asked <= max) say.passed(String(asked), `is no more than ${most}`)
      else if (shorten) say.passed(String(asked), `is shortened to ${most}`)
      else say.failed(String(asked), `is more than ${most}`)
    },
  },
  {
    id: 'validity.issuer',
    code: 'validity.issuer',
    field: '/validity',
    passes:
      'the certificate ends no later than its issuer, or `validity.over` is `shorten`; and the issuer is valid now',
    run: ({ profile, validity }, say) => {
      const value = String(validity.granted)
      if (!validity.issuerIsValid) say.failed(value, 'the issuer is not valid now')
      else if (!validity.outlives) say.passed(value, 'ends no later than the issuer')
      else if (profile.validity.shorten && validity.granted < minValidity) say.failed(value, 'the issuer ends now')
      else if (profile.validity.shorten) say.passed(value, 'is shortened to the end of the issuer')
      else say.failed(value, `would end after the issuer does, at ${new Date(validity.issuerEnd).toISOString()}`)
    },
  },
]

const bindCheck: Check = {
  id: 'bind.<id>',
  code: 'policy.bind',
  field: '/names',
  passes: 'every name that the binding ties is tied as it says',
  run: (facts, say) => {
    for (const binding of facts.profile.bind) {
      if (binding.onlyWithOrigin && facts.origin === undefined) {
        say.skipped('there is no origin', '/names', binding.check)
        continue
      }
      const tied = binding.read(facts)
      const judge = (name: string, field: string, parts?: NameParts): void => {
        if (tied === undefined) say.failed(name, `should be ${binding.tie}, which there is not`, field, binding.check)
        else if (tied.holds(name, parts))
          say.passed(name, `is ${binding.tie}: ${show(tied.value)}`, field, binding.check)
        else say.failed(name, `is not ${binding.tie}: ${show(tied.value)}`, field, binding.check)
      }
      if (binding.names === 'commonName') {
        if (facts.commonName !== undefined) judge(facts.commonName, '/subject/commonName')
        else say.skipped(noneOf.commonName, '/names', binding.check)
        continue
      }
      const these = facts.named[binding.names]
      for (const { value, parts, field } of these) judge(value, field, parts)
      if (these.length === 0) say.skipped(noneOf[binding.names], '/names', binding.check)
    }
  },
}

const ruleCheck: Check = {
  id: 'rule.<id>',
  code: 'policy.rule',
  field: '',
  passes: 'the expression of the rule holds (no rules yet: a document with rules is refused)',
  run: (facts, say) => {
    for (const rule of facts.profile.rules) {
      if (rule.holds(facts)) say.passed('', 'holds', '', `rule.${rule.id}`)
      else say.failed('', rule.message, '', `rule.${rule.id}`)
    }
  },
}

const noneOf: Readonly<Record<RuledKind, string>> = {
  commonName: 'there is no common name',
  dns: 'there are no dns names',
  ip: 'there are no ip names',
  uri: 'there are no uri names',
  email: 'there are no email names',
}

export const checks: readonly Check[] = [
  ...originChecks,
  ...keyChecks,
  ...attributeChecks,
  ...subjectChecks,
  ...nameKinds.flatMap(kindChecks),
  ...dnsChecks,
  ...nameChecks,
  ...grantChecks,
  ...usageChecks,
  ...validityChecks,
  bindCheck,
  ruleCheck,
]

/** Everything that can be wrong with a profile document: its shape, then its sense. */

import { isProblem, type Violation } from '../errors.ts'
import { anyExtendedKeyUsage, extendedKeyUsages, isDottedOid } from '../x509/extensions.ts'
import { nameKinds } from '../x509/names.ts'
import { type AttributeType, assertSubjectSyntax, attributes, maxAttributes } from '../x509/subject.ts'
import { methodsOf, readBindingTemplate } from './bind.ts'
import {
  type AttributeDocument,
  type BindingDocument,
  keysOf,
  listOf,
  type ProfileDocument,
  ProfileDocumentSchema,
} from './document.ts'
import { parseDuration } from './duration.ts'
import { readNewPattern } from './name-rules.ts'
import { originRuleFaults } from './origin-rules.ts'
import { documentFaults, type Report } from './shape.ts'
import { attributeTypes, readTextPattern, systemMasters } from './subject.ts'
import { isServedBy } from './usages.ts'
import { minValidity } from './validity.ts'

/** The document, if nothing is wrong with it, or every fault of its shape, else of its sense. `name`: the one it must have. */
export const faultsOf = (
  input: unknown,
  { name }: { readonly name?: string } = {},
): { readonly document?: ProfileDocument; readonly faults: readonly Violation[] } => {
  const nameSense: Sense = (document, report) => {
    if (name !== undefined && document.name !== name) report('/name', document.name, `is not ${name}`)
  }
  const faults = documentFaults<ProfileDocument>(input, {
    check: 'profile.schema',
    schema: ProfileDocumentSchema,
    senses: [['profile.name', nameSense], ...senses],
  })
  return faults.length > 0 ? { faults } : { document: input as ProfileDocument, faults }
}

type Sense = (document: ProfileDocument, report: Report) => void

/** What has rules: attributes of the subject and kinds of names. */
const ruledBy = ({ subject, names = {} }: ProfileDocument): ReadonlySet<string> =>
  new Set([...Object.keys(subject), ...Object.keys(names)])

const validityFaults: Sense = ({ validity }, report) => {
  const usual = parseDuration(validity.default)
  const max = parseDuration(validity.max)
  const backdate = parseDuration(validity.backdate ?? '0s')
  if (max > maxValidity) report('/validity/max', validity.max, 'is more than 36500d')
  if (usual > max) report('/validity/default', validity.default, `is more than max, ${validity.max}`)
  if (backdate > maxBackdate) report('/validity/backdate', validity.backdate, 'is more than 24h')
  if (usual < minValidity || usual <= backdate) {
    const reason =
      backdate === 0
        ? 'is under 2s: both ends are in a validity, so the certificate would end as it begins'
        : `is not more than backdate, ${validity.backdate}: the certificate would be born expired`
    report('/validity/default', validity.default, reason)
  }
}

const renewalFaults: Sense = ({ renewal }, report) => {
  if (renewal === undefined) return
  const within = parseDuration(renewal.within)
  if (within === 0) report('/renewal/within', renewal.within, 'is nothing; leave renewal out where nobody may renew')
  if (within > maxValidity) report('/renewal/within', renewal.within, 'is more than 36500d')
  if (parseDuration(renewal.grace ?? '0s') > maxGrace) report('/renewal/grace', renewal.grace, 'is more than 30d')
}

const keyFaults: Sense = ({ keys }, report) => {
  const seen = new Set<string>()
  keys.forEach((entry, index) => {
    if (entry.rsa !== undefined && entry.rsa.min > entry.rsa.max)
      report(`/keys/${index}/rsa/min`, entry.rsa.min, `is more than max, ${entry.rsa.max}`)
    for (const [algorithm] of keysOf([entry])) {
      if (seen.has(algorithm)) report(`/keys/${index}`, algorithm, 'is allowed twice')
      seen.add(algorithm)
    }
  })
}

const subjectFaults: Sense = (document, report) => {
  const { subject } = document
  for (const type of attributeTypes) {
    const rule = subject[type]
    if (rule !== undefined)
      attributeFaults(type, rule, (place, value, reason) => report(`/subject/${type}${place}`, value, reason))
  }
  const most = attributeTypes.reduce((sum, type) => sum + mostOf(subject[type]), 0)
  if (most > maxAttributes)
    report('/subject', most, `makes up to ${most} attributes; a subject has at most ${maxAttributes}`)
  const { commonName } = subject
  const ruled = ruledBy(document)
  if (commonName?.from === 'csr' && commonName.match === undefined && !nameKinds.some((kind) => ruled.has(kind))) {
    report('/subject/commonName', '', 'must be among the names, and the profile allows none; give it match or fixed')
  }
}

/** How many attributes of its type a rule can put into a subject. */
const mostOf = (rule: AttributeDocument | undefined): number => {
  if (rule === undefined) return 0
  return rule.fixed === undefined ? (rule.max ?? 1) : listOf(rule.fixed).length
}

const attributeFaults = (type: AttributeType, rule: AttributeDocument, report: Report): void => {
  const { from, fixed, match, orName, required, max } = rule
  const { once } = attributes[type]
  if ((from === undefined) === (fixed === undefined)) report('', '', 'must have exactly one of from and fixed')
  if (fixed !== undefined) {
    if (match !== undefined || orName !== undefined || required !== undefined || max !== undefined) {
      report('', '', 'is fixed, so match, orName, required and max say nothing')
    }
    eachOf(
      fixed,
      '/fixed',
      (value, place) => fixedFaults(type, value, (reason) => report(place, value, reason)),
      report,
    )
    if (once && listOf(fixed).length > 1) report('/fixed', '', 'can have one value only')
  }
  if (match !== undefined) {
    eachOf(
      match,
      '/match',
      (value, place) => {
        const pattern = readTextPattern(value)
        if (typeof pattern === 'string') report(place, value, pattern)
        if (value === systemMasters) report(place, value, 'is accepted only where a profile fixes it')
      },
      report,
    )
  }
  if (from !== undefined && fixed === undefined && match === undefined && type !== 'commonName') {
    report('', '', 'takes any value from the request; give it match (`**` for any) or fixed')
  }
  if (orName !== undefined && (type !== 'commonName' || match === undefined))
    report('/orName', orName, 'goes with commonName and match only')
  if (once && max !== undefined && max > 1) report('/max', max, 'can have one value only')
}

const fixedFaults = (type: AttributeType, value: string, report: (reason: string) => void): void => {
  if (value.includes('*')) report('has `*`, which is literal in a fixed value; use match for a pattern')
  try {
    assertSubjectSyntax([{ type, value }])
  } catch (error) {
    if (!isProblem(error, 'subject.syntax') && !isProblem(error, 'san.ip_as_dns')) throw error
    report(error.detail)
  }
}

/** Each text of a string or a list, with its place; a text that occurs twice is a fault. */
const eachOf = (
  value: string | readonly string[],
  at: string,
  visit: (text: string, place: string) => void,
  report: Report,
): void => {
  const seen = new Set<string>()
  listOf(value).forEach((text, index) => {
    const place = typeof value === 'string' ? at : `${at}/${index}`
    if (seen.has(text)) report(place, text, 'occurs twice')
    else visit(text, place)
    seen.add(text)
  })
}

const nameFaults: Sense = (document, report) => {
  const { names = {} } = document
  const ruled = ruledBy(document)
  for (const kind of nameKinds) {
    const rules = names[kind]
    if (rules === undefined) continue
    for (const list of ['allow', 'deny'] as const) {
      eachOf(
        rules[list] ?? [],
        `/names/${kind}/${list}`,
        (text, place) => {
          const pattern = readNewPattern(kind, text)
          if (typeof pattern === 'string') report(place, text, pattern)
          else if (list === 'allow' && rules.deny?.includes(text)) report(place, text, 'is denied too, and deny wins')
        },
        report,
      )
    }
  }
  if (names.uri?.allow?.some((text) => text.startsWith('spiffe:')) && names.uri.max !== 1) {
    report('/names/uri/max', names.uri.max, 'must be 1: an X509-SVID has exactly one URI (SPIFFE X509-SVID 2)')
  }
  names.require?.forEach((kind, index) => {
    if (!ruled.has(kind)) report(`/names/require/${index}`, kind, 'is required, and no rule allows it')
  })
}

const usageFaults: Sense = (document, report) => {
  const { name, keyUsage, extendedKeyUsage, keys } = document
  const ruled = ruledBy(document)
  if (keyUsage.length > 0) {
    for (const algorithm of new Set(keysOf(keys).map(([allowed]) => allowed))) {
      if (!keyUsage.some((usage) => isServedBy(algorithm, usage)))
        report('/keyUsage', keyUsage.join(', '), `holds nothing that ${algorithm} keys can serve`)
    }
  }
  keyUsage.forEach((usage, index) => {
    if ((usage === 'encipherOnly' || usage === 'decipherOnly') && !keyUsage.includes('keyAgreement')) {
      report(`/keyUsage/${index}`, usage, 'means nothing without keyAgreement (RFC 5280 4.2.1.3)')
    }
  })
  extendedKeyUsage.forEach((usage, index) => {
    if (usage === 'OCSPSigning' && isOfResponders(name)) return
    const reason = faultOfUsage(usage)
    if (reason !== undefined) report(`/extendedKeyUsage/${index}`, usage, reason)
  })
  if (extendedKeyUsage.includes('serverAuth') && !['dns', 'ip', 'uri'].some((kind) => ruled.has(kind))) {
    report('/names', '', 'must have rules for dns, ip or uri: a server is known by its names')
  }
}

/** Profiles of the service's own, which nobody else can write. */
export const responderProfilePrefix = 'chancery-ocsp'
const isOfResponders = (name: string): boolean => name.startsWith(`${responderProfilePrefix}-`)

const faultOfUsage = (usage: string): string | undefined => {
  const reserved = reservedUsages.get(usage)
  if (reserved !== undefined) return reserved
  if (Object.hasOwn(extendedKeyUsages, usage)) return undefined
  const known = Object.entries(extendedKeyUsages).find(([, oid]) => oid === usage)
  if (known !== undefined) return `is written ${known[0]}`
  return isDottedOid(usage) ? undefined : `must be a dotted OID or one of ${Object.keys(extendedKeyUsages).join(', ')}`
}

const bindFaults: Sense = (document, report) => {
  const { bind = [] } = document
  const ruled = ruledBy(document)
  uniqueIds('/bind', bind, report)
  bind.forEach((binding, index) => {
    const place = `/bind/${index}`
    const used = methodsOf(binding)
    if (used.length !== 1)
      report(place, binding.id, 'must have exactly one of equals, firstLabel, leadingLabels and matches')
    if (!ruled.has(binding.names)) report(`${place}/names`, binding.names, 'is tied, and no rule allows it')
    templateFaults(binding, place, report)
    for (const method of used) {
      if (method === 'matches') continue
      const of = binding[method]?.of
      if (method !== 'equals' && binding.names !== 'dns')
        report(`${place}/${method}`, binding.names, 'has no labels; use equals')
      if (of === 'commonName' && binding.names === 'commonName')
        report(`${place}/${method}/of`, of, 'is tied to itself')
      else if (of === 'commonName' && !ruled.has(of))
        report(`${place}/${method}/of`, of, 'is a source, and no rule allows it')
    }
  })
}

const templateFaults = ({ names, matches }: BindingDocument, place: string, report: Report): void => {
  if (matches === undefined) return
  eachOf(
    matches,
    `${place}/matches`,
    (text, at) => {
      const template = readBindingTemplate(names, text)
      if (typeof template === 'string') report(at, text, template)
    },
    report,
  )
}

const originFaults: Sense = ({ origin }, report) => {
  if (origin !== undefined) originRuleFaults(origin, '/origin', report)
}

const approvalFaults: Sense = ({ approvals }, report) => {
  const { expires } = approvals ?? {}
  if (expires === undefined) return
  const seconds = parseDuration(expires)
  if (seconds < shortestExpiry) report('/approvals/expires', expires, 'is under 1m: nobody approves so fast')
  if (seconds > longestExpiry) report('/approvals/expires', expires, 'is more than 30d')
}

const ruleFaults: Sense = ({ rules = [] }, report) => {
  uniqueIds('/rules', rules, report)
  // A rule that nobody evaluates would allow what its author believes refused.
  rules.forEach(({ id }, index) => {
    report(`/rules/${index}`, id, 'cannot be evaluated by this version; only bindings can tie names')
  })
}

const uniqueIds = (at: string, entries: readonly { readonly id: string }[], report: Report): void => {
  const seen = new Set<string>()
  entries.forEach(({ id }, index) => {
    if (seen.has(id)) report(`${at}/${index}/id`, id, 'is the id of another entry')
    seen.add(id)
  })
}

const senses: readonly (readonly [string, Sense])[] = [
  ['profile.validity', validityFaults],
  ['profile.keys', keyFaults],
  ['profile.subject', subjectFaults],
  ['profile.names', nameFaults],
  ['profile.usages', usageFaults],
  ['profile.renewal', renewalFaults],
  ['profile.origin', originFaults],
  ['profile.bind', bindFaults],
  ['profile.approvals', approvalFaults],
  ['profile.rules', ruleFaults],
]

/** Usages that would make a leaf speak for its issuer, or for everything. */
const reservedUsages: ReadonlyMap<string, string> = new Map([
  [anyExtendedKeyUsage, 'stands for every usage; name those that are meant'],
  ['anyExtendedKeyUsage', 'stands for every usage; name those that are meant'],
  // Microsoft's own anyExtendedKeyUsage.
  ['1.3.6.1.4.1.311.10.12.1', 'stands for every usage to Windows; name those that are meant'],
  ['OCSPSigning', 'would let the holder answer for its issuer (RFC 6960 4.2.2.2)'],
  [extendedKeyUsages.OCSPSigning, 'would let the holder answer for its issuer (RFC 6960 4.2.2.2)'],
  ['1.3.6.1.4.1.11129.2.4.4', 'is for precertificate issuers (RFC 6962 3.1)'],
])

const maxValidity = 36_500 * 86_400
const maxBackdate = 86_400
const maxGrace = 30 * 86_400
const shortestExpiry = 60
const longestExpiry = 30 * 86_400

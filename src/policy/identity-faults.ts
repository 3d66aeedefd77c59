/** Everything that can be wrong with the document of an identity provider: its shape, then its sense. */

import { isProblem, type Violation } from '../errors.ts'
import { parseAnchor } from '../x509/certificate.ts'
import { parsePemCertificates } from '../x509/pem.ts'
import { readClaimRule } from './claims.ts'
import { type MappingDocument, type ProviderDocument, ProviderDocumentSchema } from './identity-document.ts'
import { uselessKeys } from './identity-keys.ts'
import { readNameTemplate, readPrincipalTemplate } from './identity-templates.ts'
import { idleFault } from './name-rules.ts'
import { pointer, type RuledKind, ruledKinds } from './names.ts'
import { originRuleFaults } from './origin-rules.ts'
import { documentFaults, type Report } from './shape.ts'

/** The document, if nothing is wrong with it, or every fault of its shape, else of its sense. */
export const faultsOfProvider = (
  input: unknown,
  { name }: { readonly name?: string } = {},
): { readonly document?: ProviderDocument; readonly faults: readonly Violation[] } => {
  const place: Sense = (document, report) => {
    if (name !== undefined && document.name !== name) report('/name', document.name, `is not ${name}`)
  }
  const faults = documentFaults<ProviderDocument>(input, {
    check: 'provider.schema',
    schema: ProviderDocumentSchema,
    senses: [['provider.name', place], ...senses],
  })
  return faults.length > 0 ? { faults } : { document: input as ProviderDocument, faults }
}

type Sense = (document: ProviderDocument, report: Report) => void

/** Indexes take 2,704 octets: of a longer one, tokens that count once are accepted by nobody, and all others are. */
const issuerFaults: Sense = ({ issuer }, report) => {
  const octets = Buffer.byteLength(issuer)
  if (octets > maxIssuer) report('/issuer', issuer, `is ${octets} octets of UTF-8; at most ${maxIssuer} are allowed`)
}

const keyFaults: Sense = (document, report) => {
  const { keys, algorithms } = document
  const { static: given = [], ca } = keys
  if (Object.keys(keys).filter((key) => keyWays.has(key)).length !== 1)
    report('/keys', '', 'must have exactly one of discovery, url and static')
  if (ca !== undefined) caFaults(ca, report)
  if (ca !== undefined && keys.static !== undefined) report('/keys/ca', '', 'says nothing where keys are static')
  given.forEach((key, i) => {
    if (given.length > 1 && typeof (key as { kid?: unknown }).kid !== 'string')
      report(`/keys/static/${i}`, '', 'must have a kid, by which tokens name it, where there are several')
  })
  const names = given.map((key: Readonly<Record<string, unknown>>) => JSON.stringify(telling.map((name) => key[name])))
  names.forEach((name, i) => {
    if (names.indexOf(name) !== i) report(`/keys/static/${i}/kid`, '', 'is that of another key')
  })
  for (const { field, reason } of uselessKeys(document)) report(field, '', reason)
  if (algorithms.includes('EdDSA') && algorithms.includes('Ed25519'))
    report('/algorithms', 'EdDSA', 'is the older name of Ed25519; one of them is enough')
}

const caFaults = (pem: string, report: Report): void => {
  try {
    for (const der of parsePemCertificates(pem, 10)) parseAnchor(der)
  } catch (error) {
    if (!isProblem(error)) throw error
    report('/keys/ca', '', `is not a list of certificates in PEM: ${error.detail}`)
  }
}

const timeFaults: Sense = ({ lifetime, clock }, report) => {
  if (seconds(lifetime) > maxLifetime) report('/lifetime', lifetime, 'is more than 24h')
  if (clock !== undefined && seconds(clock) > maxClock) report('/clock', clock, 'is more than 30s')
}

const seconds = (text: string): number => Number(text.slice(0, -1)) * ({ s: 1, m: 60, h: 3600 }[text.slice(-1)] ?? 0)

const mappingFaults: Sense = ({ mappings }, report) => {
  const seen = new Set<string>()
  mappings.forEach(({ id, principal, claims, grants = [] }, i) => {
    const place = `/mappings/${i}`
    if (seen.has(id)) report(`${place}/id`, id, 'occurs twice')
    seen.add(id)
    const template = readPrincipalTemplate(principal)
    if (typeof template === 'string') report(`${place}/principal`, principal, template)
    for (const [name, value] of Object.entries(claims)) {
      const rule = readClaimRule(name, value)
      if (typeof rule === 'string') report(`${place}/claims/${pointer(name)}`, value, rule)
    }
    grantFaults(grants, place, report)
  })
}

const grantFaults = (grants: NonNullable<MappingDocument['grants']>, place: string, report: Report): void => {
  grants.forEach(({ names = {}, onBehalfOf = {} }, i) => {
    originRuleFaults(onBehalfOf, `${place}/grants/${i}/onBehalfOf`, report)
    for (const kind of ruledKinds) {
      for (const list of ['allow', 'deny'] as const) {
        names[kind]?.[list]?.forEach((text, at) => {
          const reason = faultOfTemplate(kind, text)
          if (reason !== undefined) report(`${place}/grants/${i}/names/${kind}/${list}/${at}`, text, reason)
        })
      }
    }
  })
}

/** A label or segment with a claim may be any: an example would make another of `xn--{/tag}`. */
const faultOfTemplate = (kind: RuledKind, text: string): string | undefined => {
  const template = readNameTemplate(kind, text)
  if (typeof template === 'string') return template
  return idleFault(
    kind,
    text.replaceAll(anyPart, (part) => (part.includes('{') ? 'x' : part)),
  )
}

const senses: readonly (readonly [string, Sense])[] = [
  ['provider.schema', issuerFaults],
  ['provider.keys', keyFaults],
  ['provider.times', timeFaults],
  ['provider.mappings', mappingFaults],
]

const keyWays: ReadonlySet<string> = new Set(['discovery', 'url', 'static'])
/** By which a token finds its key among others. */
const telling = ['kid', 'kty', 'crv', 'alg', 'use', 'key_ops']
/** Each once: a pattern for those with a claim alone would look at the rest of the text again for each of its letters. */
const anyPart = /(?:[^./{}]|\{[^{}]*\})+/g
/** Octets. */
const maxIssuer = 2_048
/** Seconds. */
const maxLifetime = 86_400
const maxClock = 30

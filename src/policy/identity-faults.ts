/** Everything that can be wrong with the document of an identity provider, found in one pass. */

import { isProblem, type Violation } from '../errors.ts'
import { canonicalJson, isObject } from '../lib/canonical-json.ts'
import { parseAnchor } from '../x509/certificate.ts'
import { parsePemCertificates } from '../x509/pem.ts'
import { readClaimRule } from './claims.ts'
import { type ProviderDocument, ProviderDocumentSchema } from './identity-document.ts'
import { isSecret } from './identity-keys.ts'
import { type SoundMapping, type SoundProvider, soundPartsOfProvider } from './identity-sound-parts.ts'
import { readNameTemplate, readPrincipalTemplate } from './identity-templates.ts'
import { pointer, ruledKinds, show } from './names.ts'
import { originRuleFaults } from './origin-rules.ts'
import { mostFaults, shapeFaults } from './shape.ts'
import { isText } from './subject.ts'

type Report = (field: string, value: unknown, reason: string) => void

/**
 * The document, if nothing is wrong with it, or every fault, a thousand at most. A part whose shape is sound is judged by its sense
 * too; of what is stored, by what was asked when the first ones were written.
 */
export const faultsOfProvider = (
  input: unknown,
  { name, isStored = false }: { readonly name?: string; readonly isStored?: boolean } = {},
): { readonly document?: ProviderDocument; readonly faults: readonly Violation[] } => {
  const shape = shapeFaults(ProviderDocumentSchema, input).map((fault) => ({ check: 'provider.schema', ...fault }))
  const faults: Violation[] = [...misnamed(input, name), ...shape].slice(0, mostFaults)
  const add = (fault: Violation): void => {
    if (faults.length < mostFaults) faults.push(fault)
  }
  const sound = soundPartsOfProvider(input)
  for (const [check, find] of isStored ? senses : [...senses, ...laterSenses])
    find(sound, (field, value, reason) => add({ check, field, value: show(value), reason }))
  const unfit = shape.length === 0 ? textFault(input) : undefined
  if (unfit !== undefined) add({ check: 'provider.schema', field: '', value: '', reason: unfit })
  return faults.length > 0 ? { faults } : { document: input as ProviderDocument, faults }
}

/** Where it is to have a name that it does not give itself. */
const misnamed = (input: unknown, name: string | undefined): readonly Violation[] => {
  const written = isObject(input) ? input.name : undefined
  if (name === undefined || written === undefined || written === name) return []
  return [{ check: 'provider.name', field: '/name', value: show(written), reason: `is not ${name}` }]
}

const textFault = (document: unknown): string | undefined => {
  try {
    const octets = Buffer.byteLength(canonicalJson(document))
    return octets > maxOctets ? `is ${octets} octets of canonical JSON; at most ${maxOctets} are allowed` : undefined
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    return `is not plain JSON: ${error.message}`
  }
}

type Sense = (sound: SoundProvider, report: Report) => void

/** Tokens are found by it in the tables, whose texts have no NUL. */
const issuerFaults: Sense = ({ issuer }, report) => {
  if (issuer !== undefined && !isText(issuer)) report('/issuer', issuer, 'has a NUL, or half of a character')
}

/** Indexes take 2,704 octets: of a longer one, tokens that count once are accepted by nobody, and all others are. */
const longIssuer: Sense = ({ issuer = '' }, report) => {
  const octets = Buffer.byteLength(issuer)
  if (octets > maxIssuer) report('/issuer', issuer, `is ${octets} octets of UTF-8; at most ${maxIssuer} are allowed`)
}

const keyFaults: Sense = ({ keys, written, algorithms = [] }, report) => {
  const { static: given = [], ca } = keys
  if (written && written.filter((key) => keyWays.has(key)).length !== 1)
    report('/keys', '', 'must have exactly one of discovery, url and static')
  if (ca !== undefined) caFaults(ca, report)
  if (written?.includes('ca') && written.includes('static'))
    report('/keys/ca', '', 'says nothing where keys are static')
  given.forEach((key, i) => {
    const place = `/keys/static/${i}`
    if (!keyTypes.has(key.kty)) report(`${place}/kty`, key.kty, `must be one of ${[...keyTypes].join(', ')}`)
    if (isSecret(key)) report(place, '', 'holds a private or a shared key: treat it as exposed')
    if (given.length > 1 && typeof (key as { kid?: unknown }).kid !== 'string')
      report(place, '', 'must have a kid, by which tokens name it, where there are several')
  })
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
  if (lifetime !== undefined && seconds(lifetime) > maxLifetime) report('/lifetime', lifetime, 'is more than 24h')
  if (clock !== undefined && seconds(clock) > maxClock) report('/clock', clock, 'is more than 30s')
}

const seconds = (text: string): number => Number(text.slice(0, -1)) * ({ s: 1, m: 60, h: 3600 }[text.slice(-1)] ?? 0)

const mappingFaults: Sense = ({ mappings }, report) => {
  const seen = new Set<string>()
  mappings.forEach(({ id, principal, claims, grants }, i) => {
    const place = `/mappings/${i}`
    if (id !== undefined && seen.has(id)) report(`${place}/id`, id, 'occurs twice')
    if (id !== undefined) seen.add(id)
    const template = principal === undefined ? undefined : readPrincipalTemplate(principal)
    if (typeof template === 'string') report(`${place}/principal`, principal, template)
    for (const [name, value] of Object.entries(claims)) {
      const rule = readClaimRule(name, value)
      if (typeof rule === 'string') report(`${place}/claims/${pointer(name)}`, value, rule)
    }
    grantFaults(grants, place, report)
  })
}

const grantFaults = (grants: SoundMapping['grants'], place: string, report: Report): void => {
  grants.forEach(({ names, onBehalfOf = {} }, i) => {
    originRuleFaults(onBehalfOf, `${place}/grants/${i}/onBehalfOf`, report)
    for (const kind of ruledKinds) {
      for (const list of ['allow', 'deny'] as const) {
        names[kind]?.[list]?.forEach((text, at) => {
          const template = readNameTemplate(kind, text)
          if (typeof template === 'string') report(`${place}/grants/${i}/names/${kind}/${list}/${at}`, text, template)
        })
      }
    }
  })
}

const senses: readonly (readonly [string, Sense])[] = [
  ['provider.schema', issuerFaults],
  ['provider.keys', keyFaults],
  ['provider.times', timeFaults],
  ['provider.mappings', mappingFaults],
]

/** What was not asked from the beginning. */
const laterSenses: typeof senses = [['provider.schema', longIssuer]]

const keyWays: ReadonlySet<string> = new Set(['discovery', 'url', 'static'])
const keyTypes: ReadonlySet<string> = new Set(['RSA', 'EC', 'OKP', 'AKP'])
const maxOctets = 65_536
/** Octets. */
const maxIssuer = 2_048
/** Seconds. */
const maxLifetime = 86_400
const maxClock = 30

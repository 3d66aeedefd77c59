/** Events of the roll for people: what each of them says in its most telling fields. Machines get the exact entries. */
import type { Origin } from '../policy/origin.ts'
import { type CredentialChanged, type IssuerMoved, listsText, type RollEvent } from '../tlog/entries.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { formatSubject, parseSubject } from '../x509/subject.ts'

/** One entry as the API gives it. */
export interface EntryRow {
  readonly index: number
  /** Canonical JSON. */
  readonly entry: string
}

/** The cells of one line. A type that a newer service knows is told by all of its fields. */
export const eventRow = ({ index, entry }: EntryRow): Readonly<Record<string, unknown>> => {
  const { time, type, v: _v, ...fields } = JSON.parse(entry) as { time: string; type: string; v: number }
  const tell = Object.hasOwn(tellers, type) ? (tellers as Readonly<Record<string, Teller>>)[type] : undefined
  return { time, index, type, what: tell ? tell(fields) : JSON.stringify(fields) }
}

export const eventColumns = ['time', 'index', 'type', 'what'] as const

type Teller = (event: object) => string
type EventOf<T, E = RollEvent> = E extends { readonly type: infer U } ? (T extends U ? E : never) : never

const moved = ({ issuer, authority, from, reason, by }: IssuerMoved): string =>
  `${issuer} of authority ${authority}, ${from} before, by ${by}${reason === null ? '' : `: ${JSON.stringify(reason)}`}`

/** What a token says of a key, as far as it does: `sensitive not extractable …`. */
const holdOf = (attributes: Readonly<Record<string, boolean | null>>): string =>
  Object.entries(attributes)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => (value ? name : `not ${name}`))
    .join(', ')

const tellers: { readonly [T in RollEvent['type']]: (event: EventOf<T>) => string } = {
  'certificate.issued': ({ certificate, serial, principal, profile, issuer, replaces, approval, origin }) =>
    [
      `${subjectsOf(certificate)} to ${principal} by ${versionOf(profile)}, serial ${serial}, issuer ${issuer}`,
      ...(replaces ? [`in place of ${replaces}`] : []),
      ...(approval ? [`for the request ${approval}`] : []),
      ...(origin ? [`on behalf of ${originLine(origin as unknown as Origin)}`] : []),
    ].join(', '),
  'issuance.abandoned': ({ serial, principal, profile, issuer }) =>
    `serial ${serial} for ${principal} by ${versionOf(profile)}, issuer ${issuer}`,
  'certificate.revoked': ({ serial, issuer, reason, revokedAt, invalidityDate, plan, by }) =>
    [
      `serial ${serial}, issuer ${issuer}, ${reason} since ${revokedAt}`,
      ...(invalidityDate === null ? [] : [`invalid since ${invalidityDate}`]),
      ...(plan === null ? [] : [`by plan ${plan}`]),
      `by ${by ?? 'the holder of its key'}`,
    ].join(', '),
  'certificate.released': ({ serial, issuer, by }) => `serial ${serial}, issuer ${issuer}, from hold, by ${by}`,
  'crls.intended': ({ issuer, lists }) =>
    `${lists.length} of issuer ${issuer}, shards ${lists.map(({ shard, number }) => `${shard} (number ${number})`).join(' ')}`,
  'crl.imported': ({ issuer, number, nextUpdate, by }) =>
    `number ${number} above issuer ${issuer}, until ${nextUpdate}, by ${by}`,
  'revocations.ordered': ({ plan, search, reason, count, by }) =>
    `${count} certificates, ${reason}, by ${by}: ${searchText(search)}, plan ${plan}`,
  'revocations.done': ({ plan, revoked, skipped }) =>
    `${revoked} revoked, ${skipped.expired + skipped.revoked} passed by, plan ${plan}`,
  'request.created': ({ id, principal, profile, plan, required, expires }) =>
    `${id} of ${principal} by ${versionOf(profile)}, plan ${plan}, to be approved by ${required} until ${expires}`,
  'request.approved': ({ id, reason, by }) => `${id} by ${by}: ${JSON.stringify(reason)}`,
  'request.rejected': ({ id, reason, by }) => `${id} by ${by}: ${JSON.stringify(reason)}`,
  'request.withdrawn': ({ id, reason, by }) => `${id} by ${by}: ${JSON.stringify(reason)}`,
  'request.expired': ({ id }) => id,
  'request.failed': ({ id, code, reason }) => `${id}, ${code}: ${JSON.stringify(reason)}`,
  'profile.changed': ({ profile, approvals, by }) =>
    `${versionOf(profile)}${approvals > 0 ? `, to be approved by ${approvals},` : ''} by ${by}`,
  'provider.changed': ({ provider, by }) => `${versionOf(provider)} by ${by}`,
  'principal.created': ({ principal, by }) => `${principal} by ${by}`,
  'principal.disabled': ({ principal, by }) => `${principal} by ${by}`,
  'grant.changed': ({ change, principal, role, profiles, names, revoke, limits, onBehalfOf, sharedKeys, grant, by }) =>
    [
      `${change}: ${principal} as ${role}`,
      ...(profiles ? [` of ${profiles.join(' ')}`] : []),
      ...(names ? [` within ${JSON.stringify(names)}`] : []),
      ...(revoke ? [' with the right to revoke'] : []),
      ...(limits ? [` with limits ${JSON.stringify(limits)}`] : []),
      ...(onBehalfOf ? [` on behalf of others ${JSON.stringify(onBehalfOf)}`] : []),
      ...(sharedKeys ? [' with keys of others'] : []),
      `, ${grant}, by ${by}`,
    ].join(''),
  'token.created': ({ label, principal, expires, token, by }) =>
    `${JSON.stringify(label)} of ${principal} until ${expires ?? 'it is revoked'}, ${token}, by ${by}`,
  'token.revoked': ({ label, principal, token, by }) => `${JSON.stringify(label)} of ${principal}, ${token}, by ${by}`,
  'credential.created': (event) => `${credentialText(event)}, by ${event.by}`,
  'credential.revoked': (event) => `${credentialText(event)}, by ${event.by}`,
  'issuer.created': ({ issuer, authority, state, shards, by }) =>
    `${issuer} of authority ${authority}, ${state}, ${listsText(shards)}, by ${by}`,
  'issuer.activated': moved,
  'issuer.retiring': moved,
  'issuer.closed': moved,
  'issuer.halted': moved,
  'issuer.discarded': moved,
  'issuer.retired': moved,
  'issuer.requested': ({ issuer, authority, key, by }) => `${issuer} of authority ${authority}, key ${key}, by ${by}`,
  'issuer.chained': ({ issuer, authority, chains, by }) =>
    `${issuer} of authority ${authority}, ${chains.length === 1 ? 'one way' : `${chains.length} ways`} up, by ${by}`,
  'issuer.relocated': ({ issuer, authority, key, before, reason, by }) =>
    `${issuer} of authority ${authority}, key ${key}, before ${before}, by ${by}${reason === null ? '' : `: ${JSON.stringify(reason)}`}`,
  'key.opened': ({ issuer, key, attributes }) => `${key} of ${issuer}${attributes ? `, ${holdOf(attributes)}` : ''}`,
  'key.probed': ({ key, attributes, by }) => `${key}${attributes ? `, ${holdOf(attributes)}` : ''}, by ${by}`,
  'roll.opened': ({ origin, succeeds, by }) =>
    `${origin}${succeeds ? `, after ${succeeds.size} entries of ${succeeds.origin}` : ''}, by ${by}`,
  'database.adopted': ({ database, before, reason, by }) =>
    `${database ?? 'without a number'}, before ${before ?? 'without a number'}, by ${by}${reason === null ? '' : `: ${JSON.stringify(reason)}`}`,
  'service.started': ({ version, mode }) => `version ${version} in ${mode}`,
}

/** `profile server, issuedBefore 2026-…`. */
export const searchText = (search: Readonly<Record<string, string>>): string =>
  Object.entries(search)
    .map(([field, value]) => `${field} ${value}`)
    .join(', ')

const credentialText = ({ label, principal, fingerprint, spiffe, subject, credential }: CredentialChanged): string => {
  const which =
    fingerprint !== null
      ? `the certificate ${fingerprint}`
      : spiffe !== null
        ? `certificates for ${spiffe}`
        : `certificates of ${nameText(subject?.name)} by ${nameText(subject?.issuer)}`
  return `${JSON.stringify(label)} of ${principal}: ${which}, ${credential}`
}

/** A Name in base64 of its DER, as people read it. */
export const nameText = (base64 = ''): string => {
  try {
    return formatSubject(parseSubject(Buffer.from(base64, 'base64')))
  } catch {
    return base64
  }
}

const versionOf = ({ name, version }: { readonly name: string; readonly version: number }): string =>
  `${name}@${version}`

/** The names of a certificate, or its subject where it has none. */
const subjectsOf = (base64: string): string => {
  try {
    const { names, subject } = parseCertificate(Buffer.from(base64, 'base64')).facts
    return names.length > 0 ? names.map(({ kind, value }) => `${kind}:${value}`).join(' ') : formatSubject(subject)
  } catch {
    return 'a certificate that cannot be read'
  }
}

/** On whose behalf something was asked for: `alice in shop, CertificateRequest web-1`. */
export const originLine = ({ user, namespace, serviceAccount, node, object }: Origin): string =>
  [
    `${user ?? `service account ${serviceAccount}`}${namespace === undefined ? '' : ` in ${namespace}`}`,
    ...(node === undefined ? [] : [`node ${node}`]),
    ...(object === undefined ? [] : [`${object.kind} ${object.name}`]),
  ].join(', ')

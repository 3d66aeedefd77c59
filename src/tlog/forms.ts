/**
 * The form of every entry, in one table beside the union in `entries.ts`: neither compiles without the other. What an
 * auditor reads is read by it: canonical JSON of a known type, with the fields of that type and no others.
 * docs/roll.md is tested against it both ways.
 */
import { canonicalJson, isObject } from '../lib/canonical-json.ts'
import type { CredentialChanged, RollEvent, RollOpened } from './entries.ts'
import { RollFault } from './fault.ts'
import { base64Length, readText } from './text.ts'

export type EventType = RollEvent['type']
/** Some interfaces of the union declare several types. */
type Declaring<T, E> = E extends { readonly type: unknown } ? (T extends E['type'] ? E : never) : never
type EventOf<T extends EventType> = Omit<Declaring<T, RollEvent>, 'type'>

/** An entry as it stands on the roll. */
export type EntryOf<T extends EventType> = EventOf<T> & { readonly type: T; readonly v: number; readonly time: string }
export type RollEntry = { readonly [T in EventType]: EntryOf<T> }[EventType]

export interface EntryForm {
  readonly means: string
  readonly fields: Fields
}

/** Reads the octets of an entry. Throws `entry.text`, `entry.type` or `entry.form`. */
export const parseEntry = (octets: Uint8Array): RollEntry => {
  const text = readText(octets, 'entry.text', maxEntryOctets)
  const entry = parseJson(text)
  if (!isObject(entry)) throw new RollFault('entry.text', 'it is not a JSON object')
  const { type, v } = entry
  const form = typeof type === 'string' && Object.hasOwn(entryForms, type) ? entryForms[type as EventType] : undefined
  if (form === undefined || v !== 1)
    throw new RollFault('entry.type', `its type is ${nameOf(type)}, its version ${nameOf(v)}`)
  const fault = findFault(entry, { ...common, ...form.fields })
  if (fault !== undefined) throw new RollFault('entry.form', `${type}: ${fault}`)
  // Only now: what has a known form is not nested deeply.
  if (canonicalJson(entry) !== text) throw new RollFault('entry.text', 'it is not canonical JSON (RFC 8785)')
  return entry as unknown as RollEntry
}

/** How a value looks, for documents and for those who check it. */
export interface Form<T = unknown> {
  readonly title: string
  /** Where it does not fit, as a path within the value, or why; undefined where it does. */
  readonly fault: (value: unknown) => string | undefined
  /** Never there: ties the form to the field of the event. */
  readonly of?: T
}

export type Fields = Readonly<Record<string, Form>>
type FieldsOf<E> = { readonly [F in keyof E]-?: Form<E[F]> }
type FormOf<T extends EventType> = EntryForm & { readonly fields: FieldsOf<EventOf<T>> }

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    throw new RollFault('entry.text', 'it is not JSON')
  }
}

/** Whatever was read: only what is plain is told again. */
const nameOf = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : 'none'

const findFault = (value: unknown, fields: Fields): string | undefined => {
  if (!isObject(value)) return ' is not an object'
  let known = 0
  for (const name in fields) {
    if (!Object.hasOwn(value, name)) return `/${name} is missing`
    const fault = fields[name]?.fault(value[name])
    if (fault !== undefined) return `/${name}${fault}`
    known += 1
  }
  const names = Object.keys(value)
  if (names.length === known) return undefined
  return `/${names.find((name) => !Object.hasOwn(fields, name))} is not known`
}

// Forms of values ---------------------------------------------------------------------------------------------------------

const where = <T>(title: string, accepts: (value: unknown) => boolean): Form<T> => ({
  title,
  fault: (value) => (accepts(value) ? undefined : ` is not ${title}`),
})
const matching = (title: string, pattern: RegExp): Form<string> =>
  where(title, (value) => typeof value === 'string' && pattern.test(value))
const oneOf = <T extends string>(...values: readonly T[]): Form<T> =>
  where(values.map((value) => `\`${value}\``).join(', '), (value) => values.includes(value as T))
const time = (title: string, pattern: RegExp): Form<string> =>
  where(title, (value) => typeof value === 'string' && pattern.test(value) && isCalendar(value))

/** Of digits that stand where they belong: there is such a day, and such a time of it. Making a Date of it takes longer. */
const isCalendar = (text: string): boolean => {
  const two = (at: number): number => 10 * digitAt(text, at) + digitAt(text, at + 1)
  const [year, month] = [100 * two(0) + two(2), two(5)]
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const days = month === 2 ? (isLeap ? 29 : 28) : (monthDays[month] ?? 0)
  return two(8) >= 1 && two(8) <= days && two(11) < 24 && two(14) < 60 && two(17) < 60
}
const digitAt = (text: string, at: number): number => text.charCodeAt(at) - 0x30
/** From the first month on; of the second, it depends. */
const monthDays = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

const text: Form<string> = where('text', (value) => typeof value === 'string')
const truth: Form<boolean> = where('true or false', (value) => typeof value === 'boolean')
const count: Form<number> = where('a count', (value) => Number.isSafeInteger(value) && (value as number) >= 0)
const positive: Form<number> = where(
  'a count from 1 on',
  (value) => Number.isSafeInteger(value) && (value as number) > 0,
)
const decimal = matching('a decimal as text', /^(0|[1-9][0-9]{0,63})$/)
const serial = matching('a serial', /^[0-9a-f]{32}$/)
const digest = matching('a SHA-256 in hex', /^[0-9a-f]{64}$/)
const millisecond = time('a time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const second = time('a time in whole seconds', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
const json: Form<unknown> = where('JSON', (value) => depthOf(value) <= maxDepth)
// Every certificate comes by here: octets that nobody keeps would cost more to throw away than to decode (measured).
const base64 = where<string>('base64', (value) => typeof value === 'string' && (base64Length(value) ?? 0) > 0)

const orNull = <T>(form: Form<T>): Form<T | null> => ({
  title: `${form.title}, or null`,
  fault: (value) => (value === null ? undefined : form.fault(value)),
})
const list = <T>(form: Form<T>): Form<readonly T[]> => ({
  title: `a list of ${form.title}`,
  fault: (value) => (Array.isArray(value) ? firstFault(value.entries(), form) : ' is not a list'),
})
const members = <T>(form: Form<T>): Form<Readonly<Record<string, T>>> => ({
  title: `members, each ${form.title}`,
  fault: (value) => (isObject(value) ? firstFault(Object.entries(value), form) : ' is not an object'),
})
const object = <T>(fields: FieldsOf<T>): Form<T> => ({
  title: `{ ${Object.entries<Form>(fields)
    .map(([name, { title }]) => `${name}: ${title}`)
    .join(', ')} }`,
  fault: (value) => findFault(value, fields),
})

const firstFault = (values: Iterable<readonly [number | string, unknown]>, form: Form): string | undefined => {
  for (const [at, value] of values) {
    const fault = form.fault(value)
    if (fault !== undefined) return `/${at}${fault}`
  }
  return undefined
}

/** Stops at the bound: what is nested without end is not followed. */
const depthOf = (value: unknown, left = maxDepth): number => {
  if (typeof value !== 'object' || value === null) return 0
  if (left === 0) return 1
  return 1 + Math.max(0, ...Object.values(value).map((inner) => depthOf(inner, left - 1)))
}

/** More than name rules ever need. */
const maxDepth = 8
const maxEntryOctets = 65_535

// Forms of entries --------------------------------------------------------------------------------------------------------

const profile = object<{ readonly name: string; readonly version: number }>({ name: text, version: count })
const reason = oneOf(
  'unspecified',
  'keyCompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'certificateHold',
  'privilegeWithdrawn',
)
const state = oneOf('staged', 'active', 'retiring', 'crl-only', 'retired')
const attributes = orNull(members(orNull(truth)))

const token = { token: text, principal: text, label: text, expires: orNull(millisecond), by: text }
const credential = {
  credential: text,
  principal: text,
  label: text,
  fingerprint: orNull(digest),
  spiffe: orNull(text),
  subject: orNull(object<NonNullable<CredentialChanged['subject']>>({ name: base64, issuer: base64 })),
  by: text,
}
const move = { issuer: text, authority: text, from: state, reason: orNull(text), by: text }
const approval = { id: text, plan: digest, reason: text, by: text }
const issuance = { serial, issuer: text, principal: text, profile, request: digest, plan: digest }

/** In every entry, beside its type and version. */
const common = { type: text, v: count, time: millisecond }

export const entryForms: { readonly [T in EventType]: FormOf<T> } = {
  'certificate.issued': {
    means:
      'a certificate was issued. `approval`: for this request, which people had to approve; `origin`: on behalf of these, whom its principal named; `replaces`: in place of the certificate with this serial',
    fields: {
      ...issuance,
      certificate: base64,
      approval: orNull(text),
      origin: orNull(members(json)),
      replaces: orNull(serial),
    },
  },
  'issuance.abandoned': {
    means: 'a certificate may have been signed that nobody got; its serial is on the lists',
    fields: { ...issuance, shard: count, intended: millisecond, notAfter: millisecond },
  },
  'certificate.revoked': {
    means:
      'a certificate was revoked, or is from now on for another reason; `by` null: by whoever proved to hold its key',
    fields: {
      serial,
      issuer: text,
      shard: count,
      reason,
      revokedAt: second,
      invalidityDate: orNull(second),
      plan: orNull(digest),
      by: orNull(text),
    },
  },
  'certificate.released': {
    means: 'a certificate on hold holds again',
    fields: { serial, issuer: text, shard: count, by: text },
  },
  'crls.intended': {
    means: 'lists are about to be signed; `covers` is the size of the roll that they know',
    fields: {
      issuer: text,
      lists: list(
        object({
          shard: count,
          number: count,
          covers: count,
          thisUpdate: millisecond,
          nextUpdate: millisecond,
          revoked: count,
          tbs: digest,
        }),
      ),
    },
  },
  'crl.imported': {
    means: 'a list that a CA above an issuer has signed came in',
    fields: {
      issuer: text,
      signer: digest,
      number: decimal,
      thisUpdate: millisecond,
      nextUpdate: millisecond,
      revoked: count,
      sha256: digest,
      by: text,
    },
  },
  'revocations.ordered': {
    means: 'all that a search found is to be revoked',
    fields: {
      plan: digest,
      search: members(text),
      reason,
      invalidityDate: orNull(second),
      asOf: object<{ readonly size: number; readonly time: string }>({ size: count, time: millisecond }),
      count,
      certificates: digest,
      by: text,
    },
  },
  'revocations.done': {
    means: 'the last of an order was revoked, or passed by',
    fields: {
      plan: digest,
      revoked: count,
      skipped: object<{ readonly expired: number; readonly revoked: number }>({ expired: count, revoked: count }),
    },
  },
  'request.created': {
    means: 'somebody asks for what people must approve: `decided`, whose digest is `plan`',
    fields: {
      id: text,
      principal: text,
      profile,
      request: digest,
      plan: digest,
      decided: members(json),
      required: count,
      expires: millisecond,
    },
  },
  'request.approved': { means: 'somebody approves exactly that', fields: approval },
  'request.rejected': { means: 'somebody turns it down', fields: approval },
  'request.withdrawn': { means: 'who asked takes it back', fields: approval },
  'request.expired': { means: 'it was not issued in time', fields: { id: text, plan: digest } },
  'request.failed': {
    means: 'it was approved, and is not what would be issued by now',
    fields: { id: text, plan: digest, code: text, reason: text },
  },
  'profile.changed': {
    means: 'a version of a profile was made; `approvals`: how many must approve what it yields',
    fields: { profile, sha256: digest, approvals: count, by: text },
  },
  'provider.changed': {
    means: 'a version of the document of an identity provider was made',
    fields: { provider: profile, sha256: digest, by: text },
  },
  'principal.created': { means: 'a principal was created', fields: { principal: text, by: text } },
  'principal.disabled': { means: 'a principal was closed for good', fields: { principal: text, by: text } },
  'grant.changed': {
    means:
      'a grant was created or revoked; `revoke`: it lets its principal revoke certificates of its own; `limits`: how much it allows; `onBehalfOf`: it lets its principal ask on behalf of others, by these rules; `sharedKeys`: it lets its principal have certificates for keys of others',
    fields: {
      change: oneOf('created', 'revoked'),
      grant: text,
      principal: text,
      role: text,
      profiles: orNull(list(text)),
      names: json,
      revoke: truth,
      limits: orNull(members(count)),
      onBehalfOf: orNull(members(json)),
      sharedKeys: truth,
      by: text,
    },
  },
  'token.created': { means: 'a token was created', fields: token },
  'token.revoked': { means: 'a token was revoked', fields: token },
  'credential.created': {
    means: 'client certificates are a principal’s from now on: one, those with this SPIFFE id, or with this subject',
    fields: credential,
  },
  'credential.revoked': { means: 'they are not any more', fields: credential },
  'issuer.created': {
    means: 'there is an issuer, with this certificate; `shards`: into how many lists what it revokes is cut',
    fields: { issuer: text, authority: text, certificate: base64, state, shards: positive, by: text },
  },
  'issuer.activated': { means: 'an issuer signs from now on', fields: move },
  'issuer.retiring': { means: 'an issuer signs no more, but may again', fields: move },
  'issuer.closed': { means: 'an issuer only tells of revocations', fields: move },
  'issuer.halted': { means: 'the same, past every guard', fields: move },
  'issuer.discarded': { means: 'an issuer that never signed is given up', fields: move },
  'issuer.retired': { means: 'an issuer has nothing left to tell of', fields: move },
  'issuer.requested': {
    means: 'a key was made for an issuer that is to be',
    fields: { issuer: text, authority: text, key: text, spki: digest, by: text },
  },
  'issuer.chained': {
    means: 'these are the ways up from an issuer: the certificates of each, its own first',
    fields: { issuer: text, authority: text, chains: list(list(digest)), by: text },
  },
  'issuer.relocated': {
    means: 'the key of an issuer is at `key` from now on, and was at `before`: it is the same, and has signed there',
    fields: {
      ...{ issuer: text, authority: text, key: text, before: text, spki: digest },
      ...{ reason: orNull(text), by: text },
    },
  },
  'key.opened': {
    means: "an instance has opened an issuer's key",
    fields: { issuer: text, key: text, spki: digest, attributes },
  },
  'key.probed': {
    means: 'somebody has opened a key and seen it sign a fixed text',
    fields: { key: text, spki: digest, attributes, by: text },
  },
  'roll.opened': {
    means: 'checkpoints bear this origin from now on; `succeeds`: where entries of the origin before are lost',
    fields: {
      origin: text,
      key: text,
      database: orNull(text),
      succeeds: orNull(object<NonNullable<RollOpened['succeeds']>>({ origin: text, size: count, root: base64 })),
      by: text,
    },
  },
  'database.adopted': {
    means:
      'the records have moved to another database, on purpose: the number of its server, a slash, and its own (oid)',
    fields: { database: orNull(text), before: orNull(text), reason: orNull(text), by: text },
  },
  'service.started': { means: 'an instance started', fields: { version: text, mode: text } },
}

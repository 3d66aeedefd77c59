/** Values of the domain as the API shows them: plain JSON data; times in RFC 3339, octets in hexadecimal or PEM. */

import type { Issued } from '../../ca/issuance/issuance.ts'
import type { FoundCertificate } from '../../ca/records.ts'
import type { Revocation } from '../../ca/revocation/revoke.ts'
import { isProblem, Problem } from '../../errors.ts'
import type { Static } from '../../lib/schema.ts'
import { nearest } from '../../lib/suggest.ts'
import { encodeProof } from '../../tlog/proof.ts'
import { soughtFault } from '../../x509/names.ts'
import { encodePem } from '../../x509/pem.ts'
import { formatSubject, parseSubjectText } from '../../x509/subject.ts'
import { instantOf } from '../../x509/time.ts'
import { type OriginView, timeWords } from './schemas.ts'

export const issuedView = (issued: Issued) => ({
  ...recordOf(issued),
  ...pemsOf(issued),
  proof: encodeProof(issued.proof),
})

const recordOf = (issued: Issued) => ({
  serial: issued.serial,
  profile: { name: issued.profile.name, version: issued.profile.version },
  issuer: issued.issuer,
  notBefore: issued.notBefore.toISOString(),
  notAfter: issued.notAfter.toISOString(),
  index: issued.index,
  leafHash: issued.leafHash.toString('hex'),
  notes: issued.notes,
  replayed: issued.replayed,
})

/** Certificate and chain, each a PEM block. */
export const pemsOf = ({ certificate, chain }: CertificateAndChain): { certificate: string; chain: string[] } => ({
  certificate: encodePem('CERTIFICATE', certificate),
  chain: chain.map(issuerPem),
})

export interface CertificateAndChain {
  readonly certificate: Buffer
  readonly chain: readonly Buffer[]
}

/** The certificate and what is above it, leaf first (RFC 8555 9.1). */
export const chainPem = ({ certificate, chain }: CertificateAndChain): string =>
  encodePem('CERTIFICATE', certificate) + chain.map(issuerPem).join('')

/** What a search shows of a certificate. */
export const recordView = (record: FoundCertificate) => ({
  serial: record.serial,
  status: record.status,
  subject: record.subject,
  names: record.names.map(({ kind, value }) => ({ kind, value })),
  profile: { name: record.profile.name, version: record.profile.version },
  principal: record.principal,
  issuer: record.issuer,
  keySha256: record.keySha256,
  notBefore: record.notBefore.toISOString(),
  notAfter: record.notAfter.toISOString(),
  issuedAt: record.issuedAt.toISOString(),
  index: record.index,
  ...(record.revocation && { revocation: revocationView(record.revocation) }),
  ...(record.origin && { origin: record.origin as Static<typeof OriginView> }),
})

/** Times in whole seconds, as lists and answers have them. */
export const revocationView = ({ reason, revokedAt, invalidSince, by, index }: Revocation) => ({
  reason,
  revokedAt: revokedAt.toISOString(),
  ...(invalidSince && { invalidityDate: invalidSince.toISOString() }),
  by,
  index,
})

export const timeOrNull = (time: Date | null): string | null => (time === null ? null : time.toISOString())

/** 32 lower-case digits of what the schema let through. */
export const parseSerial = (text: string): string => text.replaceAll(':', '').toLowerCase()

/** Seconds of what the schema let through. Throws `request.malformed`, naming `field`, beyond a hundred years. */
export const parseDuration = (text: string, field: string): number => {
  const seconds = Number(text.slice(0, -1)) * (units[text.slice(-1)] ?? Number.NaN)
  if (seconds <= hundredYears) return seconds
  throw new Problem('request.malformed', 'A duration is longer than a hundred years.', {
    violations: [{ check: 'request.duration', field, value: text, reason: 'is longer than a hundred years' }],
  })
}

/**
 * Throws `request.malformed`, naming `field`, for a day that no calendar has, and for what its offset takes out of years
 * 1 to 9999. A Date is of milliseconds, as all is that we show: what is finer becomes the next one, for what is from then on,
 * or before then, is the same.
 */
export const parseTime = (text: string, field: string): Date => {
  const time = instantOf(text)
  if (time === undefined) throw timeProblem('A time is not one that exists.', field, text)
  if (finerThanMs.test(text)) time.setTime(time.getTime() + 1)
  const year = time.getUTCFullYear()
  if (year < 1 || year > 9999) throw timeProblem('A time is not within the years 0001 to 9999 of UTC.', field, text)
  return time
}

/** Lists say it in whole seconds (RFC 5280 5.3.2). Throws `request.malformed` for what they cannot say; zeros say nothing. */
export const parseInvalidity = (text: string | undefined): Date | null => {
  if (text === undefined) return null
  const field = '/invalidityDate'
  if (!finerThanSeconds.test(text)) return parseTime(text, field)
  const reason = 'must be in whole seconds, as lists have it (RFC 5280 5.3.2)'
  throw timeProblem('An invalidity date is in whole seconds.', field, text, reason)
}

/** Throws `request.malformed`, naming `field`, for what no certificate is found by: a mistake is no answer. */
export const parseSought = (name: string, field: string): string => {
  const reason = soughtFault(name)
  if (reason === undefined) return name
  throw new Problem('request.malformed', 'What is searched for is no name.', {
    violations: [{ check: 'request.name', field, value: name, reason }],
  })
}

/** A subject as lists show it, however RFC 4514 lets it be written. Throws `request.malformed` for what no certificate has. */
export const parseSoughtSubject = (text: string, field: string): string => {
  try {
    return formatSubject(parseSubjectText(text))
  } catch (error) {
    if (!isProblem(error)) throw error
    const reason = `is no subject that a certificate has: ${error.detail}`
    throw new Problem('request.malformed', 'What is searched for is no subject.', {
      violations: [{ check: 'request.subject', field, value: text, reason }],
    })
  }
}

/** Throws `request.malformed` for a word that is none of a closed set: nothing was ever recorded under it. */
export const parseKnown = (word: string, known: Known, field: string): string => {
  if (Object.hasOwn(known.words, word)) return word
  const meant = nearest(word, Object.keys(known.words))
  const hint = meant === undefined ? `: ${known.where} has all that there are` : `; did you mean ${meant}?`
  throw new Problem('request.malformed', `There is no such ${known.what}.`, {
    violations: [{ check: 'request.query', field, value: word, reason: `is no ${known.what}${hint}` }],
  })
}

export interface Known {
  readonly what: string
  readonly words: Readonly<Record<string, unknown>>
  readonly where: string
}

type SpanField<S extends string> = `${S}After` | `${S}Before`

/** The times of these spans, as far as they are given, in fields below `at`. */
export const spansOf = <S extends string>(
  given: Readonly<Partial<Record<SpanField<S>, string | undefined>>>,
  spans: readonly S[],
  at = '',
): Partial<Record<SpanField<S>, Date>> => {
  const found: Partial<Record<SpanField<S>, Date>> = {}
  for (const span of spans) {
    const [after, before]: readonly [SpanField<S>, SpanField<S>] = [`${span}After`, `${span}Before`]
    for (const field of [after, before])
      if (given[field] !== undefined) found[field] = parseTime(given[field], `${at}/${field}`)
    assertSpan([`${at}/${after}`, found[after]], [`${at}/${before}`, found[before]])
  }
  return found
}

/** A span of time in a query. */
export const spanOf = (after: string | undefined, before: string | undefined) => {
  const span = {
    ...(after !== undefined && { after: parseTime(after, '/after') }),
    ...(before !== undefined && { before: parseTime(before, '/before') }),
  }
  assertSpan(['/after', span.after], ['/before', span.before])
  return span
}

/** A field, and what it says. */
export type Bound = readonly [field: string, value: Date | number | undefined]

/** Throws `request.malformed` for a span that ends before it begins: nothing is ever within it. */
export const assertSpan = ([begin, from]: Bound, [end, until]: Bound): void => {
  if (from === undefined || until === undefined || from <= until) return
  const value = until instanceof Date ? until.toISOString() : String(until)
  throw new Problem('request.malformed', 'A span ends before it begins.', {
    violations: [{ check: 'request.span', field: end, value, reason: `is before ${begin}` }],
  })
}

/** A time that is no good in this place. */
export const timeProblem = (detail: string, field: string, value: string, reason = timeWords): Problem =>
  new Problem('request.malformed', detail, { violations: [{ check: 'request.time', field, value, reason }] })

/** The same few issuers stand above every certificate; their buffers live as long as they do. */
const issuerPem = (der: Buffer): string => {
  const known = issuerPems.get(der) ?? encodePem('CERTIFICATE', der)
  issuerPems.set(der, known)
  return known
}
const issuerPems = new WeakMap<Buffer, string>()

const finerThanMs = /[.][0-9]{3}0*[1-9]/
const finerThanSeconds = /[.]0*[1-9]/
const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 }
const hundredYears = 100 * 365.25 * 86_400

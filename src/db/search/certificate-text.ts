/**
 * What a search says of a certificate, as JSON: PostgreSQL puts it together, and only its names are read here, from the DER,
 * where alone they are in their order. Values of their own for each row, dates and objects, and JSON of them again, took most
 * of the time of an export.
 */
import type { CertificateText, FoundCertificate } from '../../ca/records.ts'
import { namesIdentifier } from '../../x509/names-at-end.ts'
import { hasEndedBy } from '../validity.ts'
import type { RecordsDeps } from './certificate-rows.ts'

export interface TextRow {
  readonly entry: number
  /** By which it was found, below a suffix. */
  readonly name?: string
  /** By which it was found, where the order is that of expiry. */
  readonly not_after?: Date
  /** Up to its names. */
  readonly head: string
  /** Its names as they are kept. Base64, which is half as long as PostgreSQL's own form. */
  readonly kept: string | null
  /** Where they are not, which is in rows of before: its TBS from their identifier on, as `namesOf` takes it. */
  readonly end: string | null
  /** Behind its names. */
  readonly tail: string
  /** Read once, when they are first asked for. */
  names?: FoundCertificate['names']
}

/**
 * Of `c`, a row of outcomes, with `intentBeside` and its newest change `r`; `time` says what has expired. Names of principals,
 * issuers and profiles are what the tables let them be, and need no escapes.
 */
export const textColumns = (time: string): string =>
  `c.entry, ${headOf(time)} as head, encode(c.names, 'base64') as kept, ${end} as "end", ${tail} as tail`

export const textOf = (row: TextRow, deps: Pick<RecordsDeps, 'namesOf'>): CertificateText =>
  `${row.head}${JSON.stringify(namesIn(row, deps))}${row.tail}` as CertificateText

export const namesIn = (row: TextRow, { namesOf }: Pick<RecordsDeps, 'namesOf'>): FoundCertificate['names'] => {
  const { kept, end } = row
  if (kept !== null) row.names ??= namesOf(Buffer.from(kept, 'base64'), 'kept')
  // Without an intent, which somebody has taken away, nobody knows them: that is for whoever verifies.
  row.names ??= end === null ? [] : namesOf(Buffer.from(end, 'base64'), 'tbs')
  return row.names
}

/** The values again. */
export const foundIn = (text: CertificateText): FoundCertificate => {
  const { notBefore, notAfter, issuedAt, revocation, origin = null, ...same } = JSON.parse(text)
  return {
    ...same,
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    issuedAt: new Date(issuedAt),
    revocation: revocation
      ? {
          reason: revocation.reason,
          revokedAt: new Date(revocation.revokedAt),
          invalidSince: revocation.invalidityDate ? new Date(revocation.invalidityDate) : null,
          by: revocation.by,
          index: revocation.index,
        }
      : null,
    origin,
  }
}

const isRevoked = `r.change <> 'released' and r.revoked_at is not null`

/** As JavaScript writes a Date: what is finer than milliseconds is cut off. */
const instant = (column: string): string =>
  `to_char(${column} at time zone 'UTC', '\\"YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\\"')`

const end = `case when c.names is null then
    encode(substring(i.tbs from position('\\x${namesIdentifier.toString('hex')}'::bytea in i.tbs)), 'base64') end`

/** The intent `i` of what `c` does not have itself; all null where it has everything. The limit makes its condition come first. */
export const intentBeside = `left join lateral (
    select tbs, profile_version, origin from intents
    where serial = c.serial and (c.names is null or c.delegated) limit 1) i on true`

const headOf = (time: string): string => `'{"serial":"' || encode(c.serial, 'hex') || '","status":"'
    || case when ${isRevoked} then 'revoked' when ${hasEndedBy('c.not_after', time)} then 'expired' else 'valid' end
    || '","subject":' || to_json(c.subject) || ',"names":'`

const revocation = `',"revocation":{"reason":"' || coalesce(r.reason, 'unspecified') || '","revokedAt":' || ${instant('r.revoked_at')}
    || coalesce(',"invalidityDate":' || ${instant('r.invalid_since')}, '')
    || ',"by":' || coalesce(to_json(r.by)::text, 'null') || ',"index":' || r.entry || '}'`

const tail = `',"profile":{"name":"' || c.profile || '","version":' || coalesce(c.profile_version::text, i.profile_version::text, 'null') || '},"principal":"' || c.principal
    || '","issuer":"' || c.issuer || '","keySha256":"' || encode(c.key_sha256, 'hex')
    || '","notBefore":' || ${instant('c.not_before')} || ',"notAfter":' || ${instant('c.not_after')}
    || ',"issuedAt":' || ${instant('c.at')} || ',"index":' || c.entry
    || case when ${isRevoked} then ${revocation} else '' end || coalesce(',"origin":' || i.origin, '') || '}'`

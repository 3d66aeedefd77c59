/**
 * What a search says of a certificate, as JSON that PostgreSQL puts together; only its names are read here, from DER. Values
 * for each row, and JSON of them again, took most of the time of an export.
 */
import type { CertificateText, FoundCertificate } from '../../ca/records.ts'
import { hasEndedBy } from '../validity.ts'

export interface TextRow {
  readonly entry: number
  /** What the order of the search is by, beside the entry. */
  readonly key: string | Date | null
  /** The text up to the names. */
  readonly head: string
  /** The names as they are kept, in Base64; null where they were taken away. */
  readonly names: string | null
  /** The text behind the names. */
  readonly tail: string
}

/**
 * Of `c`, a row of outcomes, with `originBeside` and its newest change `r`; `time` says what has expired. Names of principals,
 * issuers and profiles are what the tables let them be, and need no escapes.
 */
export const textColumns = (time: string): string =>
  `c.entry, ${headOf(time)} as head, encode(c.names, 'base64') as names, ${tail} as tail`

export const textOf = (
  { head, names, tail }: TextRow,
  namesOf: (bytes: Buffer) => FoundCertificate['names'],
): CertificateText => `${head}${JSON.stringify(namesOf(Buffer.from(names ?? '', 'base64')))}${tail}` as CertificateText

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

/** The limit makes the condition on `c` come first. */
export const originBeside =
  'left join lateral (select origin from intents where serial = c.serial and c.delegated limit 1) i on true'

const headOf = (time: string): string => `'{"serial":"' || encode(c.serial, 'hex') || '","status":"'
    || case when ${isRevoked} then 'revoked' when ${hasEndedBy('c.not_after', time)} then 'expired' else 'valid' end
    || '","subject":' || to_json(c.subject) || ',"names":'`

const revocation = `',"revocation":{"reason":"' || coalesce(r.reason, 'unspecified') || '","revokedAt":' || ${instant('r.revoked_at')}
    || coalesce(',"invalidityDate":' || ${instant('r.invalid_since')}, '')
    || ',"by":' || coalesce(to_json(r.by)::text, 'null') || ',"index":' || r.entry || '}'`

const tail = `',"profile":{"name":"' || c.profile || '","version":' || coalesce(c.profile_version::text, 'null') || '},"principal":"' || c.principal
    || '","issuer":"' || c.issuer || '","keySha256":"' || encode(c.key_sha256, 'hex')
    || '","notBefore":' || ${instant('c.not_before')} || ',"notAfter":' || ${instant('c.not_after')}
    || ',"issuedAt":' || ${instant('c.at')} || ',"index":' || c.entry
    || case when ${isRevoked} then ${revocation} else '' end || coalesce(',"origin":' || i.origin, '') || '}'`

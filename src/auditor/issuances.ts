/** The records of an issuance: what its entry, and the certificate in it, say of intent, outcome and names. */
import { hash } from 'node:crypto'

import type { EntryRow, NameRow } from '../db/log-rows.ts'
import { searchKey } from '../db/names.ts'
import { originKeys, originText } from '../db/origins.ts'
import type { Origin } from '../policy/origin.ts'
import type { EntryOf } from '../tlog/forms.ts'
import { parseCertificate, parseTbs, type TbsFacts } from '../x509/certificate.ts'
import { keptNames } from '../x509/names-kept.ts'
import { formatSubject } from '../x509/subject.ts'
import { type Columns, timeText } from './columns.ts'

export interface Issuance {
  readonly facts: TbsFacts
  readonly intent: Columns
  readonly outcome: Columns
  readonly names: readonly string[]
}

/** Of the certificate in an entry; undefined where it cannot be read, which the verifier tells of. */
export const issuanceOf = (
  entry: EntryOf<'certificate.issued'>,
  index: number,
  row: EntryRow,
): Issuance | undefined => {
  const facts = factsIn(entry.certificate)
  if (facts === undefined) return undefined
  const origin = originOf(entry)
  const shard = shardIn(facts)
  return {
    facts,
    intent: {
      ...intended(entry),
      ...(shard !== undefined && { shard }),
      ...{ replaces: replacedBy(entry), first: row.intent?.expected_first ?? null, approval: approvalOf(entry) },
      origin: origin && originText(origin),
    },
    outcome: {
      ...{ kind: 'certificate', entry: index, at: timeText(entry.time) },
      ...{ principal: entry.principal, profile: entry.profile.name, issuer: entry.issuer },
      subject: formatSubject(facts.subject),
      key_sha256: hash('sha256', facts.spki),
      not_before: timeText(facts.notBefore.toISOString()),
      not_after: timeText(facts.notAfter.toISOString()),
      ...originKeys(origin ?? {}),
      ...(isOfBefore(row) ? {} : shown(entry, facts, origin)),
      // Which neither is on the roll, nor can be one without the other.
      idempotency_key: row.intent?.idempotency_key,
    },
    names: facts.names.map((name) => nameText(entry.serial, name.kind, searchKey(name))),
  }
}

/** What searches show was not kept at first. A row without any of it has nothing that could be wrong. */
const isOfBefore = ({ outcome }: EntryRow): boolean =>
  outcome !== null && [outcome.names, outcome.profile_version, outcome.delegated].every((value) => value === null)

const shown = ({ profile }: EntryOf<'certificate.issued'>, { names }: TbsFacts, origin: Origin | null): Columns => ({
  names: keptNames(names).toString('hex'),
  profile_version: profile.version,
  delegated: origin !== null,
})

/** Of an issuance that was given up: nobody but the intent has its TBS, of which the roll knows serial and end. */
export const abandonedOf = (entry: EntryOf<'issuance.abandoned'>, index: number, row: EntryRow) => {
  const { tbs } = row.intent ?? {}
  const facts = tbs && factsOf(() => parseTbs(tbs))
  return {
    intent: { ...intended(entry), shard: entry.shard, tbs: `${entry.serial} ${entry.notAfter}` },
    /** What of the row is compared with it. */
    found: {
      ...row.intent,
      tbs: facts && `${facts.serial.toString('hex')} ${facts.notAfter.toISOString()}`,
    },
    outcome: { kind: 'abandoned', entry: index, signature: null, idempotency_key: null },
    /** The entry has it in milliseconds. */
    isIntended: isWithin(row.intent?.created_at, entry.intended),
  }
}

const intended = ({
  issuer,
  principal,
  profile,
  request,
  plan,
}: EntryOf<'certificate.issued' | 'issuance.abandoned'>) => ({
  ...{ issuer, principal, plan, digest: request },
  profile: profile.name,
  profile_version: profile.version,
})

/** Of version 2. */
const replacedBy = (entry: EntryOf<'certificate.issued'>): string | null =>
  'replaces' in entry ? (entry.replaces as string) : null

/** Of versions 4 and 5. */
const originOf = (entry: EntryOf<'certificate.issued'>): Origin | null =>
  'origin' in entry ? (entry.origin as Origin) : null

/** Of versions 3 and 5. */
const approvalOf = (entry: EntryOf<'certificate.issued'>): string | null =>
  'approval' in entry ? (entry.approval as string) : null

/** PostgreSQL's text of a time, which is of microseconds. */
const isWithin = (exact: string | undefined, milliseconds: string): boolean => {
  const time = new Date(exact?.replace(' ', 'T').replace(/\+00$/, 'Z') ?? Number.NaN)
  return !Number.isNaN(time.getTime()) && time.toISOString() === milliseconds
}

/** What a certificate (base64) says; undefined where it cannot be read. */
export const factsIn = (certificate: string): TbsFacts | undefined =>
  factsOf(() => parseCertificate(Buffer.from(certificate, 'base64')).facts)

const factsOf = (read: () => TbsFacts): TbsFacts | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** The last of its CRL URLs' path, where it has one. */
const shardIn = ({ crlUrls: [url] }: TbsFacts): string | undefined => /\/(\d+)\.crl$/.exec(url ?? '')?.[1]

const nameText = (serial: string, kind: string, name: string): string => `${serial} ${kind}:${name}`
export const nameTextOf = ({ serial, kind, name }: NameRow): string => nameText(serial, kind, name)

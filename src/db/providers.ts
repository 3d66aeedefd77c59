/** Identity providers: immutable versions in the database, the newest of each in memory; and tokens that were shown. */

import type { Providers, StoredProvider } from '../ca/access/providers.ts'
import { Problem } from '../errors.ts'
import { sha256 } from '../lib/sha256.ts'
import type { Log } from '../log.ts'
import type { Provider } from '../policy/identity.ts'
import type { Database, Queryable } from './database.ts'
import type { RollWriter } from './log.ts'
import {
  openVersions,
  type Parse,
  shownBy,
  type Version,
  type VersionKind,
  type Versions,
  versionStatements,
} from './versions.ts'

export interface ProvidersDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
  /** From what was written, or from what is stored, to what decides; throws `provider.invalid`. */
  readonly parse: Parse<Provider>
}

export interface OpenProviders extends Providers, Pick<Versions<Provider>, 'refresh' | 'close'> {}

/** Opened means loaded. */
export const openProviders = async ({ db, roll, log, parse }: ProvidersDeps): Promise<OpenProviders> => {
  const versions = await openVersions({ db, roll, log, kind: { ...kind, parse } })
  return {
    ...shownBy(versions, storedOf),
    issuedBy: (issuer) => {
      for (const version of versions.newest()) if (version.value.issuer === issuer) return storedOf(version)
      return undefined
    },
    spend: async ({ issuer, id, until }) => {
      const { rowCount } = await db.query(insertSpent, [issuer, sha256(id), until])
      return rowCount === 1
    },
  }
}

const kind: Omit<VersionKind<Provider>, 'parse'> = {
  statements: versionStatements('identity_providers', 'issuer'),
  title: 'identity provider',
  missing: 'provider.not_found',
  column: ({ issuer }) => issuer,
  assertFits: (tx, provider) => assertOnlyOne(tx, provider),
  event: ({ name, version, sha256 }, by) => ({ type: 'provider.changed', provider: { name, version }, sha256, by }),
}

const storedOf = ({ value, createdAt, createdBy }: Version<Provider>): StoredProvider => ({
  provider: value,
  createdAt,
  createdBy,
})

/** Of two for one issuer nobody could say which of them a token is judged by. */
const assertOnlyOne = async (tx: Queryable, { name, issuer }: Provider): Promise<void> => {
  const { rows } = await tx.query<{ name: string }>(selectOfIssuer, [issuer, name])
  const [other] = rows
  if (!other) return
  const reason = `is that of the identity provider ${other.name} already`
  throw new Problem('provider.invalid', `The issuer ${reason}.`, {
    violations: [{ check: 'provider.issuer', field: '/issuer', value: issuer, reason }],
  })
}

const selectOfIssuer = {
  text: `
    select name from (select distinct on (name) name, issuer from identity_providers order by name, version desc) newest
    where issuer = $1 and name <> $2`,
}
const insertSpent = {
  name: 'insert_spent_token',
  text: `insert into spent_tokens (issuer, id_sha256, until) values ($1, $2, $3) on conflict do nothing`,
}

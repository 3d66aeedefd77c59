/** Issuers, put together: those in the records with their keys, and how they come and go. */
import { hash } from 'node:crypto'

import { openIssuerLife } from '../ca/issuers/issuer-life.ts'
import { type Issuers, openIssuers } from '../ca/issuers/issuers.ts'
import type { IssuerLife } from '../ca/issuers/life.ts'
import type { Checkpoints } from '../ca/log/checkpoints.ts'
import type { Meter } from '../ca/meter.ts'
import { issuersVersion, loadIssuers, openIssuerStore } from '../db/issuers.ts'
import type { Keyring } from '../keys/keyring.ts'
import { ed25519SpkiStart } from '../keys/note-signatures.ts'
import type { SigningKey } from '../keys/signing-key.ts'
import { keyNameOf, keyUriFault, wayToSign } from '../keys/uri.ts'
import type { Verifier } from '../keys/verifier.ts'
import { parseProfile } from '../policy/profile.ts'
import type { KeyOpened } from '../tlog/entries.ts'
import type { Stores } from './stores.ts'

/** The issuers in the records with their keys; each opening of a key is put on the roll. */
export const openKeyed = (
  { db, roll, config, log }: Stores,
  keys: Pick<Keyring, 'open'>,
  meter: Meter,
): Promise<Issuers> =>
  openIssuers({
    load: () => loadIssuers(db),
    version: () => issuersVersion(db),
    openKey: keys.open,
    meter,
    deadlineMs: config.limits.signingDeadlineMs,
    opened: (issuer, key) => {
      const event = openedEvent(issuer, key)
      roll
        .change(async () => ({ events: [event], result: undefined }))
        .catch((err: unknown) => log.warn({ ...event, event: 'key.unrecorded', err }, 'an opened key is not on record'))
    },
    unusable: (issuer, err) => log.error({ event: 'issuer.unusable', issuer, err }, 'an issuer cannot be used'),
  })

const openedEvent = (issuer: string, { id, spki, attributes }: SigningKey): KeyOpened => ({
  type: 'key.opened',
  issuer,
  key: id,
  spki: hash('sha256', spki),
  attributes: attributes ? { ...attributes } : null,
})

/** How they come and go. */
export const issuerLifeOf = (
  { db, roll, config, clock }: Stores,
  keys: Pick<Keyring, 'open' | 'create'>,
  issuers: Issuers,
  {
    verifier: { verify },
    checkpoints: { key },
    revoked,
  }: {
    readonly verifier: Verifier
    readonly checkpoints: Pick<Checkpoints, 'key'>
    readonly revoked: () => readonly string[]
  },
): IssuerLife =>
  openIssuerLife({
    store: openIssuerStore({ db, roll, longestValidity }),
    keys,
    issuers,
    verify,
    clock,
    stagingMs: config.limits.stagingMs,
    keyUriFault: (uri) => keyUriFault(uri, config.mode === 'development' || config.keys.allowSoftware),
    wayToSign,
    keyNameOf,
    rollKey: Buffer.concat([ed25519SpkiStart, key.publicKey]),
    publicUrl: config.publicUrl,
    revoked,
  })

const longestValidity = (document: string): number => parseProfile(JSON.parse(document), { version: 1 }).validity.max

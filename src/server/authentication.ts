/** Who asks, put together: the CAs that are trusted for clients, what their certificates are worth, and whose they are. */
import { readFile } from 'node:fs/promises'
import type { TlsOptions } from 'node:tls'

import type { Identities } from '../ca/access/access.ts'
import { openClientCertificates } from '../ca/access/client-certificates.ts'
import { type ClientAnchors, openClientAnchors, openClientTrust } from '../ca/access/client-trust.ts'
import type { KeysFault } from '../ca/access/providers.ts'
import { openTokens } from '../ca/access/tokens.ts'
import { openHolders } from '../ca/issuance/holders.ts'
import { openRenewalInfos, type RenewalInfos } from '../ca/issuance/renewal-info.ts'
import type { Issuers } from '../ca/issuers/issuers.ts'
import type { CrlImports } from '../ca/revocation/crl-import.ts'
import type { Config } from '../config/config.ts'
import { readHeld, readRenewalFacts } from '../db/holders.ts'
import { readCertificateStanding } from '../db/revocations.ts'
import { discoverKeys, fetchJson } from '../keys/fetch-json.ts'
import { readToken, TokenFault, verifyToken } from '../keys/jwt.ts'
import { fetchedKeys, type KeySet, KeysUnavailable, staticKeys } from '../keys/key-set.ts'
import type { Verifier } from '../keys/verifier.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { Provider } from '../policy/identity.ts'
import { hasKeyFor } from '../policy/identity-keys.ts'
import type { Job } from './jobs/schedule.ts'
import type { Stores } from './stores.ts'

export interface ClientSide {
  /** What HTTP asks for. */
  readonly calls: {
    readonly identities: Identities
    readonly renewalInfos: RenewalInfos
    readonly keysFault: KeysFault
  }
  /** Of the listener that asks for certificates. */
  readonly tls: Pick<TlsOptions, 'requestCert' | 'rejectUnauthorized' | 'ca'>
  readonly jobs: readonly Job[]
}

export interface ClientSideParts {
  readonly issuers: Issuers
  readonly verifier: Verifier
  readonly anchors: ClientAnchors
  readonly crlImports: Pick<CrlImports, 'revoked' | 'revokedOnEachWay'>
}

/** The CAs in the file that the settings name. Rejects with a sentence where it is not good, so it comes first. */
export const openAnchorFile = async ({ clients: { ca } }: Config): Promise<ClientAnchors> => {
  if (ca === undefined) return { all: () => [], refresh: async () => {} }
  return openClientAnchors(() => readAnchorFile(ca))
}

export const openClientSide = (
  { db, access, providers, metrics, config: { clients }, dbClock, log }: Stores,
  { issuers, verifier, anchors, crlImports: { revoked, revokedOnEachWay } }: ClientSideParts,
): ClientSide => {
  const { authorities, ca, renewal } = clients
  for (const authority of authorities)
    if (!issuers.all().some(({ issuer }) => issuer.authority === authority))
      log.warn(
        { event: 'clients.unknown', authority },
        'no issuer of an authority that is trusted for clients is known',
      )
  const judge = openClientCertificates({
    trusted: openClientTrust({ authorities, anchors: anchors.all, issuers, revoked }),
    verify: verifier.verify,
    standing: async (issuer, serial, tbs) => {
      const standing = await readCertificateStanding(db, { issuer, serial, tbs })
      if (standing === 'unknown') {
        metrics.issuerMisused(issuer, dbClock.now())
        log.error(
          { event: 'issuer.misused', issuer, serial },
          'a certificate that we have not issued bears our signature',
        )
      }
      return standing
    },
    clock: dbClock.now,
  })
  const tokens = openTokens({
    providers,
    access,
    openKeys: (provider) => openKeySet(provider, log, metrics),
    clock: dbClock.now,
    read: readToken,
    verify: verifyToken,
    faultReason: (error) =>
      error instanceof TokenFault ? error.reason : error instanceof KeysUnavailable ? 'unavailable' : undefined,
  })
  const takesCertificates = authorities.length > 0 || ca !== undefined
  const holder = openHolders({
    read: (serial) => readHeld(db, serial),
    mayBeOurs: issuers.mayHaveSigned,
    isIssuerTrusted: (issuer) => !revoked().includes(issuer) && isSigning(issuers, issuer),
  })
  metrics.watchTokens(tokens.figures)
  return {
    calls: {
      identities: {
        // Tokens of ours have no dots; those of others have two.
        bearer: (token, isAgain = false) =>
          token.includes('.') ? tokens.authenticate(token, isAgain) : access.authenticate(token),
        certificate: (der) => access.authenticateCertificate(der, judge),
        takesCertificates,
        holder,
      },
      renewalInfos: openRenewalInfos({
        read: (serial) => readRenewalFacts(db, serial),
        // Whoever is to renew because of one way of two gets the next from the same issuer, and is to renew that at once.
        isIssuerRevoked: (issuer) => revokedOnEachWay().includes(issuer),
      }),
      keysFault: tokens.keysFault,
    },
    tls: takesCertificates || renewal ? asking : {},
    jobs: ca === undefined ? [] : [{ name: 'client-ca', everyMs: 2_000, run: () => anchors.refresh() }],
  }
}

/** Or has, and may again: one that was halted, or has ended, vouches for nobody. */
const isSigning = (issuers: Issuers, name: string): boolean =>
  issuers.all().some(({ issuer, state }) => issuer.name === name && (state === 'active' || state === 'retiring'))

const openKeySet = (
  { name, issuer, algorithms, document: { keys } }: Provider,
  log: Log,
  metrics: Pick<Metrics, 'keysFetched'>,
): KeySet => {
  if (keys.static) return staticKeys(keys.static)
  const { url, ca } = keys
  return fetchedKeys({
    fetch: () => (url === undefined ? discoverKeys(issuer, { ca }) : fetchJson(url, { ca })),
    now: () => performance.now(),
    fetched: (found) => {
      const isOfUse = hasKeyFor(found, algorithms)
      metrics.keysFetched(name, isOfUse ? 'fetched' : 'useless')
      if (isOfUse) return undefined
      log.warn(
        { event: 'provider.keyless', provider: name, algorithms },
        'none of the keys that were fetched can verify a token of this provider: none is accepted',
      )
      return `None of its tokens is accepted: none of the keys that it publishes verifies one by ${algorithms.join(' or ')}.`
    },
    failed: (err) => {
      metrics.keysFetched(name, 'failed')
      log.warn({ event: 'provider.unreachable', provider: name, err }, 'keys could not be fetched')
      return `None of its tokens is accepted until its keys can be fetched: ${(err as Error).message}.`
    },
  })
}

/**
 * OpenSSL only sees to it that the other end holds the key of what it shows: a chain that it does not accept ends no
 * connection, since only a request says whether anybody need be known. An empty list of CAs keeps the system's out, and
 * tells clients nothing of ours.
 */
const asking = { requestCert: true, rejectUnauthorized: false, ca: [] }

const readAnchorFile = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new Error(`The CAs of clients, ${path}, cannot be read (${(error as NodeJS.ErrnoException).code}).`)
  }
}

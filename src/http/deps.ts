/** What the HTTP layer is given. A plain object: no container, nothing hidden in decorators. */
import type { ServerOptions } from 'node:https'

import type { Access, Identities } from '../ca/access/access.ts'
import type { Accesses } from '../ca/access/access-log.ts'
import type { PrincipalLimits } from '../ca/access/principal-limits.ts'
import type { KeysFault, Providers } from '../ca/access/providers.ts'
import type { Approvals } from '../ca/approvals/approvals.ts'
import type { Health } from '../ca/health.ts'
import type { Issuance } from '../ca/issuance/issuance.ts'
import type { Recorder } from '../ca/issuance/recorder.ts'
import type { RenewalInfos } from '../ca/issuance/renewal-info.ts'
import type { IssuerLife } from '../ca/issuers/life.ts'
import type { Checkpoints } from '../ca/log/checkpoints.ts'
import type { Policies } from '../ca/policies.ts'
import type { Records, RollTiles } from '../ca/records.ts'
import type { CrlShelf } from '../ca/revocation/crl-cache.ts'
import type { CrlImports } from '../ca/revocation/crl-import.ts'
import type { MassRevocations } from '../ca/revocation/mass-revocation.ts'
import type { Ocsp } from '../ca/revocation/ocsp.ts'
import type { Revocations } from '../ca/revocation/revoke.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { AddressLimits } from './addresses.ts'
import type { ProxySettings } from './peers.ts'

export interface HttpLimits {
  /** Requests under way beyond which new ones are told to come back. */
  readonly queue: number
  /** Sockets open at once; further ones are closed unanswered. */
  readonly connections: number
}

export interface HttpDeps {
  readonly issuance: Issuance
  /** For requests that end before the cycle sees them: no PEM, malformed names. Never rejects. */
  readonly recordRefusal: Recorder['recordRefusal']
  readonly policies: Policies
  readonly access: Access
  readonly identities: Identities
  readonly principalLimits: PrincipalLimits
  readonly addressLimits: AddressLimits
  readonly proxies: ProxySettings
  /** How many instances share the limits of addresses. */
  readonly replicas: () => number
  readonly providers: Providers
  readonly keysFault: KeysFault
  readonly renewalInfos: RenewalInfos
  readonly records: Records
  readonly accesses: Pick<Accesses, 'record' | 'walk'>
  /** The root hash (base64) of a roll of this size, which exports name; undefined while it is not kept. */
  readonly rootAt?: (size: number) => Promise<string | undefined>
  readonly issuerLife: IssuerLife
  readonly revocations: Revocations
  readonly crlImports: CrlImports
  readonly massRevocations: MassRevocations
  readonly approvals: Approvals
  readonly checkpoints: Checkpoints
  readonly tiles: RollTiles
  readonly health: Health
  readonly metrics: Metrics
  readonly log: Log
  readonly clock: () => Date
  /** Names a request in its answer and in the log. */
  readonly newId: () => string
  readonly limits: HttpLimits
  /** HTTPS when set. Renewal replaces the context of `app.server` by `setSecureContext`. */
  readonly tls?: ServerOptions
}

/** What the public listener needs: nothing that could change or decide anything. */
export interface PublicDeps
  extends Pick<HttpDeps, 'records' | 'metrics' | 'log' | 'newId' | 'limits' | 'clock' | 'crlImports'> {
  readonly crls: CrlShelf
  /** Where the roll is for everyone. */
  readonly roll?: Pick<HttpDeps, 'checkpoints' | 'tiles'>
  readonly ocsp: Ocsp
}

/**
 * What tells relying parties whether a certificate still holds, put together: revocations and what follows from them.
 */
import type { IssuerRecord } from './ca/records.ts'
import { openRevocations, type Revocations } from './ca/revoke.ts'
import type { Stores } from './service.ts'
import { openRevocationStore } from './store/revocations.ts'
import { parseCertificate } from './x509/certificate.ts'

export interface Status {
  readonly revocations: Revocations
}

export const openStatus = ({ db, roll, records }: Stores): Status => ({
  revocations: openRevocations({
    store: openRevocationStore({ db, roll }),
    isIssuer: async (serial) => isOfIssuer(await records.issuers(), serial),
    changed: () => {},
  }),
})

const isOfIssuer = (issuers: readonly IssuerRecord[], serial: string): boolean =>
  issuers.some(({ certificate, chain }) =>
    [certificate, ...chain].some((der) => parseCertificate(der).facts.serial.toString('hex') === serial),
  )

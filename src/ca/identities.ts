/** Who asks, by whichever way they prove it. */
import type { Access, ClientCertificate, Identities } from './access.ts'

export interface IdentitiesDeps {
  readonly access: Pick<Access, 'authenticate' | 'authenticateCertificate'>
  /** Throws auth.* for a certificate (DER) that does not hold. */
  readonly judge: (der: Buffer) => Promise<ClientCertificate>
}

export const openIdentities = ({ access, judge }: IdentitiesDeps): Identities => ({
  bearer: (token) => access.authenticate(token),
  certificate: (der) => access.authenticateCertificate(der, judge),
})

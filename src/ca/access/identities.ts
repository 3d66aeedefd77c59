/** Who asks, by whichever way they prove it. */
import type { Access, ClientCertificate, Identities } from './access.ts'
import type { Tokens } from './tokens.ts'

export interface IdentitiesDeps {
  readonly access: Pick<Access, 'authenticate' | 'authenticateCertificate'>
  /** Throws auth.* for a certificate (DER) that does not hold. */
  readonly judge: (der: Buffer) => Promise<ClientCertificate>
  readonly tokens: Tokens
  readonly takesCertificates: boolean
  readonly holder: Identities['holder']
}

export const openIdentities = ({ access, judge, tokens, takesCertificates, holder }: IdentitiesDeps): Identities => ({
  // Tokens of ours have no dots; those of others have two.
  bearer: (token, isAgain = false) =>
    token.includes('.') ? tokens.authenticate(token, isAgain) : access.authenticate(token),
  certificate: (der) => access.authenticateCertificate(der, judge),
  takesCertificates,
  holder,
})

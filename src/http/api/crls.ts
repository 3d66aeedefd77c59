/** Lists of what is revoked that offline CAs have signed: taken in here, and served by the public listener. */

import { type ImportedCrl, unreadable } from '../../ca/revocation/crl-import.ts'
import { isProblem } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { decodeBase64, parsePem } from '../../x509/pem.ts'
import { callerOf } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import * as asked from './request-examples.ts'
import { Label, named, Sha256, Time } from './schemas.ts'

const ImportBody = Type.Object(
  {
    crl: Type.String({
      minLength: 1,
      maxLength: 60_000,
      description: 'one PEM X509 CRL block (RFC 7468), or base64 of the DER',
    }),
  },
  named('NewCrl', asked.crl),
)

const ImportedView = Type.Object(
  {
    signer: { ...Sha256, description: "SHA-256 of the signer's SubjectPublicKeyInfo" },
    number: Type.String({ pattern: '^[0-9]{1,49}$', maxLength: 49, description: 'the CRL number, decimal' }),
    thisUpdate: Time,
    nextUpdate: Time,
    index: Type.Integer({ description: 'place of its event on the roll' }),
  },
  named('Crl'),
)

export const crlRoutes = (app: App, { crlImports }: HttpDeps): void => {
  app.post(
    '/v1/issuers/:name/crl',
    {
      config: {
        access: ['operator', 'admin'],
        accepts: ['application/json'],
        problems: ['issuer.not_found', 'crl.invalid'],
      },
      schema: {
        operationId: 'importCrl',
        summary: 'Take in the list of a CA above an issuer',
        description:
          "A list that was signed elsewhere, in a ceremony of an offline root. It is served at the URL that the ceremony put into the issuer's certificate, as far as that is a path of the public listener. Idempotent.",
        tags: ['revocation'],
        params: Type.Object({ name: Label }, closed),
        body: ImportBody,
        response: { 200: { ...ImportedView, description: 'It is served' } },
      },
    },
    async (request) =>
      importedView(await crlImports.add(request.params.name, readList(request.body.crl), callerOf(request).principal)),
  )
}

/** PEM or base64. Throws `crl.invalid`; `csr.key_material` for somebody's private key. */
const readList = (text: string): Buffer => {
  try {
    return text.includes('-----') ? parsePem(text, 'X509 CRL') : decodeBase64(text.replaceAll(/\r?\n/g, ''))
  } catch (error) {
    if (!isProblem(error, 'csr.pem')) throw error
    throw unreadable(error)
  }
}

const importedView = ({ signer, number, thisUpdate, nextUpdate, index }: ImportedCrl) => ({
  signer,
  number: number.toString(),
  thisUpdate: thisUpdate.toISOString(),
  nextUpdate: nextUpdate.toISOString(),
  index,
})

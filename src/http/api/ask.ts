/** One request to issue, from its JSON or raw form to what the cycle takes. Nothing in here decides anything. */

import type { IssueInput } from '../../ca/issuance/issuance.ts'
import { Problem } from '../../errors.ts'
import type { Static } from '../../lib/schema.ts'
import { readOrigin } from '../../policy/origin.ts'
import { extendedKeyUsageName } from '../../x509/extensions.ts'
import { assertNames, type Name, nameKinds, parseName } from '../../x509/names.ts'
import { parsePem, parseRawBody } from '../../x509/pem.ts'
import { holdsPrivateKey, keyInBody } from '../private-keys.ts'
import type { Ask, AskedNames } from './schemas.ts'
import { parseDuration } from './views.ts'

export type AskBody = Static<typeof Ask>

/**
 * Reads what was asked for. `isRaw`: `csr` holds the octets of an application/pkcs10 body, one character each; otherwise
 * it is PEM. Throws `csr.pem`, `csr.key_material`, `san.*`, `origin.malformed`, `request.malformed`, `idempotency.key`.
 */
export const readAsk = (ask: AskBody, isRaw: boolean, idempotencyKey: string | undefined): IssueInput => {
  if (idempotencyKey !== undefined && !keyPattern.test(idempotencyKey)) {
    throw new Problem('idempotency.key', 'Idempotency-Key must be 1 to 128 visible ASCII characters.')
  }
  // Of a name that is none, what was sent is told, and kept with the refusal.
  const { csr: _, ...beside } = ask
  if (holdsPrivateKey(beside)) throw keyInBody()
  const validity = ask.validity === undefined ? undefined : parseDuration(ask.validity, '/validity')
  return {
    csr: isRaw ? parseRawBody(ask.csr) : parsePem(ask.csr, 'CERTIFICATE REQUEST'),
    profile: ask.profile,
    ...(idempotencyKey !== undefined && { idempotencyKey }),
    ...(validity !== undefined && { validity }),
    ...(ask.names && { names: readNames(ask.names) }),
    ...(ask.keyUsage && { keyUsage: ask.keyUsage }),
    ...(ask.extendedKeyUsage && { extendedKeyUsage: ask.extendedKeyUsage.map(extendedKeyUsageName) }),
    ...(ask.onBehalfOf && { origin: readOrigin(ask.onBehalfOf) }),
  }
}

const readNames = (names: Static<typeof AskedNames>): readonly Name[] => {
  const read = nameKinds.flatMap((kind) => (names[kind] ?? []).map((text) => parseName(kind, text)))
  assertNames(read)
  return read
}

const keyPattern = /^[\x21-\x7e]{1,128}$/

/**
 * Where the key of an issuer is. What is on record of that is corrected where a token is called otherwise, or another one
 * holds its copy: once the very key has been opened there, and seen to sign.
 */

import { Problem } from '../../errors.ts'
import { type SigningKey, trialText } from '../../keys/signing-key.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { parseRequest } from '../../x509/csr.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { assertPlace, wrongKeyUri } from './issuer-request.ts'
import type { IssuerLifeDeps, KeyPlace, Relocation } from './life.ts'

/** Undefined where there is neither an issuer nor a request with this name. */
export const findPlace = async (
  { store }: Pick<IssuerLifeDeps, 'store'>,
  name: string,
): Promise<KeyPlace | undefined> => {
  const issuer = (await store.issuers()).find((candidate) => candidate.name === name)
  if (issuer) return { ...placeOf(issuer), spki: parseCertificate(issuer.certificate).facts.spki }
  const request = (await store.requests()).find((candidate) => candidate.name === name)
  return request && { ...placeOf(request), spki: parseRequest(request.csr).key.spki }
}

const placeOf = ({ name, authority, keyUri }: Omit<KeyPlace, 'spki'>): Omit<KeyPlace, 'spki'> => ({
  name,
  authority,
  keyUri,
})

/**
 * Proves that the key is there, and puts that on record; resolves to where it was before, when it is durable.
 * Throws `request.malformed`, `issuer.token`, `issuer.key_place`.
 */
export const relocateKey = async (
  deps: Pick<IssuerLifeDeps, 'store' | 'keys' | 'keyUriFault' | 'wayToSign' | 'verify'>,
  place: KeyPlace,
  { keyUri, reason, by }: Relocation,
): Promise<string> => {
  assertPlace(deps, { keyUri })
  assertSameWay(deps, place, keyUri)
  // Where it is already it may be signing right now, and to open and close it there would cost what is under way.
  if (keyUri === place.keyUri) return keyUri
  await assertKeyAt(deps, place, keyUri)
  const { sha256 } = parsePublicKey(place.spki)
  return deps.store.relocate({ ...place, keyUri }, sha256.toString('hex'), { reason, by })
}

/** What it signs with is in what it has signed, and in what is being put together by it right now. */
const assertSameWay = (
  { wayToSign }: Pick<IssuerLifeDeps, 'wayToSign'>,
  { name, keyUri: before }: KeyPlace,
  keyUri: string,
): void => {
  const [was, is] = [wayToSign(before), wayToSign(keyUri)]
  if (was === is) return
  const reason = `how ${name} signs stays as it is: ${was === undefined ? 'leave x-signature out' : `say x-signature=${was}, as the URI on record does`}.`
  throw wrongKeyUri(reason)
}

const assertKeyAt = async (
  { keys, verify }: Pick<IssuerLifeDeps, 'keys' | 'verify'>,
  { name, spki }: KeyPlace,
  keyUri: string,
): Promise<void> => {
  const key = await keys.open(keyUri).catch((cause: Error) => {
    throw new Problem('issuer.token', `The key of ${name} was not opened there: ${cause.message}`, { cause })
  })
  try {
    if (!key.spki.equals(spki)) throw otherKey(name, key, spki)
    const [signature] = await key.sign([trialText])
    if (!Buffer.isBuffer(signature))
      throw new Problem(
        'issuer.token',
        `The key of ${name} was opened there, and did not sign: ${signature?.message}.`,
        {
          cause: signature,
        },
      )
    if (!(await verify({ spki, message: trialText, signature, algorithm: key.algorithm })))
      throw new Problem(
        'issuer.token',
        `What was opened there says that it is the key of ${name}, and what it signs does not verify by that.`,
      )
  } finally {
    await key.close()
  }
}

const otherKey = (name: string, found: SigningKey, wanted: Buffer): Problem => {
  const [is, was] = [found.spki, wanted].map((spki) => parsePublicKey(spki).sha256.toString('hex'))
  const reason = `the key there is ${is}, and that of ${name} is ${was} (SHA-256 of the public key)`
  return new Problem('issuer.key_place', `Another key is there: ${reason}.`, {
    violations: [{ check: 'issuer.key', field: '/key', value: '', reason }],
  })
}

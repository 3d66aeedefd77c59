/**
 * Making CA certificates. A root signs itself and then only intermediates; an intermediate signs leaves and nothing
 * below it (pathLen 0). Keys come in from outside and may be anywhere.
 */
import type { SigningKey } from '../keys/signing-key.ts'
import { encodeCaTbs, parseCertificate, type TbsFacts } from '../x509/certificate.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { encodeSubject, type Subject } from '../x509/subject.ts'
import { encodeCertificate } from '../x509/tbs.ts'

export interface RootInput {
  readonly subject: Subject
  readonly serial: Buffer
  readonly notBefore: Date
  readonly notAfter: Date
}

export interface IntermediateInput extends RootInput {
  /** DER of the SubjectPublicKeyInfo of the intermediate's key. */
  readonly spki: Buffer
}

export const signRoot = async (key: SigningKey, input: RootInput): Promise<Buffer> => {
  const publicKey = parsePublicKey(key.spki)
  const { serial, subject, notBefore, notAfter } = input
  return seal(
    key,
    encodeCaTbs({
      serial,
      issuer: encodeSubject(subject),
      subject,
      notBefore,
      notAfter,
      key: publicKey,
      authorityKeyIdentifier: publicKey.keyIdentifier,
      signature: key.algorithm,
    }),
  )
}

/** Throws when the root's certificate is not the key's, or the intermediate would outlive it. */
export const signIntermediate = async (key: SigningKey, root: Buffer, input: IntermediateInput): Promise<Buffer> => {
  const { facts } = parseCertificate(root)
  assertMaySign(facts, key, input)
  const { serial, subject, notBefore, notAfter, spki } = input
  return seal(
    key,
    encodeCaTbs({
      serial,
      issuer: facts.subjectDer,
      subject,
      notBefore,
      notAfter,
      key: parsePublicKey(spki),
      pathLength: 0,
      authorityKeyIdentifier: facts.keyIdentifier ?? parsePublicKey(key.spki).keyIdentifier,
      signature: key.algorithm,
    }),
  )
}

const assertMaySign = (root: TbsFacts, key: SigningKey, { notAfter }: IntermediateInput): void => {
  if (!root.spki.equals(key.spki)) throw new Error('The key is not the key of the root certificate.')
  if (notAfter > root.notAfter) throw new Error('The intermediate would outlive the root.')
}

const seal = async (key: SigningKey, tbs: Buffer): Promise<Buffer> => {
  const [signature] = await key.sign([tbs])
  if (!Buffer.isBuffer(signature)) throw new Error(`The key ${key.id} did not sign.`, { cause: signature })
  return encodeCertificate(tbs, key.algorithm, signature)
}

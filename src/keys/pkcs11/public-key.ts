/** The public half of a token's key, as its SubjectPublicKeyInfo, from the attributes of its object. */
import { type KeyAlgorithmId, keyAlgorithms } from '../../x509/algorithms.ts'
import { encodeBits, encodeDer, encodeSequence, encodeUnsigned, tags } from '../../x509/der.ts'
import { cka, ckk } from './mechanisms.ts'
import { TokenFault } from './token-fault.ts'

/** Reads one attribute; undefined where the object has none, or does not show it. */
export type ReadAttribute = (type: number) => Buffer | undefined

export const spkiOf = (read: ReadAttribute): Buffer => {
  const keyType = Number(read(cka.keyType)?.readUInt32LE(0))
  const spki = builders[keyType]?.(read)
  if (spki === undefined)
    throw new TokenFault('request', 'The public key in the token is of a kind that Chancery does not know.')
  return spki
}

const builders: Readonly<Record<number, (read: ReadAttribute) => Buffer | undefined>> = {
  [ckk.rsa]: (read) => {
    const modulus = read(cka.modulus)
    const exponent = read(cka.publicExponent)
    if (modulus === undefined || exponent === undefined) return undefined
    return build('rsa', encodeSequence(encodeUnsigned(modulus), encodeUnsigned(exponent)))
  },
  [ckk.ec]: (read) => {
    const parameters = read(cka.ecParams)
    // The AlgorithmIdentifier of a curve ends in what CKA_EC_PARAMS holds: its OID.
    const kind = curves.find(
      (id) => parameters && keyAlgorithms[id].identifier.subarray(-parameters.length).equals(parameters),
    )
    return kind && build(kind, pointOf(kind, read))
  },
  [ckk.edwards]: (read) => build('ed25519', pointOf('ed25519', read)),
  [ckk.mlDsa]: (read) => {
    const value = read(cka.value)
    const kind = mlDsa.find((id) => keyAlgorithms[id].octets === value?.length)
    return kind && build(kind, value)
  },
}

/** CKA_EC_POINT is wrapped in an OCTET STRING (PKCS #11 2.40, 2.3.3); some modules give it bare. */
const pointOf = (kind: KeyAlgorithmId, read: ReadAttribute): Buffer | undefined => {
  const point = read(cka.ecPoint)
  const octets = keyAlgorithms[kind].octets ?? 0
  if (point === undefined || point.length === octets) return point
  const bare = point.subarray(-octets)
  return encodeDer(tags.octetString, bare).equals(point) ? bare : undefined
}

const build = (kind: KeyAlgorithmId, key: Buffer | undefined): Buffer | undefined =>
  key && encodeSequence(keyAlgorithms[kind].identifier, encodeBits(key))

const curves = ['ec-p256', 'ec-p384', 'ec-p521'] as const
const mlDsa = ['ml-dsa-44', 'ml-dsa-65', 'ml-dsa-87'] as const

/** What Chancery asks of a module for each algorithm, one entry each (PKCS #11 2.40 and 3.0; ML-DSA: 3.2). */
import { createHash } from 'node:crypto'

import { type KeyAlgorithmId, type KeyKind, readKeyKind, type SignatureAlgorithm } from '../../x509/algorithms.ts'
import { encodeDer, encodeOid, encodeSequence, encodeUnsigned, tags } from '../../x509/der.ts'

export interface Mechanism {
  readonly mechanism: number
  readonly parameter: {
    readonly type: number
    readonly hashAlg: number
    readonly mgf: number
    readonly saltLen: number
  } | null
}

export interface Signing extends Mechanism {
  /** What the module is given for a message. */
  readonly input: (message: Buffer) => Buffer
  /** The signature as a certificate carries it, from the module's octets. */
  readonly output: (octets: Buffer) => Buffer
}

type Hash = 'sha256' | 'sha384' | 'sha512'

/** The ways to sign by an algorithm, best first: the module's list of mechanisms decides. */
export const signingsFor = ({ id, hash }: SignatureAlgorithm): readonly Signing[] => {
  const own = ownMechanisms[id]
  if (own !== undefined) return [{ mechanism: own, parameter: null, input: whole, output: whole }]
  if (hash === null) return []
  const digest = (message: Buffer): Buffer => createHash(hash).update(message).digest()
  if (id.startsWith('ecdsa-'))
    return [{ mechanism: ckm.ecdsa, parameter: null, input: digest, output: encodeEcdsaSignature }]
  const { rsa, pss, hashAlg, mgf, octets, oid } = hashes[hash]
  const parameter = { type: paramsRsaPss, hashAlg, mgf, saltLen: octets }
  if (id.startsWith('rsa-pss-'))
    return [
      { mechanism: pss, parameter, input: whole, output: whole },
      { mechanism: ckm.rsaPss, parameter, input: digest, output: whole },
    ]
  return [
    { mechanism: rsa, parameter: null, input: whole, output: whole },
    { mechanism: ckm.rsa, parameter: null, input: (message) => digestInfo(oid, digest(message)), output: whole },
  ]
}

/** How a key is made: the mechanism, and what its public half's template says beside the usual. */
export interface Generation {
  readonly mechanism: number
  readonly keyType: number
  /** In each way that the standard knows: a module may take only one. */
  readonly forms: readonly (readonly { readonly type: number; readonly value: Buffer | number }[])[]
}

export const generationOf = (kind: KeyKind): Generation => {
  const { algorithm, bits = 3072 } = readKeyKind(kind)
  return generations[algorithm](bits)
}

export const cka = {
  class: 0x00,
  token: 0x01,
  private: 0x02,
  label: 0x03,
  value: 0x11,
  keyType: 0x100,
  id: 0x102,
  sensitive: 0x103,
  decrypt: 0x105,
  unwrap: 0x107,
  sign: 0x108,
  verify: 0x10a,
  derive: 0x10c,
  modulus: 0x120,
  modulusBits: 0x121,
  publicExponent: 0x122,
  publicKeyInfo: 0x129,
  extractable: 0x162,
  local: 0x163,
  neverExtractable: 0x164,
  alwaysSensitive: 0x165,
  modifiable: 0x170,
  copyable: 0x171,
  ecParams: 0x180,
  ecPoint: 0x181,
  alwaysAuthenticate: 0x202,
  parameterSet: 0x61d,
} as const
export const ckk = { rsa: 0x00, ec: 0x03, edwards: 0x40, mlDsa: 0x4a } as const
export const cko = { publicKey: 0x02, privateKey: 0x03 } as const

const ckm = { rsa: 0x01, rsaPss: 0x0d, ecdsa: 0x1041 } as const
const ownMechanisms: Readonly<Record<string, number>> = {
  ed25519: 0x1057,
  'ml-dsa-44': 0x1d,
  'ml-dsa-65': 0x1d,
  'ml-dsa-87': 0x1d,
}
const hashes: Readonly<
  Record<
    Hash,
    {
      readonly rsa: number
      readonly pss: number
      readonly hashAlg: number
      readonly mgf: number
      readonly octets: number
      readonly oid: string
    }
  >
> = {
  sha256: { rsa: 0x40, pss: 0x43, hashAlg: 0x250, mgf: 0x02, octets: 32, oid: '2.16.840.1.101.3.4.2.1' },
  sha384: { rsa: 0x41, pss: 0x44, hashAlg: 0x260, mgf: 0x03, octets: 48, oid: '2.16.840.1.101.3.4.2.2' },
  sha512: { rsa: 0x42, pss: 0x45, hashAlg: 0x270, mgf: 0x04, octets: 64, oid: '2.16.840.1.101.3.4.2.3' },
}
/** pkcs11js' own number for CK_RSA_PKCS_PSS_PARAMS. */
const paramsRsaPss = 5

/** r and s side by side, as a module gives them, as the DER of RFC 3279 2.2.3. */
const encodeEcdsaSignature = (octets: Buffer): Buffer =>
  encodeSequence(
    encodeUnsigned(octets.subarray(0, octets.length / 2)),
    encodeUnsigned(octets.subarray(octets.length / 2)),
  )

const whole = (octets: Buffer): Buffer => octets
/** RFC 8017 9.2, step 2. */
const digestInfo = (oid: string, digest: Buffer): Buffer =>
  encodeSequence(encodeSequence(encodeOid(oid), encodeDer(tags.null)), encodeDer(tags.octetString, digest))

const ec = (oid: string) => (): Generation => ({
  mechanism: 0x1040,
  keyType: ckk.ec,
  forms: [[{ type: cka.ecParams, value: encodeOid(oid) }]],
})
const mlDsa = (parameterSet: number) => (): Generation => ({
  mechanism: 0x1c,
  keyType: ckk.mlDsa,
  forms: [[{ type: cka.parameterSet, value: parameterSet }]],
})
const generations: Readonly<Record<KeyAlgorithmId, (bits: number) => Generation>> = {
  rsa: (bits) => ({
    mechanism: 0x00,
    keyType: ckk.rsa,
    forms: [
      [
        { type: cka.modulusBits, value: bits },
        { type: cka.publicExponent, value: Buffer.from([1, 0, 1]) },
      ],
    ],
  }),
  'ec-p256': ec('1.2.840.10045.3.1.7'),
  'ec-p384': ec('1.3.132.0.34'),
  'ec-p521': ec('1.3.132.0.35'),
  ed25519: () => ({
    mechanism: 0x1055,
    keyType: ckk.edwards,
    // PrintableString "edwards25519", or the OID (PKCS #11 3.0, 2.3.5). NSS takes only the OID.
    forms: [Buffer.from('130c656477617264733235353139', 'hex'), encodeOid('1.3.101.112')].map((value) => [
      { type: cka.ecParams, value },
    ]),
  }),
  'ml-dsa-44': mlDsa(1),
  'ml-dsa-65': mlDsa(2),
  'ml-dsa-87': mlDsa(3),
}

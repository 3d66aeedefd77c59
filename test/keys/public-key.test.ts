/** The public half of a token's key, from its attributes as modules give them, is what OpenSSL writes of the same key. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'

import t from 'tap'

import { cka, ckk } from '../../src/keys/pkcs11/mechanisms.ts'
import { spkiOf } from '../../src/keys/pkcs11/public-key.ts'
import { TokenFault } from '../../src/keys/pkcs11/token-fault.ts'

type Attributes = Readonly<Record<number, Buffer | undefined>>

/** CK_ULONG of this machine. */
const ulong = (value: number): Buffer => {
  const octets = Buffer.alloc(8)
  octets.writeUInt32LE(value)
  return octets
}
const spkiFrom = (keyType: number, attributes: Attributes): Buffer =>
  spkiOf((type) => (type === cka.keyType ? ulong(keyType) : attributes[type]))
const derOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })
const octetString = (octets: Buffer): Buffer =>
  Buffer.concat([Buffer.from(octets.length < 128 ? [4, octets.length] : [4, 0x81, octets.length]), octets])
/** Other attributes, which say of no key what is one. */
const refuses = (keyType: number, attributes: Attributes, what: string): unknown =>
  t.throws(() => spkiFrom(keyType, attributes), TokenFault, what)

const curves = [
  ['P-256', '06082a8648ce3d030107', 65],
  ['P-384', '06052b81040022', 97],
  ['P-521', '06052b81040023', 133],
] as const

for (const [namedCurve, oid, length] of curves)
  t.test(`a point of ${namedCurve}, in an OCTET STRING or bare`, async (t) => {
    const spki = derOf(generateKeyPairSync('ec', { namedCurve }).publicKey)
    const point = spki.subarray(-length)
    const ecParams = Buffer.from(oid, 'hex')
    const of = (ecPoint: Buffer | undefined) => ({ [cka.ecParams]: ecParams, [cka.ecPoint]: ecPoint })
    t.same(spkiFrom(ckk.ec, of(octetString(point))), spki)
    t.same(spkiFrom(ckk.ec, of(point)), spki)
    refuses(ckk.ec, of(undefined), 'no point')
    refuses(ckk.ec, of(point.subarray(1)), 'an octet less')
    refuses(ckk.ec, of(octetString(point.subarray(1))), 'an octet less, wrapped')
    refuses(ckk.ec, of(Buffer.concat([octetString(point), Buffer.alloc(1)])), 'an octet more')
    refuses(ckk.ec, of(Buffer.concat([Buffer.from([3, length]), point])), 'wrapped in something else')
    const other = Buffer.from('06052b8104000a', 'hex')
    refuses(ckk.ec, { ...of(point), [cka.ecParams]: other }, 'another curve')
    refuses(ckk.ec, { ...of(point), [cka.ecParams]: undefined }, 'no curve')
  })

t.test('a key of Edwards, of ML-DSA and of RSA', async (t) => {
  const edwards = derOf(generateKeyPairSync('ed25519').publicKey)
  for (const ecPoint of [edwards.subarray(-32), octetString(edwards.subarray(-32))])
    t.same(spkiFrom(ckk.edwards, { [cka.ecPoint]: ecPoint }), edwards)
  refuses(ckk.edwards, { [cka.ecPoint]: edwards.subarray(-31) }, 'an octet less')
  for (const [kind, length] of [
    ['ml-dsa-44', 1312],
    ['ml-dsa-65', 1952],
    ['ml-dsa-87', 2592],
  ] as const) {
    const spki = derOf(generateKeyPairSync(kind).publicKey)
    t.same(spkiFrom(ckk.mlDsa, { [cka.value]: spki.subarray(-length) }), spki)
    refuses(ckk.mlDsa, { [cka.value]: spki.subarray(1 - length) }, 'an octet less')
  }
  refuses(ckk.mlDsa, {}, 'no value')
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const { n = '', e = '' } = publicKey.export({ format: 'jwk' })
  const [modulus, publicExponent] = [Buffer.from(n, 'base64url'), Buffer.from(e, 'base64url')]
  const rsa = { [cka.modulus]: modulus, [cka.publicExponent]: publicExponent }
  t.same(spkiFrom(ckk.rsa, rsa), derOf(publicKey))
  refuses(ckk.rsa, { [cka.modulus]: modulus }, 'no exponent')
  refuses(ckk.rsa, { [cka.publicExponent]: publicExponent }, 'no modulus')
  refuses(0x13, rsa, 'a key of another kind')
  t.throws(() => spkiOf(() => undefined), TokenFault, 'none')
})

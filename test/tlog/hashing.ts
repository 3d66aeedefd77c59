/** What is passed in to the roll in Node, and leaves to play with. */
import { createPublicKey, generateKeyPairSync, hash, sign, verify } from 'node:crypto'

import { openTreeHasher, type Sha256 } from '../../src/tlog/merkle.ts'
import { makeVerifierKey, type NoteSigner, type SignatureType, type VerifyEd25519 } from '../../src/tlog/note.ts'

export const sha256: Sha256 = (data) => hash('sha256', data, 'buffer')
export const hasher = openTreeHasher(sha256)

export const verifyEd25519: VerifyEd25519 = (publicKey, message, signature) => {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKey).toString('base64url') }
  return verify(null, message, createPublicKey({ key: jwk, format: 'jwk' }), signature)
}

export const newSigner = (name: string, type: SignatureType = 'ed25519', time?: number): NoteSigner => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const octets = Buffer.from(publicKey.export({ format: 'jwk' }).x as string, 'base64url')
  return {
    key: makeVerifierKey({ name, type, publicKey: octets }, sha256),
    sign: (message) => sign(null, message, privateKey),
    ...(time === undefined ? {} : { time }),
  }
}

/** Entry i is the text of its index. */
export const leavesUpTo = (size: number): Buffer[] =>
  Array.from({ length: size }, (_, i) => hash('sha256', `\0${i}`, 'buffer'))

/** What `roll/` is given in Node: it does no cryptography of its own, so that it runs elsewhere too. */
import { verify } from 'node:crypto'

import type { VerifyEd25519 } from '../tlog/note.ts'

export const verifyEd25519: VerifyEd25519 = (publicKey, message, signature) =>
  verify(null, message, { key: Buffer.concat([ed25519SpkiStart, publicKey]), format: 'der', type: 'spki' }, signature)

/** Of an Ed25519 SubjectPublicKeyInfo (RFC 8410 4); the key itself follows. */
export const ed25519SpkiStart = Buffer.from('302a300506032b6570032100', 'hex')

/** How events become entries of the roll, and records certificates: what the store does not know by itself. */

import type { EntryCodec } from '../db/log.ts'
import { sha256 } from '../lib/sha256.ts'
import { encodeEntry, leafInput } from '../tlog/entries.ts'
import { openTreeHasher } from '../tlog/merkle.ts'
import { assembleCertificate } from '../x509/assemble.ts'

export const codec: EntryCodec = {
  entry: (event, time) => {
    const text = encodeEntry(event, time)
    return { text, leafHash: sha256(leafInput(text)) }
  },
  certificate: assembleCertificate,
  hasher: openTreeHasher(sha256),
}

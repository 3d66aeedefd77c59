/** How events become entries of the roll, and records certificates: what the store does not know by itself. */
import { hash } from 'node:crypto'

import { encodeEntry, leafInput } from './roll/entries.ts'
import { openTreeHasher } from './roll/merkle.ts'
import type { EntryCodec } from './store/roll.ts'
import { assembleCertificate } from './x509/assemble.ts'

export const codec: EntryCodec = {
  entry: (event, time) => {
    const text = encodeEntry(event, time)
    return { text, leafHash: hash('sha256', leafInput(text), 'buffer') }
  },
  certificate: assembleCertificate,
  hasher: openTreeHasher((octets) => hash('sha256', octets, 'buffer')),
}

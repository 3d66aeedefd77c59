/** What a page would do: read a proof and verify it, and verify a small roll. Nothing of Node is here, nor in what it imports. */

import { encodeCheckpoint, signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeEntry } from '../../src/tlog/entries.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { openTreeHasher } from '../../src/tlog/merkle.ts'
import { parseVerifierKey, signText } from '../../src/tlog/note.ts'
import { encodeProof, verifyProof } from '../../src/tlog/proof.ts'
import { parseTilePath } from '../../src/tlog/tiles.ts'
import { openRollVerifier } from '../../src/tlog/verify.ts'
import { parseAddCheckpoint } from '../../src/tlog/witness.ts'
import { sha256 } from './sha256.ts'

const hasher = openTreeHasher(sha256)
const key = parseVerifierKey('example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k', sha256)
const utf8 = new TextEncoder()
/** Signing and its check are passed in; here one that anybody could make. */
const sign = (message: Uint8Array): Uint8Array => new Uint8Array(64).fill(sha256(message)[0] as number)
const verify = (_key: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean =>
  signature.every((octet) => octet === sha256(message)[0])

const run = async () => {
  const entries = Array.from({ length: 300 }, (_, i) =>
    utf8.encode(encodeEntry({ type: 'service.started', version: `0.0.${i}`, mode: 'production' }, new Date(i))),
  )
  const { edge, proof } = extend(
    emptyEdge(hasher),
    entries.map((entry) => hasher.leaf(entry)),
    hasher,
  )
  const head = { origin: key.name, size: edge.size, root: edge.root }
  const checkpoint = await signCheckpoint(head, { key, sign })
  await signText(encodeCheckpoint(head), { key, sign })
  const text = encodeProof({ index: 7, hashes: proof(7), checkpoint })
  const verdict = await verifyProof(entries[7] as Uint8Array, text, { roll: [key], hasher, verify })
  const findings: unknown[] = []
  const verifier = await openRollVerifier({
    sha256,
    verify,
    keys: { roll: [key] },
    checkpoints: [{ note: checkpoint }],
    readCertificate: () => undefined,
    readContents: () => undefined,
    verifyCertificates: async () => [],
    tell: (finding) => findings.push(finding),
  })
  await verifier.add(entries.map((octets, index) => ({ index, octets })))
  const { root } = await verifier.finish()
  return {
    ok: verdict.ok,
    findings,
    root: root?.toHex(),
    tile: parseTilePath('tile/0/001').index,
    old: parseAddCheckpoint(`old 3\n\n${checkpoint}`).old,
  }
}

export const answer = run()

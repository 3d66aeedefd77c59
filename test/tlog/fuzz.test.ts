/**
 * Whatever comes in, a value or a fault comes out; and each value has one spelling, so that what was read is written again
 * as it came. Seeded: a failure can be played again. `CHANCERY_FUZZ_CASES` makes it longer.
 */
import fc from 'fast-check'
import t from 'tap'

import { encodeCheckpoint, parseCheckpoint } from '../../src/tlog/checkpoint.ts'
import { isRollFault } from '../../src/tlog/fault.ts'
import {
  encodeNote,
  encodeSignatures,
  encodeVerifierKey,
  parseNote,
  parseSignatures,
  parseVerifierKey,
  signText,
} from '../../src/tlog/note.ts'
import { encodeProof, parseProof, verifyProof } from '../../src/tlog/proof.ts'
import { readText } from '../../src/tlog/text.ts'
import { encodeAddCheckpoint, parseAddCheckpoint } from '../../src/tlog/witness.ts'
import { hasher, newSigner, sha256, verifyEd25519 } from './hashing.ts'

const cases = Number(process.env['CHANCERY_FUZZ_CASES'] ?? 20_000)
const seed = 20261124
t.setTimeout(300_000)

const roll = newSigner('roll.example/1')
const witness = newSigner('w.example', 'cosignature', 1_700_000_000)
const text = encodeCheckpoint({ origin: roll.key.name, size: 3, root: hasher.empty })
const signatures = [await signText(text, roll), await signText(text, witness)]
const note = encodeNote({ text, signatures })
const hashes = [hasher.empty, hasher.leaf(Buffer.from('1'))]

/** Each reader with something that it takes, and the way back. */
const readers: readonly (readonly [name: string, good: string, read: (input: Uint8Array | string) => string])[] = [
  ['note', note, (input) => encodeNote(parseNote(input))],
  ['signatures', encodeSignatures(signatures), (input) => encodeSignatures(parseSignatures(input))],
  ['proof', encodeProof({ index: 1, hashes, checkpoint: note }), (input) => encodeProof(parseProof(input))],
  [
    'extra',
    encodeProof({ index: 1, hashes, checkpoint: note, extra: hasher.empty }),
    (input) => encodeProof(parseProof(input)),
  ],
  [
    'add-checkpoint',
    encodeAddCheckpoint({ old: 2, proof: hashes, checkpoint: note }),
    (input) => encodeAddCheckpoint(parseAddCheckpoint(input)),
  ],
  ['checkpoint', text, (input) => rewritten(readText(input, 'checkpoint.text', 1_000))],
  [
    'key',
    encodeVerifierKey(witness.key),
    (input) => encodeVerifierKey(parseVerifierKey(readText(input, 'key.text', 1_000), sha256)),
  ],
]

/** Extensions are read over. */
const rewritten = (checkpoint: string): string => {
  const lines = checkpoint.split('\n').slice(3)
  return encodeCheckpoint(parseCheckpoint(checkpoint)) + lines.join('\n')
}

/** Change, insert, remove or repeat a few octets; or take a stretch of another text. */
const mutation = fc.tuple(fc.nat(6), fc.nat(2_000), fc.nat(255), fc.nat(80))
const mutate = (input: Buffer, [kind, at, value, length]: readonly [number, number, number, number]): Buffer => {
  const position = at % (input.length + 1)
  const [head, tail] = [input.subarray(0, position), input.subarray(position)]
  const [, other] = readers[value % readers.length] as readonly [string, string, unknown]
  const inserted = [
    Buffer.of(value),
    Buffer.from('\n'),
    Buffer.from('\n\n'),
    Buffer.from('— '),
    Buffer.from(other).subarray(length, 2 * length),
    Buffer.alloc(0),
    tail.subarray(0, length),
  ][kind] as Buffer
  return Buffer.concat([head, inserted, tail.subarray(kind === 6 ? 0 : length % 4)])
}

for (const [name, good, read] of readers) {
  t.test(`${name}: a value with one spelling, or a fault`, async (t) => {
    t.equal(read(good), good)
    let taken = 0
    const check = (input: Buffer): boolean => {
      try {
        const again = read(input)
        taken += 1
        return Buffer.from(again).equals(input)
      } catch (error) {
        return isRollFault(error)
      }
    }
    const mutations = fc.array(mutation, { minLength: 1, maxLength: 3 })
    const property = fc.property(mutations, (all) => check(all.reduce(mutate, Buffer.from(good))))
    const anything = fc.property(fc.uint8Array({ maxLength: 300 }), (octets) => check(Buffer.from(octets)))
    t.doesNotThrow(() => fc.assert(property, { seed, numRuns: cases }))
    t.doesNotThrow(() => fc.assert(anything, { seed, numRuns: cases / 10 }))
    t.comment(`${taken} of ${cases} were taken`)
  })
}

t.test('a proof with anything in it is verified or not, and never an error', async (t) => {
  const trust = { roll: [roll.key], witnesses: [witness.key], hasher, verify: verifyEd25519 }
  const good = Buffer.from(encodeProof({ index: 1, hashes, checkpoint: note }))
  const property = fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 2 }), async (mutations) => {
    const { ok } = await verifyProof(Buffer.from('1'), mutations.reduce(mutate, good), trust)
    return !ok
  })
  await t.resolves(fc.assert(property, { seed, numRuns: cases / 10 }))
})

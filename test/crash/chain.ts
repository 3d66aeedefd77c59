/**
 * Decides whether every checkpoint that anybody was ever shown is one of one growing roll, and every proof leads to it. It
 * shares no code with `src`: the tree is RFC 9162 as it is written there, signatures are checked by Node.
 */
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'

import pg from 'pg'

import type { Answered } from './checker.ts'

/** What was shown, in the order in which it was: those of one instance never go back. */
export interface Shown {
  readonly answered: readonly Answered[]
  readonly polled: readonly (readonly string[])[]
}

/** Every fault as a sentence, and how much was looked at. */
export const faultsInChain = async (
  url: string,
  { answered, polled }: Shown,
): Promise<{ readonly faults: readonly string[]; readonly checkpoints: number; readonly largest: number }> => {
  const { leaves, key } = await readRoll(url)
  const faults: string[] = []
  const proofs = answered.flatMap(({ serial, index, proof }) => {
    const read = proof === undefined ? undefined : readProof(proof)
    if (read?.index !== index) faults.push(`the answer for ${serial} has no proof of entry ${index}`)
    return read?.index === index ? [{ serial, ...read }] : []
  })
  const notes = new Set([...polled.flat(), ...proofs.map(({ note }) => note)])
  const roots = rootsAt(leaves, new Set([...notes].map((note) => sizeOf(note))))
  // What is the root of one roll at each size cannot be two rolls.
  for (const note of notes) {
    if (!isSigned(note, key)) faults.push(`a checkpoint of ${sizeOf(note)} is not signed by the key of the roll`)
    if (rootOf(note) !== roots.get(sizeOf(note))) faults.push(`a checkpoint of ${sizeOf(note)} is not of this roll`)
  }
  for (const { serial, index, hashes, note } of proofs)
    if (!leadsTo(leaves[index], { index, size: sizeOf(note), hashes, root: rootOf(note) }))
      faults.push(`the proof of ${serial} does not lead to its checkpoint`)
  for (const seen of polled)
    for (const [i, note] of seen.entries())
      if (i > 0 && sizeOf(note) < sizeOf(seen[i - 1] as string)) faults.push(`an instance went back to ${sizeOf(note)}`)
  return { faults, checkpoints: notes.size, largest: Math.max(0, ...[...notes].map(sizeOf)) }
}

/** The leaves as they are stored (`checker.ts` computes them anew), and the key on the roll. */
const readRoll = async (url: string): Promise<{ readonly leaves: readonly Buffer[]; readonly key: RollKey }> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const entries = await client.query('select leaf_hash from entries order by index')
    const opened = await client.query(`select body from entries where type = 'roll.opened'`)
    return { leaves: entries.rows.map((row) => row.leaf_hash), key: readKey(JSON.parse(opened.rows[0].body).key) }
  } finally {
    await client.end()
  }
}

interface RollKey {
  readonly name: string
  readonly id: string
  readonly key: KeyObject
}

const readKey = (text: string): RollKey => {
  const [, name = '', id = '', base64 = ''] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(text) ?? []
  const x = Buffer.from(base64, 'base64').subarray(1).toString('base64url')
  return { name, id, key: createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' }) }
}

const isSigned = (note: string, { name, id, key }: RollKey): boolean => {
  const [text = '', lines = ''] = note.split('\n\n')
  const [, signer, base64 = ''] = /^\u2014 (\S+) (\S+)\n$/.exec(lines) ?? []
  const octets = Buffer.from(base64, 'base64')
  if (!text.startsWith(`${name}\n`) || signer !== name || octets.toString('hex', 0, 4) !== id) return false
  return verify(null, Buffer.from(`${text}\n`), key, octets.subarray(4))
}

const sizeOf = (note: string): number => Number(note.split('\n')[1])
const rootOf = (note: string): string => note.split('\n')[2] ?? ''

const readProof = (proof: string) => {
  const [head = '', ...rest] = proof.split('\n\n')
  const [first, index = '', ...hashes] = head.split('\n')
  if (first !== 'c2sp.org/tlog-proof@v1') return undefined
  const note = rest.join('\n\n')
  return { index: Number(index.replace('index ', '')), hashes: hashes.map((hash) => Buffer.from(hash, 'base64')), note }
}

const node = (left: Buffer, right: Buffer): Buffer =>
  createHash('sha256').update(Buffer.of(1)).update(left).update(right).digest()

/** Roots of the trees of these sizes, each from the complete subtrees that its leaves make. */
const rootsAt = (leaves: readonly Buffer[], sizes: ReadonlySet<number>): ReadonlyMap<number, string> => {
  const roots = new Map<number, string>()
  const whole: { height: number; hash: Buffer }[] = []
  for (const [i, leaf] of leaves.entries()) {
    let [height, hash] = [0, leaf]
    while (whole.at(-1)?.height === height) {
      hash = node((whole.pop() as { hash: Buffer }).hash, hash)
      height += 1
    }
    whole.push({ height, hash })
    if (!sizes.has(i + 1)) continue
    const root = whole.map((one) => one.hash).reduceRight((right, left) => node(left, right))
    roots.set(i + 1, root.toString('base64'))
  }
  return roots
}

/** RFC 9162 2.1.3.2. */
const leadsTo = (
  leaf: Buffer | undefined,
  { index, size, hashes, root }: { index: number; size: number; hashes: readonly Buffer[]; root: string },
): boolean => {
  if (leaf === undefined || index >= size) return false
  let [fn, sn, r] = [index, size - 1, leaf]
  for (const p of hashes) {
    if (sn === 0) return false
    if (fn % 2 === 1 || fn === sn) {
      r = node(p, r)
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn >> 1, sn >> 1]
    } else r = node(r, p)
    ;[fn, sn] = [fn >> 1, sn >> 1]
  }
  return sn === 0 && r.toString('base64') === root
}

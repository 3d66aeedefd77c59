/** Proofs that go with entries, and the body that a witness is sent. */
import t from 'tap'

import { signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { encodeProof, parseProof, verifyProof } from '../../src/tlog/proof.ts'
import { encodeAddCheckpoint, parseAddCheckpoint, parseKnownSize } from '../../src/tlog/witness.ts'
import { hasher, newSigner, verifyEd25519 } from './hashing.ts'

const origin = 'roll.example/1'
const roll = newSigner(origin)
const trust = { roll: [roll.key], hasher, verify: verifyEd25519 }
const entries = Array.from({ length: 300 }, (_, i) => Buffer.from(`{"n":${i}}`))
const { edge, proof } = extend(
  emptyEdge(hasher),
  entries.map((entry) => hasher.leaf(entry)),
  hasher,
)
const checkpoint = await signCheckpoint({ origin, size: edge.size, root: edge.root }, roll)
const hash = 'CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I='

t.test('each entry is verified with its proof, and no other is', async (t) => {
  const wrong: string[] = []
  for (const [index, entry] of entries.entries()) {
    const text = encodeProof({ index, hashes: proof(index), checkpoint })
    if (!(await verifyProof(entry, text, trust)).ok) wrong.push(`entry ${index}`)
    const other = entries[(index + 1) % entries.length] as Buffer
    if ((await verifyProof(other, text, trust)).ok) wrong.push(`the entry after ${index}`)
  }
  t.same(wrong, [])
  t.match(await verifyProof(entries[7] as Buffer, encodeProof({ index: 7, hashes: proof(7), checkpoint }), trust), {
    ok: true,
    index: 7,
    checkpoint: { size: 300, origin },
  })
})

t.test('each fault has its name', async (t) => {
  const entry = entries[7] as Buffer
  const hashes = proof(7)
  const good = { index: 7, hashes, checkpoint }
  const cases: readonly (readonly [string, string, typeof trust])[] = [
    ['proof.text', 'hello', trust],
    ['note.text', encodeProof({ ...good, checkpoint: 'hello' }), trust],
    ['note.unsigned', encodeProof(good), { ...trust, roll: [newSigner(origin).key] }],
    ['note.signature', encodeProof({ ...good, checkpoint: checkpoint.replace('\n300\n', '\n301\n') }), trust],
    ['proof.inclusion', encodeProof({ ...good, index: 8 }), trust],
    ['proof.inclusion', encodeProof({ ...good, index: 300 }), trust],
    ['proof.inclusion', encodeProof({ ...good, hashes: hashes.slice(1) }), trust],
    ['proof.inclusion', encodeProof({ ...good, hashes: [] }), trust],
  ]
  for (const [reason, text, trusted] of cases)
    t.match(await verifyProof(entry, text, trusted), { ok: false, reason }, text)
})

t.test('the longest entry that there can be is verified as well', async (t) => {
  const entry = Buffer.alloc(65_535, 'x')
  const { edge, proof } = extend(emptyEdge(hasher), [hasher.leaf(entry)], hasher)
  const checkpoint = await signCheckpoint({ origin, size: 1, root: edge.root }, roll)
  t.match(await verifyProof(entry, encodeProof({ index: 0, hashes: proof(0), checkpoint }), trust), { ok: true })
})

t.test('a broken verifier is not a verdict', async (t) => {
  const broken = { ...trust, verify: () => Promise.reject(new Error('no more threads')) }
  const text = encodeProof({ index: 7, hashes: proof(7), checkpoint })
  t.match(
    await verifyProof(Buffer.alloc(65_536), text, trust),
    { ok: false, reason: 'proof.inclusion', detail: /no entry has more than 65535 octets, and this has 65536/ },
    'what is too long for an entry',
  )
  await t.rejects(verifyProof(entries[7] as Buffer, text, broken), { message: 'no more threads' })
})

t.test('a proof goes both ways, with and without extra data', async (t) => {
  const base = { index: 73_894, hashes: [Buffer.from(hash, 'base64')], checkpoint: 'c\n' }
  t.equal(encodeProof(base), `c2sp.org/tlog-proof@v1\nindex 73894\n${hash}\n\nc\n`)
  for (const one of [base, { ...base, hashes: [] }, { ...base, extra: Buffer.from('x') }, { ...base, index: 0 }]) {
    const parsed = parseProof(encodeProof(one))
    t.equal(encodeProof(parsed), encodeProof(one))
    t.equal('extra' in parsed, 'extra' in one)
  }
})

t.test('what is not a proof', async (t) => {
  const head = 'c2sp.org/tlog-proof@v1\n'
  const bad: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['another version', 'c2sp.org/tlog-proof@v2\nindex 1\n\nc\n'],
    ['no index', `${head}\nc\n`],
    ['no empty line', `${head}index 1\n${hash}\n`],
    ['extra data after the index', `${head}index 1\nextra AA==\n\nc\n`],
    ['extra data that are not base64', `${head}extra A\nindex 1\n\nc\n`],
    ['leading zeros', `${head}index 01\n\nc\n`],
    ['an index of 2^53', `${head}index 9007199254740992\n\nc\n`],
    ['another word', `${head}Index 1\n\nc\n`],
    ['a space too many', `${head}index  1\n\nc\n`],
    ['a short hash', `${head}index 1\n${hash.slice(4)}\n\nc\n`],
    ['a carriage return', `${head}index 1\r\n${hash}\n\nc\n`],
    ['64 hashes', `${head}index 1\n${`${hash}\n`.repeat(64)}\nc\n`],
    ['a million hashes', `${head}index 1\n${`${hash}\n`.repeat(40_000)}\nc\n`],
    ['too long', `${head}index 1\n\n${'c'.repeat(2_000_000)}\n`],
  ]
  for (const [what, text] of bad) t.throws(() => parseProof(text), { code: 'proof.text' }, what)
  t.equal(parseProof(`${head}index 1\n${`${hash}\n`.repeat(63)}\nc\n`).hashes.length, 63)
})

t.test('the body of add-checkpoint in the specification, both ways', async (t) => {
  const body = `old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
`
  const parsed = parseAddCheckpoint(body)
  t.equal(parsed.old, 20_852_014)
  t.equal(parsed.proof.length, 4)
  t.ok(parsed.checkpoint.startsWith('example.com/behind-the-sofa\n'))
  t.equal(encodeAddCheckpoint(parsed), body)
  t.match(parseAddCheckpoint('old 0\n\nc\n'), { old: 0, proof: { length: 0 }, checkpoint: 'c\n' })
})

t.test('what is no body of add-checkpoint, and no size', async (t) => {
  const bad: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['no old size', `\nc\n`],
    ['nothing before the empty line', '\n\nc\n'],
    ['another word', `new 1\n\nc\n`],
    ['no empty line', `old 1\n${hash}\n`],
    ['leading zeros', `old 01\n\nc\n`],
    ['a negative size', `old -1\n\nc\n`],
    ['no size', `old \n\nc\n`],
    ['a size of 2^53', `old 9007199254740992\n\nc\n`],
    ['a short hash', `old 1\n${hash.slice(4)}\n\nc\n`],
    ['64 hashes', `old 1\n${`${hash}\n`.repeat(64)}\nc\n`],
    ['too long', `old 1\n\n${'c'.repeat(2_000_000)}\n`],
  ]
  for (const [what, body] of bad) t.throws(() => parseAddCheckpoint(body), { code: 'witness.text' }, what)
  t.equal(parseAddCheckpoint(`old 1\n${`${hash}\n`.repeat(63)}\nc\n`).proof.length, 63)
  t.equal(parseKnownSize('20852014\n'), 20_852_014)
  t.equal(parseKnownSize(`${2 ** 53 - 1}\n`), 2 ** 53 - 1)
  for (const size of ['', '1', '12', '01\n', '1\n\n', ' 1\n', `${'1'.repeat(100)}\n`])
    t.throws(() => parseKnownSize(size), { code: 'witness.text' }, JSON.stringify(size))
})

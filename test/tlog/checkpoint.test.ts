/** Checkpoints, and who may have signed them. */
import t from 'tap'

import { encodeCheckpoint, openCheckpoint, parseCheckpoint, signCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeNote, parseNote, signText } from '../../src/tlog/note.ts'
import { newSigner, verifyEd25519 } from './hashing.ts'

const rootText = 'CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I='
const text = `example.com/behind-the-sofa\n20852163\n${rootText}\n`
const roll = newSigner('example.com/behind-the-sofa')
const witness = newSigner('witness.example.com/w1', 'cosignature', 1_679_315_147)
const keys = { roll: [roll.key], witnesses: [witness.key] }

t.test('the checkpoint of the specification, both ways', async (t) => {
  const checkpoint = parseCheckpoint(text)
  t.equal(checkpoint.origin, 'example.com/behind-the-sofa')
  t.equal(checkpoint.size, 20_852_163)
  t.equal(encodeCheckpoint(checkpoint), text)
  t.same(parseCheckpoint(`${text}an extension\nanother\n`), checkpoint, 'extensions of others are passed over')
})

t.test('what is not a checkpoint', async (t) => {
  const bad: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['no origin', `\n1\n${rootText}\n`],
    ['two lines', `o\n1\n`],
    ['no end of the last line', `o\n1\n${rootText}`],
    ['an empty line at the end', `o\n1\n${rootText}\n\n`],
    ['an empty extension', `o\n1\n${rootText}\n\nx\n`],
    ['leading zeros', `o\n01\n${rootText}\n`],
    ['a sign', `o\n+1\n${rootText}\n`],
    ['a negative size', `o\n-1\n${rootText}\n`],
    ['an exponent', `o\n1e3\n${rootText}\n`],
    ['a fraction', `o\n1.0\n${rootText}\n`],
    ['no size', `o\n\n${rootText}\n`],
    ['a size of 2^53', `o\n9007199254740992\n${rootText}\n`],
    ['a size of 2^64', `o\n18446744073709551616\n${rootText}\n`],
    ['digits of another script', `o\n١\n${rootText}\n`],
    ['a short root', `o\n1\n${rootText.slice(4)}\n`],
    ['a root with a space', `o\n1\n ${rootText}\n`],
    ['a root with bits that carry nothing', `o\n1\n${rootText.replace('I=', 'J=')}\n`],
    ['a root in hex', `o\n1\n${'ab'.repeat(32)}\n`],
  ]
  for (const [what, one] of bad) t.throws(() => parseCheckpoint(one), { code: 'checkpoint.text' }, what)
  t.equal(parseCheckpoint(`o\n9007199254740991\n${rootText}\n`).size, Number.MAX_SAFE_INTEGER)
})

t.test('a signed checkpoint opens with the key of the roll, and says who has cosigned it', async (t) => {
  const note = await signCheckpoint(parseCheckpoint(text), roll)
  t.match(await openCheckpoint(note, keys, verifyEd25519), {
    size: 20_852_163,
    key: roll.key,
    cosignatures: { length: 0 },
  })
  const { signatures } = parseNote(note)
  const cosigned = encodeNote({ text, signatures: [await signText(text, witness), ...signatures] })
  const { cosignatures } = await openCheckpoint(cosigned, keys, verifyEd25519)
  t.same(cosignatures, [{ key: witness.key, time: 1_679_315_147 }])
  const unknown = await openCheckpoint(cosigned, { roll: [roll.key] }, verifyEd25519)
  t.same(unknown.cosignatures, [])
  t.equal(await signCheckpoint(parseCheckpoint(text), roll), note, 'every replica makes the same one')
})

t.test('whose checkpoint is not the one of the roll', async (t) => {
  const note = await signCheckpoint(parseCheckpoint(text), roll)
  const other = newSigner('other.example')
  await t.rejects(openCheckpoint(note, { roll: [other.key] }, verifyEd25519), { code: 'note.unsigned' })
  const byWitness = encodeNote({ text, signatures: [await signText(text, witness)] })
  await t.rejects(openCheckpoint(byWitness, keys, verifyEd25519), { code: 'note.unsigned' })
  const foreign = encodeNote({ text, signatures: [await signText(text, other)] })
  await t.rejects(openCheckpoint(foreign, { roll: [other.key] }, verifyEd25519), { code: 'checkpoint.origin' })
  await t.rejects(signCheckpoint(parseCheckpoint(text), other), { code: 'checkpoint.origin' })
  const grown = note.replace('20852163', '20852164')
  await t.rejects(openCheckpoint(grown, keys, verifyEd25519), { code: 'note.signature' })
  const words = encodeNote({ text: 'hello\n', signatures: [await signText('hello\n', roll)] })
  await t.rejects(openCheckpoint(words, keys, verifyEd25519), { code: 'checkpoint.text' })
})

/** Signed notes and their keys, with the vectors of c2sp.org/signed-note and tlog-cosignature. */
import { createPrivateKey, sign } from 'node:crypto'

import t from 'tap'

import {
  encodeNote,
  encodeSignatures,
  encodeVerifierKey,
  makeVerifierKey,
  type NoteSigner,
  parseNote,
  parseSignatures,
  parseVerifierKey,
  signText,
  verifyNote,
} from '../../src/tlog/note.ts'
import { newSigner, sha256, verifyEd25519 } from './hashing.ts'

const specKey = 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k'
const specNote = `This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
`
const poem = `Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
`
const notOf = async (text: string, ...signers: readonly NoteSigner[]): Promise<string> =>
  encodeNote({ text, signatures: await Promise.all(signers.map((signer) => signText(text, signer))) })

t.test('the key of the specification verifies its note, and no other text', async (t) => {
  const key = parseVerifierKey(specKey, sha256)
  t.match(key, { name: 'example.com/foo', id: 0x530d903a, type: 'ed25519' })
  t.equal(encodeVerifierKey(key), specKey)
  const note = parseNote(specNote)
  t.equal(note.text, 'This is an example message.\n')
  t.equal(encodeNote(note), specNote)
  t.same(await verifyNote(note, [key], verifyEd25519), [{ key, time: undefined }])
  await t.rejects(verifyNote({ ...note, text: 'This is another message.\n' }, [key], verifyEd25519), {
    code: 'note.signature',
  })
})

t.test('a text may have empty lines, of which the last ends it', async (t) => {
  const note = parseNote(new TextEncoder().encode(poem))
  t.ok(note.text.endsWith('sole:\n\ned è subito sera.\n'))
  t.equal(encodeNote(note), poem)
})

t.test('a cosignature is over its time and the text', async (t) => {
  const text = 'example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n'
  const { privateKey, key } = signerOf('witness.example.com/w1', 'cosignature')
  const time = 1_679_315_147
  const signature = await signText(text, { key, time, sign: (message) => sign(null, message, privateKey) })
  t.equal(signature.octets.length, 72)
  const message = `cosignature/v1\ntime ${time}\n${text}`
  t.same(Buffer.from(signature.octets.subarray(8)), sign(null, Buffer.from(message), privateKey))
  t.same(await verifyNote({ text, signatures: [signature] }, [key], verifyEd25519), [{ key, time }])
  const later = { ...signature, octets: Uint8Array.from(signature.octets) }
  later.octets[7] = (later.octets[7] ?? 0) + 1
  // Of 2^64 - 1, as a number that stands for others as well: what is signed is the text that this would be read as.
  const rounded = sign(null, Buffer.from(`cosignature/v1\ntime ${2 ** 64}\n${text}`), privateKey)
  const beyond = Buffer.concat([Buffer.alloc(8, 0xff), rounded])
  for (const octets of [later.octets, signature.octets.subarray(8), beyond]) {
    const altered = { text, signatures: [{ ...signature, octets }] }
    await t.rejects(verifyNote(altered, [key], verifyEd25519), { code: 'note.signature' })
  }
  const lastOfDates = 8_640_000_000_000
  for (const [time, holds] of [
    [lastOfDates, true],
    [lastOfDates + 1, false],
  ] as const) {
    const signed = await signText(text, { key, time, sign: (message) => sign(null, message, privateKey) })
    const told = verifyNote({ text, signatures: [signed] }, [key], verifyEd25519)
    if (holds) t.same(await told, [{ key, time }])
    else await t.rejects(told, { code: 'note.signature' })
  }
  await t.rejects(signText(text, { key, sign: () => Buffer.alloc(64) }), TypeError, 'a cosignature has a time')
})

t.test('a signature of another length holds for nobody, whoever verifies what', async (t) => {
  for (const [type, whole] of [
    ['ed25519', 64],
    ['cosignature', 72],
  ] as const) {
    const { key } = signerOf('one.example', type)
    const ask = (length: number) => {
      const signature = { name: key.name, id: key.id, octets: new Uint8Array(length) }
      return verifyNote({ text: 'hello\n', signatures: [signature] }, [key], async () => true)
    }
    t.equal((await ask(whole)).length, 1)
    for (const length of [1, 7, 8, 63, 65, 71, 73].filter((length) => length !== whole))
      await t.rejects(ask(length), { code: 'note.signature' }, `${type}: ${length} octets`)
  }
})

t.test('the two types of one key are two keys', async (t) => {
  const { key, publicKey } = signerOf('one.example', 'ed25519')
  const timed = makeVerifierKey({ name: 'one.example', type: 'cosignature', publicKey }, sha256)
  t.not(timed.id, key.id)
  t.same(parseVerifierKey(encodeVerifierKey(timed), sha256), timed)
})

t.test(
  'signatures of unknown keys are passed over, also where they share a name or an id with a known one',
  async (t) => {
    const [known, unknown] = [newSigner('a.example'), newSigner('a.example')]
    const text = 'hello\n'
    const sameName = await signText(text, unknown)
    const sameId = { ...sameName, name: 'b.example', id: known.key.id }
    const own = await signText(text, known)
    const signatures = [sameName, sameId, own, { ...own, octets: new Uint8Array(64) }]
    t.same(await verifyNote({ text, signatures }, [known.key], verifyEd25519), [{ key: known.key, time: undefined }])
    for (const none of [[sameName], [sameId], [sameName, sameId]])
      await t.rejects(verifyNote({ text, signatures: none }, [known.key], verifyEd25519), { code: 'note.unsigned' })
    const spoiled = [own, { ...(await signText(text, newSigner('c.example'))), name: 'a.example', id: known.key.id }]
    t.equal((await verifyNote({ text, signatures: spoiled }, [known.key], verifyEd25519)).length, 1)
    await t.rejects(verifyNote({ text, signatures: spoiled.reverse() }, [known.key], verifyEd25519), {
      code: 'note.signature',
    })
  },
)

t.test('sixteen signatures are taken, and up to a hundred', async (t) => {
  const text = 'hello\n'
  const signer = newSigner('a.example')
  const signature = await signText(text, signer)
  for (const count of [1, 16, 100]) {
    const note = encodeNote({ text, signatures: Array.from({ length: count }, () => signature) })
    t.equal(parseNote(note).signatures.length, count)
  }
  for (const count of [0, 101, 1000]) {
    const note = encodeNote({ text, signatures: Array.from({ length: count }, () => signature) })
    t.throws(() => parseNote(note), { code: 'note.text' }, `${count}`)
  }
})

t.test('what is not a note', async (t) => {
  const line = '— a.example AAAAAAA=\n'
  t.equal(parseNote(`t\n\n${line}`).signatures[0]?.octets.length, 1, 'the least that is one')
  const bad: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['no text', `\n${line}`],
    ['no empty line', `t\n${line}`],
    ['a last line without an end', `t\n\n${line.trimEnd()}`],
    ['something after the signatures', `t\n\n${line}x`],
    ['an empty line after them', `t\n\n${line}\n`],
    ['a carriage return', `t\r\n\n${line}`],
    ['a tab', `a\tb\n\n${line}`],
    ['a null', `a\0b\n\n${line}`],
    ['a lone surrogate', `\ud800\n\n${line}`],
    ['a hyphen for a dash', `t\n\n- a.example AAAAAAA=\n`],
    ['no space after the dash', `t\n\n—a.example AAAAAAA=\n`],
    ['no name', `t\n\n—  AAAAAAA=\n`],
    ['a plus in the name', `t\n\n— a+b AAAAAAA=\n`],
    ['a no-break space in the name', `t\n\n— a\u00a0b AAAAAAA=\n`],
    ['an ideographic space in the name', `t\n\n— a\u3000b AAAAAAA=\n`],
    ['no signature', `t\n\n— a.example\n`],
    ['an empty signature', `t\n\n— a.example \n`],
    ['an id alone', `t\n\n— a.example AAAAAA==\n`],
    ['two spaces', `t\n\n— a.example  AAAAAAA=\n`],
    ['something after the signature', `t\n\n— a.example AAAAAAA= x\n`],
    ['no padding', `t\n\n— a.example AAAAAAA\n`],
    ['bits that carry nothing and are not zero', `t\n\n— a.example AAAAAAB=\n`],
    ['base64 for URLs', `t\n\n— a.example AAAA__A=\n`],
    ['too long', `${'t'.repeat(1_000_000)}\n\n${line}`],
  ]
  for (const [what, note] of bad) t.throws(() => parseNote(note), { code: 'note.text' }, what)
  const octets = Buffer.from(`tä\n\n${line}`)
  t.equal(parseNote(octets).text, 'tä\n')
  t.throws(() => parseNote(octets.subarray(2)), { code: 'note.text' }, 'not UTF-8')
  for (const text of ['', 't', 'a\u0007\n', '\ud800\n']) {
    t.throws(() => encodeNote({ text, signatures: [] }), { code: 'note.text' })
    await t.rejects(signText(text, newSigner('a.example')), { code: 'note.text' }, 'nothing else is signed')
  }
})

t.test('the lines that a witness answers with', async (t) => {
  const signature = await signText('hello\n', newSigner('w.example', 'cosignature', 1))
  const lines = encodeSignatures([signature, signature])
  t.equal(encodeSignatures(parseSignatures(lines)), lines)
  for (const bad of ['', '\n', `${lines}\n`, lines.slice(0, -1), `old 1\n${lines}`])
    t.throws(() => parseSignatures(bad), { code: 'note.text' })
})

t.test('what is not a verifier key', async (t) => {
  const [name, id, key = ''] = specKey.split('+')
  const bad: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['no name', `+${id}+${key}`],
    ['a space in the name', `a b+${id}+${key}`],
    ['no id', `${name}+${key}`],
    ['another id', `${name}+530d903b+${key}`],
    ['an id in upper case', `${name}+530D903A+${key}`],
    ['another name', `example.com/bar+${id}+${key}`],
    ['a type that is not known', `${name}+${id}+Bu${key.slice(2)}`],
    ['a short key', `${name}+${id}+${key.slice(0, -4)}`],
    ['nothing but a type', `${name}+${id}+AQ==`],
    ['a newline at the end', `${specKey}\n`],
    ['a fourth part', `${specKey}+x`],
    [
      'too long',
      encodeVerifierKey(
        makeVerifierKey({ name: 'n'.repeat(4_096), type: 'ed25519', publicKey: new Uint8Array(32) }, sha256),
      ),
    ],
  ]
  for (const [what, text] of bad) t.throws(() => parseVerifierKey(text, sha256), { code: 'key.text' }, what)
  const publicKey = new Uint8Array(32)
  for (const name of ['', 'a+b', 'a b', 'a\nb', 'a\u0001b', '\ud800'])
    t.throws(() => makeVerifierKey({ name, type: 'ed25519', publicKey }, sha256), { code: 'key.text' })
  for (const publicKey of [new Uint8Array(31), new Uint8Array(33)])
    t.throws(() => makeVerifierKey({ name: 'a', type: 'ed25519', publicKey }, sha256), { code: 'key.text' })
})

t.test('a note that two have signed', async (t) => {
  const [roll, witness] = [newSigner('roll.example'), newSigner('w.example', 'cosignature', 7)]
  const note = parseNote(await notOf('hello\n', roll, witness))
  t.same(await verifyNote(note, [witness.key, roll.key], verifyEd25519), [
    { key: roll.key, time: undefined },
    { key: witness.key, time: 7 },
  ])
})

/** RFC 8032 7.1, test 1. */
function signerOf(name: string, type: 'ed25519' | 'cosignature') {
  const d = Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex')
  const publicKey = Buffer.from('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', 'hex')
  const jwk = { kty: 'OKP', crv: 'Ed25519', d: d.toString('base64url'), x: publicKey.toString('base64url') }
  const privateKey = createPrivateKey({ key: jwk, format: 'jwk' })
  return { privateKey, publicKey, key: makeVerifierKey({ name, type, publicKey }, sha256) }
}

import { generateKeyPairSync, type KeyObject } from 'node:crypto'

import { CompactSign } from 'jose'
import t from 'tap'

import { keyProofType, signKeyProof, verifyKeyProof } from '../../src/keys/key-proof.ts'

const proof = { issuer: 'default', serial: '4a'.repeat(16), reason: 'keyCompromise', iat: 1 }
const pairs: Readonly<Record<string, { readonly privateKey: KeyObject; readonly publicKey: KeyObject }>> = {
  'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  'P-521': generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  Ed25519: generateKeyPairSync('ed25519'),
  RSA: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  'ML-DSA-44': generateKeyPairSync('ml-dsa-44'),
  'ML-DSA-65': generateKeyPairSync('ml-dsa-65'),
  'ML-DSA-87': generateKeyPairSync('ml-dsa-87'),
}
const spkiOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })
const bad = { code: 'revocation.proof' }
const verify = verifyKeyProof

for (const [kind, { privateKey, publicKey }] of Object.entries(pairs))
  t.test(`a proof by a key of kind ${kind}`, async (t) => {
    const jws = await signKeyProof(proof, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
    t.same(await verify(jws, spkiOf(publicKey)), proof)
    t.notOk(jws.includes(spkiOf(publicKey).toString('base64url').slice(-40)), 'no key is in it')
    for (const [other, pair] of Object.entries(pairs))
      if (other !== kind) await t.rejects(verify(jws, spkiOf(pair.publicKey)), bad, other)
  })

t.test('an algorithm that is not of the kind of the key proves nothing', async (t) => {
  const { publicKey, privateKey } = pairs['P-256'] as (typeof pairs)[string]
  const spki = spkiOf(publicKey)
  const payload = Buffer.from(JSON.stringify(proof))
  const pem = Buffer.from(publicKey.export({ type: 'spki', format: 'pem' }) as string)
  for (const secret of [spki, pem]) {
    const jws = await new CompactSign(payload).setProtectedHeader({ alg: 'HS256', typ: keyProofType }).sign(secret)
    await t.rejects(verify(jws, spki), bad, 'its public half as a shared secret')
  }
  for (const typ of ['JWT', undefined]) {
    const header = { alg: 'ES256', ...(typ !== undefined && { typ }) }
    const jws = await new CompactSign(payload).setProtectedHeader(header).sign(privateKey)
    await t.rejects(
      verify(jws, spki),
      { ...bad, detail: /typ is not chancery-revocation\+jws/ },
      'nor what was signed as something else',
    )
  }
  for (const torn of ['x.y.z', '', '..', 'a.b']) await t.rejects(verify(torn, spki), bad, torn)
  const critical = { alg: 'ES256', typ: keyProofType, crit: ['b64'], b64: false }
  const jws = await new CompactSign(payload)
    .setProtectedHeader(critical)
    .sign(privateKey)
    .catch(() => 'x')
  await t.rejects(verify(jws, spki), bad)
})

t.test('a proof that is not JSON is rejected', async (t) => {
  const { publicKey, privateKey } = pairs['P-256'] as (typeof pairs)[string]
  const said = JSON.stringify(proof)
  const cases: readonly (readonly [payload: string | Buffer, detail: RegExp])[] = [
    [said.slice(1), /^The proof does not hold: the payload is not JSON[.]$/],
  ]
  for (const [payload, detail] of cases) {
    const header = { alg: 'ES256', typ: keyProofType }
    const jws = await new CompactSign(Buffer.from(payload)).setProtectedHeader(header).sign(privateKey)
    await t.rejects(verify(jws, spkiOf(publicKey)), { ...bad, detail }, String(payload))
  }
})

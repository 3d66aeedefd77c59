/** Ceremonies with a root whose key was born in a token, in a real SoftHSM. */
import { chmod, writeFile } from 'node:fs/promises'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import {
  crlParameters,
  crossParameters,
  opensslKeys,
  openTable,
  type Parameters,
  rootParameters,
  signParameters,
} from '../cli/ceremonies.ts'
import { slowTest, slowUnless } from '../helpers/slow.ts'
import { openShim, openSoftHsm } from './softhsm.ts'

t.setTimeout(300_000)
const hsm = await openSoftHsm(t)
const { env } = hsm
const done = { code: 0, err: '' }
const inToken = (object: string, more: Parameters = {}): Parameters => ({
  uri: `pkcs11:token=ca;object=${object}`,
  module: hsm.module,
  pinFile: hsm.pinFile,
  ...more,
})

for (const [algorithm, bits] of [['ec-p256'], ['ec-p384'], ['ed25519'], ['rsa', 3072], ['rsa', 4096]] as const)
  slowUnless(
    bits === 3072,
    `a root of ${algorithm} ${bits ?? ''} in a token makes intermediates, a CRL and a successor`,
    async (t) => {
      const table = await openTable(t)
      const name = `${algorithm}${bits ?? ''}`
      const key = inToken(name)
      const born = { ...key, algorithm, ...(bits && { bits }) }
      const made = await table.act('root', rootParameters('root', { key: born }), { env })
      t.match(made, done)
      t.match(
        made.out,
        /Held +sensitive true, extractable false, alwaysSensitive true, neverExtractable true, local true/,
      )
      t.equal(await table.verify('root.pem', 'root.pem'), 'root.pem: OK\n')
      if (bits) t.match(made.out, new RegExp(`RSA, ${bits} bits`))
      for (const kind of ['ec-p256', 'ml-dsa-65'] as const) {
        const csr = await table.request(kind, opensslKeys[kind], `/O=Example/CN=Example CA ${kind}`)
        const parameters = signParameters('root', kind, { key, request: { algorithm: kind } })
        t.match(await table.act(kind, parameters, { file: csr, env }), done)
        t.equal(await table.verify('root.pem', `${kind}.pem`), `${kind}.pem: OK\n`)
      }
      const revoked = [{ serial: '4e66712439e4988e', at: '2026-01-02T03:04:05Z', reason: 'superseded' }]
      t.match(await table.act('crl', crlParameters('root', 1, { key, revoked }), { env }), done)
      const args = ['crl', '-inform', 'DER', '-in', table.path('root-1.crl'), '-noout', '-text']
      t.match(await table.openssl(...args, '-verify', '-CAfile', table.path('root.pem')), /Superseded/)
      t.match(await table.act('new', rootParameters('new')), done)
      t.match(await table.act('cross', crossParameters('root', 'cross', { key }), { file: 'new.pem', env }), done)
      t.equal(await table.verify('root.pem', 'cross.pem'), 'cross.pem: OK\n')
      for (const transcript of ['root.txt', 'root-1.crl.txt', 'cross.txt']) {
        t.match(await table.read(transcript), /Signing key +pkcs11:token=ca;serial=[0-9a-f]{16};object=/)
        t.match(await table.read(transcript), /PIN +\S*pin\n/)
      }
    },
  )

t.test('a token that is pulled as soon as it has signed costs the ceremony nothing', async (t) => {
  const shim = await openShim(t)
  await shim.misbehave(`close-error=${0xe0}`)
  const table = await openTable(t)
  const key = { uri: 'pkcs11:token=ca;object=pulled', module: shim.module, pinFile: shim.pinFile }
  const parameters = rootParameters('root', { key: { ...key, algorithm: 'ec-p256' } })
  t.match(await table.act('root', parameters, { env: shim.env }), done)
  t.equal(await table.verify('root.pem', 'root.pem'), 'root.pem: OK\n')
})

t.test('RSASSA-PSS, where the URI says so', async (t) => {
  const table = await openTable(t)
  const uri = 'pkcs11:token=ca;object=rsa3072?x-signature=rsa-pss-sha256'
  const key = inToken('rsa3072', { uri, algorithm: 'rsa', bits: 3072, existing: true })
  t.match(await table.act('root', rootParameters('root', { key }), { env }), done)
  t.equal(await table.verify('root.pem', 'root.pem'), 'root.pem: OK\n')
  t.match(await table.openssl('x509', '-in', table.path('root.pem'), '-noout', '-text'), /rsassaPss/)
})

t.test('a ceremony that stops after the key was made says so, and another goes on', async (t) => {
  const table = await openTable(t)
  const key = inToken('halfway', { algorithm: 'ec-p256' })
  const half = await table.act('root', rootParameters('root', { key }), { env, typed: 'yes\nno\n' })
  t.match(half, { code: exitCodes.refused, err: /^Not confirmed\. The key stays at pkcs11:token=ca;object=halfway;/ })
  t.match(await table.read('root.txt'), /^Stopped +Not confirmed/m)
  t.match(await table.read('root.txt'), /^Made +the key pkcs11:token=ca;serial=[0-9a-f]{16};object=halfway/m)
  const output = { certificate: 'root.pem', transcript: 'again.txt' }
  const again = rootParameters('root', { key: { ...key, existing: true }, output })
  t.match(await table.act('again', again, { env }), done)
  t.equal(await table.verify('root.pem', 'root.pem'), 'root.pem: OK\n')
})

t.test('the module and the PIN may stand in the URI', async (t) => {
  const table = await openTable(t)
  const uri = `pkcs11:token=ca;object=by-uri?module-path=${hsm.module}&pin-source=file:${hsm.pinFile}`
  const key = { uri, algorithm: 'ec-p256' }
  t.match(await table.act('root', rootParameters('root', { key }), { env }), done)
})

slowTest('a token that cannot, or will not, is told in a sentence', async (t) => {
  const table = await openTable(t)
  await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'with-id', '--id', 'd1')
  const attempt = (more: Parameters, algorithm = 'ec-p256') =>
    table.act('root', rootParameters('root', { key: { ...inToken('another'), algorithm, ...more } }), { env })
  for (const [name, ended, code, expected] of [
    ['ML-DSA', await attempt({}, 'ml-dsa-65'), exitCodes.usage, /The token ca cannot make a key of type ml-dsa-65\./],
    [
      'a key that is there',
      await attempt({ uri: 'pkcs11:token=ca;object=ec-p256' }),
      exitCodes.conflict,
      /a key is never overwritten\. To take the key that is there, add existing: true to \/key\.\n/,
    ],
    [
      'the id of another key, which existing would not find',
      await attempt({ uri: 'pkcs11:token=ca;object=another;id=%d1' }),
      exitCodes.conflict,
      /a key is never overwritten: leave the id out, or name another\.\n/,
    ],
    [
      'a token that is not there',
      await attempt({ uri: 'pkcs11:token=nowhere;object=x' }),
      exitCodes.usage,
      /There is no token with label nowhere\./,
    ],
    [
      'a module that is not there',
      await attempt({ module: '/nonexistent.so' }),
      exitCodes.usage,
      /no PKCS#11 module at/,
    ],
    ['no module', await attempt({ module: undefined }), exitCodes.usage, /\/key\/module must be named once/],
    [
      'a PIN in the URI',
      await attempt({ uri: 'pkcs11:token=ca;object=x?pin-value=1234' }),
      exitCodes.usage,
      /never holds a PIN/,
    ],
    [
      'an existing key that is not there',
      await attempt({ existing: true }),
      exitCodes.missing,
      /The token ca has no private key another\./,
    ],
  ] as const) {
    t.match(ended, { code, err: expected }, name)
    t.notMatch(ended.err, /\n {4}at |1234/, name)
  }
  await chmod(hsm.pinFile, 0o644)
  t.match(await attempt({}), { code: exitCodes.usage, err: /can be read by others/ })
  await chmod(hsm.pinFile, 0o600)
  t.teardown(() => hsm.setPin('1234'))
  await writeFile(hsm.pinFile, '')
  t.match(await attempt({}), { code: exitCodes.usage, err: /The PIN for the token ca is empty, and was not tried/ })
  await hsm.setPin('9999')
  const refused = await attempt({})
  t.match(refused, { code: exitCodes.denied, err: /The token ca refuses the PIN .* before a restart/ })
  t.notMatch(refused.err, /9999/)
})

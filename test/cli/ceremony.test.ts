import { createHash } from 'node:crypto'
import { chmod, readdir, rm, stat } from 'node:fs/promises'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { slowTest, slowUnless } from '../helpers/slow.ts'
import { assertTools } from '../interop/tools.ts'
import {
  crlParameters,
  crossParameters,
  fileKey,
  opensslKeys,
  openTable,
  type Parameters,
  passphrase,
  rootParameters,
  signParameters,
  type Table,
} from './ceremonies.ts'

await assertTools('openssl')
t.setTimeout(300_000)

const done = { code: 0, err: '' }
const subjectOf = (name: string): string => `/O=Example/CN=Example CA ${name}`

/** A leaf below an intermediate, by openssl. */
const leafBelow = async (table: Table, name: string, san: string): Promise<string> => {
  const leaf = `${name}.leaf-${createHash('sha256').update(san).digest('hex').slice(0, 6)}`
  await table.request(leaf, opensslKeys['ec-p256'], '/CN=leaf')
  const extensions = [
    `subjectAltName=${san}`,
    'basicConstraints=critical,CA:FALSE',
    'keyUsage=critical,digitalSignature',
    'subjectKeyIdentifier=hash',
    'authorityKeyIdentifier=keyid',
  ]
  await table.write(`${leaf}.ext`, `${extensions.join('\n')}\n`)
  const [csr, ca, key] = [`${leaf}.csr`, `${name}.pem`, `${name}.key`].map(table.path) as [string, string, string]
  const args = ['-req', '-in', csr, '-CA', ca, '-CAkey', key, '-days', '30', '-extfile', table.path(`${leaf}.ext`)]
  await table.openssl('x509', ...args, '-out', table.path(`${leaf}.pem`))
  return `${leaf}.pem`
}

const serialOf = async (table: Table, name: string): Promise<string> =>
  (await table.openssl('x509', '-in', table.path(name), '-noout', '-serial')).trim().replace('serial=', '')

/** The root that will follow, with an intermediate and a leaf below it. */
const openFollower = async () => {
  const table = await openTable(t)
  await table.act('new', rootParameters('new', { key: { ...fileKey('new'), algorithm: 'ec-p384' } }))
  const csr = await table.request('below', opensslKeys['ec-p256'], subjectOf('below'))
  await table.act('below', signParameters('new', 'below'), { file: csr })
  return { table, leaf: await leafBelow(table, 'below', 'DNS:web.example.com') }
}
const follower = await openFollower()

/** Held once for those tests that are about what comes after it: each gets its files. */
const openRoot = async () => {
  const table = await openTable(t)
  t.match(await table.act('root', rootParameters('root')), done)
  return async (to: Table): Promise<void> => {
    await to.write('root.key.pem', await table.read('root.key.pem'), 0o600)
    for (const name of ['root.yaml', 'root.pem', 'root.txt']) await to.write(name, await table.read(name))
  }
}
const putRoot = await openRoot()

for (const [algorithm, bits] of [['ec-p256'], ['ec-p384'], ['ed25519'], ['rsa', 3072], ['ml-dsa-65']] as const)
  slowUnless(
    algorithm === 'ec-p256',
    `everything that a root of ${algorithm} signs is accepted by openssl with only that root`,
    async (t) => {
      const table = await openTable(t)
      const key = { ...fileKey('old'), algorithm, ...(bits && { bits }) }
      t.match(await table.act('old', rootParameters('old', { key })), done)
      t.equal(await table.verify('old.pem', 'old.pem'), 'old.pem: OK\n')
      t.equal((await stat(table.path('old.key.pem'))).mode & 0o777, 0o600)
      t.match(await table.read('old.key.pem'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/)

      for (const kind of ['ec-p256', 'ml-dsa-65'] as const) {
        const csr = await table.request(kind, opensslKeys[kind], subjectOf(kind))
        const parameters = signParameters('old', kind, { request: { algorithm: kind } })
        t.match(await table.act(kind, parameters, { file: csr }), done)
        t.equal(await table.verify('old.pem', `${kind}.pem`), `${kind}.pem: OK\n`)
        t.equal(
          await table.read(`${kind}.chain.pem`),
          (await table.read(`${kind}.pem`)) + (await table.read('old.pem')),
        )
        const leaf = await leafBelow(table, kind, 'DNS:web.example.com')
        t.equal(await table.verify('old.pem', leaf, [`${kind}.pem`]), `${leaf}: OK\n`)
        t.match(await table.verify('old.pem', leaf), /unable to get local issuer/)
      }

      const revoked = [
        { serial: await serialOf(table, 'ec-p256.pem'), at: '2026-01-02T03:04:05Z', reason: 'cACompromise' },
      ]
      t.match(await table.act('crl', crlParameters('old', 1, { revoked })), done)
      const listed = await table.openssl(
        ...['crl', '-inform', 'DER', '-in', table.path('old-1.crl'), '-noout', '-text'],
        ...['-verify', '-CAfile', table.path('old.pem')],
      )
      t.match(listed, /X509v3 CRL Number: \n +1\n/)
      t.match(listed, /CA Compromise/)
      await table.openssl('crl', '-inform', 'DER', '-in', table.path('old-1.crl'), '-out', table.path('crl.pem'))
      const check = (name: string) =>
        table
          .openssl(
            ...['verify', '-crl_check', '-CRLfile', table.path('crl.pem'), '-CAfile', table.path('old.pem')],
            table.path(name),
          )
          .catch((error: Error) => error.message)
      t.match(await check('ec-p256.pem'), /certificate revoked/)
      t.match(await check('ml-dsa-65.pem'), /OK/)

      for (const name of [follower.leaf, 'below.pem', 'new.pem'])
        await table.write(name, await follower.table.read(name))
      t.match(await table.act('cross', crossParameters('old', 'cross'), { file: 'new.pem' }), done)
      const { leaf } = follower
      t.equal(await table.verify('new.pem', leaf, ['below.pem']), `${leaf}: OK\n`)
      t.equal(await table.verify('old.pem', leaf, ['below.pem', 'cross.pem']), `${leaf}: OK\n`)
      t.match(await table.verify('old.pem', leaf, ['below.pem', 'new.pem']), /self-signed certificate/)
    },
  )

slowTest('a root and an intermediate say what their parameters said', async (t) => {
  const table = await openTable(t)
  const nameConstraints = {
    permitted: {
      dns: ['example.com'],
      ip: ['10.0.0.0/8', '2001:db8::/32'],
      email: ['example.com'],
      uri: ['.example.com'],
    },
    excluded: { dns: ['secret.example.com'] },
  }
  // What has ended is not signed any more.
  const year = new Date().getUTCFullYear()
  const validity = { notBefore: '2026-01-01T00:00:00Z', notAfter: `${year + 29}-12-31T23:59:59Z` }
  t.match(await table.act('root', rootParameters('root', { validity, pathLength: 1, nameConstraints })), done)
  const csr = await table.request('int', opensslKeys['ec-p256'], subjectOf('int'))
  const urls = { crl: 'http://pki.example.com/root.crl', issuer: 'http://pki.example.com/root.cer' }
  const inside = { notBefore: '2026-02-01T00:00:00Z', notAfter: `${year + 10}-01-31T23:59:59Z` }
  const more = { validity: inside, nameConstraints, urls }
  t.match(await table.act('int', signParameters('root', 'int', more), { file: csr }), done)
  const text = (name: string) => table.openssl('x509', '-in', table.path(name), '-noout', '-text')
  const [root, intermediate] = [await text('root.pem'), await text('int.pem')]
  t.match(root, new RegExp(`Not After : Dec 31 23:59:59 ${year + 29} GMT`))
  t.match(root, /CA:TRUE, pathlen:1/)
  t.match(intermediate, /Not Before: Feb {2}1 00:00:00 2026 GMT/)
  t.match(intermediate, new RegExp(`Not After : Jan 31 23:59:59 ${year + 10} GMT`))
  t.match(intermediate, /CA:TRUE, pathlen:0/)
  t.match(intermediate, /Issuer: O=Example, CN=Example Root root/)
  t.match(intermediate, /URI:http:\/\/pki\.example\.com\/root\.crl/)
  t.match(intermediate, /CA Issuers - URI:http:\/\/pki\.example\.com\/root\.cer/)
  for (const one of [root, intermediate]) {
    t.match(one, /X509v3 Name Constraints: critical\n +Permitted:\n +DNS:example\.com\n +IP:10\.0\.0\.0\/255\.0\.0\.0/)
    t.match(one, /email:example\.com\n +URI:\.example\.com\n +Excluded:\n +DNS:secret\.example\.com/)
  }
  for (const [san, expected] of [
    ['DNS:web.example.com,IP:10.1.2.3,email:ann@example.com,URI:https://a.example.com/', /: OK/],
    ['DNS:web.example.org', /permitted subtree violation/],
    ['DNS:a.secret.example.com', /excluded subtree violation/],
    ['IP:192.168.0.1', /permitted subtree violation/],
    ['email:ann@example.org', /permitted subtree violation/],
    ['URI:https://example.org/', /permitted subtree violation/],
  ] as const) {
    const leaf = await leafBelow(table, 'int', san)
    t.match(await table.verify('root.pem', leaf, ['int.pem']), expected, san)
  }
})

slowTest('each step is shown, and done only when it was typed', async (t) => {
  const table = await openTable(t)
  const files = async () => (await readdir(table.folder)).filter((name) => !/yaml|passphrase|csr|int\.key/.test(name))
  for (const [typed, said] of [
    ['', /Type yes to make the key/],
    ['no\nnein\nnon\n', /Once more/],
    ['y\n', /Type yes/],
  ] as const) {
    const ended = await table.act('root', rootParameters('root'), { typed })
    t.match(ended, { code: exitCodes.refused, err: 'Not confirmed. Nothing was made.\n' })
    t.match(ended.out, said)
    t.match(ended.out, /Subject +CN=Example Root root,O=Example/)
    t.same(await files(), [])
  }
  const half = await table.act('root', rootParameters('root'), { typed: 'Yes\n00000000\n' })
  t.match(half, {
    code: exitCodes.refused,
    err: /^Not confirmed\. The key stays at file:root\.key\.pem; with "existing/,
  })
  t.same((await files()).sort(), ['root.key.pem', 'root.txt'])
  t.match(await table.read('root.txt'), /^Stopped +Not confirmed\. The key stays/m, 'a key was made, and that is told')
  t.match(await table.read('root.txt'), new RegExp(`root\\.key\\.pem +${await table.sha256('root.key.pem')}`))
  const more = { output: { certificate: 'root.pem', transcript: 'root-2.txt' } }
  const again = await table.act('root', rootParameters('root', more), { typed: 'yes\n' })
  t.match(again, { code: exitCodes.conflict, err: /root\.key\.pem exists; nothing is ever overwritten/ })

  const existing = { ...more, key: { ...fileKey('root'), algorithm: 'ec-p256', existing: true } }
  const [, digits = ''] = /SHA-256 of it +([0-9a-f]{8})/.exec(half.out) ?? []
  t.match(await table.act('root', rootParameters('root', existing), { typed: `${digits}\n` }), done)
  t.match(await table.read('root-2.txt'), /sign it: first digits of the SHA-256 of the public key typed: [0-9a-f]{8}\n/)

  const csr = await table.request('int', opensslKeys['ec-p256'], subjectOf('int'))
  const spki = await table.openssl('req', '-in', table.path(csr), '-noout', '-pubkey')
  const der = Buffer.from(spki.replace(/-----[^-]+-----|\n/g, ''), 'base64')
  const right = createHash('sha256').update(der).digest('hex').slice(0, 8)
  const wrong = await table.act('int', signParameters('root', 'int'), { file: csr, typed: '12345678\n' })
  t.match(wrong, { code: exitCodes.refused, err: 'Not confirmed. Nothing was signed, and nothing was written.\n' })
  t.match(await table.act('int', signParameters('root', 'int'), { file: csr, typed: `oops\n${right}\n` }), done)
})

slowTest('a transcript holds every digest, ends with its own, and tells no secret', async (t) => {
  const table = await openTable(t)
  await table.act('root', rootParameters('root'))
  const csr = await table.request('int', opensslKeys['ec-p256'], subjectOf('int'))
  const { out } = await table.act('int', signParameters('root', 'int'), { file: csr })
  for (const name of ['root.txt', 'int.txt']) {
    const text = await table.read(name)
    const [, body = '', digest = ''] = /^([\s\S]*\n)SHA-256 of all lines above: ([0-9a-f]{64})\n$/.exec(text) ?? []
    t.equal(createHash('sha256').update(body).digest('hex'), digest)
    t.notMatch(text, passphrase)
    t.match(text, /Read, and secret: no digest\n-+\npassphrase +passphrase\n/)
    t.match(text, /Operators +Ada Lovelace/)
    t.match(text, /Begun +\d{4}-\d\d-\d\dT[\d:]{8}Z\nEnded/)
    t.match(text, /Chancery +\d+\.\d+\.\d+, Node \d+\.\S+, OpenSSL 3\./)
    t.match(text, /sign it: confirmed beforehand \(--yes\)/)
    t.match(text, /^operators:$/m, 'every parameter, as it was read')
    t.match(text, /Read again +by @peculiar\/x509, which reads the same in it$/m)
  }
  const text = await table.read('int.txt')
  for (const name of ['int.yaml', 'int.csr', 'root.pem', 'int.pem', 'int.chain.pem'])
    t.match(text, new RegExp(`^${name.replaceAll('.', '\\.')} +${await table.sha256(name)} {2}\\d+$`, 'm'), name)
  t.match(out, (await table.read('int.txt')).slice(-65, -1), 'shown, so that it can be written down')
})

slowTest('what is there is never overwritten', async (t) => {
  const table = await openTable(t)
  await putRoot(table)
  const csr = await table.request('int', opensslKeys['ec-p256'], subjectOf('int'))
  const cases = [
    ['root', rootParameters('other'), undefined],
    ['sign', signParameters('root', 'int'), csr],
    ['crl', crlParameters('root', 1), undefined],
    ['cross', crossParameters('root', 'cross'), 'root.pem'],
  ] as const
  for (const [kind, parameters, file] of cases) {
    for (const name of Object.values(parameters['output'] as Record<string, string>)) {
      await table.write(name, 'precious')
      const ended = await table.act('again', parameters, file === undefined ? {} : { file })
      t.match(
        ended,
        { code: exitCodes.conflict, out: /^$/, err: `${table.path(name)} exists; nothing is ever overwritten.\n` },
        kind,
      )
      t.equal(await table.read(name), 'precious')
      await rm(table.path(name))
    }
  }
  t.notOk(
    (await readdir(table.folder)).includes('other.key.pem'),
    'no key was made for a certificate that has no place',
  )
})

slowTest('a request that does not fit is refused, with every reason, before the key is touched', async (t) => {
  const table = await openTable(t)
  await putRoot(table)
  const before = (await readdir(table.folder)).length
  const refuse = async (name: string, csr: string, more: object, expected: RegExp): Promise<void> => {
    const ended = await table.act('sign', { ...signParameters('root', 'int'), ...more }, { file: csr })
    t.match(ended, { code: exitCodes.refused, out: /^$/ }, name)
    t.match(ended.err, expected, name)
    t.notMatch(ended.err, /\n {4}at /, name)
  }
  const p256 = await table.request('p256', opensslKeys['ec-p256'], subjectOf('int'))
  const p384 = await table.request('p384', opensslKeys['ec-p384'], subjectOf('other'))
  const rsa = await table.request('rsa', ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], subjectOf('int'))
  const small = await table.request(
    'small',
    ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'],
    subjectOf('int'),
  )
  const three = await table.request('three', [...opensslKeys.rsa, '-pkeyopt', 'rsa_keygen_pubexp:3'], subjectOf('int'))
  const ca = await table.request('ca', opensslKeys['ec-p256'], subjectOf('int'), [
    '-addext',
    'basicConstraints=CA:TRUE',
  ])
  await refuse(
    'another type and another subject',
    p384,
    {},
    /^The request is for a key of ec-p384; the parameters say ec-p256\.\nThe request is for the subject CN=Example CA other,O=Example; the parameters say CN=Example CA int,O=Example\.\n$/,
  )
  await refuse(
    'another size',
    rsa,
    { request: { algorithm: 'rsa', bits: 3072 } },
    /of 2048 bits; the parameters say 3072/,
  )
  await refuse(
    'a small key',
    small,
    { request: { algorithm: 'rsa', bits: 3072 } },
    /small\.csr: an RSA key of 1024 bits, where only 2048, 3072, 4096 and 8192 are taken/,
  )
  await refuse('a weak key', three, { request: { algorithm: 'rsa', bits: 3072 } }, /public exponent is not 65537/)
  await refuse(
    'another key',
    p256,
    { request: { algorithm: 'ec-p256', publicKeySha256: '0'.repeat(64) } },
    /another key than the parameters say: its SHA-256 is [0-9a-f]{64}/,
  )
  await refuse('one that asks to be a CA', ca, {}, /ca\.csr: a certificate authority may not be asked for/)

  const der = Buffer.from((await table.read(p256)).replace(/-----[^-]+-----|\n/g, ''), 'base64')
  const changed = Buffer.from(der)
  changed[der.indexOf('Example CA int') + 13] = 'T'.charCodeAt(0)
  const pem = (octets: Buffer) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${octets.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
  await table.write('broken.csr', pem(changed))
  const broken = { subject: { organization: 'Example', commonName: 'Example CA inT' } }
  await refuse('a broken signature', 'broken.csr', broken, /broken\.csr: the signature does not verify with the key/)
  await table.write('ber.csr', pem(Buffer.concat([der, Buffer.from([0])])))
  await refuse('octets after the end', 'ber.csr', {}, /ber\.csr: there are octets after the end/)
  await refuse(
    'a private key',
    'p256.key',
    {},
    /p256\.key: it holds a private key, which was only read here: name another file\.\n$/,
  )
  await refuse('a certificate', 'root.pem', {}, /root\.pem: the block is not labelled CERTIFICATE REQUEST/)

  const ownKey = await table.openssl(
    ...['req', '-new', '-subj', subjectOf('int'), '-key', table.path('root.key.pem'), '-passin', `pass:${passphrase}`],
  )
  await table.write('own.csr', ownKey)
  await refuse("the root's own key", 'own.csr', {}, /^The key is the root's own\.\n$/)
  await refuse(
    'one that outlives the root',
    p256,
    { validity: { days: 9000 } },
    /would outlive the root, which ends at/,
  )
  const over = { validity: { notBefore: '2020-01-01T00:00:00Z', days: 100 } }
  await refuse('one that is over', p256, over, /The validity has ended already, at 2020-04-09T23:59:59Z\./)
  const early = { validity: { notBefore: '2020-01-01T00:00:00Z', days: 9000 } }
  await refuse('one that begins before it', p256, early, /would be valid before the root, which begins at/)
  const made = (await readdir(table.folder)).filter((name) => !/\.(csr|key|yaml)$/.test(name)).length
  t.equal(made, before - 1, 'nothing was written')
})

slowTest('what could only fail at the signature is refused before a key is made', async (t) => {
  const table = await openTable(t)
  const early = { validity: { notBefore: '1949-12-31T23:59:59Z', days: 20_000 } }
  t.match(await table.act('early', rootParameters('early', early)), {
    code: exitCodes.usage,
    err: /notBefore \(1949-12-31T23:59:59Z\) is not a moment/,
  })
  const late = { validity: { notBefore: '9990-01-01T00:00:00Z', days: 36_500 } }
  t.match(await table.act('late', rootParameters('late', late)), {
    code: exitCodes.refused,
    err: /would end after 9999-12-31T23:59:59Z/,
  })
  t.notMatch((await readdir(table.folder)).join(), /key\.pem/)

  await putRoot(table)
  const revoked = [{ serial: 'ff'.repeat(20), at: '2026-01-01T00:00:00Z', reason: 'superseded' }]
  t.match(await table.act('crl', crlParameters('root', 1, { revoked })), {
    code: exitCodes.usage,
    err: /\/revoked\/0\/serial \(f{40}\) is no serial of a certificate/,
  })
  const subject = { organization: 'Example', commonName: 'Example Root root' }
  const csr = await table.request('same', opensslKeys['ec-p256'], '/O=Example/CN=Example Root root')
  t.match(await table.act('same', signParameters('root', 'same', { subject }), { file: csr }), {
    code: exitCodes.refused,
    err: "The subject is the root's own.\n",
  })
  await table.openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '9000'],
    ...['-subj', '/CN=Other', '-keyout', table.path('other.key'), '-out', table.path('other.pem')],
    ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign', '-addext', 'nameConstraints=critical,excluded;RID:1.2.3.4'],
  )
  t.match(await table.act('cross', crossParameters('root', 'cross'), { file: 'other.pem' }), {
    code: exitCodes.refused,
    err: /constrains names that are not DNS names, addresses, URIs or mail/,
  })
})

slowTest('a key that cannot be opened is told, with the exit code that fits', async (t) => {
  const table = await openTable(t)
  await putRoot(table)
  await table.act('other', rootParameters('other'))
  await table.write('wrong', 'another passphrase\n', 0o600)
  await table.write('short', 'short\n', 0o600)
  const attempt = (key: object, root = 'root.pem') =>
    table.act('crl', crlParameters('root', 1, { key: { ...fileKey('root'), ...key }, root }))
  t.match(await attempt({ passphraseFile: 'wrong' }), {
    code: exitCodes.denied,
    err: `${table.path('root.key.pem')} is not a key that this passphrase opens.\n`,
  })
  t.match(await attempt({ passphraseFile: 'nowhere' }), {
    code: exitCodes.usage,
    err: /nowhere cannot be read \(ENOENT\)/,
  })
  t.match(await attempt({ uri: 'file:nowhere.pem' }), {
    code: exitCodes.missing,
    err: /There is no key at .*nowhere\.pem/,
  })
  t.match(await attempt({}, 'other.pem'), {
    code: exitCodes.refused,
    err: 'The key is not the key of the root certificate.\n',
  })
  await chmod(table.path('wrong'), 0o644)
  t.match(await attempt({ passphraseFile: 'wrong' }), { code: exitCodes.usage, err: /can be read by others/ })
  await chmod(table.path('root.key.pem'), 0o640)
  t.match(await attempt({}), { code: exitCodes.usage, err: /root\.key\.pem can be read by others/ })
  const short = rootParameters('new', { key: { ...fileKey('new'), algorithm: 'ed25519', passphraseFile: 'short' } })
  t.match(await table.act('new', short), { code: exitCodes.usage, err: /is shorter than 12 characters/ })
  const mixed = rootParameters('new', { key: { ...fileKey('other'), algorithm: 'ed25519', existing: true } })
  t.match(await table.act('new', mixed), { code: exitCodes.refused, err: /is of ec-p256, 256 bits, and not ed25519/ })
})

slowTest('a list of revocations only ever grows', async (t) => {
  const table = await openTable(t)
  const validity = { notBefore: '2026-01-01T00:00:00Z', notAfter: '2046-01-01T00:00:00Z' }
  await table.act('root', rootParameters('root', { validity }))
  await table.act('other', rootParameters('other', { validity }))
  const first = {
    serial: '4E:66:71:24:39:E4:98:8E:6B:32:42:1A:FA:CA:0E:CF',
    at: '2026-03-01T00:00:00Z',
    reason: 'superseded',
  }
  const second = {
    serial: '02',
    at: '2026-04-01T00:00:00Z',
    reason: 'keyCompromise',
    invalidSince: '2026-03-31T12:00:00Z',
  }
  const span = { validity: { thisUpdate: '2026-06-01T00:00:00Z', nextUpdate: '2040-12-01T00:00:00Z' } }
  const unlike = await table.act('a', crlParameters('root', 1, { ...span, number: 5, revoked: [first] }))
  t.match(unlike, {
    ...done,
    out: /^Previous +none, though this is number 5: what lists before it have revoked is valid/m,
  })
  t.match(await table.act('b', crlParameters('other', 1, span)), { ...done, out: /^Previous +none$/m })
  const crl = (number: number, more: Parameters) =>
    table.act('next', crlParameters('root', 2, { ...span, number, revoked: [first, second], ...more }))
  for (const [name, number, more, expected] of [
    ['the same number', 5, {}, /The CRL number 5 is not higher than that of the previous one, 5\./],
    ['a lower number', 4, {}, /The CRL number 4 is not higher/],
    ['an entry that is gone', 6, { revoked: [second] }, /lists 4e66712439e4988e6b32421afaca0ecf, .* this one does not/],
    ['an entry of another time', 6, { revoked: [{ ...first, at: '2026-03-02T00:00:00Z' }] }, /stays revoked/],
    ['another root', 6, { previous: 'other-1.crl' }, /The previous CRL was not signed by this root\./],
    ['no CRL at all', 6, { previous: 'root.pem' }, /root\.pem: the block is not labelled X509 CRL\./],
    [
      'an older one',
      6,
      { validity: { thisUpdate: '2026-05-01T00:00:00Z', days: 3_000 } },
      /would be older than the previous/,
    ],
    [
      'a revocation to come',
      6,
      { revoked: [first, { ...second, at: '2026-06-01T00:00:01Z' }] },
      /after the CRL says so/,
    ],
    [
      'one that is over',
      6,
      { validity: { thisUpdate: '2026-06-02T00:00:00Z', days: 30 } },
      /would be out of date already, since 2026-07-02T00:00:00Z/,
    ],
    [
      'one that outlives the root',
      6,
      { validity: { thisUpdate: '2026-07-01T00:00:00Z', days: 20_000 } },
      /within the root's/,
    ],
  ] as const) {
    const ended = await crl(number, more)
    t.match(ended, { code: exitCodes.refused, out: /^$/ }, name)
    t.match(ended.err, expected, name)
  }
  t.match(await crl(6, { previous: 'nowhere.crl' }), { code: exitCodes.usage, err: /cannot be read \(ENOENT\)/ })
  const der = ['-inform', 'DER', '-in', table.path('root-1.crl')]
  await table.openssl('crl', ...der, '-out', table.path('root-1.pem'))
  const inPem = await crl(6, { previous: 'root-1.pem', revoked: [second] })
  t.match(
    inPem,
    { code: exitCodes.refused, err: /this one does not: what is revoked stays revoked/ },
    'PEM does as well',
  )
  t.match(await crl(6, {}), done)
  const text = await table.openssl('crl', '-inform', 'DER', '-in', table.path('root-2.crl'), '-noout', '-text')
  t.match(text, /CRL Number: \n +6\n/)
  t.match(text, /Serial Number: 02\n +Revocation Date: Apr {2}1 00:00:00 2026 GMT[\s\S]*Invalidity Date/)
})

slowTest('another root is certified only where chains of it would be accepted', async (t) => {
  const table = await openTable(t)
  const subject = { organization: 'Example', commonName: 'Example Root' }
  await table.act('old', rootParameters('old', { pathLength: 1, subject }))
  await table.act('free', rootParameters('free'))
  await table.act('same', rootParameters('same', { pathLength: 1, subject }))
  await table.act('new', rootParameters('new', { nameConstraints: { permitted: { dns: ['example.com'] } } }))
  const csr = await table.request('int', opensslKeys['ec-p256'], subjectOf('int'))
  await table.act('int', signParameters('same', 'int'), { file: csr })
  const cross = (root: string, file: string, more: Parameters = {}) =>
    table.act('cross', crossParameters(root, 'cross', more), { file })
  for (const [name, ended, expected] of [
    [
      'a path that is too short',
      await cross('old', 'new.pem'),
      /allows one authority below it \(its path length is 1\)/,
    ],
    ['itself', await cross('free', 'free.pem'), /^The key is the root's own\.\n$/],
    ['an intermediate', await cross('free', 'int.pem'), /of the other root is not signed by its own key/],
    [
      'another than was reviewed',
      await cross('free', 'new.pem', { other: { certificateSha256: '0'.repeat(64) } }),
      /is not the one of the parameters: the SHA-256 of its certificate is [0-9a-f]{64}/,
    ],
    [
      'too long',
      await cross('free', 'new.pem', { validity: { days: 9000 } }),
      /would outlive the root.*\n.*outlive the other/,
    ],
    [
      'constraints of both',
      await cross('free', 'new.pem', { nameConstraints: { excluded: { dns: [''] } } }),
      /has name constraints, which are repeated/,
    ],
  ] as const) {
    t.match(ended, { code: exitCodes.refused, out: /^$/ }, name)
    t.match(ended.err, expected, name)
  }
  // A new key under the same subject takes up no length of the path (RFC 5280 6.1.4 (l)).
  t.match(await cross('old', 'same.pem'), done)
  const leaf = await leafBelow(table, 'int', 'DNS:web.example.com')
  t.equal(await table.verify('old.pem', leaf, ['int.pem', 'cross.pem']), `${leaf}: OK\n`)
  t.match(await table.act('cross-2', crossParameters('free', 'cross-2'), { file: 'new.pem' }), done)
  const text = await table.openssl('x509', '-in', table.path('cross-2.pem'), '-noout', '-text')
  t.match(text, /Permitted:\n +DNS:example\.com/)
})

slowTest('parameters that are not sound are told all at once, with their lines', async (t) => {
  const table = await openTable(t)
  await table.write(
    'bad.yaml',
    [
      'ceremony: root',
      'operators: [a]',
      'key:',
      '  uri: file:root.key.pem',
      '  algorithm: rsa',
      '  module: /usr/lib/module.so',
      'subject:',
      '  country: Germany',
      '  commonName: Example',
      'validity:',
      '  notBefore: 2026-02-30T00:00:00Z',
      '  days: 10',
      '  notAfter: 2036-01-01T00:00:00Z',
      'pathLength: 1',
      'nameConstraints:',
      '  permitted:',
      '    dns: [.example.com]',
      '    ip: [10.0.0.1/8]',
      'output:',
      '  certificate: root.pem',
      '  transcript: root.pem',
      '',
    ].join('\n'),
  )
  const { code, err } = await table.hold('root', 'bad.yaml')
  t.equal(code, exitCodes.usage)
  const lines = err
    .trimEnd()
    .replaceAll(`${table.path('bad.yaml')}:`, '')
    .split('\n')
  for (const expected of [
    /^\d+: \/key\/bits is missing: 3072 or 4096/,
    /^\d+: \/key\/passphraseFile is missing for a key at this URI/,
    /^6: \/key\/module says nothing of a key at this URI/,
    /^8: \/subject\/country \(Germany\) is not 2 characters long/,
    /^11: \/validity\/notBefore \(2026-02-30T00:00:00Z\) is not a moment that exists/,
    /^\d+: \/validity must have an end or days, and not both/,
    /^17: \/nameConstraints\/permitted\/dns\/0 \("\.example\.com"\) is not a domain/,
    /^18: \/nameConstraints\/permitted\/ip\/0 .*bits set after its prefix/,
    /^21: \/output\/transcript \(root\.pem\) is the file of another output/,
  ])
    t.ok(
      lines.some((line) => expected.test(line)),
      `${expected}\n${err}`,
    )
  t.equal(lines.length, 9, err)
  for (const [text, expected] of [
    ['a: 1\na: 2\n', /is not YAML: Map keys must be unique/],
    ['- &a x\n- *a\n', /is not plain YAML: line 2 has an alias/],
    ['!!js/function x\n', /is not YAML: Unresolved tag/],
    ['ceremony: root\nurls: !!omap [crl: x]\n', /is not YAML: Unresolved tag/],
    ['ceremony: root\n? [a]\n: b\n', /is not YAML: With stringKeys/],
    ['', /must be a map of parameters/],
    ['operators: []\n', /:1: \/operators .*must be a list of 1 to 20 people/],
    ['a: 1\npathLength: 2\n', /:2: \/pathLength .*must be 1, or left out/],
    ['colour/s~: red\n', /:1: \/colour~1s~0 .*is not a known field/],
    ['ceremony: root\n---\nceremony: root\n', /is not YAML: .*multiple documents/],
  ] as const) {
    await table.write('worse.yaml', text)
    const ended = await table.hold('root', 'worse.yaml')
    t.match(ended, { code: exitCodes.usage, out: /^$/ }, text)
    t.match(ended.err, expected, text)
  }
  await table.write('worse.yaml', '-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n')
  const key = await table.hold('root', 'worse.yaml')
  t.match(key, { code: exitCodes.usage, err: /is not a file of parameters: it holds a private key\.\n$/ })
  t.notMatch(key.err, /MIGH/, 'nor is it shown')
  const secret = await table.hold('root', 'passphrase')
  t.match(secret, { code: exitCodes.usage, err: /passphrase:1: \/ must be a map of parameters\.\n$/ })
  t.notMatch(secret.err, passphrase, 'nor is that')
  await table.write('worse.yaml', `@${passphrase}\n`)
  const odd = await table.hold('root', 'worse.yaml')
  t.match(odd, { code: exitCodes.usage, err: /is not YAML: Plain value cannot start with/ })
  t.notMatch(odd.err, passphrase, 'nor one that is no YAML')
  t.match(await table.hold('root', 'nowhere.yaml'), { code: exitCodes.usage, err: /nowhere\.yaml cannot be read/ })
  await putRoot(table)
  const number = crlParameters('root', 1, {
    revoked: [{ serial: 12, at: '2026-01-01T00:00:00Z', reason: 'certificateHold' }],
  })
  const { err: told } = await table.act('crl', number)
  t.match(told, /\/revoked\/0\/serial .*in quotes/)
  t.match(told, /\/revoked\/0\/reason .*must be one of/)
  const wrong = await table.hold('crl', 'root.yaml')
  t.match(wrong, { code: exitCodes.usage, err: /\/ceremony .*must be crl, for this ceremony/ })
})

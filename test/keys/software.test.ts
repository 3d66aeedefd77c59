import { spawn } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { createSoftwareKey, openSoftwareKey } from '../../src/keys/software.ts'
import { type KeyAlgorithmId, keyAlgorithms } from '../../src/x509/algorithms.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-keys-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const passphrase = 'correct horse battery staple'
/** Of keys that are not about them: as many as a passphrase needs take most of the time. */
const rounds = 1_000

const openssl = (args: readonly string[], input?: Buffer): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const child = spawn('openssl', [...args], { stdio: ['pipe', 'pipe', 'pipe'] })
    const out: Buffer[] = []
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk
    })
    child.on('close', (code) => (code === 0 ? resolve(Buffer.concat(out)) : reject(new Error(said))))
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })

const verifies = ({ spki, algorithm }: SigningKey, message: Buffer, signature: Buffer): boolean => {
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  return verify(algorithm.hash, message, { key, ...algorithm.signOptions }, signature)
}

for (const kind of Object.keys(keyAlgorithms) as KeyAlgorithmId[]) {
  t.test(`a key of ${kind} is made, opened again, and both sign what its public half verifies`, async (t) => {
    const path = join(folder, 'made', `${kind}.pem`)
    const made = await createSoftwareKey({ path, passphrase, rounds }, kind)
    const opened = await openSoftwareKey({ path, passphrase })
    t.same(opened.spki, made.spki)
    t.equal(parsePublicKey(made.spki).algorithm.id, kind, 'a key that we ourselves would accept')
    t.equal(opened.id, `file:${path}`)
    t.ok(opened.algorithm.keys.includes(kind))
    const messages = ['one', 'two', '', 'x'.repeat(100_000)].map((text) => Buffer.from(text))
    for (const key of [made, opened]) {
      const signatures = await key.sign(messages)
      t.equal(signatures.length, messages.length)
      for (const [i, signature] of signatures.entries()) {
        if (!Buffer.isBuffer(signature)) throw signature
        t.ok(verifies(made, messages[i] ?? Buffer.alloc(0), signature), 'in the order of the messages')
        t.notOk(verifies(made, Buffer.from('another'), signature))
      }
    }
    t.same(await made.sign([]), [])
    await Promise.all([made.close(), opened.close()])
    const text = await readFile(path, 'utf8')
    t.match(text, /^-----BEGIN ENCRYPTED PRIVATE KEY-----\n/, 'encrypted at rest')
    t.equal((await stat(path)).mode & 0o777, 0o600)
    t.equal((await stat(join(folder, 'made'))).mode & 0o777, 0o700)
  })
}

t.test('a wrong passphrase, another file and a torn one are told by the path, and tell nothing else', async (t) => {
  const path = join(folder, 'wrong.pem')
  await createSoftwareKey({ path, passphrase, rounds }, 'ec-p256')
  for (const wrong of ['', 'wrong', `${passphrase} `, passphrase.toUpperCase()])
    await t.rejects(openSoftwareKey({ path, passphrase: wrong }), {
      message: `${path} is not a key that this passphrase opens.`,
    })
  const text = await readFile(path, 'utf8')
  for (const [name, content] of [
    ['empty', ''],
    ['noise', 'noise'],
    ['torn', text.slice(0, text.length / 2)],
    ['flipped', text.replace(/[A-Za-z](?=[^-]*-----END)/, '!')],
  ] as const) {
    const other = join(folder, `${name}.pem`)
    await writeFile(other, content, { mode: 0o600 })
    const error = await openSoftwareKey({ path: other, passphrase }).catch((reason: unknown) => reason)
    t.match(error, { message: `${other} is not a key that this passphrase opens.` }, name)
    t.notOk(String(error).includes(passphrase))
  }
  await t.rejects(openSoftwareKey({ path: join(folder, 'nowhere.pem'), passphrase }), { code: 'ENOENT' })
})

t.test('a key that nobody would be certified for is told as that, and not as a wrong passphrase', async (t) => {
  const cases = [
    ['rsa-e3', ['rsa', '-pkeyopt', 'rsa_keygen_pubexp:3'], 'the public exponent is not 65537, at octet 24'],
    ['k256', ['EC', '-pkeyopt', 'ec_paramgen_curve:secp256k1'], 'the curve is not P-256, P-384 or P-521, at octet 13'],
  ] as const
  for (const [name, args, reason] of cases) {
    const path = join(folder, `${name}.pem`)
    await openssl(['genpkey', '-aes-256-cbc', '-pass', `pass:${passphrase}`, '-out', path, '-algorithm', ...args])
    await chmod(path, 0o600)
    await t.rejects(openSoftwareKey({ path, passphrase }), { message: `${path} is opened, and not used: ${reason}.` })
    await t.rejects(openSoftwareKey({ path, passphrase: 'wrong' }), {
      message: `${path} is not a key that this passphrase opens.`,
    })
  }
})

t.test('a key file that others could read is not opened', async (t) => {
  const path = join(folder, 'open.pem')
  await createSoftwareKey({ path, passphrase, rounds }, 'ed25519')
  await chmod(path, 0o644)
  await t.rejects(openSoftwareKey({ path, passphrase }), {
    message: /can be read by others \(mode 644\): chmod 600 it/,
  })
  await chmod(path, 0o600)
  t.ok(await openSoftwareKey({ path, passphrase }))
})

t.test('a key is never overwritten, by whatever else is there', async (t) => {
  const path = join(folder, 'kept.pem')
  const { spki } = await createSoftwareKey({ path, passphrase, rounds }, 'ec-p256')
  await t.rejects(createSoftwareKey({ path, passphrase, rounds }, 'ec-p256'), {
    name: 'KeyExists',
    message: `${path} exists; a key is never overwritten.`,
  })
  t.same((await openSoftwareKey({ path, passphrase })).spki, spki)
  const noise = join(folder, 'noise-kept.pem')
  await writeFile(noise, 'something else')
  await t.rejects(createSoftwareKey({ path: noise, passphrase, rounds }, 'ec-p256'), { message: /exists/ })
  t.equal(await readFile(noise, 'utf8'), 'something else')
  const long = join(folder, 'x'.repeat(300))
  await t.rejects(
    createSoftwareKey({ path: long, passphrase, rounds }, 'ec-p256'),
    { code: 'ENAMETOOLONG' },
    'and any other fault of the system is told as that',
  )
})

t.test('where nothing can be written, it is said whether a key is there, and what to do', async (t) => {
  const closed = await mkdtemp(join(tmpdir(), 'chancery-closed-'))
  const path = join(closed, 'kept.pem')
  await createSoftwareKey({ path, passphrase, rounds }, 'ed25519')
  await chmod(closed, 0o555)
  const own = process.geteuid?.() ?? 0
  if (own === 0) process.seteuid?.(12_345)
  t.teardown(async () => {
    if (own === 0) process.seteuid?.(0)
    await chmod(closed, 0o755)
    await rm(closed, { recursive: true })
  })
  await t.rejects(createSoftwareKey({ path, passphrase, rounds }, 'ed25519'), { name: 'KeyExists' })
  const missing = join(closed, 'missing.pem')
  await t.rejects(createSoftwareKey({ path: missing, passphrase, rounds }, 'ed25519'), {
    name: 'TokenFault',
    remedy: 'request',
    message: `There is no key at ${missing}, and none can be made there (EACCES): put one there, or name another.`,
  })
  if (own === 0) process.seteuid?.(0)
  await chmod(closed, 0o600)
  if (own === 0) process.seteuid?.(12_345)
  await t.rejects(
    createSoftwareKey({ path, passphrase, rounds }, 'ed25519'),
    {
      name: 'TokenFault',
      remedy: 'request',
      message: `The way to ${path} is closed to this account (EACCES): run as the one that has the folder, or give it to this one.`,
    },
    'nobody says of what is not seen that it is not there',
  )
})

t.test('of many who make the same key at once, one does, and its key is the one that is kept', async (t) => {
  const path = join(folder, 'race.pem')
  const outcomes = await Promise.allSettled(
    Array.from({ length: 8 }, () => createSoftwareKey({ path, passphrase, rounds }, 'ec-p256')),
  )
  const made = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  t.equal(made.length, 1)
  t.same((await openSoftwareKey({ path, passphrase })).spki, made[0]?.spki)
})

t.test('a fault says whether the key was touched', async (t) => {
  const cause = new Error('no session')
  t.match(new SigningFault('before', 'did not sign', cause), {
    when: 'before',
    message: 'did not sign',
    cause,
    name: 'SigningFault',
  })
  t.equal(new SigningFault('unknown', 'late').when, 'unknown')
})

t.test('what is at rest is PBES2 with as many rounds as a passphrase needs, and OpenSSL opens it', async (t) => {
  const path = join(folder, 'at-rest.pem')
  const made = await createSoftwareKey({ path, passphrase }, 'ec-p384')
  const [, body = ''] = /-----\n([^-]+)-----END/.exec(await readFile(path, 'utf8')) ?? []
  const structure = (await openssl(['asn1parse', '-inform', 'DER'], Buffer.from(body, 'base64'))).toString()
  for (const part of [
    /OBJECT +:PBES2/,
    /OBJECT +:PBKDF2/,
    /INTEGER +:0927C0\n/,
    /OBJECT +:hmacWithSHA256/,
    /:aes-256-cbc/,
  ])
    t.match(structure, part)
  for (const verb of [['pkey'], ['pkcs8']])
    t.match((await openssl([...verb, '-in', path, '-passin', `pass:${passphrase}`])).toString(), /BEGIN PRIVATE KEY/)
  const spki = await openssl(['pkey', '-in', path, '-passin', `pass:${passphrase}`, '-pubout', '-outform', 'DER'])
  t.same(spki, made.spki)
})

t.test('keys of before, of other programs and of other forms still open', async (t) => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const old = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase })
  const plain = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const convert = (...form: string[]) =>
    openssl(['pkcs8', '-topk8', ...form, '-passout', `pass:${passphrase}`], Buffer.from(plain))
  for (const [name, text] of [
    ['node', old],
    ['openssl', await convert()],
    ['openssl with rounds', await convert('-iter', '5000')],
    ['openssl with scrypt', await convert('-scrypt')],
    ['openssl with another cipher and hash', await convert('-v2', 'aes-128-cbc', '-v2prf', 'hmacWithSHA512')],
    ['openssl of before', await convert('-v2', 'des3', '-v2prf', 'hmacWithSHA1')],
    ['openssl with hashes of other lengths', await convert('-v2', 'aes-192-cbc', '-v2prf', 'hmacWithSHA384')],
    ['openssl with the shortest', await convert('-v2prf', 'hmacWithSHA224')],
    ['openssl by PKCS#12', await convert('-v1', 'PBE-SHA1-3DES')],
    ['openssl with a hash that we do not know', await convert('-v2prf', 'hmacWithSHA512-256')],
  ] as const) {
    const path = join(folder, `${name}.pem`)
    await writeFile(path, text, { mode: 0o600 })
    t.same((await openSoftwareKey({ path, passphrase })).spki, spki, name)
    await t.rejects(openSoftwareKey({ path, passphrase: 'wrong' }), { message: /is not a key that this/ }, name)
  }
})

t.test('a key whose passphrase would have to be stretched for too long is told as that, at once', async (t) => {
  const { privateKey } = generateKeyPairSync('ed25519')
  const plain = Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const path = join(folder, 'slow.pem')
  const place = async (form: readonly string[], from: string, to: string, before = ''): Promise<void> => {
    const args = ['pkcs8', '-topk8', '-outform', 'DER', ...form, '-passout', `pass:${passphrase}`]
    const sealed = await openssl(args, plain)
    const at = sealed.indexOf(Buffer.from(from, 'hex'))
    t.ok(at > 0)
    Buffer.from(to, 'hex').copy(sealed, at)
    const lines = sealed.toString('base64').replace(/.{1,64}/g, '$&\n')
    await rm(path, { force: true })
    const block = `-----BEGIN ENCRYPTED PRIVATE KEY-----\n${lines}-----END ENCRYPTED PRIVATE KEY-----\n`
    await writeFile(path, before + block, { mode: 0o600 })
  }
  for (const [form, from, to, before] of [
    // 100,000 rounds, of which eight million are made.
    [['-v2prf', 'hmacWithSHA512', '-iter', '100000'], '02030186a0', '02037fffff'],
    // p is 1, and then 127.
    [['-scrypt', '-scrypt_N', '16384', '-scrypt_r', '8', '-scrypt_p', '1'], '020108020101', '02010802017f'],
    // By what OpenSSL alone opens, and as it writes what was in a PKCS#12.
    [['-v2', 'camellia-256-cbc', '-v2prf', 'hmacWithSHA512', '-iter', '100000'], '02030186a0', '02037fffff'],
    [['-v2prf', 'hmacWithSHA512-256', '-iter', '100000'], '02030186a0', '02037fffff'],
    [
      ['-v2prf', 'hmacWithSHA512', '-iter', '100000'],
      '02030186a0',
      '02037fffff',
      'Bag Attributes\nKey Attributes: <No Attributes>\n',
    ],
  ] as const) {
    await place(form, from, from, before)
    t.ok(await openSoftwareKey({ path, passphrase }))
    await place(form, from, to, before)
    await t.rejects(openSoftwareKey({ path, passphrase }), {
      message: `${path} is not opened: its passphrase would have to be stretched for too long.`,
    })
  }
})

t.test('keys are opened side by side, and the event loop goes on, however they are encrypted', async (t) => {
  const ours = ['a', 'b', 'c', 'd'].map((name) => join(folder, `many-${name}.pem`))
  for (const path of ours) await createSoftwareKey({ path, passphrase }, 'ec-p256')
  const other = join(folder, 'of-another-program.pem')
  const form = ['-v2prf', 'hmacWithSHA512', '-iter', '300000', '-passout', `pass:${passphrase}`]
  const plain = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
  await writeFile(other, await openssl(['pkcs8', '-topk8', ...form], Buffer.from(plain)), { mode: 0o600 })
  for (const paths of [ours, [other]]) {
    let turns = 0
    const count = setInterval(() => {
      turns += 1
    }, 5)
    const opened = await Promise.all(paths.map((path) => openSoftwareKey({ path, passphrase })))
    clearInterval(count)
    t.equal(opened.length, paths.length)
    t.ok(turns > 3, 'derived on the thread pool')
  }
})

t.test('a key that lies open, or nearly, is not opened', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const old = { cipher: 'aes-256-cbc', passphrase }
  for (const [name, text] of [
    ['pkcs8', privateKey.export({ type: 'pkcs8', format: 'pem' })],
    ['sec1', privateKey.export({ type: 'sec1', format: 'pem' })],
    ['sec1, encrypted', privateKey.export({ type: 'sec1', format: 'pem', ...old })],
  ] as const) {
    const path = join(folder, `lies open ${name}.pem`)
    await writeFile(path, text, { mode: 0o600 })
    await t.rejects(openSoftwareKey({ path, passphrase }), { message: /is not encrypted as PKCS#8/ }, name)
  }
})

/** Keys in a real SoftHSM, through signer processes as the service starts them. */
import { execFile } from 'node:child_process'
import { createPublicKey, verify } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import pkcs11 from 'pkcs11js'
import t from 'tap'

import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { slowTest } from '../helpers/slow.ts'
import { openTestSigners } from './signers.ts'
import { openShim, openSoftHsm } from './softhsm.ts'

const hsm = await openSoftHsm(t)
const { keys, events } = await openTestSigners(t, hsm)

const holds = async (key: SigningKey, message: Buffer): Promise<boolean> => {
  const [signature] = await key.sign([message])
  if (!Buffer.isBuffer(signature)) throw signature
  const publicKey = createPublicKey({ key: key.spki, format: 'der', type: 'spki' })
  return verify(key.algorithm.hash, message, { key: publicKey, ...key.algorithm.signOptions }, signature)
}
const messageOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => '',
    (error: Error) => error.message,
  )

/** What a thief with the PIN would try. */
const readPrivateValue = (): unknown => {
  process.env['SOFTHSM2_CONF'] = hsm.env['SOFTHSM2_CONF']
  const module = new pkcs11.PKCS11()
  module.load(hsm.module)
  module.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK })
  try {
    const slot = module.C_GetSlotList(true).find((one) => module.C_GetTokenInfo(one).label.trim() === 'ca')
    const session = module.C_OpenSession(slot as Buffer, pkcs11.CKF_SERIAL_SESSION)
    module.C_Login(session, pkcs11.CKU_USER, '1234')
    module.C_FindObjectsInit(session, [
      { type: pkcs11.CKA_CLASS, value: pkcs11.CKO_PRIVATE_KEY },
      { type: pkcs11.CKA_LABEL, value: 'ec-p256' },
    ])
    const [key] = module.C_FindObjects(session, 1)
    return module.C_GetAttributeValue(session, key as Buffer, [{ type: pkcs11.CKA_VALUE }])
  } finally {
    module.C_Finalize()
  }
}

for (const [kind, algorithm, ...others] of [
  ['ec-p256', 'ecdsa-sha256', 'ecdsa-sha384'],
  ['ec-p384', 'ecdsa-sha384'],
  ['ec-p521', 'ecdsa-sha512'],
  ['rsa', 'rsa-sha256', 'rsa-sha512', 'rsa-pss-sha256', 'rsa-pss-sha384', 'rsa-pss-sha512'],
  ['ed25519', 'ed25519'],
] as const)
  t.test(`a ${kind} key is made in the token, and signs`, async (t) => {
    const uri = `pkcs11:token=ca;object=${kind}`
    const made = await keys.create(uri, kind)
    t.equal(made.algorithm.id, algorithm)
    t.same(made.attributes, {
      sensitive: true,
      extractable: false,
      alwaysSensitive: true,
      neverExtractable: true,
      local: true,
    })
    t.match(made.id, new RegExp(`^pkcs11:token=ca;serial=[0-9a-f]{16};object=${kind};type=private$`))
    // r and s have leading zeros, or need one, often enough.
    for (let i = 0; i < 200; i += 1) if (!(await holds(made, Buffer.from(`message ${i}`)))) t.fail(`message ${i}`)
    for (const other of others) {
      const key = await keys.open(`${uri}?x-signature=${other}`)
      t.equal(key.algorithm.id, other)
      t.ok(await holds(key, Buffer.from('message')), other)
    }
    t.match(await messageOf(keys.create(uri, kind)), /has a key .* already; a key is never overwritten/)
  })

t.test('messages are answered in their order, however many there are', async (t) => {
  const key = await keys.open('pkcs11:token=ca;object=ec-p256')
  const messages = Array.from({ length: 300 }, (_, i) => Buffer.from(`message ${i}`))
  const signatures = await key.sign(messages)
  const publicKey = createPublicKey({ key: key.spki, format: 'der', type: 'spki' })
  t.ok(signatures.every((one, i) => Buffer.isBuffer(one) && verify('sha256', messages[i] ?? one, publicKey, one)))
})

t.test('what nobody waits for any more when its turn comes is not signed, and costs its signer nothing', async (t) => {
  const key = await keys.open('pkcs11:token=ca;object=ec-p256')
  const late = Array.from({ length: 50 }, (_, i) => Buffer.from(`message ${i}`))
  const outcomes = await key.sign(late, 0)
  const times = outcomes.map((one) => (one instanceof SigningFault ? one.when : 'signed'))
  t.same([...new Set(times)], ['before'])
  t.ok(await holds(key, Buffer.from('in time')))
  t.notOk(events.includes('signer.ended'))
})

t.test('opensc sees a key that cannot leave', async (t) => {
  const list = await hsm.tool('--list-objects', '--type', 'privkey')
  t.match(list, /label: +ec-p256\n/)
  t.equal(list.match(/Access: +sensitive, always sensitive, never extractable, local/g)?.length, 5, list)
  t.throws(() => readPrivateValue(), { message: 'CKR_ATTRIBUTE_SENSITIVE' }, 'and nobody reads it')
})

t.test('what a URI means is one key, or a sentence says why not', async (t) => {
  await hsm.addToken('twin')
  await hsm.addToken('twin')
  await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'both', '--id', '01')
  await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'both', '--id', '02')
  await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'open', '--id', '03', '--extractable')
  for (const [uri, expected] of [
    ['pkcs11:token=nowhere;object=x', /^There is no token with label nowhere\. The module \S+ shows ca, twin\.$/],
    [
      'pkcs11:token=twin;object=x',
      /^More than one token has label twin: name one by its serial number, or give the other one another label\.$/,
    ],
    [
      'pkcs11:token=ca;serial=00;object=x',
      /^There is no token with label ca and serial number 00\. The module \S+ shows ca, twin\.$/,
    ],
    [
      'pkcs11:token=ca;serial=;object=ec-p256',
      /^There is no token with label ca and serial number \. The module \S+ shows ca(, twin)?\.$/,
    ],
    [
      'pkcs11:token=ca;model=Other;object=ec-p256',
      /^There is no token with label ca and model Other\. The module \S+ shows ca(, twin)?\.$/,
    ],
    [
      'pkcs11:token=ca;manufacturer=Other;object=ec-p256',
      /^There is no token with label ca and manufacturer Other\. The module \S+ shows ca(, twin)?\.$/,
    ],
    ['pkcs11:token=ca;object=nothing', /^The token ca has no private key nothing\.$/],
    ['pkcs11:token=ca;object=both;id=%03', /^The token ca has no private key both with the id 03\.$/],
    [
      'pkcs11:token=ca;object=both',
      /^The token ca has more than one private key both: name it by its id as well, or give the other one another label\.$/,
    ],
    ['pkcs11:token=ca;object=open', /not held by its token alone \(extractable is true, neverExtractable is false\)/],
    ['pkcs11:token=ca;object=ec-p256?x-signature=rsa-sha256', /is ec-p256, and cannot sign by rsa-sha256/],
    ['pkcs11:token=ca;object=ec-p256?x-signature=md5', /no signature algorithm md5/],
    ['pkcs11:token=ca', /does not say which key/],
    ['pkcs11:object=x', /does not say which token/],
    ['pkcs11:token=ca;object=x?pin-value=1234', /never holds a PIN/],
    ['pkcs11:token=ca;object=x;slot-id=0', /numbers of slots change/],
    ['pkcs11:token=ca;object=x?module-path=/tmp/other.so', /is not a module that CHANCERY_PKCS11_MODULE names/],
    ['pkcs11:token=ca;object=x?pin-source=file:/nonexistent/pin', /\/nonexistent\/pin, cannot be read \(ENOENT\)/],
    ['pkcs11:token=ca;object=x?pin-source=4321', /^pin-source in a pkcs11: URI is not the absolute path of a file\.$/],
    ['pkcs11:token=ca;object=x;object=y', /object stands twice/],
    ['pkcs11:token=ca;colour=red', /"colour" is no attribute/],
    ['pkcs11:token=c%zz;object=x', /not percent-encoded/],
    ['file:../outside.pem', /lies outside of the data folder/],
    ['https://example.com', /No key provider knows/],
  ] as const)
    t.match(await messageOf(keys.open(uri)), expected, uri)
  for (const uri of [
    'pkcs11:token=ca;object=both;id=%02',
    'pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;token=ca;object=ec-p256',
    `pkcs11:token=ca;object=ec-p256?pin-source=file://localhost${hsm.pinFile}`,
  ])
    t.ok(await holds(await keys.open(uri), Buffer.from('x')), uri)
})

t.test('a key that asks for a login at each signature is told of as that, and costs the others nothing', async (t) => {
  const { keys, events } = await openTestSigners(t, hsm)
  const make = ['--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'each', '--id', '04', '--sensitive']
  await hsm.tool(...make, '--always-auth')
  const told = await messageOf(keys.open('pkcs11:token=ca;object=each'))
  t.match(told, /does not sign: .*\(CKR_USER_NOT_LOGGED_IN\)\. It asks for a login at each signature \(CKA_ALWAYS_/)
  t.ok(await holds(await keys.open('pkcs11:token=ca;object=ec-p256'), Buffer.from('x')))
  t.notOk(events.includes('signer.ended'))
})

t.test('a key whose public half is of another one is not opened', async (t) => {
  for (const id of ['05', '06'])
    await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'mixed', '--id', id, '--sensitive')
  await hsm.tool('--delete-object', '--type', 'pubkey', '--id', '05')
  await hsm.tool('--type', 'pubkey', '--id', '06', '--set-id', '05')
  t.match(
    await messageOf(keys.open('pkcs11:token=ca;object=mixed;id=%05')),
    /signs what its public half does not verify/,
  )
})

t.test('a key that is made takes neither the label nor the id of another, which would not open again', async (t) => {
  const [one, two] = ['pkcs11:token=ca;object=first;id=%a1', 'pkcs11:token=ca;object=second;id=%a2']
  for (const uri of [one, two, 'pkcs11:token=ca;object=fourth;id=%a4']) await keys.create(uri, 'ec-p256')
  await hsm.tool('--delete-object', '--type', 'privkey', '--id', 'a2')
  await hsm.tool('--delete-object', '--type', 'pubkey', '--id', 'a4')
  for (const [uri, expected] of [
    ['pkcs11:token=ca;object=first;id=%a3', /^The token ca has a key first already; a key is never overwritten\.$/],
    [
      'pkcs11:token=ca;object=third;id=%a1',
      /^The token ca has a key with the id a1 already; a key is never overwritten:/,
    ],
    [
      'pkcs11:token=ca;object=third;id=%a2',
      /^The token ca has a key with the id a2 already; a key is never overwritten:/,
    ],
    [
      'pkcs11:token=ca;object=third;id=%a4',
      /^The token ca has a key with the id a4 already; a key is never overwritten:/,
    ],
  ] as const)
    t.match(await messageOf(keys.create(uri, 'ec-p256')), expected, uri)
  const later = await openTestSigners(t, hsm)
  t.ok(await holds(await later.keys.open('pkcs11:token=ca;object=first'), Buffer.from('x')))
})

t.test('a key that could not sign as its URI says is not made', async (t) => {
  const uri = 'pkcs11:token=ca;object=odd'
  t.match(await messageOf(keys.create(`${uri}?x-signature=rsa-sha256`, 'ed25519')), /is ed25519, and cannot sign by/)
  t.match(await messageOf(keys.open(uri)), /has no private key odd/, 'and its label is free')
})

t.test('a module that is missing, or is none, is told', async (t) => {
  for (const [module, expected] of [
    ['/nonexistent.so', /^There is no PKCS#11 module at \/nonexistent\.so\.$/],
    [hsm.pinFile, /cannot be loaded as a PKCS#11 module/],
  ] as const) {
    const other = await openTestSigners(t, { ...hsm, module })
    t.match(await messageOf(other.keys.open('pkcs11:token=ca;object=ec-p256')), expected)
  }
})

t.test(
  'a wrong PIN is tried once, by whichever URI of its token, and not again with the right one in its file',
  async (t) => {
    const shim = await openShim(t)
    const { id } = await (await openTestSigners(t, shim)).keys.create('pkcs11:token=ca;object=x', 'ec-p256')
    const before = await shim.logins()
    await shim.setPin('9999')
    const { keys } = await openTestSigners(t, shim)
    for (const uri of ['pkcs11:token=ca;object=x', id])
      for (let i = 0; i < 5; i += 1)
        t.match(
          await messageOf(keys.open(uri)),
          /refuses the PIN \(CKR_PIN_INCORRECT\)\. No login is tried again before a restart/,
        )
    await shim.setPin('1234')
    t.match(await messageOf(keys.open('pkcs11:token=ca;object=x')), /before a restart/)
    t.equal(await shim.logins(), before + 1)
  },
)

slowTest('what can be no PIN is not tried, wherever it stands', async (t) => {
  const path = join(hsm.folder, 'odd')
  const uri = 'pkcs11:token=ca;object=ec-p256'
  for (const [content, expected] of [
    ['', /^The PIN for the token ca is empty, and was not tried: /],
    ['\n', /^The PIN for the token ca is empty, and was not tried: /],
    ['1234\0', /^The PIN for the token ca has a character in it that no PIN has \(U\+0000\), and was not tried: /],
    ['1234\n\n', /\(U\+000A, a second line\)/],
    ['\ufeff1234\n', /\(U\+FEFF, the byte order mark [^:]+: save it without one\)/],
    [Buffer.from('gr\u00fcn\n', 'latin1'), /\(U\+FFFD, octets that are no UTF-8\)/],
  ] as const) {
    await writeFile(path, content, { mode: 0o600 })
    const named = await openTestSigners(t, hsm)
    t.match(await messageOf(named.keys.open(`${uri}?pin-source=file:${path}`)), expected, JSON.stringify(content))
    const configured = await openTestSigners(t, hsm, { CHANCERY_PKCS11_PIN_FILE: path })
    t.match(await messageOf(configured.keys.open(uri)), /is empty|\(U\+/, JSON.stringify(content))
  }
})

slowTest('a pipe that nobody writes into is told of, and costs the keys of its token nothing', async (t) => {
  const pipe = join(hsm.folder, 'pipe')
  await promisify(execFile)('mkfifo', ['-m', '600', pipe])
  const uri = 'pkcs11:token=ca;object=ec-p256'
  const expected = /pipe is a pipe, and nobody writes into it: name a file\.$/
  const { keys, events } = await openTestSigners(t, hsm)
  const key = await keys.open(uri)
  t.match(await messageOf(keys.open(`${uri}?pin-source=file:${pipe}`)), expected)
  t.ok(await holds(key, Buffer.from('x')))
  t.notOk(events.includes('signer.ended'))
  const configured = await openTestSigners(t, hsm, { CHANCERY_PKCS11_PIN_FILE: pipe })
  t.match(await messageOf(configured.keys.open(uri)), expected)
})

slowTest('nor does one that somebody has open and writes nothing into', async (t) => {
  const pipe = join(hsm.folder, 'slow')
  await promisify(execFile)('mkfifo', ['-m', '600', pipe])
  const uri = 'pkcs11:token=ca;object=ec-p256'
  const { keys, events } = await openTestSigners(t, hsm)
  const key = await keys.open(uri)
  const writer = execFile('sh', ['-c', 'exec > "$0"; exec sleep 60', pipe])
  t.teardown(() => writer.kill())
  t.match(
    await messageOf(keys.open(`${uri}?pin-source=file:${pipe}`)),
    /slow is a pipe, and whoever has it open does not come to an end: name a file\.$/,
  )
  t.ok(await holds(key, Buffer.from('x')))
  t.notOk(events.includes('signer.ended'))
})

t.test('a PIN in a file that others can read is not used', async (t) => {
  const { chmod } = await import('node:fs/promises')
  await chmod(hsm.pinFile, 0o644)
  t.teardown(() => chmod(hsm.pinFile, 0o600))
  const { CHANCERY_PKCS11_PIN_FILE: _ } = process.env
  const other = await openTestSigners(t, hsm, { CHANCERY_PKCS11_PIN_FILE: `${hsm.pinFile}.none` })
  t.match(
    await messageOf(other.keys.open('pkcs11:token=ca;object=ec-p256')),
    /^CHANCERY_PKCS11_PIN_FILE: .* cannot be read \(ENOENT\)\.$/,
  )
  const uri = `pkcs11:token=ca;object=ec-p256?pin-source=file:${hsm.pinFile}`
  const third = await openTestSigners(t, hsm)
  t.match(await messageOf(third.keys.open(uri)), /can be read by others/)
})

t.test('a key that was closed signs no more, and is opened again when it is asked for', async (t) => {
  const key = await keys.open('pkcs11:token=ca;object=ed25519')
  await key.close()
  const again = await key.sign([Buffer.from('x')])
  t.ok(Buffer.isBuffer(again[0]) || again[0] instanceof SigningFault)
})

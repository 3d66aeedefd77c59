/** Modules that answer oddly, and sign all the same. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'

import pkcs11 from 'pkcs11js'
import t, { type Test } from 'tap'

import { cka } from '../../src/keys/pkcs11/mechanisms.ts'
import type { SigningFault } from '../../src/keys/signing-key.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { openTestSigners } from './signers.ts'
import { openShim } from './softhsm.ts'

const hsm = await openShim(t)
const uri = 'pkcs11:token=ca;object=made'
const { keys } = await openTestSigners(t, hsm)
await keys.create(uri, 'ec-p256')
t.afterEach(() => hsm.misbehave())

const isGood = async (t: Test, text: string): Promise<void> => {
  const signers = await openTestSigners(t, hsm)
  const [signature] = await (await signers.keys.open(text)).sign([Buffer.from('x')])
  t.ok(Buffer.isBuffer(signature), text)
}

t.test('a label, a manufacturer and a model that end in NULs are the same as with blanks', async (t) => {
  await hsm.misbehave('nul-padded')
  await isGood(t, `${uri};manufacturer=SoftHSM%20project;model=SoftHSM%20v2`)
})

t.test(
  'a token that does not describe itself costs the others nothing, and is told of where it may be meant',
  async (t) => {
    await hsm.misbehave(`others-error=${0xe1}`)
    await isGood(t, uri)
    const signers = await openTestSigners(t, hsm)
    await t.rejects(signers.keys.open('pkcs11:token=other;object=made'), {
      message:
        /^There is no token with label other\. The module \S+ shows ca\. A token does not describe itself \(CKR_TOKEN_NOT_RECOGNIZED\)\.$/,
      remedy: 'token',
    })
  },
)

t.test('a PIN may have in it whatever people type', async (t) => {
  const pin = ' p\u00e4 \u00df\t\u{1f511}\u200d"$\\%26; '
  const change = ['--change-pin', '--new-pin']
  await hsm.tool(...change, pin)
  await hsm.setPin(pin)
  t.teardown(async () => {
    await hsm.tool('--pin', pin, ...change, '1234')
    await hsm.setPin('1234')
  })
  await isGood(t, uri)
})

t.test('a token that wants no login takes an empty PIN, which others are not shown', async (t) => {
  const none = join(hsm.folder, 'none')
  await writeFile(none, '\n', { mode: 0o600 })
  const named = `${uri}?pin-source=file:${none}`
  await hsm.misbehave('login-free')
  await isGood(t, named)
  await hsm.misbehave()
  const before = await hsm.logins()
  await t.rejects(isGood(t, named), { message: /^The PIN for the token ca is empty/ })
  t.equal(await hsm.logins(), before)
})

for (const code of [0x05, 0x54, 0x13])
  t.test(`a key that answers ${code} to whether it asks for a login each time is opened`, async (t) => {
    await hsm.misbehave(`each-time-error=${code}`)
    await isGood(t, uri)
  })

t.test('a key that says wrongly that it asks for a login each time', async (t) => {
  await t.test('is opened', async (t) => {
    await hsm.misbehave('each-time=1')
    await isGood(t, uri)
  })
  for (const [what, word] of Object.entries({
    'whose token fails': `sign-error=${0x30}`,
    'whose login is gone': `init-error=${0x101}`,
  }))
    await t.test(`${what} is not told of as such, and has its module started again`, async (t) => {
      await hsm.misbehave('each-time=1', word)
      const signers = await openTestSigners(t, hsm)
      await t.rejects(signers.keys.open(uri), { message: /does not sign: [^.]*\.$/ })
      await hsm.misbehave('each-time=1')
      for (let i = 0; i < 200 && !signers.events.includes('signer.ended'); i += 1)
        await new Promise((resolve) => setTimeout(resolve, 20))
      t.ok(signers.events.includes('signer.ended'))
      const [signature] = await (await signers.keys.open(uri)).sign([Buffer.from('x')])
      t.ok(Buffer.isBuffer(signature))
    })
})

t.test('a search that fails is told of, judged and counted by its return value', async (t) => {
  const signers = await openTestSigners(t, hsm)
  await hsm.misbehave(`find-error=${0xb3}`)
  await t.rejects(signers.keys.open(uri), {
    message: 'The token ca does not show its keys (CKR_SESSION_HANDLE_INVALID).',
    remedy: 'session',
  })
  // Told each second.
  while (Object.keys(signers.keys.load().failures).length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  t.same(signers.keys.load().failures, { CKR_SESSION_HANDLE_INVALID: 1 })
  t.notOk(signers.events.includes('signer.ended'))
})

t.test('a login that fails for another reason is no refused PIN, and a module that crashes is told of', async (t) => {
  const signers = await openTestSigners(t, hsm)
  await hsm.misbehave(`login-error=${0x30}`)
  await t.rejects(signers.keys.open(uri), { message: 'The token ca lets nobody log in (CKR_DEVICE_ERROR).' })
  await hsm.misbehave('open-crash')
  await t.rejects(signers.keys.open(uri), {
    message: 'The signer process ended before it answered: killed by SIGSEGV.',
  })
})

t.test('what is wrong with a PIN is told, where another one would not help', async (t) => {
  for (const [code, expected] of [
    [163, /^The token ca wants its PIN changed with a tool of its own \(CKR_PIN_EXPIRED\)\. No login is tried again/],
    [164, /^The token ca has locked its PIN, which its security officer can unlock \(CKR_PIN_LOCKED\)\. No login/],
    [258, /^The token ca has no PIN yet, which its security officer sets \(CKR_USER_PIN_NOT_INITIALIZED\)\. No/],
  ] as const) {
    const signers = await openTestSigners(t, hsm)
    await hsm.misbehave(`login-error=${code}`)
    await t.rejects(signers.keys.open(uri), { message: expected, remedy: 'pin' })
  }
})

slowTest('a module that finds its sessions again only when it starts is started again', async (t) => {
  const signers = await openTestSigners(t, hsm)
  // So slow that none is begun at the end of the time.
  await hsm.misbehave('sign-delay=300')
  const key = await signers.keys.open(uri)
  const other = await signers.keys.open(`${uri};type=private`)
  await hsm.misbehave(`init-stale-once=${0xb3}`)
  const [fault] = await key.sign([Buffer.from('x')])
  t.match(fault, { when: 'before', message: /CKR_SESSION_HANDLE_INVALID/ })
  for (const one of [key, other]) {
    let [signature] = await one.sign([Buffer.from('x')])
    for (let i = 0; !Buffer.isBuffer(signature) && i < 50; i += 1) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      ;[signature] = await one.sign([Buffer.from('x')])
    }
    t.ok(Buffer.isBuffer(signature))
  }
  await new Promise((resolve) => setTimeout(resolve, 1_200))
  const asked = signers.keys.load().failures['CKR_SESSION_HANDLE_INVALID'] ?? 0
  t.ok(asked > 8 && asked < 200, `asked ${asked} times within a second`)
})

t.test('what waits behind a signature that hangs is known not to be signed when its process ends', async (t) => {
  // So slow that it is not asked on the event loop, which would hang with it.
  await hsm.misbehave('sign-delay=5')
  const signers = await openTestSigners(t, hsm, { CHANCERY_PKCS11_SESSIONS: '1' })
  const key = await signers.keys.open(uri)
  await hsm.misbehave('sign-hang')
  const asked = [100, 60_000, 60_000].map((withinMs) => key.sign([Buffer.from('x')], withinMs))
  const times = (await Promise.all(asked)).map(([fault]) => (fault as SigningFault).when)
  t.strictSame(times, ['late', 'before', 'before'])
})

t.test('what is begun and not awaited to its end costs its signer nothing, if its module returns', async (t) => {
  await hsm.misbehave('sign-delay=5')
  const signers = await openTestSigners(t, hsm, { CHANCERY_PKCS11_SESSIONS: '1' })
  const key = await signers.keys.open(uri)
  await hsm.misbehave('sign-delay=300')
  const [late] = await key.sign([Buffer.from('x')], 50)
  t.equal((late as SigningFault).when, 'late')
  await hsm.misbehave()
  const [next] = await key.sign([Buffer.from('y')])
  t.ok(Buffer.isBuffer(next), (next as SigningFault).message)
})

t.test('what has less time left than a signature takes is not begun', async (t) => {
  await hsm.misbehave('sign-delay=400')
  const signers = await openTestSigners(t, hsm, { CHANCERY_PKCS11_SESSIONS: '1' })
  const key = await signers.keys.open(uri)
  const [, [left]] = await Promise.all([key.sign([Buffer.from('x')]), key.sign([Buffer.from('y')], 700)])
  t.equal((left as SigningFault).when, 'before')
})

slowTest(
  'a module that signs one after another, and slower than it is asked, is asked for fewer at a time',
  async (t) => {
    await hsm.misbehave('sign-delay=5', 'sign-serial')
    const signers = await openTestSigners(t, hsm)
    const key = await signers.keys.open(uri)
    await hsm.misbehave('sign-delay=300', 'sign-serial')
    const times = async (count: number): Promise<readonly string[]> =>
      (await key.sign(Array.from({ length: count }, (_, i) => Buffer.from(`message ${i}`)))).map((one) =>
        Buffer.isBuffer(one) ? 'signed' : one.when,
      )
    t.ok((await times(8)).includes('late'), 'all at once, they take longer than any may')
    // What is late is ended first, and for one more nobody waits any longer than he may.
    while (!(await times(1)).includes('signed') && !signers.events.includes('signer.ended')) await setImmediate()
    const next = await times(8)
    t.ok(next.includes('signed'))
    t.notOk(next.includes('late'), 'and then none is begun that would be late')
    t.notOk(signers.events.includes('signer.ended'), 'nor is it taken for one that hangs')
    // Told once a second.
    while (!signers.keys.load().failures['slow']) await setImmediate()
    t.notOk(signers.keys.load().failures['late'], 'the metrics tell the two apart')
  },
)

t.test('one session that hangs while all others sign is a module that hangs', async (t) => {
  await hsm.misbehave('sign-delay=5')
  const signers = await openTestSigners(t, hsm)
  const key = await signers.keys.open(uri)
  await hsm.misbehave('sign-stuck-once')
  const stuck = key.sign([Buffer.from('x')])
  await hsm.misbehaved()
  // While there is no signer, it is answered in the same turn.
  while (!signers.events.includes('signer.ended')) await Promise.all([key.sign([Buffer.from('y')]), setImmediate()])
  t.equal(((await stuck)[0] as SigningFault).when, 'late')
})

for (const [word, kind] of [
  ['no-copyable', 'ec-p256'],
  ['no-verify', 'rsa'],
  ['oid-params', 'ed25519'],
] as const)
  t.test(`a module that takes no key as the template says is asked for one by another (${word})`, async (t) => {
    const signers = await openTestSigners(t, hsm)
    await hsm.misbehave(word)
    const { attributes } = await signers.keys.create(`pkcs11:token=ca;object=${word}`, kind)
    t.same(attributes, {
      sensitive: true,
      extractable: false,
      alwaysSensitive: true,
      neverExtractable: true,
      local: true,
    })
    // SoftHSM has it be copied where it is not told otherwise.
    t.same(changesOf(word), word === 'no-copyable' ? [['00', '01']] : strict)
    await hsm.misbehave()
    await isGood(t, `pkcs11:token=ca;object=${word}`)
  })

const inToken = (object: string): Promise<string> => hsm.tool('--list-objects', '--type', 'privkey', '--label', object)

/** What each private key of this label says, past the shim, of whether it can be changed or copied. */
const changesOf = (label: string): readonly (readonly (string | undefined)[])[] => {
  process.env['SOFTHSM2_CONF'] = hsm.env['SOFTHSM2_CONF']
  const module = new pkcs11.PKCS11()
  module.load(hsm.env['SHIM_MODULE'] ?? '')
  module.C_Initialize()
  try {
    const slot = module.C_GetSlotList(true).find((each) => module.C_GetTokenInfo(each).label.startsWith('ca '))
    if (slot === undefined) throw new Error('the token is gone')
    const session = module.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
    module.C_Login(session, pkcs11.CKU_USER, '1234')
    module.C_FindObjectsInit(session, [
      { type: pkcs11.CKA_CLASS, value: pkcs11.CKO_PRIVATE_KEY },
      { type: pkcs11.CKA_LABEL, value: label },
    ])
    return module
      .C_FindObjects(session, 9)
      .map((key) =>
        [cka.modifiable, cka.copyable].map((type) =>
          module.C_GetAttributeValue(session, key, [{ type }])[0]?.value?.toString('hex'),
        ),
      )
  } finally {
    module.C_Finalize()
  }
}
const strict = [['00', '00']]

for (const [word, code] of Object.entries({ general: 5, failed: 6 }))
  t.test(`what fails once, as by an ill wind, makes no weaker key (${word})`, async (t) => {
    const signers = await openTestSigners(t, hsm)
    await hsm.misbehave(`generate-error-once=${code}`)
    t.ok(await signers.keys.create(`pkcs11:token=ca;object=once-${word}`, 'ec-p256'))
    t.same(changesOf(`once-${word}`), strict)
  })

t.test('nor does what fails until less is asked for, where the token would have taken all', async (t) => {
  const signers = await openTestSigners(t, hsm)
  await hsm.misbehave('trouble')
  await t.rejects(signers.keys.create('pkcs11:token=ca;object=troubled', 'ec-p256'), {
    message: 'The token ca does not make the key (CKR_GENERAL_ERROR).',
    remedy: 'token',
  })
  t.equal(await inToken('troubled'), '', 'it was taken away again')
  await hsm.misbehave()
  t.ok(await signers.keys.create('pkcs11:token=ca;object=troubled', 'ec-p256'))
})

t.test(
  'a key that was made though the module says otherwise is the only one, and there for the next try',
  async (t) => {
    const signers = await openTestSigners(t, hsm)
    await hsm.misbehave('generate-lost-once=6')
    await t.rejects(signers.keys.create('pkcs11:token=ca;object=lost', 'ec-p256'), { name: 'KeyExists' })
    t.same(changesOf('lost'), strict)
    await isGood(t, 'pkcs11:token=ca;object=lost')
  },
)

t.test('a token that says of a key it has just made that it came from elsewhere is told of as that', async (t) => {
  const signers = await openTestSigners(t, hsm)
  await hsm.misbehave('not-local')
  await t.rejects(signers.keys.create('pkcs11:token=ca;object=stranger', 'ec-p256'), {
    message:
      'The key stranger is not held by its token alone (local is false): so says the token of a key that it has just made. Take it away, and use another token.',
    remedy: 'request',
  })
})

for (const [what, differs, asked, left] of [
  ['label', cka.id, 'pkcs11:token=ca;object=twin', 'pkcs11:token=ca;object=twin'],
  ['id', cka.label, 'pkcs11:token=ca;object=namesake;id=%b1', 'pkcs11:token=ca;id=%b1'],
] as const)
  t.test(`a key that somebody else makes under the same ${what} at the same time is the only one left`, async (t) => {
    const signers = await openTestSigners(t, hsm)
    await hsm.misbehave(`generate-twin=${differs}`)
    await t.rejects(signers.keys.create(asked, 'ec-p256'), {
      message:
        /^Somebody else made a key (twin|namesake) in the token ca at the same time, and ours was taken away again/,
      remedy: 'session',
    })
    await hsm.misbehave()
    await isGood(t, left)
  })

t.test('where ours cannot be taken away again, it is said that two are there', async (t) => {
  const signers = await openTestSigners(t, hsm)
  await hsm.misbehave(`generate-twin=${cka.id}`, `destroy-error=${0x1b}`)
  await t.rejects(signers.keys.create('pkcs11:token=ca;object=twins', 'ec-p256'), {
    message:
      /^Somebody else made a key twins in the token ca at the same time, and ours, with the id [0-9a-f]{32}, cannot be taken away \(CKR 0x1b\)/,
    remedy: 'request',
  })
})

slowTest(
  'a module that takes its time, within the deadline, is not started again for being asked how it is',
  async (t) => {
    const service = await openTestService(t, {
      CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
      CHANCERY_ROLL_KEY: 'pkcs11:token=ca;object=roll',
      CHANCERY_PKCS11_MODULE: hsm.module,
      CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
      CHANCERY_SIGNING_DEADLINE: '10s',
      ...hsm.env,
    })
    const issue = async () => {
      const body = { csr: csrFor('slow.example.com'), profile: 'server' }
      const { status, text } = await service.request('POST', '/v1/certificates', { body })
      t.equal(status, 201, text)
    }
    await issue()
    await hsm.misbehave('sign-delay=1200')
    for (let i = 0; i < 2; i += 1) {
      const { text } = await service.request('GET', '/readyz')
      t.match(text, /no answer within a second/)
      // What it said is remembered for two seconds.
      await new Promise((resolve) => setTimeout(resolve, 2_100))
    }
    await issue()
    const { text } = await service.request('GET', '/metrics')
    t.notMatch(text, /^chancery_key_errors_total\{code="late"\}/m)
  },
)

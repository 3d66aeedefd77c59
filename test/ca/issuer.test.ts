import t from 'tap'

import { type Issuer, type IssuerOptions, type IssuerRow, newIssuer } from '../../src/ca/issuers/issuer.ts'
import { loadIssuers } from '../../src/db/issuers.ts'
import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica } from '../helpers/replica.ts'

const openIssuer = async (row: IssuerRow, options: IssuerOptions): Promise<Issuer> => {
  const issuer = newIssuer(row, options)
  await issuer.opening
  return issuer
}

t.test('an issuer and its key', async (t) => {
  const { stores, keys } = await openReplica(t)
  const [row, other] = await loadIssuers(stores.db)
  if (!row || !other) throw new Error('the bootstrap made no issuers')
  const key = await keys.open(row.keyUri)
  const optionsWith = (opened: SigningKey | (() => Promise<SigningKey>)) => ({
    meter: silentMeter,
    deadlineMs: 100,
    openKey: typeof opened === 'function' ? opened : async () => opened,
  })

  /** A key that signs its trial, and then does what the test says. */
  const openWith = async (behave: () => SigningKey['sign'] | undefined) => {
    const sign: SigningKey['sign'] = (messages) => (behave() ?? key.sign)(messages)
    return openIssuer(row, optionsWith({ ...key, sign }))
  }

  t.test('is out of use while the two do not belong together', async (t) => {
    const closed: string[] = []
    let found: SigningKey = { ...key, close: async () => void closed.push('another') }
    const issuer = await openIssuer(
      other,
      optionsWith(async () => found),
    )
    t.same(closed, ['another'], 'nobody keeps what is of no use')
    t.match(issuer.fault, /is not the key of issuer/)
    t.throws(() => issuer.assertAvailable(), { code: 'key.unavailable' })
    t.throws(() => issuer.key, { code: 'key.unavailable' })
    t.match(await issuer.sign(Buffer.from('tbs')), { when: 'before' })
    found = await keys.open(other.keyUri)
    t.equal(await issuer.probe(), undefined, 'the right one is back')
    issuer.assertAvailable()
  })

  t.test('is out of use while its key cannot be opened, or takes too long', async (t) => {
    let attempts = 0
    let open: () => Promise<SigningKey> = () => Promise.reject(new Error('no such token'))
    const issuer = await openIssuer(
      row,
      optionsWith(() => {
        attempts += 1
        return open()
      }),
    )
    t.equal(issuer.fault, 'no such token')
    t.throws(() => issuer.template({ keyUsage: [], extendedKeyUsage: [], revocation: [] }), { code: 'key.unavailable' })
    const slow = Promise.withResolvers<SigningKey>()
    open = () => slow.promise
    t.match(await issuer.probe(), 'no such token', 'what is known of it')
    t.match(await issuer.probe(), 'no such token')
    t.equal(attempts, 2, 'one opening at a time')
    slow.resolve(key)
    t.equal(await issuer.probe(), undefined)
    t.equal(attempts, 2)
  })

  t.test('is out of use while nothing is heard of its key', async (t) => {
    const issuer = await openIssuer(
      row,
      optionsWith(() => new Promise(() => {})),
    )
    t.match(issuer.fault, /was not opened within 100 ms/)
  })

  t.test(
    'that is elsewhere now is used where it was until it was opened there, and what was asked is answered',
    async (t) => {
      const held = Promise.withResolvers<void>()
      const there = Promise.withResolvers<SigningKey>()
      const closed: string[] = []
      const at = (id: string, sign: SigningKey['sign'] = key.sign): SigningKey => ({
        ...key,
        ...{ id, sign, close: async () => void closed.push(id) },
      })
      let slow = false
      const old = at('old', async (messages) => {
        if (slow) await held.promise
        return key.sign(messages)
      })
      const openKey = (uri: string) => (uri === row.keyUri ? Promise.resolve(old) : there.promise)
      const told: string[] = []
      const opened: IssuerOptions['opened'] = (_, { id }) => told.push(id)
      const issuer = await openIssuer(row, { ...optionsWith(key), deadlineMs: 5_000, openKey, opened })
      issuer.follow({ ...row, keyUri: 'elsewhere' })
      t.equal(issuer.fault, undefined)
      t.ok(Buffer.isBuffer(await issuer.sign(Buffer.from('meanwhile'))))
      slow = true
      const asked = issuer.sign(Buffer.from('tbs'))
      there.resolve(at('new'))
      t.equal(await issuer.probe(), undefined)
      t.equal(issuer.key.id, 'new')
      t.same(closed, [], 'the one before is asked still')
      held.resolve()
      t.ok(Buffer.isBuffer(await asked))
      await new Promise((resolve) => setImmediate(resolve))
      t.same(closed, ['old'])
      t.same(told, ['old', 'new'], 'each opening is told once, and no answer of the one before')
    },
  )

  t.test('that is elsewhere now is opened there though somebody is trying it still where it was', async (t) => {
    const old = Promise.withResolvers<SigningKey>()
    const openKey = (uri: string) => (uri === row.keyUri ? old.promise : Promise.resolve(key))
    const issuer = newIssuer(row, { ...optionsWith(key), deadlineMs: 5_000, openKey })
    issuer.follow({ ...row, keyUri: 'elsewhere' })
    const probed = issuer.probe()
    old.reject(new Error('no such token'))
    t.equal(await probed, undefined)
    issuer.assertAvailable()
  })

  t.test(
    'that was opened where it was, after it was said to be elsewhere, is used until it is opened there',
    async (t) => {
      const [old, there] = [Promise.withResolvers<SigningKey>(), Promise.withResolvers<SigningKey>()]
      const openKey = (uri: string) => (uri === row.keyUri ? old.promise : there.promise)
      const issuer = newIssuer(row, { ...optionsWith(key), deadlineMs: 5_000, openKey })
      issuer.follow({ ...row, keyUri: 'elsewhere' })
      old.resolve({ ...key, id: 'old', close: async () => {} })
      await new Promise((resolve) => setImmediate(resolve))
      t.ok(Buffer.isBuffer(await issuer.sign(Buffer.from('tbs'))))
      t.equal(issuer.key.id, 'old')
      there.resolve({ ...key, id: 'new' })
      t.equal(await issuer.probe(), undefined)
      t.equal(issuer.key.id, 'new')
    },
  )

  t.test('that cannot be opened where it is now is out of use, and back where it was', async (t) => {
    const openKey = async (uri: string) => {
      if (uri !== row.keyUri) throw new Error('no such token')
      return key
    }
    const issuer = await openIssuer(row, { ...optionsWith(key), openKey })
    issuer.follow({ ...row, keyUri: 'elsewhere' })
    t.equal(await issuer.probe(), 'no such token')
    t.match(await issuer.sign(Buffer.from('tbs')), { when: 'before' })
    t.equal(issuer.key.algorithm, key.algorithm, 'what it is stays known: something may be under way')
    issuer.follow(row)
    t.equal(await issuer.probe(), undefined)
    issuer.assertAvailable()
  })

  t.test(
    'that is elsewhere now is judged by what is signed there, and not by what its old place answers last',
    async (t) => {
      const [held, failing] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
      let slow = false
      const old = {
        ...key,
        close: async () => {},
        sign: async (messages: readonly Buffer[]) => {
          if (!slow) return key.sign(messages)
          if (messages[0]?.toString() === 'well') return held.promise.then(() => key.sign(messages))
          return failing.promise.then(() => [new SigningFault('unknown', 'the old token is gone')])
        },
      }
      let isThere = true
      const openKey = async (uri: string) => {
        if (uri === row.keyUri) return old
        if (!isThere) throw new Error('no such token')
        return { ...key, close: async () => {} }
      }
      const moved = async () => {
        slow = false
        const issuer = await openIssuer(row, { ...optionsWith(key), deadlineMs: 5_000, openKey })
        slow = true
        const asked = [issuer.sign(Buffer.from('well')), issuer.sign(Buffer.from('ill'))] as const
        issuer.follow({ ...row, keyUri: 'elsewhere' })
        await issuer.probe()
        return { issuer, asked }
      }
      const good = await moved()
      isThere = false
      const bad = await moved()
      failing.resolve()
      t.match(await good.asked[1], { when: 'unknown' })
      t.equal(good.issuer.fault, undefined, 'it signs where it is now')
      await bad.asked[1]
      held.resolve()
      t.ok(Buffer.isBuffer(await bad.asked[0]))
      t.equal(bad.issuer.fault, 'no such token', 'nothing more is taken here')
      t.throws(() => bad.issuer.assertAvailable(), { code: 'key.unavailable' })
    },
  )

  t.test('that is where it was again is used there, though somebody is trying it still elsewhere', async (t) => {
    const closed: string[] = []
    const elsewhere = Promise.withResolvers<SigningKey>()
    const at = (id: string): SigningKey => ({ ...key, id, close: async () => void closed.push(id) })
    const openKey = (uri: string) => (uri === row.keyUri ? Promise.resolve(at('old')) : elsewhere.promise)
    const issuer = await openIssuer(row, { ...optionsWith(key), openKey })
    issuer.follow({ ...row, keyUri: 'elsewhere' })
    issuer.follow(row)
    elsewhere.resolve(at('elsewhere'))
    await new Promise((resolve) => setImmediate(resolve))
    t.equal(issuer.key.id, 'old')
    t.same(closed, ['elsewhere'])
    t.equal(await issuer.probe(), undefined)
    elsewhere.promise = Promise.reject(new Error('no such token'))
    issuer.follow({ ...row, keyUri: 'elsewhere' })
    issuer.follow(row)
    await new Promise((resolve) => setImmediate(resolve))
    issuer.assertAvailable()
  })

  t.test('that hangs where it is now stays in use where it was, as far as it signs rightly', async (t) => {
    let asked = 0
    const sign: SigningKey['sign'] = (messages) => {
      asked += 1
      return key.sign(messages)
    }
    const openKey = (uri: string) =>
      uri === row.keyUri ? Promise.resolve({ ...key, sign }) : new Promise<SigningKey>(() => {})
    const issuer = await openIssuer(row, { ...optionsWith(key), openKey })
    const before = asked
    issuer.follow(row)
    t.equal(asked, before, 'where it was, nothing is tried again')
    issuer.follow({ ...row, keyUri: 'elsewhere' })
    t.equal(await issuer.probe(), undefined)
    issuer.assertAvailable()
    issuer.distrust()
    t.equal(await issuer.probe(), 'a signature that it made does not verify')
  })

  t.test('is closed with the issuer, also when it is opened only then', async (t) => {
    const closed: string[] = []
    const at = (id: string): SigningKey => ({ ...key, id, close: async () => void closed.push(id) })
    await (await openIssuer(row, optionsWith(at('in use')))).close()
    t.same(closed, ['in use'])
    const late = Promise.withResolvers<SigningKey>()
    const closing = newIssuer(
      row,
      optionsWith(() => late.promise),
    ).close()
    late.resolve(at('late'))
    await closing
    t.ok(closed.includes('late'))
    const lost = Promise.withResolvers<SigningKey>()
    const ending = newIssuer(
      row,
      optionsWith(() => lost.promise),
    ).close()
    lost.reject(new Error('no such token'))
    await t.resolves(ending)
  })

  t.test('that hangs where it is now is not said to be missing where it was', async (t) => {
    const openKey = (uri: string) =>
      uri === row.keyUri ? Promise.reject(new Error('no token with label old')) : new Promise<SigningKey>(() => {})
    const issuer = await openIssuer(row, { ...optionsWith(key), openKey })
    t.equal(issuer.fault, 'no token with label old')
    issuer.follow({ ...row, keyUri: 'elsewhere' })
    t.match(await issuer.probe(), /^the key elsewhere was not opened within 100 ms/)

    const late = Promise.withResolvers<SigningKey>()
    const slow = (uri: string) => (uri === row.keyUri ? late.promise : new Promise<SigningKey>(() => {}))
    const second = newIssuer(row, { ...optionsWith(key), openKey: slow })
    second.follow({ ...row, keyUri: 'elsewhere' })
    late.reject(new Error('no token with label old'))
    t.match(
      await second.probe(),
      /^the key elsewhere was not opened within 100 ms/,
      'also where that is found out later',
    )
  })

  t.test('is out of use when the key does not sign', async (t) => {
    const mute = { ...key, sign: async () => [new SigningFault('before', 'no session')] }
    const told: string[] = []
    const issuer = await openIssuer(row, { ...optionsWith(mute), opened: (name) => told.push(name) })
    t.equal(issuer.fault, 'no session')
    t.same(told, [row.name], 'that it was opened is told all the same')
  })

  t.test('is out of use when its provider has no answer', async (t) => {
    let isEmpty = false
    const issuer = await openWith(() => (isEmpty ? async () => [] : undefined))
    isEmpty = true
    t.match(await issuer.sign(Buffer.from('tbs')), { when: 'unknown', message: 'the provider gave no answer' })
    t.throws(() => issuer.assertAvailable(), { code: 'key.unavailable' })
  })

  t.test('has each of its operations measured, with how it failed', async (t) => {
    const measured: [string, number, string | undefined][] = []
    let behave: SigningKey['sign'] | undefined
    const sign: SigningKey['sign'] = (messages) => (behave ?? key.sign)(messages)
    const meter = { ...silentMeter, keyOperation: (...one: (typeof measured)[number]) => void measured.push(one) }
    const issuer = await openIssuer(row, { ...optionsWith({ ...key, sign }), meter })
    behave = async () => [new SigningFault('before', 'no session')]
    await issuer.sign(Buffer.from('tbs'))
    behave = () => new Promise(() => {})
    await issuer.sign(Buffer.from('tbs'))
    t.same(
      measured.map(([name, , fault]) => [name, fault]),
      [
        [row.name, undefined],
        [row.name, 'before'],
        [row.name, 'late'],
      ],
    )
    const seconds = measured.at(-1)?.[1] ?? 0
    t.ok(seconds > 0.09 && seconds < 60, `${seconds} s, after a deadline of 100 ms`)
  })

  t.test('has a template for each combination of usages, made once', async (t) => {
    const issuer = await openIssuer(row, optionsWith(key))
    const usual = { keyUsage: ['digitalSignature'], extendedKeyUsage: ['serverAuth'], revocation: ['crl'] } as const
    const template = issuer.template(usual)
    t.equal(issuer.template({ ...usual }), template)
    for (const more of [
      { keyUsage: ['digitalSignature', 'keyEncipherment'] },
      { extendedKeyUsage: ['clientAuth'] },
      { revocation: ['crl', 'ocsp'] },
    ] as const)
      t.not(issuer.template({ ...usual, ...more }), template, JSON.stringify(more))
  })

  t.test('is out of use after one fault, until a probe sees it sign', async (t) => {
    let broken = false
    const issuer = await openWith(() => (broken ? async () => [new SigningFault('before', 'no session')] : undefined))
    issuer.assertAvailable()
    broken = true
    t.match(await issuer.sign(Buffer.from('tbs')), { when: 'before' })
    t.equal(issuer.fault, 'no session')
    t.throws(() => issuer.assertAvailable(), { code: 'key.unavailable' })
    t.equal(await issuer.probe(), 'no session')
    broken = false
    t.equal(await issuer.probe(), undefined)
    issuer.assertAvailable()
  })

  t.test('is out of use when its key hangs, for signing as for the probe', async (t) => {
    let hangs = false
    const issuer = await openWith(() => (hangs ? () => new Promise(() => {}) : undefined))
    hangs = true
    t.match(await issuer.sign(Buffer.from('tbs')), { when: 'late' })
    t.throws(() => issuer.assertAvailable(), { code: 'key.unavailable' })
    t.match(await issuer.probe(), /no signature within 100 ms/)
    hangs = false
    t.equal(await issuer.probe(), undefined)
  })

  t.test('is out of use when the trial signature is wrong', async (t) => {
    let wrong = false
    const issuer = await openWith(() =>
      wrong ? (messages) => key.sign(messages.map((m) => Buffer.concat([m, m]))) : undefined,
    )
    wrong = true
    t.equal(await issuer.probe(), 'the trial signature does not verify')
    t.throws(() => issuer.assertAvailable(), { code: 'key.unavailable' })
  })

  t.test('is out of use once it signed wrongly, whatever it signs, until a trial verifies', async (t) => {
    let wrong = false
    const issuer = await openWith(() =>
      wrong ? (messages) => key.sign(messages.map((m) => Buffer.concat([m, m]))) : undefined,
    )
    issuer.distrust()
    t.throws(() => issuer.assertAvailable(), { code: 'key.unavailable' })
    t.ok(Buffer.isBuffer(await issuer.sign(Buffer.from('tbs'))), 'a signature that was under way')
    t.equal(issuer.fault, 'a signature that it made does not verify')
    wrong = true
    t.equal(await issuer.probe(), 'the trial signature does not verify')
    t.ok(Buffer.isBuffer(await issuer.sign(Buffer.from('tbs'))))
    t.equal(issuer.fault, 'the trial signature does not verify')
    wrong = false
    t.equal(await issuer.probe(), undefined)
    issuer.assertAvailable()
  })

  t.test('tells of each opening of its key, and of few where it comes and goes', async (t) => {
    let openings = 1
    const told: unknown[] = []
    let isMute = false
    const flapping: SigningKey = {
      ...key,
      sign: async (messages) => (isMute ? [new SigningFault('before', 'no session')] : key.sign(messages)),
      get openings() {
        return openings
      },
    }
    const options = optionsWith(flapping)
    const issuer = await openIssuer(row, { ...options, opened: (name, { openings: nth }) => told.push([name, nth]) })
    t.same(told, [[row.name, 1]])
    for (let i = 0; i < 3; i += 1) await issuer.sign(Buffer.from('tbs'))
    t.equal(told.length, 1)
    isMute = true
    openings = 2
    await issuer.sign(Buffer.from('tbs'))
    t.equal(told.length, 1, 'not before it signs again')
    isMute = false
    for (openings = 2; openings < 100; openings += 1) await issuer.sign(Buffer.from('tbs'))
    t.same(
      told,
      [1, 2, 3, 4, 5].map((nth) => [row.name, nth]),
    )
  })
})

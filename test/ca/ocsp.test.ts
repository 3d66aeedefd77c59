/** What an instance keeps of its answers, and when it does not trust what it keeps. */
import { generateKeyPairSync, sign } from 'node:crypto'

import t from 'tap'

import type { Issuer } from '../../src/ca/issuers/issuer.ts'
import { type OcspDeps, openOcsp, type SerialStanding } from '../../src/ca/revocation/ocsp.ts'
import type { Responder } from '../../src/ca/revocation/responders.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { issuerHashes } from '../../src/x509/ocsp.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { encodeCertId } from '../helpers/cert-id.ts'
import { parseOcspResponse } from '../helpers/ocsp-response.ts'
import { extension, integer, nil, octets, oid, seq, tlv } from '../x509/build.ts'

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const spki = publicKey.export({ type: 'spki', format: 'der' })
const subject = encodeSubject([{ type: 'commonName', value: 'Issuer' }])
const issuer = { name: 'default', subject, facts: { spki } } as unknown as Issuer
const algorithm = signatureAlgorithm('ecdsa-sha256')
const serialOf = (n: number): string => `4${n.toString(16).padStart(31, '0')}`
interface Named {
  readonly hash?: 'sha1' | 'sha256'
  readonly of?: Buffer
  readonly key?: Buffer
}
const idFor = (n: number, { hash = 'sha1', of = subject, key = spki }: Named = {}): Buffer =>
  seq(encodeCertId(hash, of, keyBits(key), Buffer.from(serialOf(n), 'hex')))
const requestOf = (...ids: readonly Buffer[]): Buffer => seq(seq(seq(...ids)))
/** RFC 9654 2.1. */
const nonceRequestFor = (n: number): Buffer =>
  seq(seq(seq(idFor(n)), tlv(0xa2, seq(extension('1.3.6.1.5.5.7.48.1.2', octets(Buffer.alloc(32, 7)))))))
const requestFor = (n: number, hash?: 'sha1' | 'sha256'): Buffer => requestOf(idFor(n, { ...(hash && { hash }) }))

const open = (over: Partial<OcspDeps> = {}) => {
  const state = {
    now: Date.parse('2026-11-25T12:00:00Z'),
    elapsed: 0,
    responderEnds: Number.MAX_SAFE_INTEGER,
    size: 100,
    standing: { kind: 'good' } as SerialStanding,
    /** Of serials that are not as the others. */
    odd: new Map<string, SerialStanding>(),
    looks: 0,
    signatures: 0,
    down: false,
    skewed: false,
    changes: [] as { readonly index: number; readonly serial: string }[],
    /** From where the roll was read. */
    followedFrom: [] as number[],
    failures: [] as string[],
    /** Lets a test act between the look and what follows from it. */
    between: async () => {},
  }
  const alive = (): void => {
    if (state.down) throw new Error('the database is away')
  }
  const standingOf = (serial: Buffer): SerialStanding => state.odd.get(serial.toString('hex')) ?? state.standing
  const newResponder = (): Responder => ({
    certificate: seq(),
    keyHash: issuerHashes(subject, keyBits(spki)).sha1.keyHash,
    algorithm,
    get notAfter() {
      return state.responderEnds
    },
    sign: (tbs) => {
      state.signatures += 1
      return sign('sha256', tbs, privateKey)
    },
  })
  let responder = newResponder()
  const replaceResponder = (): void => {
    responder = newResponder()
  }
  const ocsp = openOcsp({
    store: {
      standings: async (_issuer, serials) => {
        state.looks += 1
        alive()
        const found = { standings: serials.map(standingOf), seen: state.size }
        await state.between()
        return found
      },
      changedSince: async (index) => {
        alive()
        state.followedFrom.push(index)
        return {
          serials: state.changes.filter((change) => change.index >= index).map(({ serial }) => serial),
          seen: state.size,
        }
      },
    },
    issuer: (name) => (name === 'default' ? issuer : undefined),
    responders: {
      of: async () => responder,
      isCurrent: (_issuer, by) => by === responder,
      renew: async () => {},
    },
    clock: () => new Date(state.now),
    assertClock: () => {
      if (state.skewed) throw new Error('the clock is wrong')
    },
    elapsedMs: () => state.elapsed,
    validityMs: 4 * 3_600_000,
    echoNonces: true,
    failed: (_issuer, error) => state.failures.push((error as Error).message),
    cacheOctets: 1_000_000,
    ...over,
  })
  const ask = async (n: number, hash?: 'sha1' | 'sha256'): Promise<string> => {
    const { der } = await ocsp.answer('default', requestFor(n, hash))
    const read = parseOcspResponse(der)
    return read.status === 'successful' ? (read.basic.responses[0]?.status.kind ?? '') : read.status
  }
  /** Somebody's event on the roll. */
  const revoke = (n: number): number => {
    state.standing = { kind: 'revoked', at: new Date(state.now), reason: null }
    state.changes.push({ index: state.size, serial: serialOf(n) })
    state.size += 1
    return state.size - 1
  }
  return { ocsp, state, ask, revoke, replaceResponder }
}

t.test('an answer is signed once, and told until half of its time is over', async (t) => {
  const { ocsp, state, ask } = open()
  await ocsp.follow()
  t.equal(await ask(1), 'good')
  t.equal(await ask(1), 'good')
  t.match(state, { looks: 1, signatures: 1 })
  await ask(1, 'sha256')
  t.equal(state.signatures, 2, 'another form of the question is another answer')
  await ask(2)
  t.equal(state.signatures, 3)
  state.now += 2 * 3_600_000 - 61_000
  await ask(1)
  t.equal(state.signatures, 3)
  state.now += 2_000
  await ask(1)
  t.equal(state.signatures, 4)
})

t.test('no answer outlives the certificate of the key that signed it', async (t) => {
  const { ocsp, state, ask } = open({ echoNonces: false })
  await ocsp.follow()
  const told = async () => {
    const { der, cacheable } = await ocsp.answer('default', requestFor(1))
    const read = parseOcspResponse(der)
    const said = read.status === 'successful' ? read.basic.responses[0]?.nextUpdate : undefined
    t.same(said, cacheable?.nextUpdate)
    return said
  }
  state.responderEnds = state.now + 3_600_000
  t.same(await told(), new Date(state.responderEnds))
  state.now += 29 * 60_000
  await ask(1)
  t.equal(state.signatures, 1)
  state.now += 60_000
  await ask(1)
  t.equal(state.signatures, 2, 'half of what is left is for those who staple it')
  ocsp.forget(serialOf(1), 0)
  state.responderEnds = state.now + 1_000
  t.same(await told(), new Date(state.responderEnds))
})

t.test('what a key has signed is told no more once another one answers: it may have been revoked', async (t) => {
  const { ocsp, state, ask, replaceResponder } = open()
  await ocsp.follow()
  await ask(1)
  await ask(1)
  t.equal(state.signatures, 1)
  replaceResponder()
  await ask(1)
  await ask(1)
  t.equal(state.signatures, 2, 'signed anew, and once')
})

t.test('a revocation of our own is in the next answer, one of others after the next look', async (t) => {
  const { ocsp, state, ask, revoke } = open()
  await ocsp.follow()
  t.equal(await ask(1), 'good')
  t.equal(await ask(2), 'good')
  ocsp.forget(serialOf(1), revoke(1))
  t.equal(await ask(1), 'revoked')
  t.equal(await ask(2), 'good', 'as kept')
  revoke(2)
  await ocsp.follow()
  t.equal(await ask(2), 'revoked')
  t.equal(state.failures.length, 0)
})

t.test('what was read before a revocation is read again after it', async (t) => {
  for (const how of ['ours', "another's"]) {
    const { ocsp, state, ask, revoke } = open()
    await ocsp.follow()
    state.between = async () => {
      state.between = async () => {}
      const index = revoke(1)
      if (how === 'ours') ocsp.forget(serialOf(1), index)
      else await ocsp.follow()
    }
    t.equal(await ask(1), 'revoked', how)
    t.equal(await ask(1), 'revoked', how)
    t.equal(state.looks, 2)
  }
})

t.test('what was read again, and before a revocation again, is told and not kept', async (t) => {
  for (const how of ['ours', "another's"]) {
    const { ocsp, state, ask } = open()
    await ocsp.follow()
    state.between = async () => {
      if (state.looks > 2) return
      state.size += 1
      if (how === 'ours') ocsp.forget(serialOf(2), state.size - 1)
      else await ocsp.follow()
    }
    t.equal(await ask(1), 'good', how)
    t.match(state, { looks: 2, signatures: 1 }, how)
    t.equal(await ask(1), 'good', how)
    t.equal(await ask(1), 'good', how)
    t.match(state, { looks: 3, signatures: 2 }, `${how}: the next one is`)
  }
})

t.test('what we revoked last counts, in whatever order it is told', async (t) => {
  const { ocsp, state, ask } = open()
  await ocsp.follow()
  for (const index of [109, 105]) ocsp.forget(serialOf(2), index)
  for (const [size, looks] of [
    [107, 2],
    [110, 3],
    [110, 3],
  ] as const) {
    state.size = size
    t.equal(await ask(1), 'good')
    t.equal(state.looks, looks, `${size} entries were seen`)
  }
})

t.test('the first look goes over nothing of what was before, and each other one over all since', async (t) => {
  const { ocsp, state, ask, revoke } = open()
  state.size = 0
  await ocsp.follow()
  t.equal(await ask(1), 'good')
  revoke(1)
  await ocsp.follow()
  t.equal(await ask(1), 'revoked')
  revoke(2)
  await ocsp.follow()
  t.same(state.followedFrom, [Number.MAX_SAFE_INTEGER, 0, 1])
})

t.test('without news for two seconds nothing that is kept is told', async (t) => {
  const { ocsp, state, ask, revoke } = open()
  t.equal(await ask(1), 'good')
  t.equal(await ask(1), 'good')
  t.equal(state.looks, 2, 'not before the first look')
  await ocsp.follow()
  await ask(1)
  state.elapsed += 1_999
  await ask(1)
  t.equal(state.looks, 2, 'kept')
  revoke(1)
  state.elapsed += 2
  t.equal(await ask(1), 'revoked', 'asked anew')
  state.down = true
  await t.rejects(ocsp.follow())
  t.equal(await ask(1), 'tryLater')
  t.match(state.failures, [/the database is away/])
  state.down = false
  await ocsp.follow()
  t.equal(await ask(1), 'revoked')
})

t.test('what is kept is bounded, and what is asked for again stays', async (t) => {
  const { ocsp, state, ask } = open({ cacheOctets: 40_000 })
  await ocsp.follow()
  for (let n = 1; n <= 200; n += 1) {
    await ask(n)
    await ask(0)
  }
  t.equal(state.signatures, 201, 'the one that is asked for all the time is signed once')
  const before = state.signatures
  await ask(1)
  t.equal(state.signatures, before + 1, 'an old one has gone')
})

t.test('what is kept keeps no memory beside it', async (t) => {
  const { ocsp } = open()
  await ocsp.follow()
  const { der } = await ocsp.answer('default', requestFor(1))
  t.equal(der.buffer.byteLength, der.length)
})

t.test('what is about to go is forgotten as well', async (t) => {
  const { ocsp, ask, revoke } = open({ cacheOctets: 40_000 })
  await ocsp.follow()
  for (let n = 0; n <= 30; n += 1) await ask(n)
  ocsp.forget(serialOf(0), revoke(0))
  t.equal(await ask(0), 'revoked')
})

t.test('what is open, unknown or of nobody is not kept, and never signed', async (t) => {
  const { ocsp, state, ask } = open()
  await ocsp.follow()
  state.standing = { kind: 'open' }
  t.equal(await ask(1), 'tryLater')
  state.standing = { kind: 'unknown' }
  t.equal(await ask(1), 'unauthorized')
  state.standing = { kind: 'good' }
  t.equal(await ask(1), 'good')
  t.equal(state.signatures, 1)
  t.same(state.failures, [], 'nobody need look after that')
  t.same((await ocsp.answer('nobody', requestFor(1))).kind, 'unauthorized')
  t.same((await ocsp.answer('default', Buffer.from('00', 'hex'))).kind, 'malformedRequest')
})

t.test('whoever asks for several, or for those of others, is told of no other than was asked for', async (t) => {
  const { ocsp, ask, state } = open()
  await ocsp.follow()
  const several = await ocsp.answer('default', requestOf(idFor(1), idFor(2)))
  const read = parseOcspResponse(several.der)
  t.equal(read.status === 'successful' && read.basic.responses.length, 2)
  t.equal(several.kind, 'several')
  const { der } = await ocsp.answer('default', requestFor(1))
  const alone = parseOcspResponse(der)
  t.equal(
    alone.status === 'successful' && alone.basic.responses.length,
    1,
    'what was told of both is for no other question',
  )
  const again = parseOcspResponse((await ocsp.answer('default', requestOf(idFor(1), idFor(2)))).der)
  t.equal(again.status === 'successful' && again.basic.responses.length, 2, 'nor the other way round')
  const others = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' })
  const { signatures } = state
  const digest = octets(Buffer.alloc(48))
  const sha384 = seq(seq(seq(oid('2.16.840.1.101.3.4.2.2'), nil), digest, digest, integer(1)))
  for (const foreign of [idFor(1, { of: encodeSubject([]) }), idFor(1, { key: others }), sha384])
    for (const ids of [[foreign], [idFor(1), foreign], [foreign, idFor(1)]])
      t.equal((await ocsp.answer('default', requestOf(...ids))).kind, 'unauthorized')
  t.equal(await ask(1), 'good')
  t.match(state, { signatures })
})

t.test('of several each has its own answer, and one that has none keeps the others from theirs', async (t) => {
  const { ocsp, state } = open()
  await ocsp.follow()
  const orders = [
    [1, 2],
    [2, 1],
  ] as const
  for (const [kind, told] of [
    ['unknown', 'unauthorized'],
    ['open', 'tryLater'],
  ] as const) {
    state.odd.set(serialOf(2), { kind })
    for (const order of orders)
      t.equal((await ocsp.answer('default', requestOf(...order.map((n) => idFor(n))))).kind, told, `${kind} ${order}`)
  }
  t.equal(state.signatures, 0)
  t.same(state.failures, [], 'nor need anybody look after that')
  state.odd.set(serialOf(2), { kind: 'revoked', at: new Date(state.now), reason: null })
  for (const order of orders) {
    const read = parseOcspResponse((await ocsp.answer('default', requestOf(...order.map((n) => idFor(n))))).der)
    const responses = read.status === 'successful' ? read.basic.responses : []
    t.same(
      responses.map(({ certId, status }) => [certId.serial.toString('hex'), status.kind]),
      order.map((n) => [serialOf(n), n === 2 ? 'revoked' : 'good']),
    )
  }
})

t.test(
  'a revocation is told with its time and its reason, and what an answer says is told to who counts',
  async (t) => {
    const { ocsp, state } = open({ echoNonces: false })
    await ocsp.follow()
    const told = async (n: number, standing: SerialStanding) => {
      state.standing = standing
      const { der, kind } = await ocsp.answer('default', requestFor(n))
      const read = parseOcspResponse(der)
      return { kind, status: read.status === 'successful' && read.basic.responses[0]?.status }
    }
    const at = new Date('2026-11-24T00:00:00Z')
    t.same(await told(1, { kind: 'good' }), { kind: 'good', status: { kind: 'good' } })
    t.same(await told(2, { kind: 'revoked', at, reason: null }), { kind: 'revoked', status: { kind: 'revoked', at } })
    const status = { kind: 'revoked', at, reason: 'keyCompromise' } as const
    t.same(await told(3, status), { kind: 'revoked', status })
  },
)

t.test('an answer to a nonce is for whoever sent it alone', async (t) => {
  const { ocsp, state } = open()
  await ocsp.follow()
  t.equal((await ocsp.answer('default', nonceRequestFor(1))).cacheable, undefined)
  t.not((await ocsp.answer('default', requestFor(1))).cacheable, undefined)
  t.equal(state.signatures, 2)
  t.equal((await ocsp.answer('default', nonceRequestFor(1))).cacheable, undefined, 'nor is one that is kept for it')
  const silent = open({ echoNonces: false })
  await silent.ocsp.follow()
  for (const der of [nonceRequestFor(1), requestFor(1), nonceRequestFor(1)])
    t.not(
      (await silent.ocsp.answer('default', der)).cacheable,
      undefined,
      'where none is repeated there is one for all',
    )
  t.equal(silent.state.signatures, 1)
})

t.test('a clock that is wrong signs nothing, and leaves nothing that is told when it is right again', async (t) => {
  const { ocsp, state, ask } = open()
  await ocsp.follow()
  state.now += 86_400_000
  t.equal(await ask(1), 'good', 'of tomorrow, and nobody knows')
  state.now -= 86_400_000
  t.equal(await ask(1), 'good')
  t.equal(state.signatures, 2, 'signed anew')
  state.skewed = true
  t.equal(await ask(2), 'tryLater')
  t.match(state.failures, [/the clock is wrong/])
})

import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto'

import t from 'tap'

import { keyAlgorithms } from '../../src/x509/algorithms.ts'
import { blockListHash, parseBlockList } from '../../src/x509/block-list.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { cpu } from '../helpers/cpu.ts'
import { bits, integer, nil, oid, seq } from './build.ts'
import { importPublicKey, nodeSigner, rsaFactors, rsaModulus, rsaSpki } from './keys.ts'

const spkiOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })
const generate = generateKeyPairSync as unknown as (type: string, options: object) => { publicKey: KeyObject }

for (const { id, generate: how, bits: size } of Object.values(keyAlgorithms)) {
  t.test(`a sound key of ${id} passes, and is told apart`, async (t) => {
    const { publicKey } = generate(how.type, how.options)
    const key = parsePublicKey(spkiOf(publicKey))
    t.equal(key.algorithm.id, id)
    t.equal(key.bits, size ?? 2048)
    t.ok(key.spki.equals(spkiOf(publicKey)))
    t.ok(key.sha256.equals(createHash('sha256').update(key.spki).digest()))
    t.equal(key.keyIdentifier.length, 20)
    t.ok(importPublicKey(key).equals(publicKey))
  })
}

t.test('the key identifier is RFC 7093 method 1 over the contents of the BIT STRING', async (t) => {
  const contents = Buffer.concat([seq(integer(rsaModulus('2048')), integer(65537))])
  const key = parsePublicKey(seq(seq(oid('1.2.840.113549.1.1.1'), nil), bits(contents)))
  t.ok(key.keyIdentifier.equals(createHash('sha256').update(contents).digest().subarray(0, 20)))
})

for (const size of ['2048', '3072', '4096', '8192']) {
  t.test(`RSA of ${size} bits passes in well under 10 ms`, async (t) => {
    const spki = rsaSpki(rsaModulus(size))
    t.equal(parsePublicKey(spki).bits, Number(size))
    const start = cpu()
    for (let i = 0; i < 10; i++) parsePublicKey(spki)
    t.ok((cpu() - start) / 10 < 10)
  })
}

const weak: readonly (readonly [string, RegExp])[] = [
  ['small3', /divisible by 3$/],
  ['small751', /divisible by 751$/],
  ['roca', /ROCA/],
  ['close', /close/],
  ['square', /close/],
  ['cube', /power of a prime/],
]

for (const [name, reason] of weak) {
  t.test(`the modulus "${name}" is weak for its own reason`, async (t) => {
    t.throws(() => parsePublicKey(rsaSpki(rsaModulus(name))), { code: 'key.weak', detail: reason })
  })
}

t.test('primes are found when they are within 256 rounds of Fermat, and keys of distant primes pass', async (t) => {
  const [p] = rsaFactors('close') as [bigint]
  const rootOf = (n: bigint): bigint => {
    let root = n
    for (let next = n / 2n; next < root; next = (root + n / root) >> 1n) root = next
    return root
  }
  const sieve = Array.from({ length: 750 }, (_, i) => BigInt(i + 2))
  /** The product of two numbers without small factors that half a round more than these lie apart by, and its round. */
  const apartBy = (rounds: bigint): readonly [n: bigint, round: bigint] => {
    let half = rootOf(p * (2n * rounds + 1n))
    while (sieve.some((small) => (p + 2n * half) % small === 0n)) half += 1n
    const n = p * (p + 2n * half)
    return [n, p + half - rootOf(n) - 1n]
  }
  for (const rounds of [1n, 2n, 100n, 255n]) {
    const [n, round] = apartBy(rounds)
    t.equal(round, rounds)
    t.throws(() => parsePublicKey(rsaSpki(n)), { code: 'key.weak', detail: /close/ }, `${rounds} rounds`)
  }
  const [distant, round] = apartBy(256n)
  t.equal(round, 256n)
  t.doesNotThrow(() => parsePublicKey(rsaSpki(distant)))
})

t.test('powers of primes are found, whatever the exponent', async (t) => {
  const primes: readonly (readonly [bigint, number])[] = [
    [757n, 214],
    [65537n, 127],
    [2n ** 31n - 1n, 66],
    [2n ** 61n - 1n, 33],
    [2n ** 89n - 1n, 23],
    [2n ** 107n - 1n, 19],
    [2n ** 127n - 1n, 16],
    [2n ** 521n - 1n, 4],
  ]
  for (const [prime, about] of primes) {
    for (let exponent = about - 1; exponent <= about + 1; exponent++) {
      const n = prime ** BigInt(exponent)
      if (n.toString(2).length === 2048)
        t.throws(() => parsePublicKey(rsaSpki(n)), { code: 'key.weak' }, `${prime}^${exponent}`)
    }
  }
  const odd = rsaFactors('cube')[0] as bigint
  t.throws(() => parsePublicKey(rsaSpki(odd ** 3n)), { code: 'key.weak', detail: /power/ })
})

t.test('numbers one off a power pass the search for powers', async (t) => {
  const [p] = rsaFactors('cube') as [bigint]
  for (const n of [p ** 3n + 2n, p ** 3n - 2n]) {
    try {
      parsePublicKey(rsaSpki(n))
    } catch (error) {
      t.notMatch((error as Error).message, /power/)
    }
  }
})

t.test('a modulus made to pass every sieve still takes less than 50 ms', async (t) => {
  // One modulo every small prime: a square, and a power, modulo all of them.
  let primorial = 2n ** 61n
  for (let n = 3n; n < 752n; n += 2n) primorial *= n
  for (const size of [2048n, 8192n]) {
    const n = ((3n << (size - 2n)) / primorial) * primorial + 1n
    const spki = rsaSpki(n)
    const start = cpu()
    try {
      parsePublicKey(spki)
    } catch {
      // Sound or not, it was judged.
    }
    t.ok(cpu() - start < 50)
  }
})

t.test('a block list is asked with the hash and the key, after the key was judged', async (t) => {
  const { spki } = nodeSigner('ec', { namedCurve: 'P-256' })
  const hash = createHash('sha256').update(spki).digest('hex')
  t.throws(() => parsePublicKey(spki, (asked) => asked === hash), { code: 'key.blocked' })
  t.throws(() => parsePublicKey(spki, (_hash, key) => key.bits === 256), { code: 'key.blocked' })
  t.doesNotThrow(() => parsePublicKey(spki, () => false))
  t.throws(() => parsePublicKey(rsaSpki(rsaModulus('roca')), () => true), { code: 'key.weak' })
})

t.test("badkeys' list is searched by modulus, x, or raw key", async (t) => {
  const spkis = [
    rsaSpki(rsaModulus('2048')),
    rsaSpki(rsaModulus('3072')),
    nodeSigner('ec', { namedCurve: 'P-256' }).spki,
    nodeSigner('ed25519').spki,
    nodeSigner('ml-dsa-44').spki,
  ]
  const keys = spkis.map((spki) => parsePublicKey(spki))
  const listed = keys.filter((_, i) => i !== 1)
  const blocks = listed.map((key) => Buffer.concat([blockListHash(key), Buffer.from([3])]))
  const blocked = parseBlockList(Buffer.concat(blocks.toSorted(Buffer.compare)))
  for (const [i, spki] of spkis.entries()) {
    if (i === 1) t.doesNotThrow(() => parsePublicKey(spki, blocked))
    else t.throws(() => parsePublicKey(spki, blocked), { code: 'key.blocked' })
  }
  const modulus = Buffer.from(rsaModulus('2048').toString(16), 'hex')
  t.ok(blockListHash(keys[0] as (typeof keys)[0]).equals(createHash('sha256').update(modulus).digest().subarray(0, 15)))
})

t.test('the hash on a block list is that of x of a point, and of the octets of an Ed25519 key', async (t) => {
  for (const [type, options] of [
    ['ec', { namedCurve: 'P-256' }],
    ['ed25519', {}],
  ] as const) {
    const { publicKey } = generate(type, options)
    const x = Buffer.from(publicKey.export({ format: 'jwk' }).x as string, 'base64url')
    const number = x.subarray(x.findIndex((octet) => octet !== 0))
    const wanted = createHash('sha256').update(number).digest().subarray(0, 15)
    t.same(blockListHash(parsePublicKey(spkiOf(publicKey))), wanted, type)
  }
})

t.test('a key is looked for by all of its hash, wherever in the list its place is', async (t) => {
  const { spki } = nodeSigner('ed25519')
  const hash = blockListHash(parsePublicKey(spki))
  const [first, last] = [Buffer.alloc(15), Buffer.alloc(15, 0xff)]
  const beside = (by: number): Buffer =>
    Buffer.from((BigInt(`0x${hash.toString('hex')}`) + BigInt(by)).toString(16).padStart(30, '0'), 'hex')
  const isBlocked = (...hashes: readonly Buffer[]): boolean => {
    const blocked = parseBlockList(Buffer.concat(hashes.map((one) => Buffer.concat([one, Buffer.from([1])]))))
    return blocked('', parsePublicKey(spki))
  }
  for (const others of [
    [first],
    [last],
    [first, last],
    [beside(-1), beside(1)],
    [first, beside(-1), beside(1), last],
  ]) {
    t.equal(isBlocked(...others), false)
    t.equal(isBlocked(...[...others, hash].toSorted(Buffer.compare)), true)
  }
})

t.test('what is no block list is refused', async (t) => {
  const list = (...hashes: readonly Buffer[]) =>
    Buffer.concat(hashes.map((hash, i) => Buffer.concat([hash, Buffer.from([hashes.length - i])])))
  const hash = (first: number, last = first): Buffer => Buffer.concat([Buffer.alloc(14, first), Buffer.from([last])])
  for (const octets of [0, 1, 15, 17, 40])
    t.throws(() => parseBlockList(Buffer.alloc(octets)), { name: 'RangeError', message: /blocks of 16 octets/ })
  for (const hashes of [
    [hash(2), hash(1)],
    [hash(1), hash(3), hash(2)],
    [hash(1, 2), hash(1, 1)],
  ])
    t.throws(() => parseBlockList(list(...hashes)), { name: 'RangeError', message: /is sorted/ })
  t.doesNotThrow(() => parseBlockList(list(hash(7), hash(7), hash(7, 8))), 'in whichever order their sources are')
})

t.test('a key that is not DER, or more than a key, is refused', async (t) => {
  const { spki } = nodeSigner('ed25519')
  for (const wrong of [Buffer.alloc(0), spki.subarray(0, -1), Buffer.concat([spki, nil]), seq(), nil]) {
    t.throws(() => parsePublicKey(wrong), { code: 'key.encoding' })
  }
})

/** Our arithmetic beside BigInt's, our multiples beside OpenSSL's, and what is proved beside what OpenSSL says. */
import { execFileSync } from 'node:child_process'
import { createECDH, createHash, generateKeyPairSync, sign, verify } from 'node:crypto'

import fc from 'fast-check'
import t from 'tap'

import {
  accumulator,
  firstFreeAddress,
  montgomery,
  numberOctets,
  openArithmetic,
  order,
  pointOctets,
  prime,
} from '../../src/keys/p256/arithmetic.ts'
import { openKnownKeys } from '../../src/keys/p256/known-keys.ts'
import { invertedForWindow, isWhole, multiplesOctets, openPointSums } from '../../src/keys/p256/multiples.ts'
import { openNumbers } from '../../src/keys/p256/numbers.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import type { SignatureCheck } from '../../src/x509/csr.ts'
import { encodeDer, encodeSequence, tags } from '../../src/x509/der.ts'

const algorithm = signatureAlgorithm('ecdsa-sha256')
const modulo = (value: bigint, modulus: bigint): bigint => ((value % modulus) + modulus) % modulus
const power = (base: bigint, exponent: bigint, modulus: bigint): bigint => {
  let result = 1n
  for (const bit of exponent.toString(2)) result = (((result * result) % modulus) * (bit === '1' ? base : 1n)) % modulus
  return result
}
const inverse = (value: bigint, modulus: bigint): bigint => power(modulo(value, modulus), modulus - 2n, modulus)
const octetsOf = (value: bigint): Buffer => Buffer.from(value.toString(16).padStart(64, '0'), 'hex')

/** Arithmetic with numbers put in and taken out as they stand, by shifts of a BigInt. */
const openMachine = () => {
  const arithmetic = openArithmetic(firstFreeAddress + 4_096 * numberOctets + 2 * multiplesOctets)
  if (!arithmetic) throw new Error('this Node makes no code')
  const { words } = arithmetic
  const numbers = openNumbers(arithmetic, firstFreeAddress, invertedForWindow)
  const put = (at: number, value: bigint): void => {
    for (let i = 0; i < 9; i++)
      words[at / 4 + i] = Number(i === 8 ? value >> 232n : (value >> BigInt(29 * i)) & 0x1fffffffn)
  }
  const take = (at: number): bigint => {
    let value = 0n
    for (let i = 8; i >= 0; i--) value = (value << 29n) + BigInt(words[at / 4 + i] as number)
    return value
  }
  return { arithmetic, numbers, sums: openPointSums(arithmetic, numbers), put, take }
}

/** The private key's point, by OpenSSL. */
const pointOf = (scalar: bigint): { readonly x: bigint; readonly y: bigint; readonly octets: Buffer } => {
  const ecdh = createECDH('prime256v1')
  ecdh.setPrivateKey(octetsOf(scalar))
  const octets = ecdh.getPublicKey().subarray(1)
  const [x, y] = [octets.subarray(0, 32), octets.subarray(32)].map((half) => BigInt(`0x${half.toString('hex')}`))
  return { x: x as bigint, y: y as bigint, octets }
}

/** What may be multiplied: 32 moduli of either sign, with where something might change. */
const edges = [
  0n,
  1n,
  -1n,
  prime - 1n,
  prime,
  prime + 1n,
  -prime,
  order,
  montgomery - 1n,
  1n - montgomery,
  // Each limb the first that is not 0, all below it as large as they can be, and the same with a sign.
  ...Array.from({ length: 9 }, (_, i) => 2n ** BigInt(29 * i)).flatMap((limb) => [limb, limb - 1n, -limb, -limb - 1n]),
]
const factors = fc.oneof(fc.constantFrom(...edges), fc.bigInt({ min: 1n - montgomery, max: montgomery - 1n }))

t.test('products, squares, sums and differences are those of BigInt, and as large as it says', async (t) => {
  const { arithmetic, numbers, put, take } = openMachine()
  const [a, b, c] = [0, 0, 0].map(() => numbers.reserve(numberOctets)) as [number, number, number]
  const isProduct = (whole: bigint, modulus: bigint): boolean => {
    const value = take(c) * montgomery
    const [low, high] = whole < 0n ? [whole, 0n] : [0n, whole]
    return (
      modulo(value - whole, modulus) === 0n &&
      value > low - montgomery &&
      value < high + modulus * montgomery + montgomery
    )
  }
  const outcomes = (x: bigint, y: bigint, z: bigint): Readonly<Record<string, boolean>> => {
    const after = (run: () => void, look: () => boolean): boolean => {
      put(a, x)
      put(b, y)
      put(c, z)
      run()
      return look()
    }
    const { product, square, productOfScalars, squareOfScalar, sum, difference, looseDifference, reduceBy } = arithmetic
    return {
      product: after(
        () => product(c, a, b),
        () => isProduct(x * y, prime),
      ),
      square: after(
        () => square(c, a, a),
        () => isProduct(x * x, prime),
      ),
      productOfScalars: after(
        () => productOfScalars(c, a, b),
        () => isProduct(x * y, order),
      ),
      squareOfScalar: after(
        () => squareOfScalar(c, a, a),
        () => isProduct(x * x, order),
      ),
      sum: after(
        () => sum(c, a, b),
        () => take(c) === x + y,
      ),
      difference: after(
        () => difference(c, a, b),
        () => take(c) === x - y,
      ),
      reduceBy: after(
        () => reduceBy(c, a, b),
        () => take(c) === z - x - 2n * y,
      ),
      looseDifference: after(
        () => {
          put(a, x / 2n)
          put(b, y / 2n)
          looseDifference(c, a, b)
          square(c, c, c)
        },
        () => isProduct((x / 2n - y / 2n) ** 2n, prime),
      ),
      'in place': after(
        () => product(a, a, a),
        () => {
          put(c, take(a))
          return isProduct(x * x, prime)
        },
      ),
    }
  }
  const wrong: string[] = []
  const look = (x: bigint, y: bigint, z: bigint): void => {
    for (const [name, right] of Object.entries(outcomes(x, y, z))) if (!right) wrong.push(`${name} of ${x}, ${y}, ${z}`)
  }
  fc.assert(fc.property(factors, factors, factors, look), { seed: 256, numRuns: 3_000 })
  for (const x of edges) for (const y of edges) look(x, y, x)
  t.same(wrong.slice(0, 5), [])
})

t.test('numbers come in from octets, are inverted together, and are seen to be zero', async (t) => {
  const { numbers, put, take } = openMachine()
  const at = numbers.reserve(20 * numberOctets)
  for (const value of [0n, 1n, 255n, prime - 1n, order, 2n ** 256n - 1n]) {
    numbers.put(at, octetsOf(value))
    t.equal(take(at), value)
  }
  numbers.put(at, Buffer.from('0102', 'hex'))
  t.equal(take(at), 258n, 'fewer octets leave nothing of what was there')
  for (const [field, modulus] of [
    [numbers.prime, prime],
    [numbers.order, order],
  ] as const) {
    const values = Array.from({ length: 20 }, (_, i) => modulo(0x1234567n ** BigInt(i * i) + BigInt(i), modulus))
    for (const count of [1, 2, 20]) {
      for (const [i, value] of values.entries()) put(at + i * numberOctets, value)
      numbers.invert(field, at, count)
      for (const [i, value] of values.slice(0, count).entries())
        t.equal(modulo(take(at + i * numberOctets) * value - montgomery * montgomery, modulus), 0n, `${i} of ${count}`)
    }
  }
  const zero = (value: bigint): boolean => {
    put(at, value)
    return numbers.isZero(at)
  }
  for (const times of [-11n, -1n, 0n, 1n, 2n, 11n]) {
    t.ok(zero(times * prime), `${times} times the prime`)
    t.notOk(zero(times * prime + 1n))
    t.notOk(zero(times * prime - 1n))
    t.notOk(zero(times * prime + 2n ** 250n))
  }
})

t.test('the multiples of a point are those of OpenSSL, all of them', async (t) => {
  const { sums, take } = openMachine()
  for (const scalar of [1n, order - 12_345n]) {
    const { octets } = pointOf(scalar)
    const multiples = sums.begin(octets.subarray(0, 32), octets.subarray(32))
    while (sums.extend(multiples));
    t.ok(isWhole(multiples))
    let wrong = 0
    for (let window = 0; window < 26; window++)
      for (let digit = 1; digit <= 512; digit += scalar === 1n ? 1 : 73) {
        const point = pointOf(modulo(scalar * BigInt(digit) * 2n ** BigInt(10 * window), order))
        const place = multiples.at + (512 * window + digit - 1) * pointOctets
        const same = (at: number, value: bigint): boolean => modulo(take(at) - value * montgomery, prime) === 0n
        if (!same(place, point.x) || !same(place + numberOctets, point.y)) wrong += 1
      }
    t.equal(wrong, 0)
  }
})

/** SubjectPublicKeyInfo of P-256 up to the point (RFC 5480). */
const spkiHead = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  .publicKey.export({ type: 'spki', format: 'der' })
  .subarray(0, -64)
const spkiOf = (scalar: bigint): Buffer => Buffer.concat([spkiHead, pointOf(scalar).octets])

/** An INTEGER that is not negative. */
const integer = (value: bigint): Buffer => {
  const hex = value.toString(16)
  const octets = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex')
  return encodeDer(tags.integer, (octets[0] as number) >= 0x80 ? Buffer.concat([Buffer.of(0), octets]) : octets)
}
const pair = (r: bigint, s: bigint): Buffer => encodeSequence(integer(r), integer(s))
const numbersIn = (signature: Buffer): { readonly r: bigint; readonly s: bigint } => {
  const at = 4 + (signature[3] as number)
  const [r, s] = [signature.subarray(4, at), signature.subarray(at + 2)].map((octets) =>
    BigInt(`0x${octets.toString('hex')}`),
  )
  return { r: r as bigint, s: s as bigint }
}
const digestOf = (message: Buffer): bigint => {
  const ecdsaDigest = createHash('sha256').update(message).digest('hex')
  return BigInt(`0x${ecdsaDigest}`)
}

const byOpenSsl = ({ spki, message, signature }: SignatureCheck): boolean =>
  verify('sha256', message, { key: spki, format: 'der', type: 'spki' }, signature)

const learnAll = (known: ReturnType<typeof openKnownKeys>, spki: Buffer): void => {
  while (known.learn(spki));
}

const makeKey = () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const signed = (message: Buffer): SignatureCheck => {
    const signature = sign('sha256', message, privateKey)
    return { spki, message, signature, algorithm, keep: true }
  }
  return { spki, signed }
}

t.test('what keys that were learnt have signed is proved, and nothing that was changed in any way', async (t) => {
  const [one, other, unknown] = [makeKey(), makeKey(), makeKey()]
  const known = openKnownKeys(2)
  for (const { spki } of [one, other]) learnAll(known, spki)
  const checks = Array.from(
    { length: 500 },
    (_, i) => [one, other][i % 2]?.signed(Buffer.from(`what was signed, ${i}`)) as SignatureCheck,
  )
  for (let i = 0; i < checks.length; i += 16) t.ok(known.prove(checks.slice(i, i + 16)).every((proved) => proved))
  const changes: readonly ((check: SignatureCheck, numbers: { r: bigint; s: bigint }) => Partial<SignatureCheck>)[] = [
    ({ message }) => ({ message: Buffer.concat([message, Buffer.of(0)]) }),
    ({ spki }) => ({ spki: spki === one.spki ? other.spki : one.spki }),
    () => ({ spki: unknown.spki }),
    (_, { r, s }) => ({ signature: pair(r + 1n, s) }),
    (_, { r, s }) => ({ signature: pair(r, s + 1n) }),
    (_, { r, s }) => ({ signature: pair(s, r) }),
    (_, { r, s }) => ({ signature: pair(order - r, s) }),
    (_, { r, s }) => ({ signature: pair(r + order, s) }),
    (_, { r, s }) => ({ signature: pair(r, s + order) }),
    (_, { s }) => ({ signature: pair(0n, s) }),
    (_, { r }) => ({ signature: pair(r, 0n) }),
    (_, { r }) => ({ signature: pair(r, order) }),
    (_, { s }) => ({ signature: pair(order, s) }),
    ({ signature }) => ({ signature: Buffer.concat([signature, Buffer.of(0)]) }),
    ({ signature }) => ({ signature: signature.subarray(0, -1) }),
    () => ({ signature: Buffer.alloc(0) }),
    () => ({ algorithm: signatureAlgorithm('ecdsa-sha384') }),
    () => ({ keep: false }),
  ]
  for (const check of checks.slice(0, 20)) {
    const changed = changes.map((change) => ({ ...check, ...change(check, numbersIn(check.signature)) }))
    t.same(
      known.prove(changed),
      changes.map(() => false),
    )
    const { r, s } = numbersIn(check.signature)
    // The other signature of the same point is one, as OpenSSL has it.
    const twin = { ...check, signature: pair(r, order - s) }
    t.same([known.prove([twin]), byOpenSsl(twin)], [[true], true])
    // One bit, wherever it is.
    for (let bit = 0; bit < check.signature.length * 8; bit += 5) {
      const signature = Buffer.from(check.signature)
      signature[bit >> 3] = (signature[bit >> 3] as number) ^ (1 << (bit & 7))
      if (known.prove([{ ...check, signature }])[0]) t.fail(`bit ${bit} of ${check.signature.toString('hex')}`)
    }
  }
})

t.test('in a batch each answer is that of its own check, and beyond 128 nothing is proved', async (t) => {
  const [mine, unknown] = [makeKey(), makeKey()]
  const known = openKnownKeys(1)
  learnAll(known, mine.spki)
  const right = mine.signed(Buffer.from('right'))
  const wrong = { ...right, message: Buffer.from('wrong') }
  const foreign = unknown.signed(Buffer.from('foreign'))
  t.same(known.prove([wrong, right, foreign, right, wrong, right]), [false, true, false, true, false, true])
  t.same(known.prove([]), [])
  t.same(known.prove(Array(150).fill(right)), [...Array(128).fill(true), ...Array(22).fill(false)])
})

/**
 * A signature whose u1 or u2 is as one likes (FIPS 186-5 6.4.2: u1 = e/s, u2 = r/s): nonce, r and s are chosen, and the key is
 * the one that makes them a signature.
 */
const signedWith = (which: 'u1' | 'u2', value: bigint, nonce: bigint): SignatureCheck => {
  const message = Buffer.from(`${which} is ${value}`)
  const e = digestOf(message)
  const r = pointOf(nonce).x % order
  const s = modulo((which === 'u1' ? e : r) * inverse(value, order), order)
  const key = modulo((s * nonce - e) * inverse(r, order), order)
  return { spki: spkiOf(key), message, signature: pair(r, s), algorithm, keep: true }
}

t.test('scalars where a digit carries, is nothing, or is the largest are proved as others are', async (t) => {
  // A small scalar is reckoned with as itself and the order: digits are chosen in large ones, below a highest of 32.
  const digits = (low: bigint, high: bigint): bigint =>
    Array.from({ length: 25 }, (_, i) => (i % 2 === 0 ? high : low)).reduce(
      (value, digit) => value * 1_024n + digit,
      32n,
    )
  const values = [1n, 2n, 512n, 1_023n, 2n ** 29n, 2n ** 250n, 2n ** 255n - 1n, 2n ** 255n, 2n ** 255n + 513n]
  const some = [0n, 1n, 511n, 512n, 513n, 1_023n]
  const all = [
    ...values.flatMap((value) => [value, order - value]),
    ...some.flatMap((low) => [0n, 512n, 1_023n].map((high) => digits(low, high))),
    (order - 1n) / 2n,
    2n ** 256n - 2n ** 225n,
  ]
  const known = openKnownKeys(2 * all.length)
  let nonce = 7n
  for (const which of ['u1', 'u2'] as const)
    for (const value of all) {
      nonce = modulo(nonce * 0x9e3779b97f4a7c15n + 1n, order)
      const check = signedWith(which, value, nonce)
      learnAll(known, check.spki)
      t.same([known.prove([check]), byOpenSsl(check)], [[true], true], `${which} = ${value}`)
      t.same(known.prove([{ ...check, message: Buffer.from('another') }]), [false])
    }
})

t.test('a sum in which the same point meets itself proves nothing, whatever r is', async (t) => {
  // Of the generator itself, with u1 = u2 = 2^255, one digit each: Z and X are 0 then, and 0 = r · 0.
  const spki = spkiOf(1n)
  const r = 0x1234567890abcdefn
  const s = modulo(r * inverse(2n ** 255n, order), order)
  for (const digest of [r, order - r]) {
    const known = openKnownKeys(1, () => octetsOf(digest))
    learnAll(known, spki)
    t.same(known.prove([{ spki, message: Buffer.alloc(1), signature: pair(r, s), algorithm, keep: true }]), [false])
  }
  const { sums, numbers, arithmetic } = openMachine()
  const { octets } = pointOf(1n)
  const multiples = sums.begin(octets.subarray(0, 32), octets.subarray(32))
  while (sums.extend(multiples));
  const [five, none] = [numbers.reserve(numberOctets), numbers.reserve(numberOctets)]
  numbers.put(five, Buffer.of(5))
  numbers.put(none, Buffer.of(0))
  t.ok(
    sums.sum([
      [five, multiples],
      [five, multiples],
    ]),
  )
  arithmetic.square(none, accumulator.Z, accumulator.Z)
  t.ok(numbers.isZero(none))
  numbers.put(none, Buffer.of(0))
  t.notOk(
    sums.sum([
      [none, multiples],
      [none, multiples],
    ]),
    'nothing was added',
  )
})

t.test('keys are learnt bit by bit, those of P-256 only, and as many as there is room for', async (t) => {
  const [first, second, third] = [makeKey(), makeKey(), makeKey()]
  const known = openKnownKeys(2)
  const check = first.signed(Buffer.from('signed'))
  let steps = 0
  for (; known.learn(first.spki); steps += 1) t.same(known.prove([check]), [steps === 51], 'once all of it is made')
  t.equal(steps, 52, 'the multiples of the generator first')
  learnAll(known, second.spki)
  t.notOk(known.learn(third.spki))
  t.same(known.prove([second.signed(Buffer.from('second')), third.signed(Buffer.from('third')), check]), [
    true,
    false,
    true,
  ])
  const others = [
    generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    generateKeyPairSync('ed25519'),
    generateKeyPairSync('rsa', { modulusLength: 2_048 }),
  ].map(({ publicKey }) => publicKey.export({ type: 'spki', format: 'der' }))
  const fresh = openKnownKeys(1)
  for (const spki of [
    ...others,
    Buffer.alloc(0),
    first.spki.subarray(1),
    Buffer.concat([first.spki, Buffer.of(0)]),
    // A curve whose name is as long, as that of SM2 is.
    Buffer.concat([first.spki.subarray(0, 22), Buffer.of(8), first.spki.subarray(23)]),
    Buffer.concat([spkiHead.subarray(0, -1), Buffer.of(6), pointOf(5n).octets]),
    // Unused bits: OpenSSL reads the point without them, which is on the curve, and we would with them.
    Buffer.concat([spkiHead.subarray(0, -2), Buffer.of(3, 4), pointOf(5n).octets]),
  ])
    t.notOk(fresh.learn(spki))
  t.ok(fresh.learn(first.spki))
})

t.test('where Node may make no code, nothing is learnt or proved', async (t) => {
  const { spki, signed } = makeKey()
  const saved = Object.getOwnPropertyDescriptor(globalThis, 'WebAssembly') as PropertyDescriptor
  Reflect.deleteProperty(globalThis, 'WebAssembly')
  t.teardown(() => Object.defineProperty(globalThis, 'WebAssembly', saved))
  const known = openKnownKeys(1)
  t.notOk(known.learn(spki))
  t.same(known.prove([signed(Buffer.from('signed'))]), [false])
})

t.test(
  'it takes address space for its keys and none to grow into, and no other memory',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const script = `
      import { readFileSync } from 'node:fs'
      import { openKnownKeys } from '${import.meta.resolve('../../src/keys/p256/known-keys.ts')}'
      const spaceOf = () => Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
      const before = spaceOf()
      globalThis.kept = openKnownKeys(8)
      console.log(spaceOf() - before, process.memoryUsage().arrayBuffers)`
    // What V8 keeps around a memory so that it need not check its bounds, Node leaves out where there is no room for it.
    const flags = ['--disable-wasm-trap-handler', '--input-type=module', '--eval', script]
    const [space = Number.NaN, octets = Number.NaN] = execFileSync(process.execPath, flags, { encoding: 'utf8' })
      .split(' ')
      .map(Number)
    t.ok(space < 500_000, `${space} KiB of address space`)
    t.ok(octets < 2_000_000, `${octets} octets beside it`)
  },
)

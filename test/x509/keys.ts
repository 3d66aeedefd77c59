/** Keys for the cases about keys. Where the private half is known, the proof of possession is valid: only the rule refuses. */
import { execFileSync } from 'node:child_process'
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'

import type { PublicKey } from '../../src/x509/keys.ts'
import { bits, ecdsaSha256, integer, nil, oid, rsaSha256, type Signer, seq, signerOf } from './build.ts'

/** Primes whose products have the bits of their name, or the weakness. Made once: 4096-bit primes take their time. */
const primes = JSON.parse(readFileSync(new URL('./fixtures/primes.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, readonly string[]>
>

export const rsaFactors = (name: string): bigint[] =>
  (primes[name] as readonly string[]).map((prime) => BigInt(`0x${prime}`))

export const rsaModulus = (name: string): bigint => rsaFactors(name).reduce((product, prime) => product * prime, 1n)

export const rsaSpki = (
  n: bigint | Buffer,
  e: bigint | Buffer = 65537n,
  parameters: Buffer | undefined = nil,
): Buffer =>
  seq(
    seq(oid('1.2.840.113549.1.1.1'), ...(parameters === undefined ? [] : [parameters])),
    bits(seq(Buffer.isBuffer(n) ? n : integer(n), Buffer.isBuffer(e) ? e : integer(e))),
  )

/** Signs with any modulus and exponent whatever, PKCS#1 v1.5 with SHA-256, by hand: OpenSSL would refuse most. */
export const rsaSigner = (name: string, e = 65537n): Signer => {
  const factors = rsaFactors(name)
  const n = rsaModulus(name)
  return { spki: rsaSpki(n, e), algorithm: rsaSha256, sign: (tbs) => rsaSign(tbs, { n, e, factors }) }
}

interface RsaNumbers {
  readonly n: bigint
  readonly e: bigint
  readonly factors: readonly bigint[]
}

const rsaSign = (tbs: Buffer, { n, e, factors }: RsaNumbers): Buffer => {
  const size = Math.ceil(n.toString(2).length / 8)
  const digest = Buffer.concat([
    Buffer.from('3031300d060960864801650304020105000420', 'hex'),
    createHash('sha256').update(tbs).digest(),
  ])
  const block = Buffer.concat([
    Buffer.from([0, 1]),
    Buffer.alloc(size - 3 - digest.length, 0xff),
    Buffer.from([0]),
    digest,
  ])
  const [p, q] = factors as [bigint, bigint]
  const message = BigInt(`0x${block.toString('hex')}`)
  const signature =
    factors.length === 2 && p !== q ? viaRemainders(message, e, p, q) : power(message, inverse(e, order(factors)), n)
  return Buffer.from(signature.toString(16).padStart(2 * size, '0'), 'hex')
}

/** Chinese remainders: four times as fast, and 8192 bits would take a second otherwise. */
const viaRemainders = (message: bigint, e: bigint, p: bigint, q: bigint): bigint => {
  const s = power(message % p, inverse(e, p - 1n), p)
  const r = power(message % q, inverse(e, q - 1n), q)
  const difference = ((((r - s) * inverse(p, q)) % q) + q) % q
  return s + p * difference
}

/** Of the multiplicative group modulo a power of one prime. */
const order = (factors: readonly bigint[]): bigint =>
  factors.slice(1).reduce((product, prime) => product * prime, (factors[0] as bigint) - 1n)

const power = (base: bigint, exponent: bigint, modulus: bigint): bigint => {
  let [result, square] = [1n, base % modulus]
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = (result * square) % modulus
    square = (square * square) % modulus
  }
  return result
}

/** Of a value by a modulus that it has no factor in common with. */
export const inverse = (value: bigint, modulus: bigint): bigint => {
  let [r, newR, t, newT] = [modulus, value % modulus, 0n, 1n]
  while (newR !== 0n) {
    const quotient = r / newR
    ;[r, newR, t, newT] = [newR, r - quotient * newR, newT, t - quotient * newT]
  }
  return ((t % modulus) + modulus) % modulus
}

/** A key that node makes, once a process. */
export const nodeSigner = (
  type: string,
  options: object = {},
  algorithm: Buffer = ecdsaSha256,
  hash: string | null = 'sha256',
): Signer =>
  once(`${type} ${JSON.stringify(options)}`, () => {
    const pair = generate(type, options)
    return signerOf(pair.privateKey, pair.publicKey.export({ type: 'spki', format: 'der' }), algorithm, hash)
  })

/** A key that cannot sign, or whose signature nobody here can make, with a signature that is only noise. */
export const mute = (spki: Buffer, algorithm: Buffer = ecdsaSha256): Signer => ({
  spki,
  algorithm,
  sign: () => seq(integer(1), integer(1)),
})

/** A request that the openssl command makes for a kind of key. */
export const opensslRequest = (...key: readonly string[]): Buffer =>
  once(`openssl ${key.join(' ')}`, () =>
    execFileSync(
      'openssl',
      [
        'req',
        '-new',
        '-nodes',
        '-keyout',
        '/dev/null',
        '-outform',
        'DER',
        '-subj',
        '/CN=host.example.com',
        '-addext',
        'subjectAltName=DNS:host.example.com',
        ...key,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    ),
  )

const generate = generateKeyPairSync as unknown as (
  type: string,
  options: object,
) => { publicKey: KeyObject; privateKey: KeyObject }

const made = new Map<string, unknown>()
const once = <Value>(name: string, make: () => Value): Value => {
  if (!made.has(name)) made.set(name, make())
  return made.get(name) as Value
}

/** For node:crypto, of what has passed the gate. */
export const importPublicKey = ({ spki }: Pick<PublicKey, 'spki'>): KeyObject =>
  createPublicKey({ key: spki, format: 'der', type: 'spki' })

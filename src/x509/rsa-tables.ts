/** What a modulus is looked at by: primes, and what squares and other powers leave modulo small numbers. */

export interface RsaTables {
  /** The odd ones below 752. */
  readonly primes: readonly number[]
  /** Their product. */
  readonly primorial: bigint
  /** Those whose product fits 31 bits together. */
  readonly groups: readonly PrimeGroup[]
  /** For each of the primes 3 … 167, the set that the published fingerprint of ROCA uses: 1 at the powers of 65537. */
  readonly generated: readonly Uint8Array[]
  /** Together one of some 10,000 numbers passes them that is no square. */
  readonly squareSieves: readonly SquareSieve[]
  readonly powerSieves: readonly PowerSieve[]
}

interface PrimeGroup {
  readonly product: bigint
  readonly members: readonly number[]
}

interface SquareSieve {
  readonly modulus: number
  /** 1 at the squares. */
  readonly squares: Uint8Array
}

/** Of a prime k. */
interface PowerSieve {
  readonly k: number
  /** 1/k modulo 2^30, the exponent of the odd residues modulo 2^32. */
  readonly inverse: number
  /** 1 at the k-th powers, for the place of a prime. */
  readonly sieves: readonly { readonly index: number; readonly powers: Uint8Array }[]
}

/** Made for the first RSA key that is read: most processes read none. Takes 3 ms. */
export const rsaTables = (): RsaTables => {
  made ??= makeTables()
  return made
}

let made: RsaTables | undefined

const makeTables = (): RsaTables => {
  const primes = primesBelow(752)
  return {
    primes,
    primorial: primes.reduce((product, prime) => product * BigInt(prime), 1n),
    groups: groupPrimes(primes),
    generated: powersOfF4(primes.filter((prime) => prime <= 167)),
    squareSieves: squareSieves(),
    powerSieves: powerSieves(primes),
  }
}

const powersOfF4 = (primes: readonly number[]): Uint8Array[] =>
  primes.map((prime) => bitmap(prime, powersOf(65537 % prime, prime)))

const squareSieves = (): SquareSieve[] =>
  [64 * 63, 65 * 11, 17 * 19 * 23, 29 * 31].map((modulus) => ({
    modulus,
    squares: bitmap(
      modulus,
      Array.from({ length: modulus }, (_, i) => (i * i) % modulus),
    ),
  }))

const powerSieves = (primes: readonly number[]): PowerSieve[] => {
  const fields = primes.map((prime, index) => ({ prime, index, all: powersOf(primitiveRoot(prime), prime) }))
  return primesBelow(860).map((k) => ({
    k,
    inverse: powerOf32(k, 2 ** 28 - 1) & (2 ** 30 - 1),
    sieves: fields
      .filter(({ prime }) => prime % k === 1)
      .slice(0, 6)
      .map(({ prime, index, all }) => ({ index, powers: bitmap(prime, [0, ...powersOf(all[k] as number, prime)]) })),
  }))
}

/** 1, base, base² … modulo the prime, each once. */
const powersOf = (base: number, prime: number): number[] => {
  const found = [1]
  for (let power = base; power !== 1; power = (power * base) % prime) found.push(power)
  return found
}

/** Whose powers are all that the prime does not divide. */
const primitiveRoot = (prime: number): number => {
  let root = 2
  while (powersOf(root, prime).length < prime - 1) root += 1
  return root
}

/** base^exponent modulo 2^32. */
export const powerOf32 = (base: number, exponent: number): number => {
  let [result, square] = [1, base]
  for (let rest = exponent; rest > 0; rest >>>= 1) {
    if ((rest & 1) === 1) result = Math.imul(result, square)
    square = Math.imul(square, square)
  }
  return result
}

/** A table over the residues of a modulus: 1 where the predicate's list has them. */
const bitmap = (modulus: number, members: readonly number[]): Uint8Array => {
  const table = new Uint8Array(modulus)
  for (const member of members) table[member] = 1
  return table
}

const primesBelow = (bound: number): number[] => {
  const found: number[] = []
  for (let n = 3; n < bound; n += 2) if (found.every((prime) => n % prime !== 0)) found.push(n)
  return found
}

const groupPrimes = (primes: readonly number[]): PrimeGroup[] => {
  const found: { product: bigint; members: number[] }[] = []
  for (const prime of primes) {
    const last = found.at(-1)
    if (last !== undefined && last.product * BigInt(prime) < 2n ** 31n) {
      last.members.push(prime)
      last.product *= BigInt(prime)
    } else found.push({ product: BigInt(prime), members: [prime] })
  }
  return found
}

import { hash } from 'node:crypto'

import { DerReader, tags } from './der.ts'
import type { KeyBlockList, PublicKey } from './keys.ts'

/**
 * Keys that are known to be compromised, in the format of badkeys' `blocklist.dat` (badkeys.info): sorted blocks of 16
 * octets, 15 of a hash and one that names the source. That list holds the keys of Debian's generator (CVE-2008-0166)
 * and every other collection that its maintainers know of: some 4 million keys in 60 MB. It changes, and it is not
 * ours, so it does not come with Chancery; whoever runs Chancery fetches it and names the file.
 */

/** Throws a RangeError when the data are not such a list. Looking a key up takes about 3 µs and allocates little. */
export const parseBlockList = (data: Buffer): KeyBlockList => {
  if (data.length === 0 || data.length % blockOctets !== 0) throw new RangeError('a block list is blocks of 16 octets')
  const count = data.length / blockOctets
  for (let i = 1; i < count; i++) {
    if (
      data.compare(data, i * blockOctets, i * blockOctets + hashOctets, (i - 1) * blockOctets, i * blockOctets - 1) > 0
    ) {
      throw new RangeError('a block list is sorted')
    }
  }
  return (_sha256Hex, key) => holds(data, count, blockListHash(key))
}

/** The hash of a key's characteristic number (modulus, x, or the raw key) without leading zeros, cut to 120 bits. */
export const blockListHash = (key: PublicKey): Buffer => {
  let number = numberOf(key)
  while (number[0] === 0) number = number.subarray(1)
  return hash('sha256', number, 'buffer').subarray(0, hashOctets)
}

const numberOf = ({ spki, algorithm }: PublicKey): Buffer => {
  const info = new DerReader(spki, 'key.encoding').read(tags.sequence, 'SubjectPublicKeyInfo')
  info.read(tags.sequence, 'AlgorithmIdentifier')
  const key = info.bits('subjectPublicKey')
  if (algorithm.curve !== undefined) return key.octets.subarray(1, 1 + algorithm.curve.octets)
  if (algorithm.id !== 'rsa') return key.octets
  return key.read(tags.sequence, 'RSAPublicKey').read(tags.integer, 'modulus').octets
}

const holds = (data: Buffer, count: number, wanted: Buffer): boolean => {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >>> 1
    const order = compare(data, middle, wanted)
    if (order === 0) return true
    if (order < 0) low = middle + 1
    else high = middle
  }
  return false
}

const compare = (data: Buffer, block: number, wanted: Buffer): number =>
  data.compare(wanted, 0, hashOctets, block * blockOctets, block * blockOctets + hashOctets)

const hashOctets = 15
const blockOctets = 16

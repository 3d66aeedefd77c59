/** RFC 6962 2.1 as it is written there, by recursion over slices of all leaves, and tiles cut from them: nothing of ours. */
import { hash } from 'node:crypto'

const sha256 = (...parts: readonly Uint8Array[]): Buffer => hash('sha256', Buffer.concat(parts), 'buffer')

const node = (left: Uint8Array, right: Uint8Array): Buffer => sha256(Uint8Array.of(1), left, right)

export const naiveLeaf = (entry: Uint8Array): Buffer => sha256(Uint8Array.of(0), entry)

/** MTH over hashes of leaves. */
export const naiveRoot = (leaves: readonly Uint8Array[]): Uint8Array => {
  if (leaves.length === 0) return sha256()
  if (leaves.length === 1) return leaves[0] as Uint8Array
  const k = largestPowerBelow(leaves.length)
  return node(naiveRoot(leaves.slice(0, k)), naiveRoot(leaves.slice(k)))
}

/** PATH(m, D[n]). */
export const naivePath = (m: number, leaves: readonly Uint8Array[]): Uint8Array[] => {
  if (leaves.length === 1) return []
  const k = largestPowerBelow(leaves.length)
  return m < k
    ? [...naivePath(m, leaves.slice(0, k)), naiveRoot(leaves.slice(k))]
    : [...naivePath(m - k, leaves.slice(k)), naiveRoot(leaves.slice(0, k))]
}

/** PROOF(m, D[n]). */
export const naiveConsistency = (m: number, leaves: readonly Uint8Array[], isWhole = true): Uint8Array[] => {
  if (m === leaves.length) return isWhole ? [] : [naiveRoot(leaves)]
  const k = largestPowerBelow(leaves.length)
  return m <= k
    ? [...naiveConsistency(m, leaves.slice(0, k), isWhole), naiveRoot(leaves.slice(k))]
    : [...naiveConsistency(m - k, leaves.slice(k), false), naiveRoot(leaves.slice(0, k))]
}

/** `MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l])` for i below the width. */
export const naiveTile = (level: number, n: number, width: number, leaves: readonly Uint8Array[]): Buffer =>
  Buffer.concat(
    Array.from({ length: width }, (_, i) =>
      naiveRoot(leaves.slice((n * 256 + i) * 256 ** level, (n * 256 + i + 1) * 256 ** level)),
    ),
  )

const largestPowerBelow = (n: number): number => {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

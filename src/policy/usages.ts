/** What a key can be used for, by its algorithm. */
import { type KeyAlgorithmId, keyAlgorithms } from '../x509/algorithms.ts'
import type { KeyUsage } from '../x509/extensions.ts'

/** Can a key of this algorithm serve this usage? RFC 3279 2.3.1, RFC 8813 3, RFC 8410 5, RFC 9881 5. */
export const isServedBy = (algorithm: KeyAlgorithmId, usage: KeyUsage): boolean =>
  served[familyOf(algorithm)].has(usage)

/** For each algorithm, which of the usages it serves, in their order. */
export const usagesOf = (usages: readonly KeyUsage[]): Readonly<Record<KeyAlgorithmId, readonly KeyUsage[]>> =>
  Object.fromEntries(
    Object.values(keyAlgorithms).map(({ id }) => [id, Object.freeze(usages.filter((usage) => isServedBy(id, usage)))]),
  ) as Record<KeyAlgorithmId, readonly KeyUsage[]>

type Family = 'rsa' | 'ec' | 'signing'

const familyOf = (algorithm: KeyAlgorithmId): Family =>
  algorithm === 'rsa' ? 'rsa' : algorithm.startsWith('ec-') ? 'ec' : 'signing'

const served: Readonly<Record<Family, ReadonlySet<KeyUsage>>> = {
  rsa: new Set(['digitalSignature', 'contentCommitment', 'keyEncipherment', 'dataEncipherment']),
  ec: new Set(['digitalSignature', 'contentCommitment', 'keyAgreement', 'encipherOnly', 'decipherOnly']),
  signing: new Set(['digitalSignature', 'contentCommitment']),
}

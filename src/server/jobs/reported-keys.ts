/**
 * An issuance that was under way while its key was reported as compromised ends all the same: its intent was recorded
 * before. Its certificate is revoked as soon as it is seen.
 */
import type { Caller } from '../../ca/access/access.ts'
import { own } from '../../ca/own.ts'
import type { Revocations } from '../../ca/revocation/revoke.ts'
import type { Job } from './schedule.ts'

export interface ReportedKeysDeps {
  readonly revocations: Pick<Revocations, 'revoke'>
  /**
   * Certificates recorded after their key was reported by that entry or a later one, and themselves not before the other one; and
   * the size of the roll, if these are all.
   */
  readonly issuedSince: (
    reported: number,
    recorded: number,
  ) => Promise<{ readonly serials: readonly string[]; readonly size: number | undefined }>
  /** As long as an issuance can take: by then the reconciler has ended its intent. */
  readonly longestMs: number
}

export const reportedKeysJob = ({ revocations, issuedSince, longestMs }: ReportedKeysDeps): Job => {
  /** Sizes of the roll at the last looks: an issuance takes no longer than these span. */
  const sizes: number[] = []
  const looks = Math.ceil((longestMs + marginMs) / everyMs)
  return {
    name: 'reported-keys',
    everyMs,
    run: async () => {
      // The first look is at all that there is; until these span it, the next ones are at what was recorded since the last, whenever
      // its key was reported.
      const isYoung = sizes.length < looks
      const { serials, size } = await (isYoung ? issuedSince(0, sizes.at(-1) ?? 0) : issuedSince(sizes[0] ?? 0, 0))
      for (const serial of serials)
        await revocations.revoke(serial, { reason: 'keyCompromise', invalidSince: null }, service)
      // The next look finds the others.
      if (size === undefined) return
      sizes.push(size)
      if (sizes.length > looks) sizes.shift()
    },
  }
}

const service: Caller = {
  principal: own.principal,
  proof: { kind: 'own' },
  grants: [
    {
      id: 'own',
      principal: own.principal,
      role: 'operator',
      profiles: null,
      names: null,
      revoke: false,
      createdAt: new Date(0),
      createdBy: own.principal,
    },
  ],
}

const everyMs = 5_000
/** For a reconciler that comes late. */
const marginMs = 15_000

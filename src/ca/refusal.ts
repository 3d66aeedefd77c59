/** What is kept of a request that was turned down: its digest, why, and what each check said, up to a bound. */
import type { Problem } from '../errors.ts'
import type { CheckResult } from '../policy/checks.ts'
import { checksOf } from '../policy/decide.ts'
import type { Origin } from '../policy/origin.ts'
import { sha256 } from '../sha256.ts'
import type { Refusal } from './recorder.ts'

interface Asked {
  readonly principal: string
  readonly profile: string
  /** The DER of the request; what the caller sent for it, where that was not read. */
  readonly sent: Buffer
  readonly origin?: Origin | undefined
}

export const refusalOf = (problem: Problem, { principal, profile, sent, origin }: Asked): Refusal => ({
  principal,
  profile,
  code: problem.code,
  detail: problem.detail,
  digest: sha256(sent),
  offset: problem.options.offset ?? null,
  violations: problem.options.violations ?? [],
  ...fitting(checksOf(problem)),
  origin: origin ?? null,
})

/** As many checks as fit, those that failed before the others; what is kept stays in the order of the decision. */
const fitting = (checks: readonly CheckResult[] | null): Pick<Refusal, 'checks' | 'checksLeftOut'> => {
  if (checks === null) return { checks, checksLeftOut: 0 }
  const kept = new Set<CheckResult>()
  // Two brackets, and a comma fewer than checks.
  let room = maxChecksOctets - 2 + 1
  for (const check of [...checks].sort(byFailure)) {
    room -= Buffer.byteLength(JSON.stringify(check)) + 1
    if (room < 0) break
    kept.add(check)
  }
  return { checks: checks.filter((check) => kept.has(check)), checksLeftOut: checks.length - kept.size }
}

const byFailure = (a: CheckResult, b: CheckResult): number =>
  Number(b.outcome === 'failed') - Number(a.outcome === 'failed')

/** Of JSON. A decision about one name takes 4 KiB, one about a hundred short ones 17 (measured). */
export const maxChecksOctets = 16_384

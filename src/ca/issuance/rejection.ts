/** What is kept of a request that was turned down: its digest, why, and what each check said, up to a bound. */
import type { Problem } from '../../errors.ts'
import { sha256 } from '../../lib/sha256.ts'
import type { CheckResult } from '../../policy/check.ts'
import { checksOf } from '../../policy/decide.ts'
import type { Origin } from '../../policy/origin.ts'
import type { Refusal } from './recorder.ts'

interface Asked {
  readonly principal: string
  readonly profile: string
  /** The DER of the request; what the caller sent for it, where that was not read. */
  readonly sent: Buffer
  readonly origin?: Origin | undefined
}

export const refusalOf = (problem: Problem, { principal, profile, sent, origin }: Asked): Refusal => {
  const { offset = null, violations = [] } = problem.options
  const checks = checksOf(problem)
  const keptViolations = fitting(violations)
  const keptChecks = checks && fitting(checks, byFailure)
  return {
    principal,
    profile,
    code: problem.code,
    detail: problem.detail,
    digest: sha256(sent),
    offset,
    violations: keptViolations,
    checks: keptChecks,
    // Each violation is a check that has failed.
    checksLeftOut: (checks ?? violations).length - (keptChecks ?? keptViolations).length,
    origin: origin ?? null,
  }
}

/** As many as fit, the first in this order before the others; what is kept stays in the order in which it was. */
const fitting = <T>(all: readonly T[], order: (a: T, b: T) => number = () => 0): readonly T[] => {
  const kept = new Set<T>()
  // Two brackets, and a comma fewer than there are.
  let room = maxKeptOctets - 2 + 1
  for (const one of [...all].sort(order)) {
    room -= Buffer.byteLength(JSON.stringify(one)) + 1
    if (room < 0) break
    kept.add(one)
  }
  return all.filter((one) => kept.has(one))
}

const byFailure = (a: CheckResult, b: CheckResult): number =>
  Number(b.outcome === 'failed') - Number(a.outcome === 'failed')

/** Of JSON, for checks and for violations. A decision about one name takes 4 KiB, one about a hundred short ones 17 (measured). */
export const maxKeptOctets = 16_384

/** A decision as a table for people. */
import { visible } from '../../lib/output.ts'

interface Check {
  readonly check: string
  readonly outcome: 'passed' | 'failed' | 'skipped'
  readonly field: string
  readonly value: string
  readonly reason: string
}

export interface Decision {
  readonly allowed: boolean
  readonly checks: readonly Check[]
  readonly notes: readonly { readonly field: string; readonly reason: string }[]
  /** Where people would have to approve it. */
  readonly approvals?: { readonly required: number; readonly expires: string }
}

/** The failed checks first, then what passed, then what did not apply; then what was dropped or shortened. */
export const explanation = ({ allowed, checks, notes, approvals }: Decision): string => {
  const sorted = [...checks].sort((a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome))
  const rows = sorted.map((check) => [marks[check.outcome], ...columns.map((column) => visible(check[column]))])
  const widths = ['outcome', ...columns].map((_, i) => Math.max(0, ...rows.map((row) => row[i]?.length ?? 0)))
  const lines = rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(Math.min(widths[i] ?? 0, widest)))
      .join('  ')
      .trimEnd(),
  )
  const notices = notes.map(({ field, reason }) => visible(`note  ${field}  ${reason}`))
  return [verdictOf(allowed, approvals), ...lines, ...notices].join('\n')
}

const verdictOf = (allowed: boolean, approvals: Decision['approvals']): string => {
  if (!allowed) return 'This request would be refused.'
  if (approvals === undefined) return 'This request would be issued.'
  return `This request would be issued once ${approvals.required} have approved it.`
}

const order = ['failed', 'passed', 'skipped'] as const
const marks = { failed: 'FAILED', passed: 'passed', skipped: 'skipped' } as const
const columns = ['check', 'field', 'value', 'reason'] as const
/** One long value does not push the reasons of all others off the screen. */
const widest = 32

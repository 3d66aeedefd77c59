/** A decision, as text for people. */
import { problems } from '../../errors.ts'
import { visible } from '../../lib/output.ts'
import { checks as knownChecks } from '../../policy/checks.ts'

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

/** Every check, failed ones first, and what was dropped or shortened. */
export const fullExplanation = ({ allowed, checks, notes, approvals }: Decision): string =>
  [
    verdictOf(allowed, approvals),
    ...rowsOf(checks.toSorted((a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome))),
    ...notes.map(noteText),
  ].join('\n')

/** Ten lines at most: the verdict, the failed checks, what to do next. */
export const explanation = ({ allowed, checks, notes, approvals }: Decision): string => {
  const failed = checks.filter(({ outcome }) => outcome === 'failed')
  const passed = checks.filter(({ outcome }) => outcome === 'passed').length
  const told = [...rowsOf(failed), ...(allowed ? notes.map(noteText) : [])]
  return [
    verdictOf(allowed, approvals),
    ...told.slice(0, mostTold),
    ...(told.length > mostTold ? [`and ${told.length - mostTold} more`] : []),
    ...[...new Set(failed.map(nextOf))].slice(0, mostMends).map((next) => `next: ${next}`),
    `${passed} checks passed, ${checks.length - passed - failed.length} did not apply; --all shows them.`,
  ].join('\n')
}

/** Of a check that a newer service has, the reason alone says it. */
const nextOf = ({ check, reason }: Check): string => {
  const code = knownChecks.find(({ id }) => id === check)?.code
  return code === undefined ? visible(reason) : problems[code].next
}

const rowsOf = (checks: readonly Check[]): readonly string[] => {
  const rows = checks.map((check) => [marks[check.outcome], ...columns.map((column) => visible(check[column]))])
  const widths = ['outcome', ...columns].map((_, i) => Math.max(0, ...rows.map((row) => row[i]?.length ?? 0)))
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(Math.min(widths[i] ?? 0, widest)))
      .join('  ')
      .trimEnd(),
  )
}

const noteText = ({ field, reason }: Decision['notes'][number]): string => visible(`note  ${field}  ${reason}`)

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
/** With these, verdict and summary are ten lines. */
const mostTold = 5
const mostMends = 2

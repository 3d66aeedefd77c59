/** Carries out what people have approved, wherever it was left, and ends what nobody has approved in time. */
import type { Approvals } from '../../ca/approvals/approvals.ts'
import type { Job } from './schedule.ts'

export interface ApprovalsJobDeps {
  readonly approvals: Pick<Approvals, 'follow'>
  /** Takes or renews the lease for so long; false while another instance has it. */
  readonly lease: (milliseconds: number) => Promise<boolean>
}

/** One instance at a time, as a courtesy: two would be right, and one of them in vain. */
export const approvalsJob = ({ approvals, lease }: ApprovalsJobDeps): Job => ({
  name: 'approvals',
  everyMs: 1_000,
  run: () => approvals.follow(() => lease(leaseMs)),
})

const leaseMs = 5_000

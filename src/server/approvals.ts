/** Approvals, put together: what waits for people, and who carries out what they have approved. */
import { type ApprovalStore, type Approvals, openApprovals } from '../ca/approvals/approvals.ts'
import type { Issuance } from '../ca/issuance/issuance.ts'
import type { Issuers } from '../ca/issuers/issuers.ts'
import { openLeases } from '../db/leases.ts'
import { approvalsJob } from './jobs/approvals.ts'
import type { Job } from './jobs/schedule.ts'
import type { Stores } from './stores.ts'

export interface ApprovalSide {
  readonly approvals: Approvals
  readonly job: Job
  close(): Promise<void>
}

export interface ApprovalParts {
  readonly store: ApprovalStore
  readonly issuance: Issuance
  readonly issuers: Issuers
}

export const openApprovalSide = (
  { db, policies, metrics, newId, log }: Stores,
  { store, issuance, issuers }: ApprovalParts,
): ApprovalSide => {
  const approvals = openApprovals({
    store,
    issuance,
    refresh: () => Promise.all([policies.refresh(), issuers.refresh()]),
    ended: metrics.requestEnded,
    failed: (request, err) =>
      log.warn({ event: 'approval.waiting', request, err }, 'what was approved could not be carried out yet'),
  })
  metrics.watchApprovals(() => approvals.figures)
  const leases = openLeases(db, newId())
  return {
    approvals,
    job: approvalsJob({ approvals, lease: (milliseconds) => leases.take('approvals', milliseconds) }),
    close: () => leases.release(),
  }
}

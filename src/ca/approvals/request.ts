/** A request that people must approve, and the plan that they approve. */

import type { Plan } from '../../policy/decide.ts'
import type { Origin } from '../../policy/origin.ts'
import type { ProfileVersion } from '../../tlog/entries.ts'

/** What was decided, as people approve it: the preimage of the plan's digest. */
export interface PlanDocument {
  readonly authority: string
  readonly extendedKeyUsage: readonly string[]
  readonly issuer: string
  /** SHA-256 (hex) of the SubjectPublicKeyInfo. */
  readonly key: string
  readonly keyType: string
  readonly keyUsage: readonly string[]
  readonly names: Plan['names']
  /** On whose behalf; absent where it is for the principal itself. */
  readonly origin?: Origin
  readonly profile: Plan['profile']
  readonly revocation: Plan['revocation']
  readonly subject: Plan['subject']
  /** Seconds, both ends included. */
  readonly validity: number
}

export const requestStates = ['pending', 'approved', 'issued', 'rejected', 'withdrawn', 'expired', 'failed'] as const
/** `approved`: by all who must; it is being issued, or will be when what keeps it is mended. */
export type RequestState = (typeof requestStates)[number]

export interface Approval {
  readonly principal: string
  readonly at: Date
  readonly reason: string
  /** Of its event on the roll. */
  readonly index: number
}

export interface ApprovalRequest {
  readonly id: string
  /** Of its event on the roll. */
  readonly index: number
  readonly principal: string
  readonly profile: ProfileVersion
  readonly state: RequestState
  readonly plan: PlanDocument
  /** SHA-256 (hex) of canonical JSON of the plan. */
  readonly digest: string
  readonly required: number
  readonly approvals: readonly Approval[]
  readonly createdAt: Date
  readonly expiresAt: Date
  readonly end: RequestEnd | null
  /** Of the certificate that it has become. */
  readonly serial: string | null
  readonly obstacle: Obstacle | null
}

/** What has kept an approved request from being issued, when that was last tried. */
export interface Obstacle {
  readonly at: Date
  readonly code: string
  readonly detail: string
  /** When it is tried again; null where it has ended. */
  readonly tryAt: Date | null
}

export interface RequestEnd {
  readonly at: Date
  /** Who rejected or withdrew it. */
  readonly by: string | null
  /** Why it failed, for programs. */
  readonly code: string | null
  readonly reason: string | null
}

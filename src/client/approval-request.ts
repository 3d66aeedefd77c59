/** A request that waits for people, as the API answers it. */

import type { Origin } from '../policy/origin.ts'
import type { Subject } from '../x509/subject.ts'

export interface PlanAnswer {
  readonly authority: string
  readonly extendedKeyUsage: readonly string[]
  readonly issuer: string
  readonly key: string
  readonly keyType: string
  readonly keyUsage: readonly string[]
  readonly names: readonly { readonly kind: string; readonly value: string }[]
  readonly origin?: Origin
  readonly profile: { readonly name: string; readonly version: number; readonly sha256: string }
  readonly revocation: 'none' | readonly string[]
  readonly subject: Subject
  readonly validity: number
}

export interface RequestAnswer {
  readonly id: string
  readonly state: 'pending' | 'approved' | 'issued' | 'rejected' | 'withdrawn' | 'expired' | 'failed'
  readonly principal: string
  readonly profile: { readonly name: string; readonly version: number }
  readonly plan: PlanAnswer
  readonly digest: string
  readonly required: number
  readonly approvals: readonly { readonly principal: string; readonly at: string; readonly reason: string }[]
  readonly createdAt: string
  readonly expiresAt: string
  readonly end: {
    readonly at: string
    readonly by: string | null
    readonly code: string | null
    readonly reason: string | null
  } | null
  readonly serial: string | null
  /** What has kept it from being issued, at the last try. */
  readonly obstacle: { readonly at: string; readonly code: string; readonly detail: string } | null
}

export const obstacleText = ({ code, detail }: NonNullable<RequestAnswer['obstacle']>): string => `${code}: ${detail}`

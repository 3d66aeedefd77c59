/** The face of issuing: what HTTP asks for and what it gets. `issue.ts` tells the story. */

import type { Violation } from '../../errors.ts'
import type { CheckResult, Note } from '../../policy/decide.ts'
import type { Origin } from '../../policy/origin.ts'
import type { Profile } from '../../policy/profile.ts'
import type { ProfileVersion } from '../../tlog/entries.ts'
import type { Proof } from '../../tlog/proof.ts'
import type { KeyUsage } from '../../x509/extensions.ts'
import type { Name } from '../../x509/names.ts'
import type { Caller } from '../access/access.ts'
import type { ApprovalRequest } from '../approvals/request.ts'

export interface IssueInput {
  /** DER, not yet looked at. */
  readonly csr: Buffer
  readonly profile: string
  /** 1 to 128 visible ASCII characters; under it, at most one certificate is ever issued for one principal. */
  readonly idempotencyKey?: string
  /** Seconds, both ends included. */
  readonly validity?: number
  /** Replaces the names in the CSR as a whole. */
  readonly names?: readonly Name[]
  readonly keyUsage?: readonly KeyUsage[]
  readonly extendedKeyUsage?: readonly string[]
  /** On whose behalf; only grants that say so let anybody say so. */
  readonly origin?: Origin
  /** This one, in whichever state but retired: for what answers for it. Nobody outside can ask so. */
  readonly issuer?: string
}

export interface Issued {
  readonly serial: string
  readonly certificate: Buffer
  /** Issuers above the leaf, without the root. */
  readonly chain: readonly Buffer[]
  readonly profile: { readonly name: string; readonly version: number }
  readonly issuer: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** Place on the roll, and the hash of the entry there. */
  readonly index: number
  readonly leafHash: Buffer
  /** That it is there: what a tlog-proof holds (c2sp.org/tlog-proof), which needs nobody to be asked. */
  readonly proof: Proof
  /** What was dropped or shortened; empty on a replay. */
  readonly notes: readonly Note[]
  readonly replayed: boolean
}

/** A decision in full, and the certificate that would be: its TBS, never signed. */
export interface Explanation {
  readonly allowed: boolean
  readonly checks: readonly CheckResult[]
  readonly violations: readonly Violation[]
  readonly notes: readonly Note[]
  readonly tbs?: Buffer
  /** Whose issuers sign by the profile. */
  readonly authority: string
  /** Whose approval it would wait for; null: nobody's. */
  readonly approvals: Profile['approvals']
}

/** Nothing was issued: people must approve it first. */
export interface Waiting {
  readonly waiting: ApprovalRequest
}

/** What people have approved: exactly this, and for this request. */
export interface ApprovedPlan {
  readonly id: string
  /** SHA-256 of the plan. */
  readonly plan: Buffer
  /** That decided when it was asked for. */
  readonly profile: ProfileVersion
}

export interface Issuance {
  /**
   * Asks for one certificate as `issue` does; where its profile wants it approved, resolves to the request that waits for
   * that, durable and on the roll. Under one key there is one request, whatever becomes of it: rejects with `approval.*`
   * where it has ended without a certificate.
   */
  request(caller: Caller, input: IssueInput): Promise<Issued | Waiting>
  /** Carries out what was approved, or rejects: with `approval.plan` where anything else would be issued by now. */
  issueApproved(caller: Caller, input: IssueInput, approved: ApprovedPlan): Promise<Issued>
  /**
   * Issues one certificate, for those who cannot wait for people: `approval.required` where they would have to. Resolves after its commit is acknowledged; rejects with a `Problem` whose `retryable`
   * says whether the same call, under the same key, may succeed. Refusals are recorded.
   */
  issue(caller: Caller, input: IssueInput): Promise<Issued>
  /** The dry run. Records nothing. Rejects only where the request cannot be read or the caller may not ask. */
  explain(caller: Caller, input: IssueInput): Promise<Explanation>
  /** How many requests are under way; HTTP refuses before the bound grows latency. */
  readonly pending: number
}

/** The records of the cycle, as the cycle needs them. The store implements it; each method says what is durable. */

import type { Violation } from '../../errors.ts'
import type { CheckResult, KeyStanding } from '../../policy/check.ts'
import type { Origin } from '../../policy/origin.ts'
import type { CertificateIssued, ProfileVersion } from '../../tlog/entries.ts'
import type { Name } from '../../x509/names.ts'
import type { HeldObstacle } from '../access/access.ts'
import type { CountedGrant } from '../access/limits.ts'
import type { IssuerState } from '../records.ts'

/** What one call asks for. Under a key it is the same request as every other call of its principal under that key. */
export interface RequestRow {
  readonly principal: string
  readonly key: string | null
  /** SHA-256 over the CSR, the profile and the options. */
  readonly digest: Buffer
}

/** What is known of an earlier request under the same key. */
export interface PriorRequest {
  readonly digest: Buffer
  /** How many intents it has had. */
  readonly attempts: number
  /** Its newest intent has no outcome yet. */
  readonly open: boolean
  /** Under this key people were asked: it is issued as they approve it, or not at all. */
  readonly isAsked: boolean
  readonly certificate?: IssuedRow
}

export interface IssuedRow {
  readonly serial: Buffer
  readonly tbs: Buffer
  readonly signature: Buffer
  readonly issuer: string
  readonly profile: ProfileVersion
  readonly notBefore: Date
  readonly notAfter: Date
  readonly index: number
  readonly leafHash: Buffer
}

export interface Intent {
  readonly request: RequestRow
  /** 1 for the first intent of a request. */
  readonly attempt: number
  readonly serial: Buffer
  readonly issuer: string
  /** Those in which the issuer may sign this. */
  readonly states: readonly IssuerState[]
  readonly shard: number
  readonly profile: ProfileVersion
  readonly tbs: Buffer
  /** SHA-256 of the plan. */
  readonly plan: Buffer
  /** The id of the request that people have approved, where they had to. */
  readonly approval?: string
  /** SHA-256 of the SPKI. Recording the intent makes the key its principal's, or that of the one on whose behalf it asks. */
  readonly keySha256: Buffer
  /** The key may be another owner's, and does not become this one's. */
  readonly sharesKey?: boolean
  /** The serial of the certificate that it renews. */
  readonly replaces?: Buffer
  /** On whose behalf it was asked for. */
  readonly origin?: Origin
  readonly names: number
  readonly notAfter: Date
  /** Absent: no grant limits it. */
  readonly limitedBy?: readonly CountedGrant[]
}

/** A signed certificate on its way to the roll, with what auditors will search it by. */
export interface Enrolment {
  readonly intent: Intent
  readonly signature: Buffer
  readonly event: CertificateIssued
  readonly subject: string
  readonly names: readonly Name[]
  readonly keySha256: Buffer
  readonly notBefore: Date
  readonly notAfter: Date
}

export interface Enrolled {
  readonly index: number
  readonly leafHash: Buffer
  /** Absent where it was found on record: then it takes a look at the tree. */
  readonly inclusion?: Inclusion
}

/** How a leaf leads to a root of the roll. */
export interface Inclusion {
  readonly head: RollHead
  /** From the leaf's sibling up. */
  readonly hashes: readonly Uint8Array[]
}

/** A size of the roll, and the root of the tree of so many entries. */
export interface RollHead {
  readonly size: number
  readonly root: Uint8Array
}

export interface Refusal {
  readonly principal: string
  readonly profile: string
  readonly code: string
  readonly detail: string
  readonly digest: Buffer
  /** Where reading stopped, in octets, as the problem told; null where it told none. */
  readonly offset: number | null
  /** Bounded, as checks are (refusal.ts). */
  readonly violations: readonly Violation[]
  /** What each check of the decision said, as a dry run tells it; null where none was made. */
  readonly checks: readonly CheckResult[] | null
  /** How many the bound has left out; of violations where there are no checks. */
  readonly checksLeftOut: number
  /** On whose behalf it was asked for; null: for itself, or nobody can tell. */
  readonly origin: Origin | null
}

/** What became of an intent; where it is not `recorded`, nothing was. */
export type IntentEnd =
  | 'recorded'
  /** Another call has the idempotency key or this attempt, or people were asked under it meanwhile. */
  | 'taken'
  /** The issuer has come into another state. */
  | 'moved'
  /** `held`: the key has another owner; `compromised`: one with it was revoked for that. */
  | Exclude<KeyStanding, 'free'>
  /** It stands against the certificate that is to be renewed. */
  | HeldObstacle

export interface Recorder {
  /** Reads. What a principal has asked under this key before, if anything. */
  findRequest(principal: string, key: string): Promise<PriorRequest | undefined>
  /**
   * An intent without limits is about to be recorded, and no more when what this returns is called: it is, or will not be.
   * Others wait for it, up to a few milliseconds, to be recorded with it.
   */
  expectIntent(): () => void
  /**
   * Durable when it resolves with `recorded`: only then may the key be touched. Whatever this instance knows of an issuer's move,
   * nothing is recorded after its commit that it forbids. Rejects with `approval.closed` where people have approved it, and it has
   * ended or expired since; with limit.* where a limit of its grants has no room for it: never is more recorded than that, by all
   * instances together.
   */
  recordIntent(intent: Intent): Promise<IntentEnd>
  /** Reads. What is on record against this key, for this principal and the one on whose behalf it asks. */
  keyStanding(keySha256: Buffer, principal: string, origin?: Origin): Promise<KeyStanding>
  /** Ends an intent whose key was never touched. Best effort: the reconciler ends what this misses. */
  recordUnsigned(intent: Intent): Promise<void>
  /**
   * Outcome, certificate, names, entry and the roll's head in one transaction; durable when it resolves. Rejects with
   * `issuance.abandoned` when the intent has ended without us, with `db.unavailable` when the outcome stayed unknown:
   * then nothing may be handed out, and the reconciler decides.
   */
  recordCertificate(enrolment: Enrolment): Promise<Enrolled>
  /** Durable when it resolves, or counted when the principal is over its bound. Never rejects. */
  recordRefusal(refusal: Refusal): Promise<void>
  /** Resolves when nothing waits. */
  drain(): Promise<void>
}

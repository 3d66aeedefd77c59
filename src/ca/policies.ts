/** Profiles in time: immutable versions, the newest of which decides. The store implements `Policies`. */
import type { Profile } from '../policy/profile.ts'

export interface StoredProfile {
  readonly profile: Profile
  readonly createdAt: Date
  readonly createdBy: string
}

/** What the caller believes is there now; exactly one of the two is set (RFC 9110 13.1). */
export interface Precondition {
  /** SHA-256 (hex) of the version that the change was made from, or of several that it fits, or `*` for whichever is there. */
  readonly ifMatch?: '*' | readonly string[]
  readonly ifNoneMatch?: '*'
}

export interface Policies {
  /** The newest version, from memory; at most two seconds old, and at once after a change made here. */
  current(name: string): Profile | undefined
  list(): Promise<readonly StoredProfile[]>
  /** Newest first. Throws `profile.not_found`. */
  versions(name: string): Promise<readonly StoredProfile[]>
  read(name: string, version?: number): Promise<StoredProfile>
  /**
   * Durable, and on the roll, when it resolves. The same content makes no new version (`created` is false).
   * Throws `profile.invalid` with all faults, `precondition.failed`, `authority.not_found`.
   */
  put(
    document: unknown,
    by: string,
    precondition: Precondition,
  ): Promise<{ readonly stored: StoredProfile; readonly created: boolean }>
}

/** Identity providers in time: immutable versions, the newest of which decides. The store implements `Providers`. */
import type { Provider } from '../../policy/identity.ts'
import type { Precondition } from '../policies.ts'

export interface StoredProvider {
  readonly provider: Provider
  readonly createdAt: Date
  readonly createdBy: string
}

/** A token that is to be shown once only. */
export interface Shown {
  readonly issuer: string
  /** What tells it from the issuer's others. */
  readonly id: string
  /** When nobody would accept it any more. */
  readonly until: Date
}

/**
 * Tries to have the keys of this issuer now, for whoever has just said where they are; a few seconds at most. Resolves to a sentence
 * where none of its tokens could be verified here. Never rejects.
 */
export type KeysFault = (issuer: string) => Promise<string | undefined>

export interface Providers {
  /** The newest version, from memory; at most two seconds old, and at once after a change made here. */
  issuedBy(issuer: string): StoredProvider | undefined
  list(): Promise<readonly StoredProvider[]>
  /** Newest first. Throws `provider.not_found`. */
  versions(name: string): Promise<readonly StoredProvider[]>
  read(name: string, version?: number): Promise<StoredProvider>
  /**
   * Durable, and on the roll, when it resolves. The same content makes no new version (`created` is false). Throws
   * `provider.invalid` with all faults, `precondition.failed`.
   */
  put(
    document: unknown,
    by: string,
    precondition: Precondition,
  ): Promise<{ readonly stored: StoredProvider; readonly created: boolean }>
  /** Durable when it resolves; false where it was shown before, to whichever replica. */
  spend(token: Shown): Promise<boolean>
}

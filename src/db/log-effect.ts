/** The form of what an entry of a roll means for the records, and what it is told beside the entry. */
import type { Enrolment } from '../ca/issuance/recorder.ts'
import type { RevocationReason } from '../ca/revocation/revoke.ts'
import type { EntryOf, EventType } from '../tlog/forms.ts'
import type { Queryable } from './database.ts'

/** What entries do not hold, found elsewhere. */
export interface RecoverySources {
  readonly readCertificate: (der: Buffer) => RecoveredCertificate
  /** The document of a profile version by its digest, and its authority; undefined where nobody has it. */
  readonly profile: (sha256: string) => { readonly document: string; readonly authority: string } | undefined
  /** What takes the place of one that nobody has: it allows nothing. */
  readonly standIn: (
    profile: EntryOf<'profile.changed'>,
    authority: string,
  ) => { readonly document: string; readonly sha256: string }
  /** Undefined where its chain or the place of its key is not known. */
  readonly issuer: (name: string) => RecoveredIssuer | undefined
  /** A certificate of a CA, by the SHA-256 of its DER. */
  readonly authorityCertificate: (sha256: string) => Buffer | undefined
  /** What may be on record for a certificate that is to be revoked for a reason. */
  readonly replaceable: (reason: RevocationReason) => readonly string[]
  readonly random: (octets: number) => Buffer
}

export type RecoveredCertificate = Omit<Enrolment, 'intent' | 'event'> & { readonly tbs: Buffer }

export interface RecoveredIssuer {
  readonly chain: readonly Buffer[]
  readonly keyUri: string
  readonly keySha256: string
  readonly publicUrl: string
}

/** What people must see to, about one thing: the last word holds, and null means that nothing is left to do. */
export interface Todo {
  readonly about: string
  readonly todo: string | null
}

interface At {
  readonly index: number
  readonly sources: RecoverySources
}

export interface Effect<T extends EventType> {
  readonly apply?: (tx: Queryable, entry: EntryOf<T>, at: At) => Promise<void>
  readonly todo?: (entry: EntryOf<T>, sources: RecoverySources) => Todo | undefined
}

export type EffectsOf<Types extends EventType> = { readonly [T in Types]: Effect<T> }

/** Nothing is left to do about a request that has ended. */
export const endedTodo = ({ id }: { readonly id: string }): Todo => ({ about: `request ${id}`, todo: null })

export const run = async (tx: Queryable, text: string, values: readonly unknown[]): Promise<void> =>
  void (await tx.query({ text }, values))

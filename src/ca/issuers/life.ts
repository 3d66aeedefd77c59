import type { Keyring } from '../../keys/keyring.ts'
import type { KeyKind } from '../../x509/algorithms.ts'
import type { CheckSignature } from '../../x509/csr.ts'
import type { Subject } from '../../x509/subject.ts'
import type { IssuerRecord } from '../records.ts'
import type { Now } from '../revocation/revoke.ts'
import type { Anchor, AnchorKind } from './bundle.ts'
import type { IssuerRow } from './issuer.ts'
import type { Decided, Move } from './issuer-moves.ts'
import type { Issuers } from './issuers.ts'

/** The life of an issuer: what is asked of it, and what it needs of the records and of the world. */

export interface KeyPlace {
  readonly name: string
  readonly authority: string
  readonly keyUri: string
  /** DER of the SubjectPublicKeyInfo, by the certificate, or by the request for it. */
  readonly spki: Buffer
}

export interface Relocation {
  readonly keyUri: string
  readonly reason: string | null
  readonly by: string
}

/** A key that waits for its certificate. */
export interface IssuerRequest {
  readonly name: string
  readonly authority: string
  readonly keyUri: string
  /** PKCS#10, DER. */
  readonly csr: Buffer
  readonly createdAt: Date
  readonly createdBy: string
}

export interface NewIssuerRequest {
  readonly name: string
  readonly authority: string
  readonly subject: Subject
  readonly algorithm: KeyKind
  readonly keyUri: string
}

/** What a ceremony has made of a request, and what is fixed with it. */
export interface Certified {
  /** The issuer, those above it, its root last. */
  readonly chain: readonly Buffer[]
  /** How many lists what it revokes is cut into, for good: 1 to `maxShards`. Each certificate names its own. */
  readonly shards?: number
}

export interface IssuerLife {
  /**
   * Makes the key (or takes the one that is there, of this kind, and neither another issuer's nor the roll's) and a request for its certificate.
   * Throws `state.exists`, `issuer.token`, `key.unavailable`, `request.malformed`, `subject.syntax`.
   */
  request(ask: NewIssuerRequest, by: string): Promise<IssuerRequest>
  requests(): Promise<readonly IssuerRequest[]>
  /** As the records have them now. */
  issuers(): Promise<readonly IssuerRecord[]>
  /** Takes the certificate and the chain above it; the issuer is staged. Throws `issuer.not_found`, `issuer.key`, `issuer.chain`. */
  stage(name: string, certified: Certified, by: string): Promise<IssuerRecord>
  /**
   * Takes the ways up from an issuer, in place of those that it had: each begins with its certificate and ends with a root.
   * Throws `issuer.not_found`, `issuer.chain`, `issuer.state` for one that has retired.
   */
  chain(name: string, chains: readonly (readonly Buffer[])[], by: string): Promise<IssuerRecord>
  /** Where its key is, of one that is to be as well. Throws `issuer.not_found`. */
  place(name: string): Promise<KeyPlace>
  /**
   * Its key is elsewhere from now on, where it was opened and seen to sign; resolves to where it was. Again is nothing.
   * Throws `issuer.not_found`, `issuer.state` for one that has retired, `issuer.key_place`, `issuer.token`, `request.malformed`.
   */
  relocate(name: string, relocation: Relocation): Promise<KeyPlace & { readonly before: string }>
  /**
   * None that a CA above has revoked: whoever fetches it must not go on trusting that. Throws `authority.not_found`, and
   * `issuer.none_active` where no other is left, so that nobody puts an empty file in the place of theirs.
   */
  anchors(authority: string, kind: AnchorKind): Promise<readonly Anchor[]>
  /** Throws `issuer.not_found`, and `issuer.state` with each guard that refuses. Durable, and followed here, when it resolves. */
  move(name: string, move: Move, how: { readonly by: string; readonly reason: string | null }): Promise<IssuerRecord>
}

/** What the records do for it; each resolves when it is durable. */
export interface IssuerStore {
  issuers(): Promise<readonly IssuerRow[]>
  requests(): Promise<readonly IssuerRequest[]>
  /** One at a time of all instances, for each name of a key: two that look first would make two keys. */
  inTurn<T>(keyName: string, work: () => Promise<T>): Promise<T>
  /** False when the name or the key is that of another issuer or request. */
  addRequest(request: Omit<IssuerRequest, 'createdAt'>, spkiSha256: string): Promise<boolean>
  /** The same, of the certificate as well. */
  addIssuer(row: NewIssuer, by: string): Promise<boolean>
  /** Whether a key of an issuer that is called otherwise was ever on record under this URI. */
  isKeyUriOfOther(uri: string, name: string): Promise<boolean>
  /** Where the key of an issuer, or of a request, with this SPKI (SHA-256, hexadecimal) is from now on; resolves to where it was. */
  relocate(
    to: Pick<KeyPlace, 'name' | 'authority' | 'keyUri'>,
    spkiSha256: string,
    how: Pick<Relocation, 'reason' | 'by'>,
  ): Promise<string>
  /** Ways up from an issuer, in place of those that it had. */
  addChains(issuer: IssuerRow, chains: readonly (readonly Buffer[])[], by: string): Promise<void>
  /**
   * Decides and moves while nobody else can, and while no intent is recorded: what `decide` throws leaves all as it was.
   * No replica records an intent afterwards that the new state forbids.
   */
  move(decide: (found: Found) => Promise<readonly Decided[]>, how: { by: string; reason: string | null }): Promise<void>
  /** Seconds that a certificate of the authority was ever allowed to be valid. */
  longestValidity(authority: string): Promise<number>
}

export interface NewIssuer extends Omit<IssuerRow, 'since'> {
  /** Of its SPKI, hexadecimal: one key, one issuer, for good. */
  readonly keySha256: string
}

/** What a move is decided by. */
export interface Found {
  readonly issuers: readonly IssuerRow[]
  /** By the roll's time: the clocks of the replicas differ. */
  readonly now: Now
  /** Whether a certificate of this issuer is still valid by that time, and until when; or one that may have been signed may be. */
  living(issuer: string): Promise<boolean | Date>
}

export interface IssuerLifeDeps {
  readonly store: IssuerStore
  readonly keys: Pick<Keyring, 'open' | 'create'>
  readonly issuers: Issuers
  readonly verify: CheckSignature
  readonly clock: () => Date
  readonly stagingMs: number
  /** A sentence where no key may be under this URI. */
  readonly keyUriFault: (uri: string) => string | undefined
  /** How a URI says that its key signs; undefined where it leaves that to the kind of key. */
  readonly wayToSign: (uri: string) => string | undefined
  /** The same for whatever URIs are of one key in one place. */
  readonly keyNameOf: (uri: string) => string
  /** SPKI of the key that signs the roll: no issuer's. */
  readonly rollKey: Buffer
  /** What new issuers write into certificates, for life. */
  readonly publicUrl: string
  /** Those that a CA above has revoked, on each way up that they have. */
  readonly revoked: () => readonly string[]
}

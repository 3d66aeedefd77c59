/** The issuers that this instance knows: opened once, and moved as the records say, without a restart. */
import { Problem } from '../../errors.ts'
import { hasEnded } from '../../policy/validity.ts'
import type { KeyAlgorithmId } from '../../x509/algorithms.ts'
import { isIssuedBy, type TbsFacts } from '../../x509/certificate.ts'
import type { IssuerState } from '../records.ts'
import { type Issuer, type IssuerOptions, type IssuerRow, newIssuer } from './issuer.ts'

export interface Issuers {
  /**
   * The authority's active issuer for a key of this type: one with a key of the same type, or the one that most relying
   * parties understand; of those that have not expired by `now`, if there are any. Throws `issuer.none_active`.
   */
  active(authority: string, keyType: KeyAlgorithmId, now?: Date): Issuer
  /** Also one that has retired. Throws `issuer.not_found`. */
  byName(name: string): Issuer
  /** The same of one that is in the records, and may have come to be a moment ago: where it is not known, they are followed first. */
  find(name: string): Promise<Issuer>
  /** Those whose keys are in use, with their states. */
  all(): readonly Placed[]
  /** By the SHA-256 (hex) of its SPKI: a CA's own key is never a subject's. */
  isIssuerKey(sha256: string): boolean
  /** Whether a certificate says that one of them signed it, by name and key; also one that has retired. */
  mayHaveSigned(facts: Pick<TbsFacts, 'issuer' | 'authorityKeyIdentifier'>): boolean
  /**
   * Follows every move that was committed before the call, at once: the keys of new issuers are opened afterwards, and one
   * that can't be opened, or takes its time, stops nobody.
   */
  refresh(): Promise<void>
  close(): Promise<void>
}

export interface Placed {
  readonly issuer: Issuer
  readonly state: IssuerState
}

export interface IssuersDeps extends IssuerOptions {
  /** All in the records, with their newest states. */
  readonly load: () => Promise<readonly IssuerRow[]>
  /** Something that differs after each change of the records. */
  readonly version: () => Promise<string>
  /** Told of one whose certificate can't be used. */
  readonly unusable: (name: string, error: unknown) => void
}

export const openIssuers = async (deps: IssuersDeps): Promise<Issuers> => {
  const opened = new Map<string, Issuer>()
  const broken = new Set<string>()
  let view = viewOf([])
  let seen: string | undefined
  let reading: Promise<void> | undefined
  let next: Promise<void> | undefined

  const open = (row: IssuerRow): void => {
    if (broken.has(row.name)) return
    try {
      const known = opened.get(row.name)
      if (known) {
        known.follow(row)
        const isNewlyRetired = row.state === 'retired' && view.inUse.some(({ issuer }) => issuer === known)
        if (isNewlyRetired) void known.close().catch(() => {})
        return
      }
      // The key of one that has retired may be gone, and nobody asks for it.
      opened.set(row.name, newIssuer(row, { ...deps, ...(row.state === 'retired' && { openKey: noKey }) }))
    } catch (error) {
      broken.add(row.name)
      deps.unusable(row.name, error)
    }
  }

  const read = async (): Promise<void> => {
    const version = await deps.version()
    if (version === seen) return
    const rows = await deps.load()
    rows.forEach(open)
    view = viewOf(
      rows.flatMap(({ name, state }) => {
        const issuer = opened.get(name)
        return issuer ? [{ issuer, state }] : []
      }),
    )
    seen = version
  }

  /** One read at a time; whoever asks during one may know of a move that it has not seen, and waits for the next. */
  const refresh = (): Promise<void> => {
    if (reading) {
      next ??= reading.then(refresh, refresh)
      return next
    }
    next = undefined
    reading = read().finally(() => {
      reading = undefined
    })
    return reading
  }
  const byName = (name: string): Issuer => {
    const issuer = opened.get(name)
    if (issuer) return issuer
    throw new Problem('issuer.not_found', `There is no issuer ${JSON.stringify(name)}.`)
  }
  await refresh()
  await Promise.all([...opened.values()].map(({ opening }) => opening))
  return {
    active: (authority, keyType, now) => view.active(authority, keyType, now),
    byName,
    find: async (name) => {
      if (!opened.has(name)) await refresh()
      return byName(name)
    },
    all: () => view.inUse,
    isIssuerKey: (sha256) => view.keys.has(sha256),
    // Of one that could not be opened nobody knows.
    mayHaveSigned: (facts) => broken.size > 0 || [...opened.values()].some((issuer) => isIssuedBy(facts, issuer.facts)),
    refresh,
    close: async () => {
      await (next ?? reading)?.catch(() => {})
      await Promise.all([...opened.values()].map((issuer) => issuer.close()))
    },
  }
}

interface View {
  readonly inUse: readonly Placed[]
  readonly keys: ReadonlySet<string>
  active: Issuers['active']
}

const viewOf = (placed: readonly Placed[]): View => {
  const active = new Map<string, Issuer[]>()
  for (const { issuer, state } of placed)
    if (state === 'active') active.set(issuer.authority, [...(active.get(issuer.authority) ?? []), issuer])
  for (const issuers of active.values()) issuers.sort(byRank)
  return {
    inUse: placed.filter(({ state }) => state !== 'retired'),
    keys: new Set(placed.map(({ issuer }) => issuer.bounds.keySha256)),
    active: (authority, keyType, now) => {
      const found = signerAmong(active.get(authority) ?? [], keyType, now)
      if (found) return found
      throw new Problem('issuer.none_active', `The authority ${JSON.stringify(authority)} has no active issuer.`, {
        retryAfter: 30,
      })
    },
  }
}

type Ranked = Pick<Issuer, 'keyType'>
type Signing = Ranked & { readonly bounds: Pick<Issuer['bounds'], 'notAfter'> }

/** First the one that most relying parties understand. */
export const byRank = (one: Ranked, other: Ranked): number => rank(one) - rank(other)

/** As `Issuers.active`, of those that are active in one authority, by rank. */
export const signerAmong = <T extends Signing>(
  all: readonly T[],
  keyType: KeyAlgorithmId,
  now?: Date,
): T | undefined => {
  const valid = now ? all.filter(({ bounds }) => !hasEnded(bounds.notAfter, now)) : all
  const issuers = valid.length > 0 ? valid : all
  return issuers.find((issuer) => issuer.keyType === keyType) ?? issuers[0]
}

const noKey = (): Promise<never> => Promise.reject(new Error('it has retired'))

const rank = ({ keyType }: Ranked): number => {
  const place = understood.indexOf(keyType)
  return place < 0 ? understood.length : place
}

/** From what every relying party understands to what few do. */
const understood: readonly KeyAlgorithmId[] = [
  'ec-p256',
  'ec-p384',
  'rsa',
  'ec-p521',
  'ed25519',
  'ml-dsa-65',
  'ml-dsa-87',
  'ml-dsa-44',
]

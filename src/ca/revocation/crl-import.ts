/**
 * Lists that CAs above our issuers have signed elsewhere, in ceremonies: taken in when they fit, kept on record, and
 * served where the certificates that they may revoke say.
 */
import { createPublicKey, hash, verify } from 'node:crypto'

import { isProblem, Problem, type Violation } from '../../errors.ts'
import { hasEnded } from '../../policy/validity.ts'
import { keyAlgorithms } from '../../x509/algorithms.ts'
import type { TbsFacts } from '../../x509/certificate.ts'
import { type Crl, parseCrl, parseRecordedCrl } from '../../x509/crl.ts'

/** A certificate below another CA of ours or of our issuers' chains. */
export interface Link {
  readonly issuer: string
  /** Which of the ways up from this issuer it is on. */
  readonly way: number
  readonly subject: TbsFacts
  readonly signer: TbsFacts
}

/** An issuer and the ways up from it, nearest first. */
export interface Line {
  readonly name: string
  readonly facts: TbsFacts
  readonly ways: readonly (readonly TbsFacts[])[]
}

export interface ImportedCrl {
  /** SHA-256 (hex) of the signer's SubjectPublicKeyInfo. */
  readonly signer: string
  readonly number: bigint
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  readonly der: Buffer
  /** Of its event on the roll. */
  readonly index: number
}

export interface NewImport extends Omit<ImportedCrl, 'index'> {
  /** Above whom. */
  readonly issuer: string
  readonly revoked: number
  readonly sha256: string
  readonly by: string
}

export interface ImportStore {
  /** The newest of each signer. */
  newest(): Promise<readonly ImportedCrl[]>
  /** Records it after `assertFollows` has seen the newest of its signer, which nobody can change meanwhile. Durable. */
  add(list: NewImport, assertFollows: (newest: ImportedCrl | undefined) => boolean): Promise<ImportedCrl>
}

export interface CrlImportsDeps {
  readonly store: ImportStore
  /** Of every issuer in use and of what is above it, up to the root. */
  readonly links: () => readonly Link[]
  /** Of the URL of the public listener: what stands before its paths where a proxy takes that away. */
  readonly basePath: string
  readonly clock: () => Date
}

/** A list as it is served, and by which path of its URL. */
export interface PlacedCrl extends ImportedCrl {
  readonly sha256: string
  /** In hex, padded as certificates' are. */
  readonly serials: ReadonlySet<string>
}

export interface EndingCrl {
  readonly issuer: string
  readonly nextUpdate: Date | undefined
}

export interface CrlImports {
  /**
   * Takes the list of a CA above this issuer (DER). Idempotent. Durable, and served here, when it resolves. Throws
   * `issuer.not_found`, and `crl.invalid` with all that does not fit.
   */
  add(issuer: string, der: Buffer, by: string): Promise<ImportedCrl>
  /** By the path of a URL in a certificate below its signer; and by its host, where more than one have this path. */
  find(path: string, host?: string): PlacedCrl | undefined
  /** Those that another one must follow: what is below their signer is still valid when they end. */
  awaited(): readonly PlacedCrl[]
  /** Whose certificates say that there is a list, and there is none, or it ends within that time and before them. */
  ending(withinMs: number): readonly EndingCrl[]
  /** Issuers in use whose certificate, or one above it, is on such a list; each once. */
  revoked(): readonly string[]
  /** Those of them to which no other way leads down: a cross-certificate that was revoked takes nothing from the one that is left. */
  revokedOnEachWay(): readonly string[]
  refresh(): Promise<void>
}

export const openCrlImports = ({ store, links, basePath, clock }: CrlImportsDeps): CrlImports => {
  const lists = new Map<string, PlacedCrl>()
  const place = (list: ImportedCrl): void => {
    const known = lists.get(list.signer)
    if (known && known.index >= list.index) return
    const sha256 = hash('sha256', list.der)
    lists.set(list.signer, { ...list, sha256, serials: serialsOf(list) })
  }
  const isListed = ({ subject, signer }: Link): boolean =>
    lists.get(sha256Of(signer))?.serials.has(serialOf(subject)) === true
  const living = (): readonly Link[] => livingAmong(links(), clock())

  return {
    add: async (issuer, der, by) => {
      const above = links().filter((link) => link.issuer === issuer)
      if (above.length === 0) throw new Problem('issuer.not_found', 'There is no issuer with this name in use.')
      const list = read(der, above, clock())
      const sha256 = hash('sha256', der)
      const below = links().filter(({ signer }) => sha256Of(signer) === list.signer)
      const added = await store.add({ ...list, issuer, sha256, by }, (newest) => follows(list, newest, below))
      place(added)
      return added
    },
    find: (path, host) => {
      const wanted = new Set([path, `${basePath.replace(/\/+$/, '')}${path}`])
      const places = links().flatMap(({ subject, signer }) => subject.crlUrls.map((url) => ({ url, signer })))
      const found = places.filter(({ url }) => wanted.has(URL.parse(url)?.pathname ?? ''))
      // A proxy may ask by another name.
      const place = found.find(({ url }) => URL.parse(url)?.host === host?.toLowerCase()) ?? found[0]
      return place && lists.get(sha256Of(place.signer))
    },
    awaited: () => {
      const below = living()
      return [...lists.values()].filter(({ signer: of, nextUpdate }) =>
        below.some(({ subject, signer }) => sha256Of(signer) === of && subject.notAfter > nextUpdate),
      )
    },
    ending: (withinMs) => endingAmong([...lists.values()], links(), { now: clock(), withinMs }),
    revoked: () => namesOf(links().filter(isListed)),
    revokedOnEachWay: () => cutOff(links(), isListed),
    refresh: async () => {
      for (const list of await store.newest()) place(list)
    },
  }
}

/** Each issuer and each CA above it, with the one that signed it; a root stands above itself and is none. */
export const linksOf = (issuers: readonly Line[]): readonly Link[] =>
  issuers.flatMap(({ name, facts, ways }) =>
    ways.flatMap((above, way) => {
      const line = [facts, ...above]
      return line.slice(0, -1).map((subject, i) => ({ issuer: name, way, subject, signer: line[i + 1] as TbsFacts }))
    }),
  )

/** Of these issuers those that lists on record revoke on each way down to them. */
export const revokedBy = (lists: readonly ImportedCrl[], links: readonly Link[]): readonly string[] => {
  const serials = new Map(lists.map((list) => [list.signer, serialsOf(list)]))
  return cutOff(links, ({ subject, signer }) => serials.get(sha256Of(signer))?.has(serialOf(subject)) === true)
}

/** Nobody asks about what has expired (RFC 5280 3.3). */
const livingAmong = (links: readonly Link[], now: Date): readonly Link[] =>
  links.filter(({ subject }) => !hasEnded(subject.notAfter, now))

/** As `CrlImports.ending`. */
export const endingAmong = (
  lists: readonly Pick<ImportedCrl, 'signer' | 'nextUpdate'>[],
  links: readonly Link[],
  { now, withinMs }: { readonly now: Date; readonly withinMs: number },
): readonly EndingCrl[] => {
  const ends = new Map(lists.map(({ signer, nextUpdate }) => [signer, nextUpdate]))
  return livingAmong(links, now)
    .filter(hasUrl)
    .map(({ issuer, subject, signer }) => ({
      issuer,
      nextUpdate: ends.get(sha256Of(signer)),
      // A root that ends makes no list beyond its end.
      needed: Math.min(now.getTime() + withinMs, subject.notAfter.getTime()),
    }))
    .filter(({ nextUpdate, needed }) => (nextUpdate?.getTime() ?? 0) < needed)
    .map(({ issuer, nextUpdate }) => ({ issuer, nextUpdate }))
}

/** Once for each issuer below: that is whose certificates are doubted. */
export const endingText = (ending: readonly EndingCrl[], now: Date): string | undefined => {
  if (ending.length === 0) return undefined
  const texts = ending.map(({ issuer, nextUpdate }) => {
    if (!nextUpdate) return `above ${issuer} is missing`
    return `above ${issuer} ${nextUpdate < now ? 'ended' : 'ends'} at ${nextUpdate.toISOString()}`
  })
  return `the list of what is revoked ${[...new Set(texts)].join(', ')}: bring a new one with chancery crl import`
}

/** How long before its end it is asked for: long enough for a ceremony. */
export const rootCrlMarginMs = 14 * 86_400_000

const cutOff = (links: readonly Link[], isListed: (link: Link) => boolean): readonly string[] => {
  const cut = new Set(links.filter(isListed).map(wayOf))
  const open = new Set(namesOf(links.filter((link) => !cut.has(wayOf(link)))))
  return namesOf(links).filter((issuer) => !open.has(issuer))
}

const namesOf = (links: readonly Link[]): readonly string[] => [...new Set(links.map(({ issuer }) => issuer))]

const wayOf = ({ issuer, way }: Link): string => `${issuer}/${way}`

const serialsOf = (list: ImportedCrl): ReadonlySet<string> => new Set(readRecorded(list).revoked.map(serialOf))

const hasUrl = ({ subject }: Link): boolean => subject.crlUrls.length > 0

type Read = Omit<NewImport, 'issuer' | 'by' | 'sha256'>

const read = (der: Buffer, above: readonly Link[], now: Date): Read => {
  const crl = readList(der)
  const link = above.find(({ signer }) => isOf(crl, signer))
  if (!link) throw misfit(['/crl', 'was signed by no CA above this issuer'])
  assertFits(crl, link, now)
  const { number, thisUpdate, nextUpdate, revoked } = crl
  return { signer: sha256Of(link.signer), number, thisUpdate, nextUpdate, der, revoked: revoked.length }
}

const isOf = (crl: Crl, signer: TbsFacts): boolean =>
  crl.issuer.equals(signer.subjectDer) && signer.keyIdentifier?.equals(crl.authorityKeyIdentifier) === true

interface Rule {
  readonly holds: (crl: Crl, link: Link, now: Date) => boolean
  readonly reason: (crl: Crl, link: Link) => string
}

const rules: readonly Rule[] = [
  {
    holds: (crl, { signer }) => isSigned(crl, signer),
    reason: () => 'its signature does not verify',
  },
  {
    holds: (_crl, { signer }) => signer.keyUsage?.includes('cRLSign') === true,
    reason: () => "its signer's key usage has no cRLSign",
  },
  {
    holds: ({ thisUpdate }, _link, now) => thisUpdate.getTime() <= now.getTime() + toleranceMs,
    reason: ({ thisUpdate }) => `it begins in the future, at ${thisUpdate.toISOString()}`,
  },
  {
    holds: ({ nextUpdate }, _link, now) => nextUpdate > now,
    reason: ({ nextUpdate }) => `it has ended at ${nextUpdate.toISOString()}`,
  },
  {
    holds: ({ distributionPoint: point }, { subject }) =>
      point?.only !== 'user' && (point?.url === undefined || subject.crlUrls.includes(point.url)),
    reason: () => 'its issuing distribution point is not that of the certificate below its signer',
  },
]

const assertFits = (crl: Crl, link: Link, now: Date): void => {
  const reasons = rules.filter(({ holds }) => !holds(crl, link, now)).map(({ reason }) => reason(crl, link))
  if (reasons.length > 0) throw misfit(...reasons.map((reason) => ['/crl', reason] as const))
}

const isSigned = ({ tbs, signature, signatureAlgorithm }: Crl, { spki }: TbsFacts): boolean => {
  const { hash, keys, signOptions } = signatureAlgorithm
  try {
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    // Node takes the hash of Ed25519, which is none, for SHA-256 where the key is on another curve: only we would believe the list.
    const isOfKey = keys.some((id) => keyAlgorithms[id].generate.type === key.asymmetricKeyType)
    return isOfKey && verify(hash, tbs, { key, ...signOptions }, signature)
  } catch {
    // What OpenSSL cannot read.
    return false
  }
}

/** False: it is the newest one already. */
const follows = (list: Read, newest: ImportedCrl | undefined, below: readonly Link[]): boolean => {
  if (!newest) return true
  if (newest.der.equals(list.der)) return false
  if (list.number <= newest.number)
    throw misfit(['/crl', `its number ${list.number} is not above ${newest.number}, that of the newest one`])
  if (list.thisUpdate < newest.thisUpdate)
    throw misfit(['/crl', `it is older than the newest one, of ${newest.thisUpdate.toISOString()}`])
  const left = leftOut(list, newest, below)
  if (left.length > 0)
    throw misfit([
      '/crl',
      `it leaves out ${left.join(', ')}, which list ${newest.number} has revoked for good: the ceremony must name that list as its previous one`,
    ])
  return true
}

/**
 * Of certificates in use, what the newest list has revoked, but for a hold, and this one has not: an issuer with a stolen key would
 * be trusted again. It stays listed until it has expired (RFC 5280 3.3).
 */
const leftOut = (list: Read, newest: ImportedCrl, below: readonly Link[]): readonly string[] => {
  const listed = new Set(parseCrl(list.der).revoked.map(serialOf))
  const gone = readRecorded(newest).revoked.filter(
    (one) => one.reason !== 'certificateHold' && !listed.has(serialOf(one)),
  )
  const left = new Set(gone.map(serialOf))
  const serials = below
    .filter(({ subject }) => !hasEnded(subject.notAfter, list.thisUpdate))
    .map(({ subject }) => serialOf(subject))
  return [...new Set(serials)].filter((serial) => left.has(serial))
}

const serialOf = ({ serial }: { readonly serial: Buffer }): string => serial.toString('hex')

/** Without it nobody knows whether it revokes issuers of ours: nothing is served by a guess. */
const readRecorded = ({ der, signer, index }: ImportedCrl): Crl => {
  try {
    return parseRecordedCrl(der)
  } catch (cause) {
    throw new Error(
      `The list of revocations that entry ${index} of the roll brought, of the CA whose key has the SHA-256 ${signer}, is damaged in the database (imported_crls): restore the database, or that row, from a backup.`,
      { cause },
    )
  }
}

const readList = (der: Buffer): Crl => {
  try {
    return parseCrl(der, 'crl.invalid')
  } catch (error) {
    throw isProblem(error, 'crl.invalid') ? unreadable(error) : error
  }
}

/** In the words of whoever could not read it, with the octet at which it stopped. */
export const unreadable = ({ detail, options }: Problem): Problem =>
  new Problem('crl.invalid', `The list cannot be read: ${detail}`, {
    ...options,
    violations: [{ check: 'crl.form', field: '/crl', value: '', reason: detail }],
  })

const misfit = (...faults: readonly (readonly [field: string, reason: string])[]): Problem =>
  new Problem('crl.invalid', 'The list does not fit.', {
    violations: faults.map(([field, reason]): Violation => ({ check: 'crl.import', field, value: '', reason })),
  })

const sha256Of = ({ spki }: TbsFacts): string => hash('sha256', spki)

/** Between the root's clock and ours. */
const toleranceMs = 300_000

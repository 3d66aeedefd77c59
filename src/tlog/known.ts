/**
 * What is known of a roll after some of its entries: who and what there is. It is of the size of what there is (issuers,
 * principals, grants, shards), and 32 to 64 octets for each serial; it can be saved and taken up again.
 */
import { isRollFault } from './fault.ts'
import type { FindingCode } from './findings.ts'
import type { Sha256 } from './merkle.ts'
import { parseVerifierKey, type VerifierKey } from './note.ts'
import { maxIssuers, openSerialTable, type SerialTable, type Standing } from './serials.ts'
import { readBase64 } from './text.ts'

/** What is wanted of a certificate. */
export interface RollCertificate {
  /** In hex, without a sign, and at least 16 octets of it. */
  readonly serial: string
  /** Name DER. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  /** SubjectPublicKeyInfo DER. */
  readonly spki: Uint8Array
  readonly notAfter: Date
  /** TBSCertificate DER, and what signs it: an algorithm as whoever reads the certificate and checks it name it. */
  readonly tbs: Uint8Array
  readonly algorithm: string
  readonly signature: Uint8Array
}

/** A certificate whose signature is to be checked with the key in another one. */
export interface SignedBy {
  readonly certificate: RollCertificate
  readonly issuer: RollCertificate
}

export interface HistoryDeps {
  readonly sha256: Sha256
  /** 32 bits by chance: without them, whoever made the roll may make looking up its serials take long. */
  readonly seed?: number
  /** Undefined for what is not a certificate. */
  readonly readCertificate: (der: Uint8Array) => RollCertificate | undefined
  /** All of it: asked for what people have approved. Undefined for what cannot be read so. */
  readonly readContents: (der: Uint8Array) => CertificateContents | undefined
}

/** What a certificate says, in the words in which it was put before people. */
export interface CertificateContents {
  readonly subject: readonly { readonly type: string; readonly value: string }[]
  readonly names: readonly { readonly kind: string; readonly value: string }[]
  readonly keyUsage: readonly string[]
  readonly extendedKeyUsage: readonly string[]
  /** Seconds, both ends included. */
  readonly validity: number
}

export type Tell = (code: FindingCode, message: string) => void

/** JSON; `serials` are 32 octets each, in strings of at most a megabyte. */
export interface HistoryState {
  readonly issuers: readonly (readonly [
    name: string,
    authority: string,
    state: string,
    certificate: string,
    shards: number,
  ])[]
  readonly requested: readonly (readonly [issuer: string, spki: string])[]
  readonly profiles: readonly (readonly [name: string, version: number])[]
  readonly providers: readonly (readonly [name: string, version: number])[]
  readonly principals: readonly (readonly [name: string, isOpen: boolean])[]
  readonly grants: readonly string[]
  readonly tokens: readonly string[]
  readonly credentials: readonly string[]
  readonly lists: readonly (readonly [shard: string, number: number])[]
  readonly orders: readonly (readonly [plan: string, order: Order])[]
  readonly requests: readonly (readonly [id: string, request: Request])[]
  /** How many must approve what a version of a profile yields. */
  readonly wanted: readonly (readonly [version: string, count: number])[]
  readonly approvers: readonly (readonly [grant: string, approver: Approver])[]
  /** When a principal was disabled. */
  readonly closings: readonly (readonly [principal: string, time: string])[]
  /** The server that the records were last said to be on; null where that was never said. */
  readonly database: string | null
  readonly serials: readonly string[]
}

export interface Known {
  readonly deps: HistoryDeps
  readonly issuers: Map<string, KnownIssuer>
  readonly requested: Map<string, string>
  readonly profiles: Map<string, number>
  readonly providers: Map<string, number>
  readonly principals: Map<string, boolean>
  readonly grants: Set<string>
  readonly tokens: Set<string>
  readonly credentials: Set<string>
  readonly lists: Map<string, number>
  readonly orders: Map<string, Order>
  readonly requests: Map<string, Request>
  readonly wanted: Map<string, number>
  readonly approvers: Map<string, Approver>
  readonly closings: Map<string, string>
  readonly serials: SerialTable
  database: string | null
}

export interface KnownIssuer {
  /** In the order in which they came. */
  readonly number: number
  readonly authority: string
  readonly encoded: string
  /** Undefined: it could not be read, which was told when it came. */
  readonly certificate: RollCertificate | undefined
  /** How many CRLs it has. */
  readonly shards: number
  state: string
}

/** A request that people must approve, until it has ended. */
export interface Request {
  readonly principal: string
  /** With its version. */
  readonly profile: string
  readonly plan: string
  readonly required: number
  approvers: readonly string[]
  readonly expires: string
  /** SHA-256 (hex) of what was asked. */
  readonly asked: string
  readonly shown: Shown
}

/** What was put before people, as far as a certificate or its entry says it too. */
export interface Shown {
  readonly issuer: string
  /** SHA-256 (hex) of the SubjectPublicKeyInfo. */
  readonly key: string
  readonly validity: number
  /** SHA-256 (hex) of this and of what follows, which may be long. */
  readonly subject: string
  readonly names: string
  readonly usages: string
  readonly origin: string
}

/** Whom a grant lets approve requests of these profiles. */
export interface Approver {
  readonly principal: string
  readonly profiles: readonly string[]
  /** When it was revoked: what was approved before is issued a moment later. */
  readonly until?: string
}

/** An order to revoke many: how many were found, how many of them have been revoked, and whether that is all. */
export interface Order {
  readonly count: number
  revoked: number
  isDone: boolean
}

export const openKnown = (deps: HistoryDeps, saved?: HistoryState): Known => {
  const known: Known = {
    deps,
    issuers: new Map(),
    requested: new Map(saved?.requested),
    profiles: new Map(saved?.profiles),
    providers: new Map(saved?.providers),
    principals: new Map(saved?.principals),
    grants: new Set(saved?.grants),
    tokens: new Set(saved?.tokens),
    credentials: new Set(saved?.credentials),
    lists: new Map(saved?.lists),
    orders: new Map(saved?.orders.map(([plan, order]) => [plan, { ...order }])),
    requests: new Map(saved?.requests.map(([id, request]) => [id, { ...request }])),
    wanted: new Map(saved?.wanted),
    approvers: new Map(saved?.approvers),
    closings: new Map(saved?.closings),
    database: saved?.database ?? null,
    serials: openSerialTable(saved?.serials, deps.seed),
  }
  for (const [name, authority, state, certificate, shards] of saved?.issuers ?? [])
    addIssuer(known, name, { authority, state, certificate, shards })
  return known
}

export const saveKnown = (known: Known): HistoryState => ({
  issuers: [...known.issuers].map(([name, one]) => [name, one.authority, one.state, one.encoded, one.shards]),
  requested: [...known.requested],
  profiles: [...known.profiles],
  providers: [...known.providers],
  principals: [...known.principals],
  grants: [...known.grants],
  tokens: [...known.tokens],
  credentials: [...known.credentials],
  lists: [...known.lists],
  orders: [...known.orders],
  requests: [...known.requests].map(([id, request]) => [id, { ...request }]),
  wanted: [...known.wanted],
  approvers: [...known.approvers],
  closings: [...known.closings],
  database: known.database,
  serials: known.serials.save(),
})

/** What may become of a serial: hold is for a while, and a key that is somebody else's too outweighs every other reason. */
const becomes: { readonly [S in Standing]: readonly Standing[] } = {
  free: [],
  issued: ['held', 'revoked', 'compromised'],
  abandoned: [],
  held: ['issued', 'revoked', 'compromised'],
  revoked: ['compromised'],
  compromised: [],
}

interface SerialChange {
  readonly serial: string
  readonly issuer: string
  readonly standing: Standing
}

export const addSerial = (
  known: Known,
  { serial, issuer, standing }: Omit<SerialChange, 'issuer'> & { readonly issuer: KnownIssuer | undefined },
  { index, tell }: { readonly index: number; readonly tell: Tell },
): void => {
  const before = known.serials.add(serial, { index, issuer: issuer?.number ?? maxIssuers - 1, standing })
  if (before !== undefined) tell('serial.again', `the serial ${serial} is that of entry ${before.index}`)
}

export const changeSerial = (known: Known, { serial, issuer: name, standing }: SerialChange, tell: Tell): void => {
  const issuer = issuerOf(name, known, tell)
  const before = known.serials.find(serial)
  if (before === undefined) return tell('reference.missing', `there is no certificate with the serial ${serial}`)
  if (issuer !== undefined && issuer.number !== before.issuer)
    tell('reference.missing', `the certificate with the serial ${serial} is not of the issuer ${name}`)
  if (!becomes[before.standing].includes(standing))
    tell('reference.state', `the serial ${serial} is ${before.standing}, and cannot become ${standing}`)
  known.serials.set(serial, { ...before, standing })
}

export const addIssuer = (
  known: Known,
  name: string,
  {
    authority,
    state,
    certificate: encoded,
    shards,
  }: Pick<KnownIssuer, 'authority' | 'state' | 'shards'> & { readonly certificate: string },
): KnownIssuer => {
  const certificate = known.deps.readCertificate(readBase64(encoded, 'entry.form', 'the certificate'))
  const number = Math.min(known.issuers.size, maxIssuers - 1)
  const issuer = { number, authority, state, encoded, certificate, shards }
  known.issuers.set(name, issuer)
  return issuer
}

export const issuerOf = (name: string, { issuers }: Known, tell: Tell): KnownIssuer | undefined => {
  const issuer = issuers.get(name)
  if (issuer === undefined) tell('reference.missing', `there is no issuer ${name}`)
  return issuer
}

export const principalOf = (name: string, { principals }: Known, tell: Tell): void => {
  if (!principals.has(name)) tell('reference.missing', `there is no principal ${name}`)
}

/** An order that is under way. */
export const orderOf = (plan: string, { orders }: Known, tell: Tell): Order | undefined => {
  const order = orders.get(plan)
  if (order === undefined) tell('reference.missing', `the plan ${plan} was not ordered`)
  else if (order.isDone) tell('reference.state', `the plan ${plan} is done`)
  return order
}

export const turn = (
  on: Set<string>,
  { id, isOn, what }: { readonly id: string; readonly isOn: boolean; readonly what: string },
  tell: Tell,
): void => {
  if (on.has(id) === isOn)
    tell(isOn ? 'reference.state' : 'reference.missing', `the ${what} ${id} is ${isOn ? '' : 'not '}there`)
  if (isOn) on.add(id)
  else on.delete(id)
}

export const verifierKeyOf = (text: string, { deps }: Known): VerifierKey | undefined => {
  try {
    return parseVerifierKey(text, deps.sha256)
  } catch (error) {
    if (isRollFault(error)) return undefined
    throw error
  }
}

export const digestOf = (octets: Uint8Array, { deps }: Known): string => deps.sha256(octets).toHex()

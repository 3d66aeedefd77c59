/**
 * What the entries of a roll make of each other: who and what there is by now, and whether an entry may follow. A table
 * has the checks of each type; what they remember is of the size of what there is (issuers, principals, grants, shards),
 * and 32 to 64 octets for each serial.
 */

import { isRollFault } from './fault.ts'
import type { FindingCode } from './findings.ts'
import type { EntryOf, EventType, RollEntry } from './forms.ts'
import type { Sha256 } from './merkle.ts'
import { parseVerifierKey, type VerifierKey } from './note.ts'
import { maxIssuers, openSerialTable, type SerialTable, type Standing } from './serials.ts'
import { isEqual, readBase64 } from './text.ts'

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
  /** Undefined for what is not a certificate. */
  readonly readCertificate: (der: Uint8Array) => RollCertificate | undefined
}

export type Tell = (code: FindingCode, message: string) => void

/** JSON; `serials` are 32 octets each, in strings of at most a megabyte. */
export interface HistoryState {
  readonly issuers: readonly (readonly [name: string, authority: string, state: string, certificate: string])[]
  readonly requested: readonly (readonly [issuer: string, spki: string])[]
  readonly profiles: readonly (readonly [name: string, version: number])[]
  /** Absent where it was saved before there were any. */
  readonly providers?: readonly (readonly [name: string, version: number])[]
  readonly principals: readonly (readonly [name: string, isOpen: boolean])[]
  readonly grants: readonly string[]
  readonly tokens: readonly string[]
  /** Absent where it was saved before there were any. */
  readonly credentials?: readonly string[]
  readonly lists: readonly (readonly [shard: string, number: number])[]
  readonly orders: readonly (readonly [plan: string, order: Order])[]
  /** The server that the records were last said to be on; null where that was never said. */
  readonly database: string | null
  readonly serials: readonly string[]
}

export interface History {
  /** Takes the next entry, and tells what is wrong with its coming now. A certificate whose signature is still to be checked. */
  follow(entry: RollEntry, index: number, tell: Tell): SignedBy | undefined
  save(): HistoryState
}

export const openHistory = (deps: HistoryDeps, saved?: HistoryState): History => {
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
    database: saved?.database ?? null,
    serials: openSerialTable(saved?.serials),
  }
  for (const [name, authority, state, certificate] of saved?.issuers ?? [])
    addIssuer(known, name, { authority, state, certificate })
  return {
    follow: (entry, index, tell) => {
      let signed: SignedBy | undefined
      const check = checks[entry.type] as Check<EventType> | undefined
      check?.(entry, known, {
        index,
        tell,
        signedBy: (one) => {
          signed = one
        },
      })
      return signed
    },
    save: () => ({
      issuers: [...known.issuers].map(([name, issuer]) => [name, issuer.authority, issuer.state, issuer.encoded]),
      requested: [...known.requested],
      profiles: [...known.profiles],
      providers: [...known.providers],
      principals: [...known.principals],
      grants: [...known.grants],
      tokens: [...known.tokens],
      credentials: [...known.credentials],
      lists: [...known.lists],
      orders: [...known.orders],
      database: known.database,
      serials: known.serials.save(),
    }),
  }
}

interface Known {
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
  readonly serials: SerialTable
  database: string | null
}

interface KnownIssuer {
  /** In the order in which they came. */
  readonly number: number
  readonly authority: string
  readonly encoded: string
  /** Undefined: it could not be read, which was told when it came. */
  readonly certificate: RollCertificate | undefined
  state: string
}

/** An order to revoke many: how many were found, how many of them have been revoked, and whether that is all. */
interface Order {
  readonly count: number
  revoked: number
  isDone: boolean
}

interface At {
  readonly index: number
  readonly tell: Tell
  /** Hands on a certificate whose signature is to be checked. */
  readonly signedBy: (signed: SignedBy) => void
}

type Check<T extends EventType> = (entry: EntryOf<T>, known: Known, at: At) => void

const move: Check<IssuerMove> = (entry, known, { tell }) => {
  const { type, issuer: name, authority, from } = entry
  const issuer = issuerOf(name, known, tell)
  if (issuer === undefined) return
  const { from: allowed, to } = moves[type]
  if (issuer.authority !== authority)
    tell('reference.missing', `the issuer ${name} is of the authority ${issuer.authority}`)
  if (issuer.state !== from) tell('reference.state', `the issuer ${name} is ${issuer.state}, not ${from}`)
  else if (!allowed.includes(from)) tell('reference.state', `an issuer that is ${from} cannot become ${to}`)
  issuer.state = to
}

/** A type without a check refers to nothing. */
const checks: { readonly [T in EventType]?: Check<T> } = {
  'certificate.issued': (entry, known, at) => {
    const { serial, issuer: name } = entry
    const issuer = issuance(entry, known, at)
    addSerial(known, { serial, issuer, standing: 'issued' }, at)
    if (entry.replaces !== undefined) replaced(entry.replaces, known, at)
    const certificate = known.deps.readCertificate(readBase64(entry.certificate, 'entry.form', 'the certificate'))
    if (certificate === undefined) return at.tell('certificate.text', 'it is not a certificate that can be read')
    if (certificate.serial !== serial)
      at.tell('certificate.serial', `the certificate has the serial ${certificate.serial}`)
    if (issuer?.certificate === undefined) return
    if (!isEqual(certificate.issuer, issuer.certificate.subject))
      at.tell('certificate.issuer', `the certificate does not name ${name} as its issuer`)
    if (certificate.notAfter > issuer.certificate.notAfter)
      at.tell('certificate.validity', `the certificate outlives its issuer ${name}`)
    at.signedBy({ certificate, issuer: issuer.certificate })
  },
  'issuance.abandoned': (entry, known, at) => {
    addSerial(known, { serial: entry.serial, issuer: issuance(entry, known, at), standing: 'abandoned' }, at)
  },
  'certificate.revoked': ({ serial, issuer, reason, plan }, known, { tell }) => {
    const standing = reason === 'certificateHold' ? 'held' : reason === 'keyCompromise' ? 'compromised' : 'revoked'
    changeSerial(known, { serial, issuer, standing }, tell)
    if (plan === null) return
    const order = orderOf(plan, known, tell)
    if (order) order.revoked += 1
  },
  'certificate.released': ({ serial, issuer }, known, { tell }) => {
    changeSerial(known, { serial, issuer, standing: 'issued' }, tell)
  },
  'crls.intended': ({ issuer, lists }, known, { index, tell }) => {
    issuerOf(issuer, known, tell)
    for (const { shard, number, covers } of lists) {
      const key = `${issuer}/${shard}`
      const next = (known.lists.get(key) ?? 0) + 1
      if (number !== next) tell('reference.number', `list ${number} of ${key} is not list ${next}`)
      if (covers > index)
        tell('reference.number', `a list of ${key} covers ${covers} entries, of which there are ${index}`)
      known.lists.set(key, number)
    }
  },
  'crl.imported': ({ issuer }, known, { tell }) => {
    issuerOf(issuer, known, tell)
  },
  'revocations.ordered': ({ plan, count, asOf }, known, { index, tell }) => {
    if (known.orders.has(plan)) return tell('reference.state', `the plan ${plan} was ordered before`)
    if (asOf.size > index)
      tell('reference.number', `it is of a roll of ${asOf.size} entries, of which there are ${index}`)
    known.orders.set(plan, { count, revoked: 0, isDone: false })
  },
  'revocations.done': ({ plan, revoked, skipped }, known, { tell }) => {
    const order = orderOf(plan, known, tell)
    if (order === undefined) return
    if (revoked !== order.revoked)
      tell('reference.number', `${order.revoked} were revoked by the plan ${plan}, not ${revoked}`)
    if (revoked + skipped.expired + skipped.revoked !== order.count)
      tell('reference.number', `the plan ${plan} was of ${order.count}`)
    order.isDone = true
  },
  'profile.changed': ({ profile: { name, version } }, known, { tell }) => {
    const next = (known.profiles.get(name) ?? 0) + 1
    if (version !== next) tell('reference.number', `version ${version} of the profile ${name} is not version ${next}`)
    known.profiles.set(name, version)
  },
  'provider.changed': ({ provider: { name, version } }, known, { tell }) => {
    const next = (known.providers.get(name) ?? 0) + 1
    if (version !== next)
      tell('reference.number', `version ${version} of the identity provider ${name} is not version ${next}`)
    known.providers.set(name, version)
  },
  'principal.created': ({ principal }, known, { tell }) => {
    if (known.principals.has(principal)) tell('reference.state', `the principal ${principal} was created before`)
    known.principals.set(principal, true)
  },
  'principal.disabled': ({ principal }, known, { tell }) => {
    if (known.principals.get(principal) === false)
      tell('reference.state', `the principal ${principal} is disabled already`)
    principalOf(principal, known, tell)
    known.principals.set(principal, false)
  },
  'grant.changed': ({ change, grant, principal }, known, { tell }) => {
    principalOf(principal, known, tell)
    turn(known.grants, { id: grant, isOn: change === 'created', what: 'grant' }, tell)
  },
  'token.created': ({ token, principal }, known, { tell }) => {
    principalOf(principal, known, tell)
    turn(known.tokens, { id: token, isOn: true, what: 'token' }, tell)
  },
  'token.revoked': ({ token }, known, { tell }) => turn(known.tokens, { id: token, isOn: false, what: 'token' }, tell),
  'credential.created': ({ credential, principal }, known, { tell }) => {
    principalOf(principal, known, tell)
    turn(known.credentials, { id: credential, isOn: true, what: 'credential' }, tell)
  },
  'credential.revoked': ({ credential }, known, { tell }) =>
    turn(known.credentials, { id: credential, isOn: false, what: 'credential' }, tell),
  'issuer.requested': ({ issuer, spki }, known, { tell }) => {
    if (known.issuers.has(issuer)) tell('reference.state', `the issuer ${issuer} is there already`)
    known.requested.set(issuer, spki)
  },
  'issuer.created': ({ issuer: name, authority, state, certificate }, known, { tell }) => {
    if (known.issuers.has(name)) return tell('reference.state', `the issuer ${name} was created before`)
    const issuer = addIssuer(known, name, { authority, state, certificate })
    if (issuer.certificate === undefined)
      return tell('certificate.text', `the certificate of the issuer ${name} is none that can be read`)
    const wanted = known.requested.get(name)
    if (wanted !== undefined && wanted !== digestOf(issuer.certificate.spki, known))
      tell('reference.key', `the certificate of the issuer ${name} is not for the key that was made for it`)
  },
  'issuer.activated': move,
  'issuer.retiring': move,
  'issuer.closed': move,
  'issuer.halted': move,
  'issuer.discarded': move,
  'issuer.retired': move,
  'issuer.chained': ({ issuer: name, chains }, known, { tell }) => {
    const issuer = issuerOf(name, known, tell)
    if (issuer === undefined) return
    const own = digestOf(readBase64(issuer.encoded, 'entry.form', 'the certificate'), known)
    if (chains.some(([first]) => first !== own)) tell('reference.key', `a chain does not begin with the issuer ${name}`)
  },
  'key.opened': ({ issuer: name, spki }, known, { tell }) => {
    const certificate = issuerOf(name, known, tell)?.certificate
    if (certificate !== undefined && digestOf(certificate.spki, known) !== spki)
      tell('reference.key', `this is not the key of the issuer ${name}`)
  },
  'roll.opened': ({ origin, key, database }, known, { tell }) => {
    if (verifierKeyOf(key, known)?.name !== origin)
      tell('reference.key', `the key of the roll is not that of ${origin}`)
    known.database = database
  },
  'database.adopted': ({ database, before }, known, { tell }) => {
    if (before !== known.database)
      tell('reference.state', `the records were on the server ${known.database}, not ${before}`)
    known.database = database
  },
}

type IssuerMove = Extract<
  EventType,
  `issuer.${'activated' | 'retiring' | 'closed' | 'halted' | 'discarded' | 'retired'}`
>

const moves: { readonly [T in IssuerMove]: { readonly from: readonly string[]; readonly to: string } } = {
  'issuer.activated': { from: ['staged', 'retiring'], to: 'active' },
  'issuer.retiring': { from: ['active'], to: 'retiring' },
  'issuer.closed': { from: ['retiring'], to: 'crl-only' },
  'issuer.halted': { from: ['staged', 'active', 'retiring'], to: 'crl-only' },
  'issuer.discarded': { from: ['staged'], to: 'retired' },
  'issuer.retired': { from: ['retiring', 'crl-only'], to: 'retired' },
}

/** What may become of a serial: hold is for a while, and a key that is somebody else's too outweighs every other reason. */
const becomes: { readonly [S in Standing]: readonly Standing[] } = {
  free: [],
  issued: ['held', 'revoked', 'compromised'],
  abandoned: [],
  held: ['issued', 'revoked', 'compromised'],
  revoked: ['compromised'],
  compromised: [],
}

/** What an intent refers to, whatever became of it; its issuer. */
const issuance = (
  { issuer: name, principal, profile }: EntryOf<'certificate.issued'> | EntryOf<'issuance.abandoned'>,
  known: Known,
  { tell }: At,
): KnownIssuer | undefined => {
  principalOf(principal, known, tell)
  if (profile.version < 1 || profile.version > (known.profiles.get(profile.name) ?? 0))
    tell('reference.missing', `there is no version ${profile.version} of the profile ${profile.name}`)
  const issuer = issuerOf(name, known, tell)
  // Until it has ended it may still answer for what it signed, or end what it has begun.
  if (issuer?.state === 'retired') tell('reference.state', `the issuer ${name} has retired`)
  return issuer
}

interface SerialChange {
  readonly serial: string
  readonly issuer: string
  readonly standing: Standing
}

const addSerial = (
  known: Known,
  { serial, issuer, standing }: Omit<SerialChange, 'issuer'> & { readonly issuer: KnownIssuer | undefined },
  { index, tell }: At,
): void => {
  const before = known.serials.find(serial)
  if (before !== undefined) return tell('serial.again', `the serial ${serial} is that of entry ${before.index}`)
  known.serials.set(serial, { index, issuer: issuer?.number ?? maxIssuers - 1, standing })
}

/** A certificate that there was by then. It may have been revoked while the renewal was under way. */
const replaced = (serial: string, known: Known, { index, tell }: At): void => {
  const before = known.serials.find(serial)
  if (before === undefined || before.index === index || before.standing === 'abandoned')
    tell('reference.missing', `there is no certificate with the serial ${serial} to be renewed`)
}

const changeSerial = (known: Known, { serial, issuer: name, standing }: SerialChange, tell: Tell): void => {
  const issuer = issuerOf(name, known, tell)
  const before = known.serials.find(serial)
  if (before === undefined) return tell('reference.missing', `there is no certificate with the serial ${serial}`)
  if (issuer !== undefined && issuer.number !== before.issuer)
    tell('reference.missing', `the certificate with the serial ${serial} is not of the issuer ${name}`)
  if (!becomes[before.standing].includes(standing))
    tell('reference.state', `the serial ${serial} is ${before.standing}, and cannot become ${standing}`)
  known.serials.set(serial, { ...before, standing })
}

const addIssuer = (
  known: Known,
  name: string,
  {
    authority,
    state,
    certificate: encoded,
  }: { readonly authority: string; readonly state: string; readonly certificate: string },
): KnownIssuer => {
  const certificate = known.deps.readCertificate(readBase64(encoded, 'entry.form', 'the certificate'))
  const issuer = { number: Math.min(known.issuers.size, maxIssuers - 1), authority, state, encoded, certificate }
  known.issuers.set(name, issuer)
  return issuer
}

const issuerOf = (name: string, { issuers }: Known, tell: Tell): KnownIssuer | undefined => {
  const issuer = issuers.get(name)
  if (issuer === undefined) tell('reference.missing', `there is no issuer ${name}`)
  return issuer
}

const principalOf = (name: string, { principals }: Known, tell: Tell): void => {
  if (!principals.has(name)) tell('reference.missing', `there is no principal ${name}`)
}

/** An order that is under way. */
const orderOf = (plan: string, { orders }: Known, tell: Tell): Order | undefined => {
  const order = orders.get(plan)
  if (order === undefined) tell('reference.missing', `the plan ${plan} was not ordered`)
  else if (order.isDone) tell('reference.state', `the plan ${plan} is done`)
  return order
}

const turn = (
  on: Set<string>,
  { id, isOn, what }: { readonly id: string; readonly isOn: boolean; readonly what: string },
  tell: Tell,
): void => {
  if (on.has(id) === isOn)
    tell(isOn ? 'reference.state' : 'reference.missing', `the ${what} ${id} is ${isOn ? '' : 'not '}there`)
  if (isOn) on.add(id)
  else on.delete(id)
}

const verifierKeyOf = (text: string, { deps }: Known): VerifierKey | undefined => {
  try {
    return parseVerifierKey(text, deps.sha256)
  } catch (error) {
    if (isRollFault(error)) return undefined
    throw error
  }
}

const digestOf = (octets: Uint8Array, { deps }: Known): string => deps.sha256(octets).toHex()

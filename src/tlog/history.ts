/**
 * What the entries of a roll make of each other: whether an entry may follow those before it. A table has the checks of
 * each type.
 */
import { listsText } from './entries.ts'
import type { EntryOf, EventType, RollEntry } from './forms.ts'
import {
  addIssuer,
  addSerial,
  changeSerial,
  digestOf,
  type HistoryDeps,
  type HistoryState,
  issuerOf,
  type Known,
  type KnownIssuer,
  openKnown,
  orderOf,
  principalOf,
  type SignedBy,
  saveKnown,
  type Tell,
  turn,
  verifierKeyOf,
} from './known.ts'
import {
  approveRequest,
  createRequest,
  endRequest,
  expireRequest,
  issueApproved,
  keepApprover,
  rejectRequest,
  wantApprovals,
  withdrawRequest,
} from './requests.ts'
import { isEqual, readBase64 } from './text.ts'

export interface History {
  /** Takes the next entry, and tells what is wrong with its coming now. A certificate whose signature is still to be checked. */
  follow(entry: RollEntry, index: number, tell: Tell): SignedBy | undefined
  save(): HistoryState
}

export const openHistory = (deps: HistoryDeps, saved?: HistoryState): History => {
  const known = openKnown(deps, saved)
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
    save: () => saveKnown(known),
  }
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
    if (entry.replaces !== null) replaced(entry.replaces, known, at)
    const der = readBase64(entry.certificate, 'entry.form', 'the certificate')
    const certificate = known.deps.readCertificate(der)
    issueApproved(entry, { der, certificate }, known, at.tell)
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
    onItsList(entry, known, at)
  },
  'certificate.revoked': (entry, known, { tell }) => {
    const { serial, issuer, reason, plan } = entry
    onItsList(entry, known, { tell })
    const standing = reason === 'certificateHold' ? 'held' : reason === 'keyCompromise' ? 'compromised' : 'revoked'
    changeSerial(known, { serial, issuer, standing }, tell)
    if (plan === null) return
    const order = orderOf(plan, known, tell)
    if (order) order.revoked += 1
  },
  'certificate.released': (entry, known, { tell }) => {
    const { serial, issuer } = entry
    onItsList(entry, known, { tell })
    changeSerial(known, { serial, issuer, standing: 'issued' }, tell)
  },
  'crls.intended': ({ issuer, lists }, known, { index, tell }) => {
    const shards = issuerOf(issuer, known, tell)?.shards
    for (const { shard, number, covers } of lists) {
      const key = `${issuer}/${shard}`
      if (shards !== undefined && shard >= shards)
        tell('reference.number', `${key} is no list of ${issuer}, which has ${listsText(shards)}, from 0 on`)
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
  'request.created': (entry, known, { tell }) => {
    principalOf(entry.principal, known, tell)
    versionOf(entry.profile, known, tell)
    createRequest(entry, known, tell)
  },
  'request.approved': (entry, known, { tell }) => approveRequest(entry, known, tell),
  'request.rejected': (entry, known, { tell }) => rejectRequest(entry, known, tell),
  'request.withdrawn': (entry, known, { tell }) => withdrawRequest(entry, known, tell),
  'request.expired': (entry, known, { tell }) => expireRequest(entry, known, tell),
  'request.failed': (entry, known, { tell }) => {
    endRequest(entry, known, tell)
  },
  'profile.changed': (entry, known, { tell }) => {
    const { name, version } = entry.profile
    const next = (known.profiles.get(name) ?? 0) + 1
    if (version !== next) tell('reference.number', `version ${version} of the profile ${name} is not version ${next}`)
    known.profiles.set(name, version)
    wantApprovals(entry, known)
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
  'principal.disabled': ({ principal, time }, known, { tell }) => {
    if (known.principals.get(principal) === false)
      tell('reference.state', `the principal ${principal} is disabled already`)
    principalOf(principal, known, tell)
    known.principals.set(principal, false)
    known.closings.set(principal, time)
  },
  'grant.changed': (entry, known, { tell }) => {
    principalOf(entry.principal, known, tell)
    turn(known.grants, { id: entry.grant, isOn: entry.change === 'created', what: 'grant' }, tell)
    keepApprover(entry, known)
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
  'issuer.created': (entry, known, { tell }) => {
    const { issuer: name, authority, state, certificate, shards } = entry
    if (known.issuers.has(name)) return tell('reference.state', `the issuer ${name} was created before`)
    const issuer = addIssuer(known, name, { authority, state, certificate, shards })
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
  'issuer.relocated': ({ issuer: name, spki }, known, { tell }) => {
    const requested = known.requested.get(name)
    const certificate = requested === undefined ? issuerOf(name, known, tell)?.certificate : undefined
    const own = certificate === undefined ? requested : digestOf(certificate.spki, known)
    if (own !== undefined && own !== spki) tell('reference.key', `this is not the key of the issuer ${name}`)
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

/** What an intent refers to, whatever became of it; its issuer. */
const issuance = (
  { issuer: name, principal, profile }: EntryOf<'certificate.issued'> | EntryOf<'issuance.abandoned'>,
  known: Known,
  { tell }: At,
): KnownIssuer | undefined => {
  principalOf(principal, known, tell)
  versionOf(profile, known, tell)
  const issuer = issuerOf(name, known, tell)
  // Until it has ended it may still answer for what it signed, or end what it has begun.
  if (issuer?.state === 'retired') tell('reference.state', `the issuer ${name} has retired`)
  return issuer
}

const versionOf = (
  { name, version }: { readonly name: string; readonly version: number },
  { profiles }: Known,
  tell: Tell,
): void => {
  if (version < 1 || version > (profiles.get(name) ?? 0))
    tell('reference.missing', `there is no version ${version} of the profile ${name}`)
}

/**
 * Its last octets say which of its issuer's lists a serial is on (as `shardOf` does it, ca/issuance/serial.ts), and so does its certificate: nobody
 * looks for it on another.
 */
const onItsList = (
  { serial, issuer, shard }: { readonly serial: string; readonly issuer: string; readonly shard: number },
  { issuers }: Known,
  { tell }: Pick<At, 'tell'>,
): void => {
  const shards = issuers.get(issuer)?.shards
  if (shards === undefined) return
  const own = Number.parseInt(serial.slice(-8), 16) % shards
  if (shard !== own) tell('reference.number', `the serial ${serial} is on ${issuer}/${own}, not on ${issuer}/${shard}`)
}

/** A certificate that there was by then. It may have been revoked while the renewal was under way. */
const replaced = (serial: string, known: Known, { index, tell }: At): void => {
  const before = known.serials.find(serial)
  if (before === undefined || before.index === index || before.standing === 'abandoned')
    tell('reference.missing', `there is no certificate with the serial ${serial} to be renewed`)
}

/**
 * Who may call what. Each route declares its access where it is defined; a route that declares none cannot be
 * registered. Everything that no declaration allows is denied.
 */
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

import type { FastifyRequest } from 'fastify'

import { type Caller, hasRole, type Identities, type Role } from '../ca/access/access.ts'
import { Problem } from '../errors.ts'
import { parseSerial } from './api/views.ts'
import { admissionTimeout, trustMs } from './bounds.ts'
import { withinDeadline } from './deadline.ts'
import { forwardedCertificate } from './peers.ts'

/**
 * `open`: anyone. `optional`: anyone, and whoever sends credentials is told more. A list: callers who hold at least
 * one of these roles in a grant.
 */
export type AccessRule = 'open' | 'optional' | HolderRule | readonly [Role, ...Role[]]

/** Whoever shows the very certificate that the path names, and callers with one of these roles. */
export interface HolderRule {
  readonly holderOr: readonly Role[]
}

export const isHolderRule = (rule: AccessRule | undefined): rule is HolderRule =>
  typeof rule === 'object' && 'holderOr' in rule

export const everyRole = ['requester', 'approver', 'operator', 'auditor', 'admin'] as const satisfies readonly Role[]

/** Who reads every certificate; a requester reads its own. */
export const readers = ['auditor', 'operator', 'admin'] as const satisfies readonly Role[]

export const readsAll = (caller: Caller): boolean => readers.some((role) => hasRole(caller, role))

/** What a request shows of who sends it. */
export interface Shown {
  /** Authorization. */
  readonly header: string | undefined
  /** DER, of the connection's other end, which has proved to hold its key; or of a listed proxy's, by what it says. */
  readonly certificate: Buffer | undefined
  /** Of a certificate, as the path has it. */
  readonly serial?: string | undefined
  /** Somebody who is no listed proxy says whose certificate it has seen. */
  readonly isForged?: boolean
  /** Told who it is once that is proved, whether or not they are then let in. */
  readonly met?: (caller: Caller) => void
}

/**
 * Resolves to the caller whom the rule lets in; null where nobody need say who they are. `isAgain`: the same request was
 * let in before, and is asked whether it still is.
 */
export const authorise = async (
  identities: Identities,
  rule: AccessRule,
  shown: Shown,
  isAgain = false,
): Promise<Caller | null> => {
  if (rule === 'open' || (rule === 'optional' && isNothing(identities, shown))) return null
  if (isHolderRule(rule)) return await identifyHolder(identities, rule, shown, isAgain)
  const caller = await identify(identities, shown, isAgain)
  if (rule !== 'optional') assertRole(caller, rule)
  return caller
}

/**
 * Asks again once the body is there, if that took long: whoever sends it a piece at a time would else stay let in for as
 * long, whatever is taken away meanwhile.
 */
export const askAgain =
  (identities: Identities, rule: AccessRule) =>
  (request: FastifyRequest, _reply: unknown, done: (error?: Error) => void): void => {
    if (performance.now() - request.admittedAt < trustMs) return done()
    withinDeadline(authorise(identities, rule, shownBy(request), true), admissionTimeout)
      .then((caller) => {
        request.caller = caller
      })
      .then(done as () => void, done)
  }

/** Who sends this request, by whatever lets it in. */
export const askingCaller = (identities: Identities, request: FastifyRequest): Caller => {
  const { access: rule = 'open' } = request.routeOptions.config
  const ask = async (): Promise<Caller> =>
    callerOf({ caller: await authorise(identities, rule, shownBy(request), true) })
  return askingLater(callerOf(request), request.admittedAt, ask)
}

/** A caller who was let in then, with the way to ask again once an answer takes as long as nobody is believed. */
export const askingLater = (caller: Caller, admittedAt: number, ask: () => Promise<Caller>): Caller => ({
  ...caller,
  again: async () => (performance.now() - admittedAt < trustMs ? undefined : await ask()),
})

/**
 * A listed proxy speaks for its clients alone: its own certificate is never theirs, or whoever comes through it without one
 * would be the proxy.
 */
export const shownBy = (request: Pick<FastifyRequest, 'headers' | 'raw' | 'params' | 'peer' | 'met'>): Shown => {
  const { headers, raw, params, peer } = request
  const { authorization: header } = headers
  const { serial } = (params ?? {}) as { readonly serial?: string }
  const met = (caller: Caller): void => {
    request.met = caller
  }
  if (peer?.isProxy) return { header, certificate: forwardedCertificate(headers), serial, met }
  const certificate = certificateOf(raw.socket)
  const isForged = headers['client-cert'] !== undefined
  return { header, certificate, serial, isForged, met }
}

/**
 * The certificate of the other end. It is the same as long as a connection lasts: there is no renegotiation, and a
 * session that is resumed has that of the session. Whether it holds is asked with every request.
 */
const certificateOf = (socket: Socket): Buffer | undefined => {
  const found = certificates.get(socket)
  if (found !== undefined) return found ?? undefined
  const certificate = (socket as Partial<TLSSocket>).getPeerX509Certificate?.()?.raw
  certificates.set(socket, certificate ?? null)
  return certificate
}

/**
 * By what somebody was let in, for the log: a principal may have several tokens, and may be several people, as where a mapping
 * names it without a claim.
 */
export const proofTold = ({ proof }: Caller): Readonly<Record<string, string>> => {
  const { kind } = proof
  if (proof.kind === 'token') return { kind, id: proof.token }
  if (proof.kind === 'jwt') {
    const { provider, version, subject } = proof
    return {
      kind,
      id: `${provider}@${version}`,
      subject: subject.slice(0, longestSubject).replaceAll(unseen, '\ufffd'),
    }
  }
  if (proof.kind === 'certificate') {
    const { credential, certificate } = proof
    return { kind, id: credential, certificate: certificate.serial ?? certificate.fingerprint.toString('hex') }
  }
  return proof.kind === 'holder' ? { kind, certificate: proof.held.serial } : { kind }
}

/** The caller of a route that is not open. Throws `auth.missing` where there is none, whatever the route forgot. */
export const callerOf = (request: { readonly caller: Caller | null }): Caller => {
  if (!request.caller) throw new Problem('auth.missing', 'This call needs credentials.')
  return request.caller
}

const isNothing = ({ takesCertificates }: Identities, { header, certificate, isForged }: Shown): boolean =>
  header === undefined && (certificate === undefined || !takesCertificates) && isForged !== true

const assertNotForged = ({ isForged }: Shown): void => {
  if (isForged) throw new Problem('auth.proxy', 'There is a field Client-Cert, and the other end is no listed proxy.')
}

/** Of two credentials one might be wrong, and one of them somebody else's: then nobody could say who asked. */
const identify = async (identities: Identities, shown: Shown, isAgain: boolean): Promise<Caller> => {
  assertNotForged(shown)
  const caller = await proved(identities, shown, isAgain)
  shown.met?.(caller)
  return caller
}

const proved = async (identities: Identities, { header, certificate }: Shown, isAgain: boolean): Promise<Caller> => {
  if (certificate === undefined || !identities.takesCertificates)
    return identities.bearer(bearerOf(header, certificate !== undefined), isAgain)
  if (header === undefined) return identities.certificate(certificate)
  throw ambiguous()
}

const ambiguous = (): Problem =>
  new Problem('auth.ambiguous', 'There is a client certificate, and an Authorization field as well.')

/** A certificate that is not the one in the path is that of a client, as anywhere else. */
const identifyHolder = async (
  identities: Identities,
  { holderOr }: HolderRule,
  shown: Shown,
  isAgain: boolean,
): Promise<Caller> => {
  assertNotForged(shown)
  const { header, certificate, serial = '' } = shown
  if (certificate !== undefined && header !== undefined) throw ambiguous()
  if (certificate !== undefined) {
    const holder = await identities.holder(certificate, parseSerial(serial))
    if (holder) {
      shown.met?.(holder)
      return holder
    }
    if (holderOr.length === 0)
      throw new Problem('renewal.certificate', 'The certificate of this connection is another one.')
  }
  const isOnlyForHolders = holderOr.length === 0
  if (isOnlyForHolders && header === undefined) throw new Problem('auth.missing', onlyItself)
  const caller = await identify(identities, shown, isAgain)
  // No grant covers it, so nobody is sent to an administrator for one.
  if (isOnlyForHolders) throw new Problem('renewal.certificate', onlyItself)
  assertRole(caller, holderOr)
  return caller
}

const assertRole = (caller: Caller, rule: readonly Role[]): void => {
  for (const grant of caller.grants) if (rule.includes(grant.role)) return
  // Whoever a token or a certificate makes somebody may not know as whom; who is to grant it has to.
  const needed = `This call needs a grant as ${rule.join(' or ')}`
  throw new Problem('auth.forbidden', `${needed}, which the principal "${caller.principal}" has not.`)
}

/** The token of RFC 6750 2.1; neither the body nor the query is ever looked at for one. */
const bearerOf = (header: string | undefined, isUnread: boolean): string => {
  if (header === undefined) throw new Problem('auth.missing', isUnread ? unread : 'This call needs credentials.')
  const token = bearer.exec(header)?.[1]
  if (token === undefined) throw new Problem('auth.invalid', 'Authorization must be Bearer and one token.')
  return token
}

const onlyItself = 'This call takes the certificate itself, over mutual TLS, and no token.'
/** Whoever shows one would else be told to show one. */
const unread =
  'This call needs credentials, and a client certificate is none here: neither CHANCERY_CLIENT_AUTHORITIES nor CHANCERY_CLIENT_CA is set.'
/** The longest that OpenID Connect lets one be (Core 2). */
const longestSubject = 255
/** It is a stranger's word, and JSON leaves as they are what a terminal that shows the log takes for a command (U+009B), or turns a line around. */
const unseen = /[\p{C}\p{Zl}\p{Zp}]/gu
const certificates = new WeakMap<Socket, Buffer | null>()
/** RFC 6750 2.1. Header fields as a whole are bounded. */
const bearer = /^Bearer +([A-Za-z0-9._~+/-]{1,16384}=*) *$/i

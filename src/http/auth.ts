/**
 * Who may call what. Each route declares its access where it is defined; a route that declares none cannot be
 * registered. Everything that no declaration allows is denied.
 */
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

import type { FastifyRequest } from 'fastify'

import { type Caller, hasRole, type Identities, type Role } from '../ca/access.ts'
import { Problem } from '../errors.ts'

/**
 * `open`: anyone. `optional`: anyone, and whoever sends credentials is told more. A list: callers who hold at least
 * one of these roles in a grant.
 */
export type AccessRule = 'open' | 'optional' | readonly [Role, ...Role[]]

export const everyRole = ['requester', 'approver', 'operator', 'auditor', 'admin'] as const satisfies readonly Role[]

/** Who reads every certificate; a requester reads its own. */
export const readers = ['auditor', 'operator', 'admin'] as const satisfies readonly Role[]

export const readsAll = (caller: Caller): boolean => readers.some((role) => hasRole(caller, role))

/** What a request shows of who sends it. */
export interface Shown {
  /** Authorization. */
  readonly header: string | undefined
  /** DER, of the connection's other end, which has proved to hold its key. */
  readonly certificate: Buffer | undefined
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
  if (rule === 'open' || (rule === 'optional' && isNothing(shown))) return null
  const caller = await identify(identities, shown, isAgain)
  if (rule !== 'optional') assertRole(caller, rule)
  return caller
}

export const shownBy = ({ headers, raw }: Pick<FastifyRequest, 'headers' | 'raw'>): Shown => ({
  header: headers.authorization,
  certificate: certificateOf(raw.socket),
})

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

/** The caller of a route that is not open. Throws `auth.missing` where there is none, whatever the route forgot. */
export const callerOf = (request: { readonly caller: Caller | null }): Caller => {
  if (!request.caller) throw new Problem('auth.missing', 'This call needs credentials.')
  return request.caller
}

const isNothing = ({ header, certificate }: Shown): boolean => header === undefined && certificate === undefined

/** Of two credentials one might be wrong, and one of them somebody else's: then nobody could say who asked. */
const identify = async (identities: Identities, { header, certificate }: Shown, isAgain: boolean): Promise<Caller> => {
  if (certificate === undefined) return identities.bearer(bearerOf(header), isAgain)
  if (header === undefined) return identities.certificate(certificate)
  throw new Problem('auth.ambiguous', 'There is a client certificate, and an Authorization field as well.')
}

const assertRole = (caller: Caller, rule: readonly Role[]): void => {
  for (const grant of caller.grants) if (rule.includes(grant.role)) return
  throw new Problem('auth.forbidden', `This call needs a grant as ${rule.join(' or ')}.`)
}

/** The token of RFC 6750 2.1; neither the body nor the query is ever looked at for one. */
const bearerOf = (header: string | undefined): string => {
  if (header === undefined) throw new Problem('auth.missing', 'This call needs credentials.')
  const token = bearer.exec(header)?.[1]
  if (token === undefined) throw new Problem('auth.invalid', 'Authorization must be Bearer and one token.')
  return token
}

const certificates = new WeakMap<Socket, Buffer | null>()
/** RFC 6750 2.1. Header fields as a whole are bounded. */
const bearer = /^Bearer +([A-Za-z0-9._~+/-]{1,16384}=*) *$/i

/**
 * Who may call what. Each route declares its access where it is defined; a route that declares none cannot be
 * registered. Everything that no declaration allows is denied.
 */
import { type Access, type Caller, hasRole, type Role } from '../ca/access.ts'
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

/** Resolves to the caller whom the rule lets in; null where nobody need say who they are. */
export const authorise = async (
  access: Access,
  rule: AccessRule,
  header: string | undefined,
): Promise<Caller | null> => {
  if (rule === 'open' || (rule === 'optional' && header === undefined)) return null
  const caller = await access.authenticate(bearerOf(header))
  if (rule !== 'optional') assertRole(caller, rule)
  return caller
}

/** The caller of a route that is not open. Throws `auth.missing` where there is none, whatever the route forgot. */
export const callerOf = (request: { readonly caller: Caller | null }): Caller => {
  if (!request.caller) throw new Problem('auth.missing', 'This call needs credentials.')
  return request.caller
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

const bearer = /^Bearer +([A-Za-z0-9._~+/-]{1,256}=*) *$/i

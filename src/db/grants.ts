/** Grants as they stand. */
import type { Grant, Role } from '../ca/access/access.ts'
import type { Limits } from '../policy/limits.ts'
import type { NameRules } from '../policy/names.ts'
import type { OriginRules } from '../policy/origin.ts'

export interface GrantRow {
  readonly id: string
  readonly principal: string
  readonly role: Role
  readonly profiles: readonly string[] | null
  readonly names: NameRules | null
  readonly revoke: boolean
  readonly limits: Limits | null
  readonly on_behalf_of: OriginRules | null
  readonly shared_keys: boolean
  readonly created_at: Date | string
  readonly created_by: string
}

export const grantOf = (row: GrantRow): Grant => ({
  id: row.id,
  principal: row.principal,
  role: row.role,
  profiles: row.profiles,
  names: row.names,
  revoke: row.revoke,
  ...(row.limits !== null && { limits: row.limits }),
  ...(row.on_behalf_of !== null && { onBehalfOf: row.on_behalf_of }),
  ...(row.shared_keys && { sharedKeys: true }),
  createdAt: new Date(row.created_at),
  createdBy: row.created_by,
})

/** SQL for what the principal in this column holds, as JSON of rows. */
export const grantsOf = (principal: string): string => `coalesce((
      select json_agg(json_build_object('id', g.id, 'principal', g.principal, 'role', g.role, 'profiles', g.profiles,
        'names', g.names, 'revoke', g.revoke, 'limits', g.limits, 'on_behalf_of', g.on_behalf_of, 'shared_keys', g.shared_keys,
        'created_at', g.created_at, 'created_by', g.created_by) order by g.created_at, g.id)
      from grants g where g.principal = ${principal}
        and not exists (select from grant_revocations r where r.grant_id = g.id)), '[]')`

/** Principals as they stand, for everything that is given to one. */
import type { Principal } from '../ca/access/access.ts'
import { Problem } from '../errors.ts'
import type { RollEvent } from '../tlog/entries.ts'
import type { Queryable } from './database.ts'

/** Makes a change with its events, under the head of the roll. */
export type Change = <T>(
  make: (tx: Queryable) => Promise<{ readonly events: readonly RollEvent[]; readonly result: T }>,
) => Promise<T>

/** Throws `principal.not_found`. */
export const readPrincipal = async (db: Queryable, name: string): Promise<Principal> => {
  const row = (await db.query<PrincipalRow>(selectPrincipals, [name])).rows[0]
  if (!row) throw new Problem('principal.not_found', `There is no principal ${JSON.stringify(name)}.`)
  return principalOf(row)
}

/** Throws `principal.disabled` as well. */
export const assertOpen = async (tx: Queryable, name: string): Promise<void> => {
  const { disabledAt } = await readPrincipal(tx, name)
  if (disabledAt) throw new Problem('principal.disabled', `The principal ${JSON.stringify(name)} is disabled for good.`)
}

export const listPrincipals = async (db: Queryable): Promise<readonly Principal[]> =>
  (await db.query<PrincipalRow>(selectPrincipals, [null])).rows.map(principalOf)

export interface PrincipalRow {
  readonly name: string
  readonly created_at: Date
  readonly created_by: string
  readonly closed_at: Date | null
}

export const principalOf = (row: PrincipalRow): Principal => ({
  name: row.name,
  createdAt: row.created_at,
  createdBy: row.created_by,
  disabledAt: row.closed_at,
})

const selectPrincipals = {
  text: `select p.name, p.created_at, p.created_by, c.closed_at
    from principals p left join principal_closures c on c.principal = p.name
    where $1::text is null or p.name = $1 order by p.name`,
}

/**
 * Tokens that a recovery has brought back without their secrets, which nobody has. They are revoked when the service starts again,
 * on the roll: while entries are put back nothing may be added to it, and a revocation of which no entry tells looks like one
 * that somebody has written into the records.
 */
import type { Database } from './database.ts'
import type { RollWriter } from './log.ts'

/** In the place of the digest of a secret. No digest begins like this, and nobody can find what would have it. */
export const lostDigest = (random: (octets: number) => Buffer): Buffer =>
  Buffer.concat([Buffer.alloc(lostOctets), random(32 - lostOctets)])

/** Safe to run again and by several at once. Past the guard for the last administrator: nobody is let in by them. */
export const revokeLostTokens = async (
  { db, roll }: { readonly db: Pick<Database, 'query'>; readonly roll: Pick<RollWriter, 'change'> },
  by: string,
): Promise<void> => {
  // Nobody waits for the head of the roll where there is none, which is always but once.
  while ((await db.query(selectLost)).rows.length > 0)
    await roll.change(async (tx) => {
      const { rows } = await tx.query<LostRow>(selectLost)
      const ids = rows.map(({ id }) => id)
      await tx.query(insertRevocations, [ids, by])
      const events = rows.map(({ id, principal, label, expires_at }) => {
        const expires = expires_at?.toISOString() ?? null
        return { type: 'token.revoked', token: id, principal, label, expires, by } as const
      })
      return { events, result: undefined }
    })
}

interface LostRow {
  readonly id: string
  readonly principal: string
  readonly label: string
  readonly expires_at: Date | null
}

const lostOctets = 16
const maxRevoked = 256

const selectLost = {
  text: `
    select id, principal, label, expires_at from tokens t
    where substring(sha256 for ${lostOctets}) = '\\x${'00'.repeat(lostOctets)}'::bytea
      and not exists (select from token_revocations r where r.token = t.id)
    order by id limit ${maxRevoked}`,
}
const insertRevocations = {
  text: 'insert into token_revocations (token, revoked_by) select unnest($1::uuid[]), $2',
}

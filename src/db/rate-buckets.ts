/** What instances share of limits of requests, and how many instances there are: of seconds, and kept on no disk. */
import type { Shares } from '../ca/access/principal-limits.ts'
import type { Database } from './database.ts'

export interface SharedLimits extends Shares {
  /** Says that this instance is alive; resolves to how many are. */
  note(): Promise<number>
  /** It goes away, and leaves what it had to the others. */
  forget(): Promise<void>
}

/** `replica` is this process's own id (UUID). */
export const openShares = (db: Database, replica: string): SharedLimits => ({
  takeRate: async (principal, rate, most) => {
    const [row] = (await db.query<{ taken: number; wait_ms: number }>(takeRate, [principal, rate, most])).rows
    if (!row) throw new Error('a bucket gave no row')
    return { taken: row.taken, waitMs: row.wait_ms }
  },
  takeSlots: async (principal, bound, wanted) => {
    const [row] = (await db.query<{ given: number }>(takeSlots, [replica, principal, bound, wanted])).rows
    return row?.given ?? 0
  },
  note: async () => (await db.query<{ alive: number }>(noteReplica, [replica])).rows[0]?.alive ?? 1,
  forget: async () => {
    await db.query(forgetReplica, [replica])
  },
})

const takeRate = { name: 'take_rate', text: 'select taken, wait_ms from take_rate($1, $2::integer, $3::integer)' }
const takeSlots = {
  name: 'take_slots',
  text: 'select take_slots($1::uuid, $2, $3::integer, $4::integer) as given',
}
const noteReplica = { name: 'note_replica', text: 'select note_replica($1::uuid) as alive' }
const forgetReplica = { name: 'forget_replica', text: 'select forget_replica($1::uuid)' }

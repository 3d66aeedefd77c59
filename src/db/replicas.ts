/** How many instances serve: limits of requests are divided among them. */
import type { Database } from './database.ts'

export interface Replicas {
  /** Announces this instance; resolves to how many were seen in the last ten seconds. */
  note(): Promise<number>
  forget(): Promise<void>
}

/** `replica` is the process's own id (UUID). */
export const openReplicas = (db: Database, replica: string): Replicas => ({
  note: async () => (await db.query<{ alive: number }>(noteReplica, [replica])).rows[0]?.alive ?? 1,
  forget: async () => {
    await db.query(forgetReplica, [replica])
  },
})

const noteReplica = { name: 'note_replica', text: 'select note_replica($1::uuid) as alive' }
const forgetReplica = { name: 'forget_replica', text: 'select forget_replica($1::uuid)' }

/** Leases in the database: one instance at a time does what is periodic, and another goes on when it dies. */
import type { Database } from './database.ts'

export interface Leases {
  /** Takes or renews the lease, by the database's clock; false while another instance has it. */
  take(name: string, milliseconds: number): Promise<boolean>
  /** Lets the next one take all that we hold. */
  release(): Promise<void>
}

/** `holder` is this process's own id (UUID). */
export const openLeases = (db: Database, holder: string): Leases => ({
  take: async (name, milliseconds) => (await db.query(takeLease, [name, holder, milliseconds])).rows.length > 0,
  release: async () => {
    await db.query(releaseLeases, [holder])
  },
})

const takeLease = {
  name: 'take_lease',
  text: `
    insert into leases (name, holder, until)
    values ($1, $2::uuid, clock_timestamp() + make_interval(secs => $3::double precision / 1000))
    on conflict (name) do update set holder = excluded.holder, until = excluded.until
    where leases.holder = excluded.holder or leases.until < clock_timestamp()
      -- Nobody takes one for longer: the clock was set back.
      or leases.until > excluded.until + interval '1 second'
    returning name`,
}

const releaseLeases = {
  name: 'release_leases',
  text: `update leases set until = clock_timestamp() where holder = $1::uuid and until > clock_timestamp()`,
}

/** PINs that tokens have refused, in the records: kept from every replica and every restart, until an operator says otherwise. */
import type { Database, Queryable } from './database.ts'
import { inTurn } from './turn.ts'

/** As `keys/pkcs11/pins.ts` has it; hexadecimal. */
interface RefusedPin {
  readonly token: string
  readonly serial: string
  readonly salt: string
  readonly digest: string
}

/**
 * Replicas open tokens one after the other, so that the second sees what the first was refused. What `open` rejects with
 * is passed on; when it carries a `pin`, that is durable before.
 */
export const pinGuard = (db: Database) => ({
  openOnce: async <T>(open: (refused: readonly RefusedPin[]) => Promise<T>): Promise<T> => {
    const outcome = await db.transaction(async (tx) => {
      await inTurn(tx, turns.tokens)
      const { rows } = await tx.query<RefusedPin>(selectRefused)
      try {
        return { opened: await open(rows) }
      } catch (error) {
        const { pin } = error as { readonly pin?: RefusedPin }
        if (pin) await recordRefused(tx, pin)
        return { error }
      }
    })
    if ('error' in outcome) throw outcome.error
    return outcome.opened
  },
})

/** The PINs that were refused may be tried again, once. Resolves to the tokens that had any, by label and serial. */
export const unlatchTokens = async (
  db: Database,
  label: string,
): Promise<readonly { readonly token: string; readonly serial: string }[]> =>
  (await db.query<{ token: string; serial: string }>(insertUnlatched, [label])).rows

const recordRefused = (tx: Queryable, { token, serial, salt, digest }: RefusedPin): Promise<unknown> =>
  tx.query(insertRefused, [token, serial, salt, digest])

const isLatched = `not exists (
      select from unlatched_tokens u where u.token = r.token and u.serial = r.serial and u.at > r.at)`

const selectRefused = {
  text: `
    select r.token, r.serial, encode(r.salt, 'hex') as salt, encode(r.digest, 'hex') as digest from refused_pins r
    where ${isLatched}`,
}

const insertRefused = {
  text: `
    insert into refused_pins (token, serial, salt, digest)
    values ($1, $2, decode($3, 'hex'), decode($4, 'hex'))`,
}

const insertUnlatched = {
  text: `
    insert into unlatched_tokens (token, serial)
    select distinct r.token, r.serial from refused_pins r where r.token = $1 and ${isLatched}
    returning token, serial`,
}

const turns = { tokens: 4_711_000_003 }

/**
 * What was tried to log in to tokens, in the records: kept from every replica and every restart, until an operator says
 * otherwise. A token's turn is a lock that its own connection holds, so that a process that dies hands it on at once; all
 * that is written goes by the pool, and is durable while the turn goes on.
 */
import { hash } from 'node:crypto'

import type { Log } from '../log.ts'
import { inTurn } from './advisory-lock.ts'
import type { Database } from './database.ts'
import type { RollWriter } from './log.ts'

/** As `keys/pkcs11/pins.ts` has it, as is all here that is not exported; hexadecimal. */
interface RefusedPin extends TokenPlace {
  readonly salt: string
  readonly digest: string
}

interface TokenPlace {
  readonly token: string
  readonly serial: string
}

interface PastTries {
  readonly refused: readonly RefusedPin[]
  readonly unfinished: number
  readonly unlatched: boolean
}

interface PinTurn {
  readonly past: PastTries
  begin(): Promise<void>
  end(how: TryEnd): Promise<void>
  withhold(): Promise<void>
}

type TryEnd = 'accepted' | 'failed' | RefusedPin

export interface PinStoreDeps {
  readonly db: Database
  readonly roll: RollWriter
  readonly log: Log
}

export const openPinGuard = ({ db, roll, log }: PinStoreDeps) => {
  /** How tries ended that could not be recorded: nobody here tries again before they are. */
  const owed = new Map<number, TryEnd>()

  const settle = async (): Promise<void> => {
    for (const [id, how] of owed) {
      await recordEnd({ db, roll }, id, how)
      owed.delete(id)
    }
  }
  const turn = async (place: TokenPlace): Promise<PinTurn> => {
    await settle()
    const { withheld, ...past } = await readPast(db, place)
    let id: number | undefined
    return {
      past,
      begin: async () => {
        id = await recordTry(db, place)
      },
      end: async (how) => {
        if (id === undefined) throw new Error('a try has ended that was not begun')
        owed.set(id, how)
        await settle().catch((err: unknown) =>
          log.error({ event: 'pin.unrecorded', ...place, err }, 'how a login ended is not on record yet'),
        )
      },
      withhold: async () => {
        if (!withheld) await db.query(insertWithheld, [place.token, place.serial])
      },
    }
  }

  return {
    inTurn: <T>(place: TokenPlace, work: (turn: PinTurn) => Promise<T>): Promise<T> =>
      db.apart(async (tx) => {
        await inTurn(tx, turnOf(place), longestIdle)
        return work(await turn(place))
      }),
  }
}

/** The PIN may be tried again, once, and the roll says who said so. Resolves to the tokens with this label where that was not so. */
export const unlatchTokens = (
  { roll }: Pick<PinStoreDeps, 'roll'>,
  label: string,
  by: string,
): Promise<readonly TokenPlace[]> =>
  roll.change(async (tx) => {
    const { rows } = await tx.query<TokenPlace>(insertUnlatched, [label, by])
    return {
      events: rows.map(({ token, serial }) => ({ type: 'pin.unlatched', token, tokenSerial: serial, by })),
      result: rows,
    }
  })

const readPast = async (db: Database, { token, serial }: TokenPlace) => {
  const { rows: refused } = await db.query<RefusedPin>(selectRefused, [token, serial])
  const {
    rows: [state],
  } = await db.query<{ unfinished: number; withheld: boolean; unlatched: boolean }>(selectTries, [token, serial])
  if (state === undefined) throw new Error('nothing is known of what was tried')
  return { refused, ...state }
}

const recordTry = async (db: Database, { token, serial }: TokenPlace): Promise<number> => {
  const { rows } = await db.query<{ id: number }>(insertTry, [token, serial])
  return rows[0]?.id ?? Number.NaN
}

/** May be asked again. */
const recordEnd = async ({ db, roll }: Omit<PinStoreDeps, 'log'>, id: number, how: TryEnd): Promise<void> => {
  if (typeof how === 'string') {
    await db.query(insertEnd, [id, how])
    return
  }
  const { token, serial, salt, digest } = how
  await roll.change(async (tx) => {
    const { rowCount } = await tx.query(insertRefused, [id, token, serial, salt, digest])
    return { events: rowCount === 0 ? [] : [{ type: 'pin.refused', token, tokenSerial: serial }], result: undefined }
  })
}

/** Any number, as long as it is this token's own. */
const turnOf = ({ token, serial }: TokenPlace): number =>
  hash('sha256', `pin\0${token}\0${serial}`, 'buffer').readUIntBE(0, 6)

/** Longer than a login can take: a process that was stopped in its turn loses it. */
const longestIdle = '30s'

const isLatched = `not exists (
      select from unlatched_tokens u where u.token = r.token and u.serial = r.serial and u.at > r.at)`

const selectRefused = {
  text: `
    select r.token, r.serial, encode(r.salt, 'hex') as salt, encode(r.digest, 'hex') as digest from refused_pins r
    where r.token = $1 and r.serial = $2 and ${isLatched}`,
}

const selectTries = {
  text: `
    select
      (select count(*)::int from pin_tries_unsettled where token = $1 and serial = $2 and outcome is null) as unfinished,
      exists (select from pin_tries_unsettled where token = $1 and serial = $2 and outcome = 'withheld') as withheld,
      exists (select from unlatched_tokens u where u.token = $1 and u.serial = $2 and not exists (
        select from pin_tries t where t.token = $1 and t.serial = $2 and t.at > u.at)) as unlatched`,
}

const insertTry = { text: 'insert into pin_tries (token, serial) values ($1, $2) returning id' }

const insertEnd = {
  text: 'insert into pin_tries_ended (try, outcome) values ($1, $2) on conflict do nothing',
}

const insertRefused = {
  text: `
    with ended as (
      insert into pin_tries_ended (try, outcome) values ($1, 'refused') on conflict do nothing returning try
    )
    insert into refused_pins (token, serial, salt, digest)
    select $2, $3, decode($4, 'hex'), decode($5, 'hex') from ended`,
}

const insertWithheld = {
  text: `
    with tried as (insert into pin_tries (token, serial) values ($1, $2) returning id)
    insert into pin_tries_ended (try, outcome) select id, 'withheld' from tried`,
}

const insertUnlatched = {
  text: `
    insert into unlatched_tokens (token, serial, by)
    select token, serial, $2 from (
      select r.token, r.serial from refused_pins r where r.token = $1 and ${isLatched}
      union select token, serial from pin_tries_unsettled where token = $1
    ) latched
    returning token, serial`,
}

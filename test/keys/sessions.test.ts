/** The pool of sessions of one token, over a token that counts. */
import { setTimeout as pause } from 'node:timers/promises'

import type { Handle } from 'pkcs11js'
import t from 'tap'

import { openSessions } from '../../src/keys/pkcs11/sessions.ts'

const openPool = ({ size, allows }: { readonly size: number; readonly allows: number }) => {
  const open = new Set<Handle>()
  const state = { allows, now: 0, asked: 0, fewest: 1, isBroken: false }
  const openOne = (): Handle => {
    state.asked += 1
    if (state.isBroken) throw Object.assign(new Error('CKR_DEVICE_ERROR'), { code: 0x30 })
    if (open.size >= state.allows) throw Object.assign(new Error('CKR_SESSION_COUNT'), { code: 0xb1 })
    const session = Buffer.alloc(8)
    open.add(session)
    return session
  }
  const pool = openSessions({
    size,
    bound: 8,
    first: [openOne()],
    open: openOne,
    close: (session) => {
      open.delete(session)
      state.fewest = Math.min(state.fewest, open.size)
    },
    now: () => state.now,
  })
  return { pool, open, state }
}

t.test('a token that gave too few is asked again after a while, and not before', async (t) => {
  const { pool, open, state } = openPool({ size: 3, allows: 1 })
  const first = (await pool.take(10)) as Handle
  t.equal(await pool.take(1), 'late')
  const { asked } = state
  for (let i = 0; i < 5; i += 1) t.equal(await pool.take(1), 'late')
  t.equal(state.asked, asked)
  state.allows = 3
  state.now = 29_000
  t.equal(await pool.take(1), 'late')
  state.now = 31_000
  t.not(await pool.take(1), 'late')
  t.not(await pool.take(1), 'late')
  t.equal(await pool.take(1), 'late', 'and no more than it may be')
  t.equal(open.size, 3)
  pool.give(first)
  t.not(await pool.take(1), 'late')
})

t.test('who hurries lets nobody wait longer than that, and gives out nothing afterwards', async (t) => {
  const { pool, open } = openPool({ size: 1, allows: 1 })
  const first = (await pool.take(10)) as Handle
  const waiting = pool.take(60_000)
  const behind = pool.take(60_000)
  pool.hurry(20)
  pool.give(first)
  t.equal(await waiting, first, 'who came in time is served')
  t.equal(await behind, 'late')
  pool.give(first)
  t.equal(await pool.take(60_000), 'late')
  t.equal(pool.load.waiting, 0)
  t.equal(open.size, 1)
})

t.test('there is always a session that keeps the login, however many fail', async (t) => {
  const { pool, open, state } = openPool({ size: 3, allows: 3 })
  for (let i = 0; i < 10; i += 1) pool.discard((await pool.take(10)) as Handle)
  t.equal(state.fewest, 1)
  t.equal(open.size, 1)
  const both = [await pool.take(10), await pool.take(10)] as Handle[]
  pool.discard(both[0] as Handle)
  t.equal(open.size, 1, 'while one is at work no other is needed')
})

t.test('where the token allows only one, it is closed before the next is opened', async (t) => {
  const { pool, open, state } = openPool({ size: 3, allows: 1 })
  pool.discard((await pool.take(10)) as Handle)
  t.equal(state.fewest, 0)
  t.not(await pool.take(10), 'late')
  t.equal(open.size, 1)
  const alone = openPool({ size: 1, allows: 2 })
  alone.pool.discard((await alone.pool.take(10)) as Handle)
  t.equal(alone.state.fewest, 0, 'nor are there more than it is told to have')
})

t.test('who comes first is served first, and no more wait than may', async (t) => {
  const { pool } = openPool({ size: 1, allows: 1 })
  const only = (await pool.take(10)) as Handle
  const waiting = [20, ...Array.from({ length: 7 }, () => 60_000)].map((withinMs) => pool.take(withinMs))
  t.equal(pool.load.waiting, 8)
  t.equal(await pool.take(60_000), 'full')
  for (const [i, one] of waiting.entries()) {
    // Longer than the first one would have waited: it was served, and no other goes in its place.
    if (i === 7) await pause(50)
    pool.give(only)
    t.equal(await one, only)
    t.equal(pool.load.waiting, 7 - i)
  }
  const { count, seconds } = pool.load.waits
  t.equal(count, 9)
  t.ok(seconds >= 0.03)
})

t.test('a token that gives no session at all, or fails otherwise, is told to whoever waits', async (t) => {
  const { pool, state } = openPool({ size: 2, allows: 1 })
  const first = (await pool.take(10)) as Handle
  state.isBroken = true
  await t.rejects(pool.take(10), { message: 'CKR_DEVICE_ERROR' })
  state.isBroken = false
  const waiting = pool.take(60_000)
  state.allows = 0
  pool.discard(first)
  await t.rejects(waiting, { message: 'CKR_SESSION_COUNT' })
  await t.rejects(pool.take(10), { message: 'CKR_SESSION_COUNT' })
})

t.test('a token that is too slow for as many is given fewer at a time, and one more after each while', async (t) => {
  const { pool, state } = openPool({ size: 4, allows: 4 })
  const taken = [await pool.take(10), await pool.take(10), await pool.take(10)] as Handle[]
  pool.narrow(2)
  pool.give(taken[0] as Handle)
  t.equal(await pool.take(1), 'late')
  pool.giveBack(taken[1] as Handle)
  const one = (await pool.take(1)) as Handle
  t.not(one, 'late')
  t.equal(pool.ended, 1, 'what was not used has ended nothing')
  pool.narrow(0)
  pool.give(one)
  t.equal(await pool.take(1), 'late')
  for (const more of [0, 1, 1, 1]) {
    for (let i = 0; i < more; i += 1) t.not(await pool.take(1), 'late')
    t.equal(await pool.take(1), 'late')
    state.now += 30_000
  }
  t.equal(await pool.take(1), 'late', 'and no more than there may be')
})

import { randomBytes } from 'node:crypto'

import t from 'tap'

import { openCallers } from '../../src/db/callers.ts'
import type { Database } from '../../src/db/database.ts'
import { newSecret } from '../../src/db/secrets.ts'
import { quiet } from '../helpers/log.ts'

const open = () => {
  const noted: unknown[] = []
  const state = { now: Date.parse('2026-11-26T12:00:00Z') }
  const db = {
    query: async ({ text }: { readonly text: string }, values: readonly unknown[]) => {
      if (text.includes('token_uses')) noted.push(values[0])
      return {
        rows: [
          {
            token: `token of ${Buffer.from(values[0] as Buffer).toString('hex')}`,
            principal: 'p',
            grants: [],
            lives_ms: null,
          },
        ],
      }
    },
  } as unknown as Database
  const callers = openCallers({ db, log: quiet, clock: () => new Date(state.now) })
  return { callers, noted, state }
}

t.test('the use of a token is noted once a minute, however often it is looked up', async (t) => {
  const { callers, noted, state } = open()
  const [one, other] = [newSecret(randomBytes), newSecret(randomBytes)]
  const ask = async (secret: string): Promise<number> => {
    callers.forget()
    await callers.authenticate(secret)
    return noted.length
  }
  t.equal(await ask(one), 1)
  t.equal(await ask(one), 1)
  t.equal(await ask(other), 2)
  t.equal(await ask(one), 2)
  state.now += 60_000
  t.equal(await ask(one), 3)
  t.equal(await ask(one), 3)
})

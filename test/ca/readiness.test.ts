/** What `/readyz` looks at, over parts that are all well but for one. */
import t from 'tap'

import { openHealth, type ReadinessDeps } from '../../src/ca/readiness.ts'
import { slowTest } from '../helpers/slow.ts'

const well: Omit<ReadinessDeps, 'issuers' | 'now'> = {
  databaseFault: async () => undefined,
  clockFault: () => undefined,
  clockReadAt: () => new Date(),
  rollFault: async () => undefined,
  rollWarning: () => undefined,
  crlFault: () => undefined,
  crlWarning: () => undefined,
  queue: () => ({ pending: 0, bound: 1 }),
  isStopping: () => false,
}

const notAfter = new Date('2031-11-26T12:00:00Z')
const issuer = { name: 'default-2026', bounds: { notAfter }, fault: undefined, probe: async () => undefined }

/** What it says of keys at this time. */
const keyCheck = async (now: Date, state = 'active') => {
  const issuers = { all: () => [{ issuer, state }] } as unknown as ReadinessDeps['issuers']
  const checks = await openHealth({ ...well, issuers, now: () => now }).ready()
  return checks.find(({ name }) => name === 'key')
}

t.test('an issuer that has expired issues nothing, however well its key signs', async (t) => {
  t.match(await keyCheck(new Date(notAfter.getTime() + 999)), { ok: true, reason: 'every active issuer signs' })
  t.match(await keyCheck(new Date(notAfter.getTime() + 1_000)), {
    ok: false,
    reason:
      'default-2026: its certificate ended at 2031-11-26T12:00:00.000Z: bring and activate another one, or halt it',
  })
  t.match(await keyCheck(new Date(0), 'retiring'), { ok: false, reason: 'there is no active issuer' })
})

slowTest('a clock that was not read is not said to agree, and is no fault of its own', async (t) => {
  let readAt = new Date('2026-11-28T12:00:00Z')
  const clockCheck = async (databaseFault: ReadinessDeps['databaseFault'], clockFault?: string) => {
    const issuers = { all: () => [{ issuer, state: 'active' }] } as unknown as ReadinessDeps['issuers']
    const parts = { ...well, issuers, now: () => readAt, clockReadAt: () => readAt, clockFault: () => clockFault }
    const checks = await openHealth({ ...parts, databaseFault }).ready()
    return checks
      .filter(({ name }) => name === 'clock' || name === 'database')
      .map(({ ok, reason }) => ({ ok, reason }))
  }
  const unread = 'is not known to agree with the database, whose clock was last read at 2026-11-28T12:00:00.000Z'
  t.same(await clockCheck(() => new Promise(() => {})), [
    { ok: false, reason: 'no answer within a second' },
    { ok: true, reason: unread },
  ])
  t.same(await clockCheck(() => new Promise(() => {}), "our clock is 9.0 s ahead of the database's"), [
    { ok: false, reason: 'no answer within a second' },
    { ok: false, reason: "our clock is 9.0 s ahead of the database's" },
  ])
  const answers = async () => {
    readAt = new Date('2026-11-28T12:00:01Z')
    return 'the database is read-only'
  }
  t.same(await clockCheck(answers), [
    { ok: false, reason: 'the database is read-only' },
    { ok: true, reason: 'agrees with the database' },
  ])
})

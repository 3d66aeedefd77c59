/** What `/readyz` looks at, over parts that are all well but for one. */
import t from 'tap'

import { openHealth, type ReadinessDeps } from '../../src/ca/readiness.ts'

const well: Omit<ReadinessDeps, 'issuers' | 'now'> = {
  databaseFault: async () => undefined,
  clockFault: () => undefined,
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
  t.match(await keyCheck(notAfter), { ok: true, reason: 'every active issuer signs' })
  t.match(await keyCheck(new Date(notAfter.getTime() + 1)), {
    ok: false,
    reason:
      'default-2026: its certificate ended at 2031-11-26T12:00:00.000Z: bring and activate another one, or halt it',
  })
  t.match(await keyCheck(new Date(0), 'retiring'), { ok: false, reason: 'there is no active issuer' })
})

import t from 'tap'

import type { Issuers } from '../../src/ca/issuers/issuers.ts'
import { openRecovery } from '../../src/ca/issuers/recovery.ts'
import type { IssuerState } from '../../src/ca/records.ts'

t.test('a key out of use is tried each time while its issuer is active, and else every thirty seconds', async (t) => {
  let now = 0
  const faults: Record<string, string | undefined> = { used: 'gone', unused: 'gone', well: undefined }
  const states: Record<string, IssuerState> = { used: 'active', unused: 'crl-only', well: 'active' }
  const tried: Record<string, number[]> = { used: [], unused: [], well: [] }
  const issuers = {
    all: () =>
      Object.keys(states).map((name) => ({
        state: states[name],
        issuer: {
          name,
          fault: faults[name],
          probe: async () => {
            tried[name]?.push(now / 1_000)
            return faults[name]
          },
        },
      })),
  } as unknown as Issuers
  const recover = openRecovery(issuers, () => now)
  const pass = async (seconds: number): Promise<void> => {
    for (let i = 0; i < seconds; i += 1, now += 1_000) await recover()
  }
  await pass(100)
  t.equal(tried['used']?.length, 100)
  t.same(tried['unused'], [0, 30, 60, 90])
  t.same(tried['well'], [])

  states['unused'] = 'active'
  await pass(3)
  t.same(tried['unused']?.slice(4), [100, 101, 102], 'as soon as it is needed')
})

t.test('a pass ends when each that was tried has answered, and the next waits from then on', async (t) => {
  let now = 0
  const tried: number[] = []
  const probe = async (): Promise<string> => {
    tried.push(now / 1_000)
    await Promise.resolve()
    now += 10_000
    return 'gone'
  }
  const issuers = { all: () => [{ state: 'retiring', issuer: { name: 'slow', fault: 'gone', probe } }] }
  const recover = openRecovery(issuers as unknown as Issuers, () => now)
  await recover()
  t.equal(now, 10_000)
  for (; now < 42_000; now += 250) await recover()
  t.same(tried, [0, 40])
})

/** Keys that answer for issuers: which are made, and which are made no more. */
import t from 'tap'

import type { Issuer } from '../../src/ca/issuer.ts'
import { openResponders } from '../../src/ca/responders.ts'
import { openClientCa } from '../helpers/clients.ts'

const dayMs = 86_400_000

/** Issuers that end a day from now, responders that live a day, and a clock that is moved by hand. */
const openWorld = () => {
  const ca = openClientCa()
  const end = new Date(Date.now() + dayMs)
  const issuerOf = (name: string) => ({ name, facts: { notAfter: end } }) as unknown as Issuer
  const [one, other] = [issuerOf('one'), issuerOf('other')]
  const world = { now: Date.now(), made: [] as string[], inUse: [one, other], one, other }
  const responders = openResponders({
    certify: async ({ name }) => {
      world.made.push(name)
      return ca.certify({ to: dayMs / 1000 }).der
    },
    isInUse: (issuer) => world.inUse.includes(issuer),
    clock: () => new Date(world.now),
  })
  return { ...responders, world }
}

t.test('those that were asked for are made anew when half of their time is over', async (t) => {
  const { of, renew, world } = openWorld()
  await Promise.all([of(world.one), of(world.one), of(world.other)])
  await renew()
  t.same(world.made, ['one', 'other'])
  world.now += 0.6 * dayMs
  await renew()
  t.same(world.made, ['one', 'other', 'one', 'other'])
})

t.test('nobody answers any more for an issuer that has retired', async (t) => {
  const { of, renew, world } = openWorld()
  await Promise.all([of(world.one), of(world.other)])
  world.inUse = [world.other]
  world.now += 0.6 * dayMs
  await renew()
  t.same(world.made, ['one', 'other', 'other'])
})

t.test(
  'nor for one whose certificate has ended, however often strangers ask: each try would be a refusal',
  async (t) => {
    const { of, renew, world } = openWorld()
    await of(world.one)
    world.now += 2 * dayMs
    await renew()
    for (const issuer of [world.one, world.other]) await t.rejects(of(issuer), /the issuer (one|other) has ended/)
    t.same(world.made, ['one'])
  },
)

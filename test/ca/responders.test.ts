/** Keys that answer for issuers: which are made, when again, and which are made no more. */
import { createHash, createPublicKey, verify } from 'node:crypto'

import t from 'tap'

import type { Issuer } from '../../src/ca/issuers/issuer.ts'
import { openResponders } from '../../src/ca/revocation/responders.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { openClientCa } from '../helpers/clients.ts'

const dayMs = 86_400_000

/** Issuers that end a day and a half from now, responders that live a day, and a clock that is moved by hand. */
const openWorld = () => {
  const ca = openClientCa()
  const end = new Date(Date.now() + 1.5 * dayMs)
  const issuerOf = (name: string) => ({ name, facts: { notAfter: end } }) as unknown as Issuer
  const [one, other] = [issuerOf('one'), issuerOf('other')]
  const world = {
    now: Date.now(),
    elapsed: 0,
    made: [] as string[],
    isAway: false,
    inUse: [one, other],
    revoked: [] as Buffer[],
    one,
    other,
  }
  const responders = openResponders({
    certify: async ({ name }) => {
      world.made.push(name)
      if (world.isAway) throw new Error('it is away')
      return ca.certify({ to: dayMs / 1000 }).der
    },
    isInUse: (name) => world.inUse.some((issuer) => issuer.name === name),
    isRevoked: async (_issuer, certificate) => world.revoked.includes(certificate),
    elapsedMs: () => world.elapsed,
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

t.test('one that is revoked answers until there is another', async (t) => {
  const { of, isCurrent, renew, world } = openWorld()
  const [first, other] = await Promise.all([of(world.one), of(world.other)])
  world.revoked = [first.certificate]
  world.isAway = true
  await t.rejects(renew(), { message: 'it is away' })
  t.equal(await of(world.one), first)
  t.ok(isCurrent(world.one, first))
  world.isAway = false
  world.elapsed += 2_001
  await renew()
  t.not(await of(world.one), first)
  t.same(
    [first, other].map((responder) => isCurrent(world.one, responder)),
    [false, false],
  )
  t.ok(isCurrent(world.other, other))
  t.equal(await of(world.other), other)
  t.same(world.made, ['one', 'other', 'one', 'one'])
})

t.test('one answers until it ends, and another after that, whether or not anybody has renewed it', async (t) => {
  const { of, world } = openWorld()
  const first = await of(world.one)
  world.now = first.notAfter + 999
  t.equal(await of(world.one), first)
  world.now = first.notAfter + 1_000
  const second = await of(world.one)
  t.not(second, first)
  t.same(world.made, ['one', 'one'])
})

t.test(
  'one that ends with its issuer answers to the end, or each question of the last second would make another',
  async (t) => {
    const { of, world } = openWorld()
    const last = await of(world.one)
    const ending = { ...world.one, facts: { ...world.one.facts, notAfter: new Date(last.notAfter) } }
    world.now = last.notAfter + 999
    for (const _ of [1, 2]) t.equal(await of(ending), last)
    world.now = last.notAfter + 1_000
    await t.rejects(of(ending), /the issuer one has ended/)
    t.same(world.made, ['one'])
  },
)

t.test('what it signs verifies by the key that its certificate and its id are of', async (t) => {
  const certified: Buffer[] = []
  const ca = openClientCa()
  const responders = openResponders({
    certify: async (_issuer, csr) => {
      certified.push(parseRequest(csr).key.spki)
      return ca.certify({ to: dayMs / 1000 }).der
    },
    isInUse: () => true,
    isRevoked: async () => false,
    clock: () => new Date(),
  })
  const issuer = { name: 'one', facts: { notAfter: new Date(Date.now() + dayMs) } } as unknown as Issuer
  const { sign, algorithm, keyHash } = await responders.of(issuer)
  const [spki = Buffer.alloc(0)] = certified
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  t.ok(verify(algorithm.hash, Buffer.from('x'), { key, ...algorithm.signOptions }, sign(Buffer.from('x'))))
  // RFC 6960 4.2.1: of the bits, without their tag, length and count of unused ones.
  t.same(keyHash, createHash('sha1').update(spki.subarray(-65)).digest())
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

t.test(
  'what failed by a clock that was ahead is tried again as soon as ever, and not each time that strangers ask',
  async (t) => {
    const { of, world } = openWorld()
    const hour = 3_600_000
    world.isAway = true
    world.now += hour
    await t.rejects(of(world.one), { message: 'it is away' })
    await t.rejects(of(world.one), { message: 'it is away' })
    t.same(world.made, ['one'])
    world.isAway = false
    world.now -= hour
    world.elapsed += 2_001
    t.ok((await of(world.one)).certificate)
  },
)

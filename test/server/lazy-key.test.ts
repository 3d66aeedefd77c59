import t from 'tap'

import type { SigningKey } from '../../src/keys/signing-key.ts'
import type { Log } from '../../src/log.ts'
import { openLazily } from '../../src/server/lazy-key.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'

const algorithm = signatureAlgorithm('ed25519')
const spki = Buffer.from('the key on record')

const openWorld = () => {
  const world = { time: 0, reason: 'no module' as string | undefined, opened: 0, lines: [] as string[] }
  const line = ({ event, err }: { event: string; err?: Error }): void =>
    void world.lines.push(err ? `${event}: ${err.message}` : event)
  const found: SigningKey = {
    ...{ id: 'key', algorithm, spki },
    sign: async (messages) => messages.map(() => Buffer.from('signed')),
    close: async () => {},
  }
  const open = async (): Promise<SigningKey> => {
    world.opened += 1
    if (world.reason !== undefined) throw new Error(world.reason)
    return found
  }
  const log = { error: line, info: line } as unknown as Log
  const key = openLazily({ keys: { open }, uri: 'file:key', spki, algorithm, log, now: () => world.time })
  /** As who waits for a signature does: each 50 ms. */
  const ask = async (forMs: number): Promise<unknown> => {
    let answer: unknown
    for (const end = world.time + forMs; world.time < end; world.time += 50)
      [answer] = await key.sign([Buffer.from('a'), Buffer.from('b')])
    return answer
  }
  return { world, key, ask }
}

t.test('a key that does not open is tried ever more rarely, and told of once, and once a minute', async (t) => {
  const { world, ask } = openWorld()
  t.match(await ask(40_000), { message: 'no module' })
  t.same(world.lines, ['roll.key: no module'])
  t.ok(world.opened > 15 && world.opened < 30, `${world.opened} tries`)
  await ask(30_000)
  t.same(world.lines, ['roll.key: no module', 'roll.key: no module'])
  world.reason = 'no PIN'
  await ask(5_000)
  t.same(world.lines.slice(2), ['roll.key: no PIN'], 'another reason is told at once')
  world.reason = undefined
  t.match(await ask(2_100), Buffer.from('signed'), 'soon after it is back it signs')
  t.same(world.lines.slice(3), ['roll.key_back'])
})

t.test('one that is closed while it does not open is closed all the same', async (t) => {
  const { world, key } = openWorld()
  const asked = key.sign([Buffer.from('a')])
  await key.close()
  t.equal(world.opened, 1)
  t.match(await asked, [{ message: 'no module' }])
})

t.test('many who ask at once are one try, and one line', async (t) => {
  const { world, key } = openWorld()
  await Promise.all(Array.from({ length: 10 }, () => key.sign([Buffer.from('a')])))
  t.same([world.opened, world.lines.length], [1, 1])
})

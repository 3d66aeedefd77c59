import t from 'tap'

import { openWitnesses, type WitnessesDeps } from '../../src/ca/log/witnesses.ts'
import { post } from '../../src/server/witness-client.ts'
import { openCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeSignatures, parseNote, signText } from '../../src/tlog/note.ts'
import { parseAddCheckpoint } from '../../src/tlog/witness.ts'
import { openWitness } from '../../src/witness/witness.ts'
import { quiet } from '../helpers/log.ts'
import { hasher, newSigner, verifyEd25519 } from '../tlog/hashing.ts'
import { openTestRoll } from '../witness/rolls.ts'

type Answer = Awaited<ReturnType<WitnessesDeps['post']>>

/** A roll that grows as a test says, and witnesses in memory: each may be made to answer something else. */
const openWorld = (count = 2) => {
  const roll = openTestRoll()
  const world = {
    roll,
    size: 10,
    now: 1_000_000,
    clock: 2_000_000_000,
    asked: [] as string[],
    instead: new Map<string, (body: string) => Promise<Answer> | undefined>(),
  }
  const witnesses = Array.from({ length: count }, (_, i) => {
    const signer = newSigner(`w${i}.example`, 'cosignature', 1)
    const known = new Map<string, { origin: string; size: number; root: Uint8Array }>()
    const state = {
      last: (origin: string) => known.get(origin),
      keep: async (one: { origin: string; size: number; root: Uint8Array }) => void known.set(one.origin, one),
    }
    const witness = openWitness({
      logs: [roll.signer.key],
      signer,
      state,
      hasher,
      verify: verifyEd25519,
      now: () => 1_700_000_000 + world.size,
    })
    return { signer, witness, url: `https://w${i}.example` }
  })
  const client = openWitnesses({
    witnesses: witnesses.map(({ url, signer: { key } }) => ({ url, key })),
    checkpoint: async () => ({
      origin: 'roll.example/1',
      size: world.size,
      root: world.roll.root(world.size),
      note: await world.roll.checkpoint(world.size),
    }),
    proof: async (from, to) => world.roll.proof(from, to),
    post: async (url, body) => {
      world.asked.push(`${new URL(url).hostname} ${parseAddCheckpoint(body).old}`)
      const other = world.instead.get(new URL(url).hostname)?.(body)
      if (other) return other
      const one = witnesses.find((witness) => url === `${witness.url}/add-checkpoint`)
      const { status, body: text } = await (one as (typeof witnesses)[0]).witness.add(Buffer.from(body))
      return { status, text }
    },
    verify: verifyEd25519,
    now: () => world.clock,
    elapsedMs: () => world.now,
    log: quiet,
  })
  const names = async (): Promise<readonly string[]> => {
    const { cosignatures } = await openCheckpoint(
      client.newest()?.note ?? '',
      { roll: [roll.signer.key], witnesses: witnesses.map(({ signer }) => signer.key) },
      verifyEd25519,
    )
    return cosignatures.map(({ key }) => key.name).sort()
  }
  return { world, client, witnesses, names }
}

t.test('the newest checkpoint has the cosignature of each witness, round by round', async (t) => {
  const { world, client, names } = openWorld()
  t.equal(client.newest(), undefined)
  await client.ask()
  t.match(client.newest(), { size: 10, at: 1_000_000 })
  t.same(await names(), ['w0.example', 'w1.example'])
  world.size = 200
  await client.ask()
  await client.ask()
  t.equal(client.newest()?.size, 200)
  t.same(
    world.asked.filter((one) => one.startsWith('w0')),
    ['w0.example 0', 'w0.example 10', 'w0.example 200'],
  )
  t.match(client.figures(), [
    { witness: 'w0.example', cosignedAt: 1_700_000_200, failures: 0 },
    { witness: 'w1.example' },
  ])
  t.equal(client.warning(), undefined)
})

t.test('a witness that knows more than this instance does was told by another replica', async (t) => {
  const { world, client, witnesses, names } = openWorld()
  const elsewhere = async (old: number, size: number): Promise<void> => {
    for (const { witness } of witnesses) await witness.add(Buffer.from(await world.roll.ask(old, size)))
  }
  await elsewhere(0, 7)
  await client.ask()
  t.same(world.asked.slice(0, 4).sort(), ['w0.example 0', 'w0.example 7', 'w1.example 0', 'w1.example 7'])
  t.same(await names(), ['w0.example', 'w1.example'])
  await elsewhere(10, 30)
  world.size = 20
  await client.ask()
  t.equal(client.newest()?.size, 10, 'it is waited for')
  t.same(
    client.figures().map(({ failures }) => failures),
    [0, 0],
  )
  world.size = 40
  await client.ask()
  t.equal(client.newest()?.size, 40)
  t.equal(client.warning(), undefined)
  // It stays ahead: this instance has lost something.
  await elsewhere(40, 60)
  for (let round = 0; round < 5; round += 1) await client.ask()
  t.match(client.warning(), /^another roll of ours was seen by w0\.example and w1\.example/)
})

t.test(
  'a slow witness of a busy roll, that other replicas get to first each time, has not seen another one',
  async (t) => {
    const { world, client, witnesses } = openWorld(1)
    await client.ask()
    for (let round = 1; round <= 8; round += 1) {
      // While it is on its way to it.
      world.instead.set('w0.example', async (body) => {
        world.instead.clear()
        world.size += 10
        const [{ witness }] = witnesses as [(typeof witnesses)[0]]
        await witness.add(Buffer.from(await world.roll.ask(world.size - 10, world.size)))
        const { status, body: text } = await witness.add(Buffer.from(body))
        return { status, text }
      })
      await client.ask()
      t.equal(client.newest()?.size, 10)
      t.equal(client.warning(), undefined, `round ${round}`)
    }
    await client.ask()
    t.equal(client.newest()?.size, 90)
  },
)

t.test('a cosigned checkpoint is shown in place of a newer one for twenty seconds', async (t) => {
  const { world, client } = openWorld()
  t.equal(client.fresh(), undefined)
  await client.ask()
  t.equal(client.fresh()?.size, 10)
  world.now += 19_999
  t.equal(client.fresh()?.size, 10)
  world.now += 1
  t.equal(client.fresh(), undefined)
})

t.test('a witness that has seen another roll is told, and the others go on', async (t) => {
  const { world, client, witnesses, names } = openWorld()
  await client.ask()
  await witnesses[0]?.witness.add(Buffer.from(await world.roll.fork(12).ask(10, 15)))
  world.size = 20
  await client.ask()
  t.equal(client.warning(), 'another roll of ours was seen by w0.example')
  t.equal(client.newest()?.size, 10, 'two cosignatures are more than one')
  world.now += 61_000
  await client.ask()
  t.equal(client.newest()?.size, 20, 'but not for long')
  t.same(await names(), ['w1.example'])
  t.match(client.figures(), [
    { failures: 2, disagrees: true },
    { failures: 0, disagrees: false },
  ])
})

t.test('what a witness has seen of another roll is not taken back by its being ahead', async (t) => {
  const { world, client, witnesses } = openWorld(1)
  const fork = world.roll.fork(12)
  const cosign = async (old: number, size: number): Promise<void> => {
    await witnesses[0]?.witness.add(Buffer.from(await fork.ask(old, size)))
  }
  await client.ask()
  await cosign(10, 15)
  world.size = 20
  await client.ask()
  t.match(client.figures(), [{ disagrees: true }])
  // The other roll grows faster, then this one does again: nothing of it is cosigned.
  await cosign(15, 40)
  for (const size of [20, 30, 40, 50, 50]) {
    world.size = size
    await client.ask()
    t.match(client.figures(), [{ disagrees: true }], `with ${size} entries`)
  }
  t.equal(client.warning(), 'another roll of ours was seen by w0.example')
})

t.test('a witness whose clock is ahead is missed as soon as any other', async (t) => {
  const { world, client } = openWorld(1)
  world.clock = 1_700_000_000
  await client.ask()
  t.match(client.figures(), [{ cosignedAt: 1_700_000_000 }])
  world.clock += 86_400
  await client.ask()
  t.match(client.figures(), [{ cosignedAt: 1_700_000_010 }], 'one that is behind is believed')
})

t.test('whatever a witness answers, it is no cosignature unless it holds, and no disagreement', async (t) => {
  const { world, client, witnesses } = openWorld(1)
  const cosign = async (body: string, signer = witnesses[0]?.signer) =>
    encodeSignatures([
      await signText(parseNote(parseAddCheckpoint(body).checkpoint).text, {
        ...(signer as never as ReturnType<typeof newSigner>),
        time: 5,
      }),
    ])
  const answers: readonly ((body: string) => Promise<Answer>)[] = [
    async () => Promise.reject(new Error('it is away')),
    async () => ({ status: 500, text: '' }),
    async () => ({ status: 404, text: '' }),
    async () => ({ status: 200, text: '' }),
    async () => ({ status: 200, text: 'nonsense' }),
    async (body) => ({ status: 200, text: await cosign(body, newSigner('w0.example', 'cosignature', 1)) }),
    async (body) => ({
      status: 200,
      text: (await cosign(body)).replace(/.(.{9}=*\n)$/, (cut, rest) => (cut[0] === 'A' ? 'B' : 'A') + rest),
    }),
    async (body) => ({ status: 200, text: await cosign(body.replace(/\n10\n/, '\n11\n')) }),
    async () => ({ status: 409, text: 'nonsense' }),
    async () => ({ status: 409, text: '' }),
    async () => ({ status: 409, text: '0\n' }),
    async () => ({ status: 409, text: `${Number.MAX_SAFE_INTEGER}\n` }),
  ]
  for (const [i, answer] of answers.entries()) {
    world.instead.set('w0.example', answer)
    await client.ask()
    t.equal(client.newest(), undefined, `answer ${i}`)
    t.equal(client.warning(), undefined)
  }
  world.instead.clear()
  await client.ask()
  await client.ask()
  t.equal(client.newest()?.size, 10, 'it is asked all the same, and cosigns')
})

t.test('answers of any length, from elsewhere or never are not heard', async (t) => {
  const { createServer } = await import('node:http')
  const server = createServer((request, response) => {
    if (request.url === '/long') response.end('x'.repeat(100_000))
    else if (request.url === '/moved') response.writeHead(307, { location: '/fine' }).end()
    else if (request.url === '/torn')
      response.writeHead(200, { 'content-length': '50' }).write('half', () => response.destroy())
    else response.writeHead(409).end('7\n')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => void server.close())
  const { port } = server.address() as { port: number }
  const ask = (path: string) => post(`http://127.0.0.1:${port}${path}`, 'body')
  t.same(await ask('/fine'), { status: 409, text: '7\n' })
  await t.rejects(ask('/long'), { message: /more than 65536 octets/ })
  await t.rejects(ask('/moved'))
  await t.rejects(ask('/torn'))
  await t.rejects(post('http://127.0.0.1:1/', 'body'))
})

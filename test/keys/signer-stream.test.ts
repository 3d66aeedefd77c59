import type { Socket } from 'node:net'
import { duplexPair } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

import t from 'tap'

import { openSignerStream, type SignerRecord } from '../../src/keys/signer/stream.ts'

const openPair = () => {
  const [near, far] = duplexPair()
  const heard: SignerRecord[] = []
  openSignerStream(far as unknown as Socket, ({ body, ...record }) =>
    heard.push({ ...record, body: Buffer.from(body) }),
  )
  const said = openSignerStream(near as unknown as Socket, () => {})
  const until = async (count: number): Promise<void> => {
    while (heard.length < count) await new Promise(setImmediate)
  }
  return { said, heard, until, near }
}

t.test(
  'what is said is heard in order, whole, and in one piece, however large and in however many parts',
  async (t) => {
    const { said, heard, until, near } = openPair()
    let writes = 0
    const write = near.write.bind(near) as (chunk: Buffer) => boolean
    near.write = ((chunk: Buffer) => {
      writes += 1
      return write(chunk)
    }) as typeof near.write
    const sizes = [0, 1, 500, 16_375, 16_384, 3, 40_000, 100_000, 7]
    const bodies = sizes.map((size, i) => Buffer.alloc(size, i + 1))
    const wanted: SignerRecord[] = []
    for (let turn = 0; turn < 20; turn += 1) {
      bodies.forEach((body, i) => {
        const id = turn * 100 + i
        const head = Buffer.from([turn, i])
        said.say({ id, kind: i, body: i % 2 === 0 ? body : [head, body, Buffer.alloc(0)] })
        wanted.push({ id, kind: i, body: i % 2 === 0 ? body : Buffer.concat([head, body]) })
      })
      await new Promise(setImmediate)
    }
    await until(wanted.length)
    t.equal(writes, 20, 'one write for each turn')
    wanted.forEach((record, i) => {
      if (heard[i]?.id !== record.id || heard[i]?.kind !== record.kind || !heard[i]?.body.equals(record.body))
        t.fail(`record ${i}`)
    })
    t.equal(heard.length, wanted.length)
  },
)

t.test('a record that comes in very many parts is copied once', async (t) => {
  const { heard, near } = openPair()
  const body = Buffer.alloc(4 * 1024 * 1024, 7)
  const head = Buffer.alloc(9)
  head.writeUInt32BE(body.length)
  const concat = Buffer.concat
  let copied = 0
  Buffer.concat = ((list: readonly Uint8Array[], length?: number) => {
    copied += list.reduce((sum, part) => sum + part.length, 0)
    return concat(list, length)
  }) as typeof concat
  t.teardown(() => {
    Buffer.concat = concat
  })
  near.write(head.subarray(0, 5))
  near.write(head.subarray(5))
  for (let at = 0; at < body.length; at += 16_384) near.write(body.subarray(at, at + 16_384))
  while (heard.length < 1) await new Promise(setImmediate)
  t.ok(heard[0]?.body.equals(body))
  t.ok(copied < 2 * body.length, `${copied} octets were copied`)
})

t.test('what was said last is sent before the end', async (t) => {
  const { said, heard, until } = openPair()
  said.say({ id: 1, kind: 2, body: Buffer.from('last') })
  await said.end()
  await until(1)
  t.equal(heard[0]?.body.toString(), 'last')
})

t.test('a large record leaves nothing of its size behind', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const { said, heard, until } = openPair()
  const held = (): number => {
    collect()
    return process.memoryUsage().arrayBuffers
  }
  const say = (octets: number): void => said.say({ id: 1, kind: 0, body: Buffer.alloc(octets) })
  say(100)
  await until(1)
  const before = held()
  say(30 * 1024 * 1024)
  await until(2)
  heard.length = 0
  // Of both ends; what is dead goes in its own time.
  let after = held()
  for (let tries = 0; after - before > 4 * 1024 * 1024 && tries < 50; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    after = held()
  }
  t.ok(after - before < 4 * 1024 * 1024, `${after - before} octets`)
})

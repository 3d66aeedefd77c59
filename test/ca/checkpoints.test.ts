import { generateKeyPairSync, sign } from 'node:crypto'

import t from 'tap'

import type { RollHead } from '../../src/ca/issuance/recorder.ts'
import { type Checkpoints, openCheckpoints, type Published } from '../../src/ca/log/checkpoints.ts'
import { Problem } from '../../src/errors.ts'
import { verifyEd25519 as verifyNote } from '../../src/keys/note-signatures.ts'
import { SigningFault } from '../../src/keys/signing-key.ts'
import { type Checkpoint, openCheckpoint } from '../../src/tlog/checkpoint.ts'
import { makeVerifierKey } from '../../src/tlog/note.ts'
import { encodeProof, type Proof, verifyProof } from '../../src/tlog/proof.ts'
import type { HashTile } from '../../src/tlog/tiles.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { hasher, leavesUpTo, sha256 } from '../tlog/hashing.ts'
import { naivePath, naiveRoot, naiveTile } from '../tlog/naive.ts'

const leaves = leavesUpTo(700)
const headAt = (size: number): RollHead => ({ size, root: naiveRoot(leaves.slice(0, size)) })
const origin = 'ca.example.com/roll'
const fine = (): undefined => undefined

/** Over a roll that is in memory, with a key that does what a test says, and an anchor that takes what a test lets it. */
const openWorld = (size = 300, deadlineMs = 300) => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  const verifierKey = makeVerifierKey({ name: origin, type: 'ed25519', publicKey: spki.subarray(12) }, sha256)
  const world = {
    head: headAt(size),
    /** Instead of the signatures, which it is given as well. */
    signing: fine as (
      messages: readonly Buffer[],
      right: readonly Buffer[],
    ) => Promise<readonly (Buffer | SigningFault)[]> | undefined,
    anchoring: fine as (checkpoint: Checkpoint) => Promise<void> | undefined,
    looking: fine as () => Promise<RollHead> | undefined,
    /** What is done to a tile before it is read. */
    spoiling: undefined as ((tile: HashTile, octets: Buffer) => Buffer) | undefined,
    cosigned: undefined as Published | undefined,
    pausing: (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    signed: [] as number[],
    anchored: [] as number[],
    verifierKey,
  }
  const checkpoints = openCheckpoints({
    verifierKey,
    key: {
      id: 'test',
      algorithm: signatureAlgorithm('ed25519'),
      spki,
      sign: async (messages) => {
        world.signed.push(messages.length)
        const right = messages.map((message) => sign(null, message, privateKey))
        return (await world.signing(messages, right)) ?? right
      },
      close: async () => {},
    },
    verify: async ({ message, signature }) => verifyNote(verifierKey.publicKey, message, signature),
    anchor: {
      write: async (checkpoint) => {
        await world.anchoring(checkpoint)
        world.anchored.push(checkpoint.size)
      },
    },
    head: async () => (await world.looking()) ?? world.head,
    readTile: async (tile) => {
      const octets = Buffer.from(naiveTile(tile.level, tile.index, tile.width, leaves))
      return world.spoiling?.(tile, octets) ?? octets
    },
    hasher,
    cosigned: () => world.cosigned,
    deadlineMs,
    sleep: (milliseconds) => world.pausing(milliseconds),
  })
  const trust = { roll: [verifierKey], hasher, verify: verifyNote }
  return {
    world,
    checkpoints,
    verify: (index: number, proof: Proof) => verifyProof(Buffer.from(String(index)), encodeProof(proof), trust),
    open: (note: string) => openCheckpoint(note, trust, verifyNote),
  }
}

/** As a batch that made the roll this large tells of its entry. */
const enrolled = (index: number, size: number) => ({
  index,
  leafHash: leaves[index] as Buffer,
  inclusion: { head: headAt(size), hashes: naivePath(index, leaves.slice(0, size)) },
})

const isRed = async (t: Tap, checkpoints: Checkpoints, code: string): Promise<void> => {
  t.throws(() => checkpoints.assertAvailable(), { code })
  t.type(await checkpoints.probe(), 'string')
}
type Tap = Pick<typeof t, 'throws' | 'type' | 'rejects' | 'equal' | 'same' | 'match' | 'ok'>

t.test('the newest checkpoint is of the head, signed, and kept elsewhere before it is told', async (t) => {
  const { world, checkpoints, open } = openWorld()
  const order: string[] = []
  world.anchoring = async ({ size }) => {
    await new Promise((resolve) => setTimeout(resolve, 20))
    order.push(`kept ${size}`)
  }
  const { note, size } = await checkpoints.newest()
  order.push(`told ${size}`)
  t.same(order, ['kept 300', 'told 300'])
  t.match(await open(note), { origin, size: 300 })
  world.head = headAt(420)
  t.equal((await checkpoints.newest()).size, 300, 'it is told again without a look')
  await checkpoints.follow()
  t.equal((await checkpoints.newest()).size, 420)
  await checkpoints.follow()
  t.same(world.signed, [1, 1], 'one head is signed once')
})

t.test('proofs of batches that come at once are each against their own head, and signed together', async (t) => {
  const { world, checkpoints, verify } = openWorld()
  const asked = [
    [298, 300],
    [310, 400],
    [301, 305],
    [304, 305],
  ] as const
  const proofs = await Promise.all(asked.map(([index, size]) => checkpoints.proofOf(enrolled(index, size))))
  for (const [i, [index, size]] of asked.entries())
    t.match(await verify(index, proofs[i] as Proof), { ok: true, index, checkpoint: { size } })
  t.match(
    await verify(299, proofs[0] as Proof),
    { ok: false, reason: 'proof.inclusion' },
    'of another entry it is none',
  )
  t.same(world.signed, [3], 'one signature for each head, however many wait for it')
  t.same(world.anchored, [400], 'the newest is kept')
  t.equal((await checkpoints.newest()).size, 400)
  await checkpoints.proofOf(enrolled(301, 305))
  t.equal((await checkpoints.newest()).size, 400, 'the newest never goes back')
})

t.test('a proof of any entry is against the newest checkpoint, or a newer one where it is not in that', async (t) => {
  const { world, checkpoints, verify } = openWorld()
  for (const index of [0, 255, 256, 299])
    t.match(await verify(index, await checkpoints.proofAt(index)), { ok: true, index, checkpoint: { size: 300 } })
  world.head = headAt(650)
  t.match(await verify(299, await checkpoints.proofAt(299)), { checkpoint: { size: 300 } })
  t.match(await verify(600, await checkpoints.proofAt(600)), { ok: true, checkpoint: { size: 650 } })
  t.match(await verify(7, await checkpoints.proofOf({ index: 7, leafHash: Buffer.alloc(32) })), { ok: true, index: 7 })
  await t.rejects(checkpoints.proofAt(650), { code: 'roll.not_found' })
})

t.test('no proof is handed out that does not lead to the checkpoint, whichever tile is damaged', async (t) => {
  const { world, checkpoints, verify } = openWorld(600)
  for (const [level, index] of [
    [0, 0],
    [0, 2],
    [1, 0],
  ] as const) {
    world.spoiling = (tile, octets) =>
      tile.level === level && tile.index === index ? Buffer.from(octets.map((octet) => octet ^ 1)) : octets
    await t.rejects(
      checkpoints.proofAt(7),
      { code: 'roll.inconsistent', message: /leads from entry 7 to the checkpoint/ },
      `${level}/${index}`,
    )
  }
  world.spoiling = (_, octets) => octets.subarray(1)
  await t.rejects(checkpoints.proofAt(7), { code: 'roll.inconsistent' })
  world.spoiling = undefined
  t.match(await verify(7, await checkpoints.proofAt(7)), { ok: true, index: 7 })
})

const away = new SigningFault('before', 'it is away')

t.test('a key that does not sign is tried again within the deadline', async (t) => {
  const { world, checkpoints, verify } = openWorld(300, 10_000)
  const order: string[] = []
  world.signing = async (messages) => {
    order.push('tried')
    return order.length < 5 ? messages.map(() => away) : (undefined as never)
  }
  const { pausing } = world
  world.pausing = async (milliseconds) => {
    await pausing(milliseconds)
    order.push('waited')
  }
  t.match(await verify(5, await checkpoints.proofOf(enrolled(5, 300))), { ok: true }, 'it came back in time')
  t.same(order, ['tried', 'waited', 'tried', 'waited', 'tried'])
  checkpoints.assertAvailable()
})

t.test('one that does not sign within it is told of until it does', async (t) => {
  const { world, checkpoints } = openWorld()
  await checkpoints.newest()
  for (const [signing, reason] of [
    [async (messages: readonly Buffer[]) => messages.map(() => away), ': it is away'],
    [async (messages: readonly Buffer[]) => messages.slice(1), '.'],
    [() => new Promise<never>(() => {}), '.'],
  ] as const) {
    world.signing = signing
    world.head = headAt(world.head.size + 10)
    const { size } = world.head
    await t.rejects(checkpoints.proofOf(enrolled(size - 1, size)), { code: 'key.unavailable' })
    await isRed(t, checkpoints, 'key.unavailable')
    t.equal(await checkpoints.probe(), `The roll's key did not sign the checkpoint${reason}`)
    t.ok((await checkpoints.newest()).size < size, 'what was told before is told again')
    await t.rejects(checkpoints.follow(), { code: 'key.unavailable' })
    world.signing = fine
    await checkpoints.follow()
    checkpoints.assertAvailable()
    t.equal(await checkpoints.probe(), undefined)
    t.equal((await checkpoints.newest()).size, size)
  }
})

t.test('a key that is gone is known before anybody wants a checkpoint', async (t) => {
  const { world, checkpoints } = openWorld()
  await checkpoints.newest()
  t.equal(await checkpoints.probe(), undefined)
  for (const [signing, reason] of [
    [async () => [away], "The roll's key did not sign the checkpoint: it is away"],
    [async () => [Buffer.alloc(64, 1)], "The roll's key signs wrongly; no checkpoint was handed out."],
  ] as const) {
    world.signing = signing
    t.equal(await checkpoints.probe(), reason)
    world.signing = fine
    t.equal(await checkpoints.probe(), undefined)
  }
  checkpoints.assertAvailable()
})

t.test('a key that hangs is asked once, however many want to know, and within the deadline', async (t) => {
  const { world, checkpoints } = openWorld()
  await checkpoints.newest()
  const before = world.signed.length
  world.signing = () => new Promise<never>(() => {})
  const reasons = await Promise.all([1, 2, 3].map(() => checkpoints.probe()))
  t.same(new Set(reasons), new Set(["The roll's key did not sign the checkpoint."]))
  t.equal(world.signed.length, before + 1)
  world.signing = fine
  t.equal(await checkpoints.probe(), undefined)
  t.equal(world.signed.length, before + 2, 'and is tried anew')
})

t.test('a key that takes its time is asked once', async (t) => {
  const { world, checkpoints } = openWorld(300, 60_000)
  world.signing = () => new Promise((resolve) => setTimeout(() => resolve(undefined as never), 20))
  t.equal((await checkpoints.newest()).size, 300)
  t.same(world.signed, [1])
})

t.test('at the end what came last is kept elsewhere, and a key that nobody wanted is left alone', async (t) => {
  const { world, checkpoints } = openWorld()
  t.equal(await checkpoints.probe(), undefined)
  await checkpoints.end(headAt(300))
  t.same([world.signed, world.anchored], [[], []])
  await checkpoints.newest()
  world.looking = () => Promise.reject(new Problem('db.unavailable', 'It is away.'))
  for (const size of [300, 420, 420]) await checkpoints.end(headAt(size))
  t.same(world.anchored, [300, 420], 'and the database is not asked for it')
})

t.test('a wrong signature is handed to nobody, and a whole batch with it', async (t) => {
  const { world, checkpoints } = openWorld()
  world.signing = async (messages) => messages.map(() => Buffer.alloc(64))
  await t.rejects(checkpoints.newest(), { code: 'key.bad_signature' }, 'nor the first one')
  await isRed(t, checkpoints, 'key.bad_signature')
  for (const [what, signing] of [
    ['all', async (messages: readonly Buffer[]) => messages.map((_, i) => Buffer.alloc(64, i))],
    ['the last', async (_: unknown, right: readonly Buffer[]) => [...right.slice(0, -1), Buffer.alloc(64)]],
    ['the first', async (_: unknown, right: readonly Buffer[]) => [Buffer.alloc(64), ...right.slice(1)]],
    ['one for another', async (_: unknown, right: readonly Buffer[]) => right.toReversed()],
  ] as const) {
    const { world, checkpoints } = openWorld()
    await checkpoints.follow()
    world.signing = signing
    const told = await Promise.allSettled([310, 320].map((size) => checkpoints.proofOf(enrolled(300, size))))
    for (const one of told) t.match(one, { status: 'rejected', reason: { code: 'key.bad_signature' } }, what)
    await isRed(t, checkpoints, 'key.bad_signature')
    t.equal((await checkpoints.newest()).size, 300, what)
    world.signing = fine
    world.head = headAt(320)
    await checkpoints.follow()
    checkpoints.assertAvailable()
    t.equal((await checkpoints.newest()).size, 320)
  }
})

t.test('what cannot be kept elsewhere is not handed out, and is as soon as it can be', async (t) => {
  const { world, checkpoints, verify } = openWorld()
  world.anchoring = async () => {
    throw new Error('no space')
  }
  await t.rejects(checkpoints.proofOf(enrolled(1, 300)), { code: 'roll.unanchored' })
  await t.rejects(checkpoints.newest(), { code: 'roll.unanchored' })
  await isRed(t, checkpoints, 'roll.unanchored')
  world.anchoring = fine
  await checkpoints.follow()
  checkpoints.assertAvailable()
  t.match(await verify(1, await checkpoints.proofOf(enrolled(1, 300))), { ok: true })
})

t.test('records that are not those of before keep everybody from asking, until they are again', async (t) => {
  const { world, checkpoints } = openWorld()
  await checkpoints.newest()
  world.looking = async () => {
    throw new Problem('roll.inconsistent', 'Entries 200 to 299 are missing.')
  }
  await t.rejects(checkpoints.follow(), { code: 'roll.inconsistent' })
  await isRed(t, checkpoints, 'roll.inconsistent')
  t.match(await checkpoints.probe(), /200 to 299/)
  world.looking = async () => {
    throw new Problem('db.unavailable', 'No connection.')
  }
  await t.rejects(checkpoints.follow(), { code: 'db.unavailable' })
  await isRed(t, checkpoints, 'roll.inconsistent')
  world.looking = fine
  await checkpoints.follow()
  checkpoints.assertAvailable()
})

t.test('what is shown has cosignatures where there are fresh ones, and is never smaller than before', async (t) => {
  const { world, checkpoints } = openWorld()
  const shows = async (size: number, isCosigned: boolean): Promise<void> => {
    const shown = await checkpoints.shown()
    t.same([shown.size, shown.note.endsWith('cosigned')], [size, isCosigned])
  }
  const cosign = (size: number): void => {
    world.cosigned = { origin, ...headAt(size), note: 'cosigned' }
  }
  await shows(300, false)
  world.looking = () => {
    throw new Error('nobody need look')
  }
  await shows(300, false)
  world.looking = fine
  cosign(290)
  await shows(300, false)
  cosign(300)
  await shows(300, true)
  world.head = headAt(400)
  await checkpoints.follow()
  await shows(300, true)
  world.cosigned = undefined
  await shows(400, false)
  cosign(399)
  await shows(400, false)
  cosign(401)
  await shows(401, true)
})

t.test(
  'whoever has seen more at another replica is shown it at once, and the records are looked at once for many',
  async (t) => {
    const { world, checkpoints } = openWorld()
    t.equal((await checkpoints.newest()).size, 300)
    world.head = headAt(650)
    t.equal((await checkpoints.newest(300)).size, 300, 'who has not is not')
    world.signed.length = 0
    const shown = await Promise.all([650, 650, 640].map((size) => checkpoints.newest(size)))
    t.same(
      shown.map(({ size }) => size),
      [650, 650, 650],
    )
    t.same(world.signed, [1])
  },
)

t.test('however many ask for more than there is, the records are looked at again after a pause only', async (t) => {
  const { world, checkpoints } = openWorld()
  let looks = 0
  world.looking = () => {
    looks += 1
    return undefined
  }
  const pauses: { readonly milliseconds: number; readonly end: () => void }[] = []
  world.pausing = (milliseconds) => new Promise((end) => pauses.push({ milliseconds, end }))
  const all = [300, 650, 650, 640].map((size) => checkpoints.newest(size))
  t.equal((await all[0])?.size, 300)
  world.head = headAt(650)
  t.equal(looks, 1)
  t.equal(pauses.length, 1)
  t.ok((pauses[0]?.milliseconds ?? 0) > 0)
  pauses[0]?.end()
  t.same(
    (await Promise.all(all)).map(({ size }) => size),
    [300, 650, 650, 650],
  )
  t.equal(looks, 2)
  pauses[1]?.end()
  await new Promise((resolve) => setImmediate(resolve))
  t.equal((await checkpoints.newest(650)).size, 650)
  t.equal(looks, 2, 'what is there is told without one')
})

t.test('a look that finds nothing is no reason to keep the next one waiting', async (t) => {
  const { world, checkpoints } = openWorld()
  const pauses: number[] = []
  world.pausing = async (milliseconds) => void pauses.push(milliseconds)
  world.looking = async () => {
    throw new Problem('db.unavailable', 'No connection.')
  }
  await t.rejects(checkpoints.newest(), { code: 'db.unavailable' })
  t.same(pauses, [0])
  world.looking = fine
  t.equal((await checkpoints.newest()).size, 300)
})

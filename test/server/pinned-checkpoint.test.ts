import { type FileHandle, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { mock } from 'node:test'

import t, { type Test } from 'tap'

import { openAnchorFile, readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import type { Checkpoint } from '../../src/tlog/checkpoint.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { sha256 } from '../helpers/hash.ts'
import { slowTest } from '../helpers/slow.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-anchor-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const at = (size: number, origin = 'ca.example.com/roll'): Checkpoint => ({
  origin,
  size,
  root: sha256(Buffer.from(`root ${size}`)),
})
const newPath = (() => {
  let made = 0
  return (): string => join(folder, 'new', String(made++), 'anchor')
})()

const withAnchor = async <T>(
  path: string,
  work: (anchor: Awaited<ReturnType<typeof openAnchorFile>>) => Promise<T>,
): Promise<T> => {
  const anchor = await openAnchorFile({ path })
  try {
    return await work(anchor)
  } finally {
    await anchor.close()
  }
}
const opened = async (octets: Buffer): Promise<Checkpoint | undefined> => {
  const path = join(folder, 'given')
  await writeFile(path, octets)
  const found = await withAnchor(path, async (anchor) => anchor.found)
  t.same(await readAnchorFile(path), found, 'whoever only reads finds the same')
  return found
}

t.test('what was written is found, by others and by the next one', async (t) => {
  const path = newPath()
  t.equal(await readAnchorFile(path), undefined, 'there is none yet')
  await withAnchor(path, async (anchor) => {
    t.equal(anchor.found, undefined)
    await anchor.write(at(5))
    t.match(await readAnchorFile(path), { origin: 'ca.example.com/roll', size: 5 })
    t.same(Buffer.from((await readAnchorFile(path))?.root ?? []), at(5).root)
  })
  t.equal((await stat(path)).mode & 0o777, 0o600)
  await withAnchor(path, async (anchor) => t.equal(anchor.found?.size, 5))
})

/** Calls before each sync, which fails where this does. */
const watchSyncs = async (t: Test, before: (file: FileHandle) => Promise<void>): Promise<void> => {
  const probe = await open(folder)
  const handles = Object.getPrototypeOf(probe)
  await probe.close()
  const sync = handles.sync
  handles.sync = async function (this: FileHandle): Promise<void> {
    await before(this)
    return sync.call(this)
  }
  t.teardown(() => {
    handles.sync = sync
  })
}

t.test(
  'the folders that are made for it last as it does: all of them are synced, up to one that was there',
  async (t) => {
    const top = await mkdtemp(join(folder, 'there-'))
    const path = join(top, 'a', 'b', 'c', 'anchor')
    const synced: number[] = []
    await watchSyncs(t, async (file) => void synced.push((await file.stat()).ino))
    await withAnchor(path, async () => {})
    const folders = [join(top, 'a', 'b'), join(top, 'a'), top]
    t.same(synced, await Promise.all(folders.map(async (one) => (await stat(one)).ino)))
    synced.length = 0
    await withAnchor(path, (anchor) => anchor.write(at(2)))
    t.same(synced, [(await stat(dirname(path))).ino], 'then only the folder of its name')
  },
)

t.test('a file that is taken away while it is written is there again with the next write', async (t) => {
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    await anchor.write(at(10))
    await rm(path)
    await anchor.write(at(11))
    t.same(await readAnchorFile(path), at(11))
  })
})

t.test('a file that another process has damaged or replaced by that of another roll is left as it is', async (t) => {
  const path = newPath()
  await withAnchor(join(folder, 'other'), (other) => other.write(at(5, 'other.example/roll')))
  await withAnchor(path, async (anchor) => {
    for (const [octets, message] of [
      [Buffer.from('nothing'), /is damaged/],
      [await readFile(join(folder, 'other')), /is of the roll other\.example\/roll, not of /],
    ] as const) {
      await writeFile(path, octets)
      for (let tries = 0; tries < 2; tries += 1) await t.rejects(anchor.write(at(50)), { message })
      t.same(await readFile(path), octets)
    }
  })
})

t.test('an older checkpoint than the last changes nothing, and the newest of many at once is kept', async (t) => {
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    await anchor.write(at(9))
    await anchor.write(at(7))
    t.equal((await readAnchorFile(path))?.size, 9)
    await Promise.all([10, 30, 20, 12].map((size) => anchor.write(at(size))))
    t.equal((await readAnchorFile(path))?.size, 30)
    const before = await readFile(path)
    await anchor.write(at(30))
    t.same(await readFile(path), before, 'the same again is no write')
    await rm(path)
    await anchor.write(at(20))
    t.equal(await readAnchorFile(path), undefined, 'nor is an older one where there is none any more')
    await anchor.write(at(31))
    t.equal((await readAnchorFile(path))?.size, 31)
  })
})

t.test('a file that holds no whole checkpoint stops the start, whatever its length', async (t) => {
  const path = newPath()
  await withAnchor(path, (anchor) => anchor.write(at(2)))
  const whole = await readFile(path)
  for (const at of [0, 20, 40, 90, whole.length - 1]) {
    const damaged = Buffer.from(whole)
    damaged[at] = (damaged[at] ?? 0) ^ 1
    await t.rejects(opened(damaged), { message: /given.* is damaged: it holds no whole checkpoint.*docs\/roll\.md/ })
  }
  for (const octets of [whole.subarray(0, 100), Buffer.alloc(0), Buffer.concat([whole, whole])])
    await t.rejects(opened(octets), { message: /is damaged: it holds no whole checkpoint/ }, `${octets.length} octets`)
  t.equal((await opened(whole))?.size, 2)
})

t.test('a first write that fails or is cut off leaves no file of that name, and the next one makes it', async (t) => {
  const disk = openFullDisk()
  t.teardown(disk.free)
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    for (const octets of [0, 100]) {
      disk.fill(octets)
      await t.rejects(anchor.write(at(1)), { code: 'EFBIG' })
      t.equal(await readAnchorFile(path), undefined)
    }
    disk.free()
    await anchor.write(at(2))
    t.equal((await readAnchorFile(path))?.size, 2)
    await anchor.write(at(3))
    t.equal((await readAnchorFile(path))?.size, 3)
  })
  t.same(await readdir(dirname(path)), ['anchor'], 'and nothing else is left')
  const unused = newPath()
  await withAnchor(unused, async () => {})
  t.same(await readdir(dirname(unused)), [])
})

t.test('a folder in its place is told with its path', async (t) => {
  await t.rejects(readAnchorFile(folder), { message: new RegExp(`^${folder} cannot be read: EISDIR`) })
  await t.rejects(openAnchorFile({ path: folder }), { message: new RegExp(folder) })
})

t.test('a checkpoint of another roll is not written over the one of this', async (t) => {
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    await anchor.write(at(5))
    await t.rejects(anchor.write(at(6, 'other.example.com/roll')), { message: /is of the roll ca\.example\.com/ })
    t.equal((await readAnchorFile(path))?.size, 5)
  })
})

t.test('a full disk fails the write, spoils nothing, and is written to when it has room again', async (t) => {
  const disk = openFullDisk()
  t.teardown(disk.free)
  for (const octets of [0, 100]) {
    const path = newPath()
    await withAnchor(path, async (anchor) => {
      await anchor.write(at(1))
      disk.fill(octets)
      for (const size of [2, 3]) await t.rejects(anchor.write(at(size)), { code: 'EFBIG' }, `room for ${octets} octets`)
      t.equal((await readAnchorFile(path))?.size, 1)
      disk.free()
      await anchor.write(at(3))
      t.equal((await readAnchorFile(path))?.size, 3)
    })
    t.same(await readdir(dirname(path)), ['anchor'], 'and no draft is left')
  }
})

t.test('a write whose name is not durable has failed, though it can be read, and is made again', async (t) => {
  const path = newPath()
  const state = { fails: false }
  await withAnchor(path, async (anchor) => {
    await watchSyncs(t, async () => {
      if (state.fails) throw new Error('EIO: i/o error, fsync')
    })
    await anchor.write(at(1))
    state.fails = true
    for (let tries = 0; tries < 2; tries += 1) await t.rejects(anchor.write(at(20)), { message: /EIO/ })
    t.equal((await readAnchorFile(path))?.size, 20)
    state.fails = false
    await anchor.write(at(20))
  })
})

/** Whether it comes to hold. */
const becomes = async (holds: () => Promise<boolean> | boolean): Promise<boolean> => {
  for (let tries = 0; tries < 1_000; tries += 1) {
    if (await holds()) return true
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  return false
}

t.test(
  'by the second: a write is promised at once, and made soon; while that fails nothing more is promised',
  async (t: Test) => {
    const disk = openFullDisk()
    t.teardown(disk.free)
    const path = newPath()
    const failures: unknown[] = []
    const anchor = await openAnchorFile({ path, everyMs: 10, failed: (error) => failures.push(error) })
    await anchor.write(at(1))
    await anchor.write(at(3))
    await anchor.write(at(2))
    t.ok(await becomes(async () => (await readAnchorFile(path))?.size === 3), 'the newest')
    disk.fill(0)
    await anchor.write(at(4))
    t.ok(await becomes(() => failures.length > 1), 'it is told, and tried again')
    await t.rejects(anchor.write(at(5)), { code: 'EFBIG' })
    t.equal((await readAnchorFile(path))?.size, 3)
    disk.free()
    t.ok(await becomes(async () => (await readAnchorFile(path))?.size === 5), 'without anybody asking again')
    const isPromised = () =>
      anchor.write(at(6)).then(
        () => true,
        () => false,
      )
    t.ok(await becomes(isPromised), 'and it is promised again')
    await anchor.close()
    t.equal((await readAnchorFile(path))?.size, 6, 'the end waits for the last one')
  },
)

t.test('by the second: where there is nothing to write yet, nothing fails', async (t: Test) => {
  const path = newPath()
  const failures: unknown[] = []
  const anchor = await openAnchorFile({ path, everyMs: 1, failed: (error) => failures.push(error) })
  await new Promise((resolve) => setTimeout(resolve, 30))
  await anchor.close()
  t.same(failures, [])
  t.equal(await readAnchorFile(path), undefined)
})

t.test('by the second: what could not be written before the end is not tried after it', async (t: Test) => {
  const disk = openFullDisk()
  t.teardown(disk.free)
  const failures: unknown[] = []
  const anchor = await openAnchorFile({ path: newPath(), everyMs: 1, failed: (error) => failures.push(error) })
  disk.fill(0)
  await anchor.write(at(1))
  await anchor.close()
  const told = failures.length
  t.ok(told > 0)
  await new Promise((resolve) => setTimeout(resolve, 30))
  t.equal(failures.length, told)
})

t.test('two that write one file, against all advice, never take back what either has promised', async (t: Test) => {
  const path = newPath()
  const [one, other] = [await openAnchorFile({ path }), await openAnchorFile({ path })]
  await other.write(at(103))
  await one.write(at(110))
  await other.write(at(105))
  t.equal((await readAnchorFile(path))?.size, 110)
  await other.write(at(120))
  await one.write(at(115))
  t.equal((await readAnchorFile(path))?.size, 120)
  await Promise.all([one.close(), other.close()])
})

/** Each write waits for as long as the disk hangs. */
const openHangingDisk = async (t: Test): Promise<{ hang: () => void; goOn: () => void; waiting: () => number }> => {
  const probe = await open(folder)
  const handles = Object.getPrototypeOf(probe)
  await probe.close()
  const { datasync } = handles
  let hanging: PromiseWithResolvers<void> | undefined
  let waiting = 0
  handles.datasync = async function (this: FileHandle): Promise<void> {
    waiting += 1
    await hanging?.promise
    waiting -= 1
    return datasync.call(this)
  }
  const goOn = (): void => {
    hanging?.resolve()
    hanging = undefined
  }
  t.teardown(() => {
    goOn()
    handles.datasync = datasync
  })
  return {
    hang: () => {
      hanging = Promise.withResolvers()
    },
    goOn,
    waiting: () => waiting,
  }
}

/** So that all that is to happen without a timer has happened. */
const someTurns = async (): Promise<void> => {
  for (let turns = 0; turns < 20; turns += 1) await new Promise((resolve) => setImmediate(resolve))
}

t.test('one write at a time', async (t) => {
  const path = newPath()
  const disk = await openHangingDisk(t)
  await withAnchor(path, async (anchor) => {
    await anchor.write(at(5))
    disk.hang()
    const writes = [anchor.write(at(6))]
    while (disk.waiting() === 0) await someTurns()
    writes.push(anchor.write(at(7)))
    await someTurns()
    t.equal(disk.waiting(), 1)
    disk.goOn()
    await Promise.all(writes)
    t.equal((await readAnchorFile(path))?.size, 7)
  })
})

for (const [what, everyMs, patience] of [
  ['five seconds where somebody waits', undefined, 5],
  ['two where nobody does', 1, 2],
] as const)
  t.test(`a disk that hangs from the first write on is given ${what}`, async (t) => {
    const disk = await openHangingDisk(t)
    const failures: unknown[] = []
    const failed = (error: unknown): void => void failures.push(error)
    const anchor = await openAnchorFile({ path: newPath(), everyMs, failed })
    mock.timers.enable({ apis: ['setTimeout'] })
    t.teardown(() => mock.timers.reset())
    disk.hang()
    anchor.write(at(5)).catch(failed)
    while (disk.waiting() === 0) await someTurns()
    // For many of its turns, of which none waits beside the first.
    for (const start = performance.now(); performance.now() < start + 20; ) await someTurns()
    mock.timers.tick(patience * 1_000 - 1)
    await someTurns()
    t.same(failures, [])
    mock.timers.tick(1)
    await someTurns()
    t.equal(failures.length, 1)
    t.match(failures, [{ message: new RegExp(`has not been written for ${patience} s`) }])
    disk.goOn()
    await anchor.close()
  })

t.test('a disk that has gone on is given as long as before', async (t) => {
  const disk = await openHangingDisk(t)
  const anchor = await openAnchorFile({ path: newPath() })
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const failures: unknown[] = []
  for (const size of [5, 6]) {
    disk.hang()
    failures.length = 0
    const written = anchor.write(at(size)).catch((error) => void failures.push(error))
    while (disk.waiting() === 0) await someTurns()
    mock.timers.tick(4_999)
    await someTurns()
    t.same(failures, [])
    mock.timers.tick(1)
    await written
    t.match(failures, [{ message: /has not been written for 5 s/ }])
    disk.goOn()
    while (disk.waiting() > 0) await someTurns()
    await anchor.write(at(size))
  }
  await anchor.close()
})

slowTest('a disk that hangs is one that fails, until it goes on', async (t) => {
  const path = newPath()
  const disk = await openHangingDisk(t)
  const anchor = await openAnchorFile({ path, patienceMs: 2_000 })
  await anchor.write(at(5))
  disk.hang()
  for (const size of [6, 7]) await t.rejects(anchor.write(at(size)), { message: /anchor has not been written for 2 s/ })
  disk.goOn()
  await until(async () => {
    await anchor.write(at(8))
    return true
  }, undefined)
  t.equal((await readAnchorFile(path))?.size, 8)
  await anchor.close()
})

t.test('a write behind one that hangs fails as late, and closing does not wait for it', async (t) => {
  const disk = await openHangingDisk(t)
  const failures: unknown[] = []
  const anchor = await openAnchorFile({
    path: newPath(),
    patienceMs: 2_000,
    failed: (error) => void failures.push(error),
  })
  await anchor.write(at(5))
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  disk.hang()
  const toldAfter = async (ms: number, size: number): Promise<void> => {
    let told: unknown
    anchor.write(at(size)).catch((error: unknown) => {
      told = error
    })
    await someTurns()
    mock.timers.tick(ms - 1)
    await someTurns()
    t.equal(told, undefined)
    mock.timers.tick(1)
    await someTurns()
    t.match(told, { message: /its disk hangs/ })
  }
  await toldAfter(2_000, 6)
  await toldAfter(2_000, 7)
  const closing = anchor.close()
  await someTurns()
  mock.timers.tick(2_000)
  await closing
  t.match(failures, [{ message: /its disk hangs/ }])
  disk.goOn()
})

t.test('while it hangs no more is promised than within so long, also where nobody waits for the disk', async (t) => {
  const path = newPath()
  const disk = await openHangingDisk(t)
  const failures: unknown[] = []
  const anchor = await openAnchorFile({
    path,
    everyMs: 10,
    patienceMs: 100,
    failed: (error) => void failures.push(error),
  })
  await anchor.write(at(5))
  disk.hang()
  await until(async () => {
    await anchor.write(at(6))
    return false
  }, /has not been written/)
  t.match(failures, [{ message: /its disk hangs/ }])
  disk.goOn()
  await until(async () => {
    await anchor.write(at(7))
    return (await readAnchorFile(path))?.size === 7
  }, undefined)
  await anchor.close()
  t.equal((await readAnchorFile(path))?.size, 7)
})

/** Tries until it is so, or has failed as it should. */
const until = async (isSo: () => Promise<boolean>, failure: RegExp | undefined): Promise<void> => {
  for (let tries = 0; tries < 500; tries += 1) {
    const found = await isSo().catch((error: Error) => error)
    if (found instanceof Error ? failure?.test(found.message) : found) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('it did not come to be so')
}

import fs from 'node:fs'
import {
  type FileHandle,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { mock } from 'node:test'

import t, { type Test } from 'tap'

import { type AnchorFile, openAnchorFile, readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import type { Checkpoint } from '../../src/tlog/checkpoint.ts'
import { drill } from '../helpers/drill.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { sha256 } from '../helpers/hash.ts'

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

/** The file as it is after these writes, each by an anchor that was opened anew. */
const fileAfter = async (...sizes: readonly number[]): Promise<Buffer> => {
  const path = newPath()
  for (const size of sizes) await withAnchor(path, (anchor) => anchor.write(at(size)))
  return readFile(path).catch(() => Buffer.alloc(0))
}
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
    await withAnchor(path, (anchor) => anchor.write(at(1)))
    const folders = [join(top, 'a', 'b', 'c'), join(top, 'a', 'b'), join(top, 'a'), top]
    t.same(synced, await Promise.all(folders.map(async (one) => (await stat(one)).ino)))
    synced.length = 0
    await withAnchor(path, (anchor) => anchor.write(at(2)))
    t.same(synced, [], 'once is enough')
  },
)

t.test('one that is taken away, or replaced, while it is written is there again with the next write', async (t) => {
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    for (const [size, take] of [
      [10, () => rm(path)],
      [20, () => rm(dirname(path), { recursive: true })],
      [30, () => rename(path, `${path}.away`)],
    ] as const) {
      await anchor.write(at(size))
      await take()
      await anchor.write(at(size + 1))
      t.same(await readAnchorFile(path), at(size + 1))
    }
    await rename(dirname(path), `${dirname(path)}.away`)
    await writeFile(dirname(path), 'no folder')
    await t.rejects(anchor.write(at(32)), /EEXIST|ENOTDIR/, 'no more than where the name leads nowhere')
    await rm(dirname(path))
    await anchor.write(at(33))
    t.same(await readAnchorFile(path), at(33))
    // Of the first of them nothing has its name any more; the other one is still there.
    for (const [size, take] of [
      [40, async () => {}],
      [45, () => rename(path, join(folder, 'away'))],
    ] as const) {
      await writeFile(join(folder, 'older'), await fileAfter(1, 2))
      await take()
      await rename(join(folder, 'older'), path)
      await anchor.write(at(size))
      t.same(await readAnchorFile(path), at(size))
    }

    await withAnchor(join(folder, 'other'), (other) => other.write(at(5, 'other.example/roll')))
    for (const [size, octets, message] of [
      [50, 'nothing', /is damaged/],
      [60, await readFile(join(folder, 'other')), /is of the roll other\.example\/roll, not of /],
    ] as const) {
      await writeFile(join(folder, 'foreign'), octets)
      await rename(join(folder, 'foreign'), path)
      for (let tries = 0; tries < 2; tries += 1)
        await t.rejects(anchor.write(at(size)), { message }, 'and what is there is heeded')
      t.same(await readFile(path), Buffer.from(octets), 'and left as it is')
      await rm(path)
      await anchor.write(at(size + 1))
      t.same(await readAnchorFile(path), at(size + 1))
    }
  })
})

t.test('one that has lost its name where it is mounted from is written as ever', async (t) => {
  const path = newPath()
  await withAnchor(path, (anchor) => anchor.write(at(10)))
  const file = await open(path)
  t.teardown(() => file.close())
  await rm(path)
  // As a file that is mounted by itself: its name here always is that of what nothing else names.
  const mounted = `/proc/self/fd/${file.fd}`
  await withAnchor(mounted, async (anchor) => {
    await anchor.write(at(20))
    t.same(await readAnchorFile(mounted), at(20))
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

t.test('on a disk that names no file twice alike it is written as ever', async (t) => {
  const { statSync } = fs
  let names = 0n
  const named = (path: string) => {
    names += 1n
    return Object.assign(statSync(path, { bigint: true }), { ino: names })
  }
  Object.assign(fs, { statSync: named })
  syncBuiltinESMExports()
  t.teardown(() => {
    Object.assign(fs, { statSync })
    syncBuiltinESMExports()
  })
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    for (const size of [5, 6]) await anchor.write(at(size))
    t.equal((await readAnchorFile(path))?.size, 6)
  })
  t.ok(names > 1n && names < 5n, `${names} looks`)
})

t.test('on a disk without links it gets its name all the same, and what else fails takes no name', async (t) => {
  const { link, rename } = fs.promises
  let code = ''
  Object.assign(fs.promises, { link: () => Promise.reject(Object.assign(new Error(`${code}: link`), { code })) })
  syncBuiltinESMExports()
  t.teardown(() => {
    Object.assign(fs.promises, { link, rename })
    syncBuiltinESMExports()
  })
  for (code of ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']) {
    const path = newPath()
    await withAnchor(path, (anchor) => anchor.write(at(5)))
    t.equal((await readAnchorFile(path))?.size, 5, code)
    t.same(await readdir(dirname(path)), ['anchor'])
  }
  Object.assign(fs.promises, { rename: () => Promise.reject(Object.assign(new Error('EIO: rename'), { code: 'EIO' })) })
  syncBuiltinESMExports()
  code = 'EPERM'
  await withAnchor(newPath(), (anchor) => t.rejects(anchor.write(at(5)), { code: 'EIO' }))
  for (code of ['EIO', 'EACCES', 'EMLINK']) {
    const path = newPath()
    await withAnchor(path, (anchor) => t.rejects(anchor.write(at(5)), { code }))
    t.equal(await readAnchorFile(path), undefined, code)
  }
})

t.test('two places are written in turn, whoever opens it', async (t) => {
  const places: Buffer[][] = []
  for (const sizes of [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]) {
    const octets = await fileAfter(...sizes)
    places.push([octets.subarray(0, 512), octets.subarray(512)])
  }
  const sizeIn = (place?: Buffer): number => Number(place?.toString().split('\n')[1])
  t.same(
    places.map((two) => two.map(sizeIn)),
    [
      [1, Number.NaN],
      [1, 2],
      [3, 2],
      [3, 4],
    ],
  )
})

drill('a write that is cut off after any octet leaves the checkpoint before it', async (t) => {
  const path = join(folder, 'torn')
  for (const [sizes, next] of [
    [[1], 2],
    [[1, 2], 3],
    [[1, 2, 3], 4],
  ] as const) {
    const before = await fileAfter(...sizes)
    const after = await fileAfter(...sizes, next)
    const start = next % 2 === 1 ? 0 : 512
    const found = new Set<number | undefined>()
    for (let octets = 0; octets <= 512; octets += 1) {
      const torn = Buffer.concat([before, after.subarray(before.length, start + octets)])
      after.copy(torn, start, start, start + octets)
      await writeFile(path, torn)
      found.add((await readAnchorFile(path))?.size)
    }
    // The last octets of a place are empty lines: it is whole before them.
    t.same([...found], [sizes.at(-1), next], `of the ${next}th`)
  }
})

t.test('a file of which nothing is whole stops the start with a sentence, whatever its length', async (t) => {
  const whole = await fileAfter(1, 2)
  for (const at of [0, 20, 40, 90, 130]) {
    const damaged = Buffer.from(whole)
    for (const place of [0, 512]) damaged[place + at] = (damaged[place + at] ?? 0) ^ 1
    await t.rejects(opened(damaged), { message: /anchor|given.* is damaged: nothing in it is whole.*docs\/roll\.md/ })
    damaged[at] = (damaged[at] ?? 0) ^ 1
    t.equal((await opened(damaged))?.size, 1, 'one that is whole is enough')
  }
  for (const octets of [whole.subarray(0, 100), Buffer.alloc(0), Buffer.alloc(512, 0xa5), Buffer.alloc(100, 0xa5)])
    await t.rejects(opened(octets), { message: /is damaged: nothing in it is whole/ }, `${octets.length} octets`)
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

t.test('one that cannot be made is told with its path', async (t) => {
  // A draft has a longer name.
  const path = join(folder, 'x'.repeat(240))
  await t.rejects(openAnchorFile({ path }), { message: new RegExp(`^${path} cannot be made: ENAMETOOLONG`) })
})

t.test('a checkpoint of another roll is not written over the one of this', async (t) => {
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    await anchor.write(at(5))
    await t.rejects(anchor.write(at(6, 'other.example.com/roll')), { message: /is of the roll ca\.example\.com/ })
    t.equal((await readAnchorFile(path))?.size, 5)
    await t.rejects(anchor.write(at(7, 'x'.repeat(500))), Error, 'nor one that has no room')
  })
  const other = newPath()
  await withAnchor(other, (anchor) => t.rejects(anchor.write(at(7, 'x'.repeat(400))), RangeError))
  t.equal(await readAnchorFile(other), undefined)
})

t.test('a full disk fails the write, spoils nothing, and is written to when it has room again', async (t) => {
  const disk = openFullDisk()
  t.teardown(disk.free)
  for (const octets of [0, 100, 512, 600]) {
    const path = newPath()
    await withAnchor(path, async (anchor) => {
      // One place is there; the other is the one that is written next, and has no room or only some.
      await anchor.write(at(1))
      disk.fill(octets)
      await t.rejects(anchor.write(at(2)), { code: 'EFBIG' }, `room for ${octets} octets`)
      await t.rejects(anchor.write(at(3)), { code: 'EFBIG' })
      t.equal((await readAnchorFile(path))?.size, 1)
      disk.free()
      await anchor.write(at(3))
      t.equal((await readAnchorFile(path))?.size, 3)
    })
  }
})

/** Each write reaches the file, and fails all the same where that is said: what is there to be read may not last. */
const failWrites = async (t: Test) => {
  const probe = await open(folder)
  const handles = Object.getPrototypeOf(probe) as FileHandle
  await probe.close()
  const { write } = handles
  const state = { fails: false, writes: 0 }
  t.teardown(() => {
    handles.write = write
  })
  handles.write = async function (this: FileHandle, ...what: never) {
    state.writes += 1
    const written = await (write as (...what: never) => never).apply(this, what)
    if (state.fails) throw new Error('EIO: i/o error, write')
    return written
  } as never
  return state
}

t.test('what failed is written again, though it can be read, and not over what lasts', async (t: Test) => {
  const sizesIn = async (path: string): Promise<number[]> => {
    const octets = await readFile(path)
    return [0, 512].map((start) => Number(octets.subarray(start).toString().split('\n')[1]))
  }
  const disk = await failWrites(t)
  for (const [before, next, left] of [
    [[1], 20, [1, 20]],
    [[1], 30, [1, 30]],
    [[1, 2], 20, [20, 2]],
    [[1, 2], 30, [30, 2]],
  ] as const) {
    const path = newPath()
    await withAnchor(path, async (anchor) => {
      for (const size of before) await anchor.write(at(size))
      Object.assign(disk, { fails: true, writes: 0 })
      await t.rejects(anchor.write(at(20)), { message: /EIO/ })
      t.equal((await readAnchorFile(path))?.size, 20, 'it can be read')
      await t.rejects(anchor.write(at(next)), { message: /EIO/ }, 'and counts for nothing')
      t.equal(disk.writes, 2)
      disk.fails = false
      await anchor.write(at(next))
      t.equal(disk.writes, 3)
      t.same(await sizesIn(path), left)
    })
  }
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

for (const failing of [1, 2, 3])
  t.test(
    `naming that fails half-way (${failing}) goes on when it can, and writes nothing over what has the name`,
    async (t: Test) => {
      const path = join(await mkdtemp(join(folder, 'half-')), 'a', 'anchor')
      let syncs = 0
      await watchSyncs(t, async () => {
        syncs += 1
        if (syncs <= failing) throw Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO' })
      })
      await withAnchor(path, async (anchor) => {
        for (let tries = 0; tries < failing; tries += 1) {
          await t.rejects(anchor.write(at(5)), { code: 'EIO' })
          t.equal((await readAnchorFile(path))?.size, 5)
        }
        await anchor.write(at(5))
        t.equal(syncs, failing + 2, 'all folders, since the first')
        t.equal((await readFile(path)).length, 512, 'what was written is not written again')
        await anchor.write(at(6))
        t.equal((await readAnchorFile(path))?.size, 6)
        t.same(await readdir(dirname(path)), ['anchor'])
      })
    },
  )

t.test(
  'that somebody else writes the same file is told once, by whoever sees it, and of nobody who is alone',
  async (t) => {
    const path = newPath()
    const told: string[] = []
    let elapsed = 0
    const opened = (name: string) =>
      openAnchorFile({ path, shared: () => void told.push(name), elapsedMs: () => elapsed })
    const one = await opened('one')
    for (const size of [5, 6, 6, 4, 7]) await one.write(at(size))
    await one.close()
    const again = await opened('again')
    await again.write(at(8))
    t.same(told, [], 'nor of one that was stopped')
    const other = await opened('other')
    await other.write(at(9))
    t.same(told, [], 'the other one has only seen what it was opened with')
    for (const size of [10, 11]) await again.write(at(size))
    for (const size of [12, 13]) await other.write(at(size))
    elapsed += 299_999
    for (const size of [14, 15]) await again.write(at(size))
    t.same(told, [], 'nor, for a while, of a successor that was started before the other one has ended')
    elapsed += 1
    await other.write(at(16))
    t.same(told, ['other'])
    await again.write(at(17))
    t.same(told, ['other', 'again'])
    elapsed += 300_000
    for (const size of [18, 20]) await other.write(at(size))
    for (const size of [19, 21]) await again.write(at(size))
    t.same(told, ['other', 'again'], 'once')
    await again.close()
    await other.close()
  },
)

t.test('who has seen the one before it and, long after, its own successor, has shared with nobody', async (t) => {
  const path = newPath()
  const told: string[] = []
  let elapsed = 0
  const one = await openAnchorFile({ path })
  await one.write(at(1))
  const middle = await openAnchorFile({ path, shared: () => void told.push('shared'), elapsedMs: () => elapsed })
  await one.write(at(2))
  // What another has written once is one thing that was seen, however often it is.
  for (const size of [1, 1, 3, 4]) await middle.write(at(size))
  await one.close()
  elapsed += 3_600_001
  const last = await openAnchorFile({ path })
  await last.write(at(9))
  for (const size of [5, 6]) await middle.write(at(size))
  elapsed += 300_000
  for (const size of [7, 8]) await middle.write(at(size))
  t.same(told, [], 'it lags behind, and nobody has written since')
  await last.write(at(10))
  await middle.write(at(9))
  t.same(told, ['shared'], 'now somebody has')
  await Promise.all([middle.close(), last.close()])
})

t.test('of two upgrades within the hour nobody is told, and of who writes beside us now and then', async (t) => {
  const path = newPath()
  const told: string[] = []
  let elapsed = 0
  let size = 0
  const open = () => openAnchorFile({ path, shared: () => void told.push('shared'), elapsedMs: () => elapsed })
  const write = (file: AnchorFile) => {
    size += 1
    return file.write(at(size))
  }
  const one = await open()
  await write(one)
  const middle = await open()
  const spellWith = async (other: AnchorFile): Promise<number> => {
    for (const file of [other, middle, other, middle]) await write(file)
    return told.length
  }
  t.equal(await spellWith(one), 0)
  await one.close()
  elapsed += 1_200_000
  const last = await open()
  t.equal(await spellWith(last), 0, 'the one before it, and its successor')
  elapsed += 86_400_000
  t.equal(await spellWith(last), 0, 'on another day there may be others')
  elapsed += 21_600_000
  t.equal(await spellWith(last), 0)
  elapsed += 21_600_000
  t.equal(await spellWith(last), 2, 'each has seen the other three times')
  await Promise.all([middle.close(), last.close()])
})

t.test('what we have written ourselves is nobody else, whatever of it failed', async (t: Test) => {
  const path = newPath()
  const told: string[] = []
  let isFailing = false
  await watchSyncs(t, async (file) => {
    if (isFailing && (await file.stat()).isDirectory()) throw new Error('no sync')
  })
  const anchor = await openAnchorFile({ path, shared: () => void told.push('shared') })
  t.teardown(anchor.close)
  await anchor.write(at(4))
  await rm(path)
  isFailing = true
  await t.rejects(anchor.write(at(5)), { message: 'no sync' })
  await t.rejects(anchor.write(at(6)), { message: 'no sync' })
  isFailing = false
  await anchor.write(at(7))
  t.same(told, [])
})

t.test('one that has its name and is not settled is written in turn, as any other', async (t: Test) => {
  const path = newPath()
  let isFailing = true
  await watchSyncs(t, async () => {
    if (isFailing) throw new Error('no sync')
  })
  await withAnchor(path, async (anchor) => {
    await t.rejects(anchor.write(at(5)), { message: 'no sync' })
    await t.rejects(anchor.write(at(6)), { message: 'no sync' })
    const octets = (await readFile(path)).toString()
    t.match(octets.slice(0, 512), /\n5\n/, 'the first stays whole while the second is written')
    t.match(octets.slice(512), /\n6\n/)
    isFailing = false
    await anchor.write(at(7))
    t.equal((await readAnchorFile(path))?.size, 7)
  })
})

t.test('a link to nothing in its place fails each write alike, and is no matter when it is gone', async (t) => {
  const path = newPath()
  await withAnchor(path, async (anchor) => {
    await symlink(join(folder, 'nothing'), path)
    for (let tries = 0; tries < 3; tries += 1) await t.rejects(anchor.write(at(5)), { code: 'ENOENT', path })
    await rm(path)
    await anchor.write(at(5))
    t.equal((await readAnchorFile(path))?.size, 5)
  })
})

t.test('of two that open one new file for different rolls only the first writes it', async (t) => {
  const path = newPath()
  const [one, other] = [await openAnchorFile({ path }), await openAnchorFile({ path })]
  await one.write(at(5))
  for (let tries = 0; tries < 2; tries += 1)
    await t.rejects(other.write(at(9, 'other.example.com/roll')), {
      message: /is of the roll ca\.example\.com\/roll, not of other/,
    })
  t.match(await readAnchorFile(path), { origin: 'ca.example.com/roll', size: 5 })
  await Promise.all([one.close(), other.close()])
  t.same(await readdir(dirname(path)), ['anchor'])
})

t.test('drafts of starts that were killed are cleared, unless they are young; nothing else is', async (t) => {
  const path = newPath()
  const slow = await openAnchorFile({ path })
  const [live] = (await readdir(dirname(path))) as [string]
  const dead = `${path}.${live.slice('anchor.'.length).replace(/^.{8}/, '00000000')}`
  const young = `${path}.${live.slice('anchor.'.length).replace(/^.{8}/, '11111111')}`
  await writeFile(young, '')
  const theirs = basename(dead).replace('anchor', 'backup')
  const kept = [basename(young), 'anchor.5', 'anchor.old', theirs]
  const old = [dead, `${path}.5`, `${path}.old`, join(dirname(path), live), join(dirname(path), theirs)]
  for (const one of old) {
    if (!one.endsWith(live)) await writeFile(one, '')
    await utimes(one, 0, 0)
  }
  await withAnchor(path, async () => {})
  t.same((await readdir(dirname(path))).sort(), kept)
  await slow.write(at(5))
  t.equal((await readAnchorFile(path))?.size, 5, 'one that lives makes another')
  await slow.close()
  t.same((await readdir(dirname(path))).sort(), ['anchor', ...kept])
})

/** Each write waits for as long as the disk hangs. */
const openHangingDisk = async (t: Test): Promise<{ hang: () => void; goOn: () => void; waiting: () => number }> => {
  const probe = await open(folder)
  const handles = Object.getPrototypeOf(probe)
  await probe.close()
  const { write } = handles
  let hanging: PromiseWithResolvers<void> | undefined
  let waiting = 0
  handles.write = async function (this: FileHandle, ...args: unknown[]): Promise<unknown> {
    waiting += 1
    await hanging?.promise
    waiting -= 1
    return write.apply(this, args)
  }
  const goOn = (): void => {
    hanging?.resolve()
    hanging = undefined
  }
  t.teardown(() => {
    goOn()
    handles.write = write
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
    await someTurns()
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

drill('a disk that hangs is one that fails, until it goes on', async (t) => {
  const path = newPath()
  const disk = await openHangingDisk(t)
  const anchor = await openAnchorFile({ path, patienceMs: 2_000 })
  await anchor.write(at(5))
  disk.hang()
  for (const size of [6, 7]) await t.rejects(anchor.write(at(size)), { message: /anchor has not been written for 2 s/ })
  disk.goOn()
  // Who comes first is given less, as long as the disk has not gone on.
  await until(async () => {
    await anchor.write(at(8))
    return true
  }, undefined)
  t.equal((await readAnchorFile(path))?.size, 8)
  await anchor.close()
})

t.test(
  'whoever waits behind those who were told that it hangs is told soon, and it keeps nothing from closing',
  async (t) => {
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
    await toldAfter(400, 7)
    const closing = anchor.close()
    await someTurns()
    mock.timers.tick(2_000)
    await closing
    t.match(failures, [{ message: /its disk hangs/ }])
    disk.goOn()
  },
)

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

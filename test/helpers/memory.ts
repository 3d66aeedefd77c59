import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** What is held, once all that nobody holds any more was collected. */
const held = async (): Promise<NodeJS.MemoryUsage> => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  for (let i = 0; i < 3; i += 1) {
    collect()
    // What was collected is given back beside.
    await nextTurn()
  }
  return process.memoryUsage()
}

/**
 * Octets outside of the heap that stay for each of so many things, made one after the other, each while others take all of a slab
 * of Buffer's pool, as in a service that is busy.
 */
export const keptForEach = async (count: number, make: (n: number) => unknown): Promise<number> => {
  const made: unknown[] = []
  const makeOne = async (n: number): Promise<void> => {
    for (let octets = 0; octets < Buffer.poolSize; octets += 8_192) Buffer.allocUnsafe(8_192)
    made.push(await make(n))
  }
  // Of the first, what is made once is kept as well.
  await makeOne(0)
  const before = await held()
  for (let n = 1; n <= count; n += 1) await makeOne(n)
  const after = await held()
  if (made.length !== count + 1) throw new Error('not all were kept')
  return (after.arrayBuffers - before.arrayBuffers) / count
}

/** Octets of the heap that stay for each of a thousand things that are done, one after the other. */
export const leftByEach = async (act: () => Promise<unknown>): Promise<number> => {
  const many = async (): Promise<number> => {
    for (let n = 0; n < 1_000; n += 1) await act()
    return (await held()).heapUsed
  }
  // What is compiled and kept once stays of the first.
  const before = await many()
  return ((await many()) - before) / 1_000
}

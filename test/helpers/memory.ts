import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * Octets outside of the heap that stay for each of so many things, made one after the other, each while others take all of a slab
 * of Buffer's pool, as in a service that is busy.
 */
export const keptForEach = async (count: number, make: (n: number) => unknown): Promise<number> => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const held = async (): Promise<number> => {
    for (let i = 0; i < 3; i += 1) {
      collect()
      // What was collected is given back beside.
      await nextTurn()
    }
    return process.memoryUsage().arrayBuffers
  }
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
  return (after - before) / count
}

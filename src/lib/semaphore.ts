/** Runs as many at a time as there are lanes; the others wait, in order. */
export type InLane = <T>(work: () => Promise<T>) => Promise<T>

export const openLanes = (lanes: number): InLane => {
  const waiting: (() => void)[] = []
  let free = lanes
  return async (work) => {
    if (free > 0) free -= 1
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else free += 1
    }
  }
}

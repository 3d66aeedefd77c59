/** Work that is begun in the order of asking, so much of it at a time. */
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

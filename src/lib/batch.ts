/**
 * Group commit. Items that arrive while a batch is under way wait, and go together in the next: under load one
 * transaction serves many requests (measured: 1 → 400/s, 32 → 8,000/s), and an idle service waits for nobody but, briefly, for
 * who is expected.
 */

export interface BatchOptions<I, O> {
  /** Runs one batch; answers for each item in its order. A rejection fails every item of the batch alike. */
  readonly run: (items: readonly I[]) => Promise<readonly (O | Error)[]>
  /** At most this many items in one batch. */
  readonly max: number
  /** Batches under way at the same time. */
  readonly lanes: number
  /**
   * Whether an item of a batch that was rejected so can be to blame alone: then its halves are run again, each by itself, so
   * that one bad item fails only itself, and keeps the others for a few runs and not for one of each. Default: never.
   */
  readonly isolate?: (error: unknown) => boolean
  /** Told of the size of every batch. */
  readonly observe?: (size: number) => void
  /** Who is expected is waited for, so that fewer batches serve the same. By default nobody is. */
  readonly gather?: Gathering
  /** Told of what came of a batch, those who wait being answered: its lane is free when this resolves. Never rejects. */
  readonly after?: (results: readonly (O | Error)[]) => Promise<void>
}

export interface Gathering {
  /** So many wait for nobody. */
  readonly enough: number
  /** Milliseconds, since a batch could have begun. */
  readonly patienceMs: number
}

export interface Batch<I, O> {
  add(item: I): Promise<O>
  /** Somebody is about to add an item, and no more when what this returns is called: he has, or will not. */
  expect(): () => void
  /** Items that wait or are under way. */
  readonly pending: number
  /** Resolves when nothing waits and nothing is under way. */
  drain(): Promise<void>
}

export const openBatch = <I, O>({
  run,
  max,
  lanes,
  isolate = () => false,
  observe,
  gather,
  after,
}: BatchOptions<I, O>): Batch<I, O> => {
  const waiting: Waiter<I, O>[] = []
  const drained: (() => void)[] = []
  let busy = 0
  let inFlight = 0
  let scheduled = false
  let expected = 0
  let patience: NodeJS.Timeout | undefined

  /** Whether those who wait are to wait for more; asked again by each who comes, and by the last who does not. */
  const isGathering = (): boolean => {
    if (!gather || waiting.length >= gather.enough || expected === 0) return false
    patience ??= setTimeout(begin, gather.patienceMs)
    return true
  }

  const begin = (): void => {
    clearTimeout(patience)
    patience = undefined
    // A batch that was full in the meantime may have taken the lane.
    if (busy < lanes) void flush()
  }

  const schedule = (): void => {
    if (scheduled || busy >= lanes || waiting.length === 0) return
    scheduled = true
    // After the sockets have been read once: those who came in the same turn go together.
    setImmediate(() => {
      scheduled = false
      if (busy < lanes && waiting.length > 0 && !isGathering()) begin()
    })
  }

  const flush = async (): Promise<void> => {
    const batch = waiting.splice(0, max)
    if (batch.length === 0) return
    clearTimeout(patience)
    patience = undefined
    busy += 1
    inFlight += batch.length
    schedule()
    observe?.(batch.length)
    const results = await settle(batch, run, isolate)
    await after?.(results)
    busy -= 1
    inFlight -= batch.length
    if (waiting.length + inFlight === 0) for (const done of drained.splice(0)) done()
    schedule()
  }

  return {
    add: (item) =>
      new Promise<O>((resolve, reject) => {
        waiting.push({ item, resolve, reject })
        // A full batch waits for nobody: its work begins while the rest of this turn is still being read.
        if (waiting.length >= max && busy < lanes) void flush()
        else schedule()
      }),
    expect: () => {
      let isOver = false
      expected += 1
      return () => {
        if (isOver) return
        isOver = true
        expected -= 1
        if (expected === 0) schedule()
      }
    },
    get pending() {
      return waiting.length + inFlight
    },
    drain: () =>
      waiting.length + inFlight === 0 ? Promise.resolve() : new Promise<void>((resolve) => drained.push(resolve)),
  }
}

const settle = async <I, O>(
  batch: readonly Waiter<I, O>[],
  run: BatchOptions<I, O>['run'],
  isolate: (error: unknown) => boolean,
): Promise<readonly (O | Error)[]> => {
  try {
    const results = await run(batch.map((waiter) => waiter.item))
    batch.forEach((waiter, i) => {
      const result = results[i]
      if (result === undefined) waiter.reject(new Error('a batch left an item without an answer'))
      else if (result instanceof Error) waiter.reject(result)
      else waiter.resolve(result)
    })
    return results
  } catch (error) {
    if (batch.length > 1 && isolate(error)) return inHalves(batch, (half) => settle(half, run, isolate))
    for (const waiter of batch) waiter.reject(error)
    return []
  }
}

/** Who of many is to blame is found among 128 by 14 runs more, and not by one for each. */
export const inHalves = async <I, O>(
  items: readonly I[],
  run: (half: readonly I[]) => Promise<readonly O[]>,
): Promise<readonly O[]> => {
  const middle = items.length >> 1
  return [...(await run(items.slice(0, middle))), ...(await run(items.slice(middle)))]
}

interface Waiter<I, O> {
  readonly item: I
  readonly resolve: (value: O) => void
  readonly reject: (error: unknown) => void
}

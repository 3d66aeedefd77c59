import { createServer, type Server } from 'node:net'

/**
 * A port that was free a moment ago, and that nobody else is given. One from the range of outgoing connections may be another
 * program's by the time an instance that was killed listens there again; and to a test beside this one any is free until then.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = ours.pop()
    if (port === undefined) {
      claiming ??= claim()
      await claiming
      continue
    }
    const server = await listenAt(port)
    if (server === undefined) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}

/** Those that this process has claimed, and not given yet. */
const ours: number[] = []
let claiming: Promise<void> | undefined

/** Who listens at the first of some ports has the others, for as long as the process lives. */
const claim = async (): Promise<void> => {
  for (;;) {
    const first = lowest + each * Math.floor(Math.random() * claims)
    const server = await listenAt(first)
    if (server === undefined) continue
    server.unref()
    ours.push(...Array.from({ length: each - 1 }, (_, i) => first + 1 + i))
    claiming = undefined
    return
  }
}

/** Undefined where somebody listens already. */
const listenAt = (port: number): Promise<Server | undefined> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error),
    )
    server.listen(port, '127.0.0.1', () => resolve(server))
  })

/** Above those that browsers and `fetch` refuse (the last is 10080). */
const lowest = 11_000
/** Linux gives out ports from here on. */
const highest = 32_768
const each = 32
const claims = Math.floor((highest - lowest) / each)

import { createServer, type Server } from 'node:net'

/**
 * A port that was free a moment ago, and that nobody else is given. One from the range of outgoing connections may be another
 * program's by the time an instance that was killed listens there again; and to a test beside this one any is free until then.
 */
export const freePort = (): Promise<number> => nextPort()

/** Ports from `lowest` on and below `highest`. They reject with a sentence once others have all of them. */
export const openPorts = (lowest: number, highest: number): (() => Promise<number>) => {
  const claims = Math.floor((highest - lowest) / each)
  /** Those that this process has claimed, and not given yet. */
  const ours: number[] = []
  let claiming: Promise<void> | undefined

  /** Who listens at the first of some ports has the others, for as long as the process lives. */
  const claim = async (): Promise<void> => {
    const start = Math.floor(Math.random() * claims)
    for (let i = 0; i < claims; i += 1) {
      const first = lowest + each * ((start + i) % claims)
      const server = await listenAt(first)
      if (server === undefined) continue
      server.unref()
      ours.push(...Array.from({ length: each - 1 }, (_, i) => first + 1 + i))
      return
    }
    throw new Error(
      `Somebody listens at every ${each}nd port from ${lowest} to ${highest}, which is how tests claim them: end what earlier tests have left (ss -tlnp shows it).`,
    )
  }

  return async () => {
    for (;;) {
      const port = ours.pop()
      if (port === undefined) {
        claiming ??= claim().finally(() => {
          claiming = undefined
        })
        await claiming
        continue
      }
      const server = await listenAt(port)
      if (server === undefined) continue
      await new Promise((resolve) => server.close(resolve))
      return port
    }
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

const each = 32
/** From above those that browsers and `fetch` refuse (the last is 10080) to where Linux begins to give out ports. */
const nextPort = openPorts(11_000, 32_768)

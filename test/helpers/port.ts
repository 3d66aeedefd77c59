import { createServer } from 'node:net'

/**
 * A port that was free a moment ago, and that nobody is given unasked: one from the range of outgoing connections may be another
 * program's by the time an instance that was killed listens there again.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest))
    if (await isFree(port)) return port
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(false) : reject(error),
    )
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })

/** Above those that browsers and `fetch` refuse (the last is 10080). */
const lowest = 11_000
/** Linux gives out ports from here on. */
const highest = 32_768

/** A disk that takes no more: the system's bound on the size of the files that this process writes (RLIMIT_FSIZE). */
import { execFileSync } from 'node:child_process'

/**
 * Every write beyond so many octets of a file fails with EFBIG, and one across them is cut off, until `free`. What is said meanwhile
 * is said then: standard output may be a file as well, and a test whose own words fail ends all of them.
 */
export const openFullDisk = () => {
  // Without somebody who listens, the signal of such a write would be the end; it may come when the disk is free again.
  process.on('SIGXFSZ', () => {})
  const bound = (octets: number | 'unlimited'): void =>
    void execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${octets}:`])
  let isFull = false
  const free = (): void => {
    if (!isFull) return
    bound('unlimited')
    isFull = false
    for (const stream of [process.stdout, process.stderr]) stream.uncork()
  }
  // A test that fails before it frees the disk is to say so.
  process.once('exit', free)
  return {
    fill: (octets: number): void => {
      bound(octets)
      if (isFull) return
      isFull = true
      for (const stream of [process.stdout, process.stderr]) stream.cork()
    },
    free,
  }
}

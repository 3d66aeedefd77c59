/** A disk that takes no more: the system's bound on the size of the files that this process writes (RLIMIT_FSIZE). */
import { execFileSync } from 'node:child_process'

/** Every write beyond so many octets of a file fails with EFBIG, and one across them is cut off, until `free`. */
export const openFullDisk = () => {
  // Without somebody who listens, the signal of the first such write would be the end.
  const heard = (): void => {}
  process.on('SIGXFSZ', heard)
  const bound = (octets: number | 'unlimited'): void =>
    void execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${octets}:`])
  return {
    fill: (octets: number): void => bound(octets),
    free: (): void => bound('unlimited'),
    close: (): void => {
      bound('unlimited')
      process.off('SIGXFSZ', heard)
    },
  }
}

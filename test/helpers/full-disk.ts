/** A disk that takes no more: the system's bound on the size of the files that this process writes (RLIMIT_FSIZE). */
import { execFileSync } from 'node:child_process'

/** Every write beyond so many octets of a file fails with EFBIG, and one across them is cut off, until `free`. Standard output must not be a file. */
export const openFullDisk = () => {
  // Without somebody who listens, the signal of such a write would be the end; it may come when the disk is free again.
  process.on('SIGXFSZ', () => {})
  const bound = (octets: number | 'unlimited'): void =>
    void execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${octets}:`])
  return {
    fill: (octets: number): void => bound(octets),
    free: (): void => bound('unlimited'),
  }
}

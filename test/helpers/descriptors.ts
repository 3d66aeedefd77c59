/** File descriptors, where none is left. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readdirSync } from 'node:fs'

/** Takes all that this process may have, which are few from now on. Returns what gives them back. */
export const takeDescriptors = (): (() => void) => {
  const most = readdirSync('/proc/self/fd').length + 100
  execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${most}:`])
  const held: number[] = []
  try {
    for (;;) held.push(openSync('/dev/null', 'r'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error
  }
  return () => held.forEach(closeSync)
}

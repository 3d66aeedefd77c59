/** Keys and PINs stay in memory, also when a module crashes: what is written of the process then goes to a disk, or to a service. */
import { writeFileSync } from 'node:fs'

/**
 * On Linux, no memory of this process goes into a core file, nor to whoever gets it by a pipe (core(5), coredump_filter);
 * what it starts does as it does. Elsewhere, and where /proc does not take it, it is as the system says.
 */
export const keepOutOfCores = (): void => {
  try {
    writeFileSync('/proc/self/coredump_filter', '0')
  } catch {
    // No reason not to sign.
  }
}

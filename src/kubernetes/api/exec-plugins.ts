/** Programs that a kubeconfig names, to say who we are: each has an end. */
import { type ChildProcessWithoutNullStreams, type SpawnOptionsWithoutStdio, spawn } from 'node:child_process'

export type RunProgram = (
  command: string,
  args?: readonly string[],
  options?: SpawnOptionsWithoutStdio,
) => ChildProcessWithoutNullStreams

/**
 * As `spawn`, in a group of its own, which is killed when the program has not ended in that time, or when we end. Whoever waits for the
 * program is told then as of one that could not be begun.
 */
export const boundedTo =
  (patienceMs: number): RunProgram =>
  (command, args = [], options = {}) => {
    const program = spawn(command, args, { ...options, detached: true })
    if (program.stdout === undefined) {
      // Told once more, later, where nobody listens: that would be the end of us.
      program.on('error', () => {})
      throw new Error(`no file descriptor is left for ${command}, which says who we are`)
    }
    const kill = (): void => {
      if (program.pid === undefined) return
      try {
        process.kill(-program.pid, 'SIGKILL')
      } catch {
        // All of it has ended meanwhile.
      }
    }
    const giveUp = (): void => {
      const within = `within ${patienceMs / 1000} s, and was killed: see the exec of the user in the kubeconfig`
      program.emit('error', new Error(`the program that says who we are did not end ${within}`))
      kill()
      // Whatever it began may have left its group, and keep these open.
      program.stdout.destroy()
      program.stderr.destroy()
    }
    const timer = setTimeout(giveUp, patienceMs).unref()
    process.once('exit', kill)
    program.once('close', () => {
      clearTimeout(timer)
      process.off('exit', kill)
    })
    return program
  }

/** systemd is told when both listeners answer (`Type=notify`): until then what it starts after this unit waits. */
import { type ChildProcess, execFile } from 'node:child_process'

import type { Log } from '../log.ts'

/**
 * By systemd's own helper: its socket takes datagrams, which Node sends over no socket of that kind. Undefined where nobody asked.
 * A helper that nobody listens to is not waited for by a `stop`.
 */
export const tellReady = (
  log: Log,
  stop: AbortSignal,
  env: NodeJS.ProcessEnv = process.env,
): ChildProcess | undefined =>
  env['NOTIFY_SOCKET'] === undefined
    ? undefined
    : execFile('systemd-notify', ['--ready'], { env, signal: stop }, (err) => {
        if (err && !stop.aborted)
          log.warn({ event: 'notify.failed', err }, 'systemd could not be told that the service is ready')
      })

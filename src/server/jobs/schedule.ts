/** Periodic work: one run at a time, errors logged (sparingly) and not fatal, stopped by `close`. */
import { type Complaint, openComplaint } from '../../lib/log-throttle.ts'
import type { Log } from '../../log.ts'

export interface Job {
  readonly name: string
  readonly everyMs: number
  /** After the start; as later by default. */
  readonly firstMs?: number
  run(): Promise<unknown>
}

export interface Schedule {
  /** Starts nothing more, and waits for what runs. */
  close(): Promise<void>
}

export const openSchedule = (jobs: readonly Job[], log: Log): Schedule => {
  let closed = false
  const timers = new Map<Job, NodeJS.Timeout>()
  const running = new Set<Promise<unknown>>()

  const complaints = new Map<Job, Complaint>(jobs.map((job) => [job, openComplaint()]))

  const runOnce = async (job: Job): Promise<void> => {
    const complaint = complaints.get(job)
    const work = job.run().then(
      () => complaint?.end(),
      (err: unknown) =>
        complaint?.tell(String(err), () =>
          log.error({ event: 'job.failed', job: job.name, err }, 'a periodic job failed'),
        ),
    )
    running.add(work)
    await work
    running.delete(work)
    if (!closed) plan(job)
  }

  const plan = (job: Job, afterMs = job.everyMs): void => {
    const timer = setTimeout(() => void runOnce(job), afterMs)
    timer.unref()
    timers.set(job, timer)
  }

  for (const job of jobs) plan(job, job.firstMs)
  return {
    close: async () => {
      closed = true
      for (const timer of timers.values()) clearTimeout(timer)
      await Promise.all(running)
    },
  }
}

/**
 * Ends this process as soon as its parent is gone, even while its main thread hangs in a module and hears nothing of its
 * socket: or each kill of the service would leave a process behind that holds PINs and sessions. Costs a thread of 7 MiB.
 */
import { Worker } from 'node:worker_threads'

export const watchParent = (parent: number): void => {
  new Worker(watch, { eval: true, workerData: parent, execArgv: [], env: {}, resourceLimits }).unref()
}

/** Not a file: that would have Node load what strips types once more. */
const watch = `
  const { workerData: parent } = require('node:worker_threads')
  setInterval(() => process.ppid === parent || process.kill(process.pid, 'SIGKILL'), 500)`
const resourceLimits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 }

/** The thread that checks signatures: octets in, one octet for each check out. */
import { parentPort } from 'node:worker_threads'

import { checkOne, type PackedChecks, unpackChecks } from './verifier-batch.ts'

parentPort?.on('message', (packed: PackedChecks) => {
  parentPort?.postMessage(Uint8Array.from(unpackChecks(packed), (check) => (checkOne(check) ? 1 : 0)))
})

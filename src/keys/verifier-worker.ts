/** The thread that checks signatures: octets in, one octet for each check out. */
import { parentPort } from 'node:worker_threads'

import { openKnownKeys } from './p256/known-keys.ts'
import { answerChecks, type PackedChecks } from './verifier-batch.ts'

/** Issuers that are at work at the same time; a megabyte each, once they are. */
const known = openKnownKeys(8)

parentPort?.on('message', (packed: PackedChecks) => {
  answerChecks(packed, known, (valid) => parentPort?.postMessage(valid))
})

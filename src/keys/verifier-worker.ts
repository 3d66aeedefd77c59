/** The thread that checks signatures: one packed batch in, one byte for each check out. */
import { parentPort } from 'node:worker_threads'

import { checkPacked, type PackedChecks } from './verifier-batch.ts'

parentPort?.on('message', (packed: PackedChecks) => parentPort?.postMessage(checkPacked(packed)))

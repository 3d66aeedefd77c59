/**
 * The crypto floor: what this machine could issue if issuing were nothing but import, verify, sign and own check of
 * P-256, synchronously and on every core at once. `node bench/floor.ts` prints it alone.
 */
import {
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign as signOctets,
  verify as verifyOctets,
} from 'node:crypto'
import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

export interface Floor {
  /** Whole rounds a second on all cores. */
  readonly perSecond: number
  readonly cores: number
  /** Microseconds of one operation, on one core with the others idle. */
  readonly importing: number
  readonly verifying: number
  readonly signing: number
}

export const measureFloor = async (seconds: number): Promise<Floor> => {
  const cores = availableParallelism()
  const { spki, tbs, signature, own } = makeCase()
  const key = importKey(spki)
  const each = Math.max(200, seconds * 100)
  const importing = timeOf(() => importKey(spki), each)
  const verifying = timeOf(() => verifyOctets('sha256', tbs, key, signature), each)
  const signing = timeOf(() => signOctets('sha256', tbs, own.privateKey), each)
  const rates = await Promise.all(Array.from({ length: cores }, () => runWorker(seconds)))
  return { perSecond: rates.reduce((sum, rate) => sum + rate, 0), cores, importing, verifying, signing }
}

const makeCase = () => {
  const subject = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const tbs = randomBytes(500)
  return {
    spki: subject.publicKey.export({ type: 'spki', format: 'der' }),
    tbs,
    signature: signOctets('sha256', tbs, subject.privateKey),
    own: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  }
}

const importKey = (spki: Buffer): KeyObject => createPublicKey({ key: spki, format: 'der', type: 'spki' })

/** Mean in microseconds over so many milliseconds, after a tenth of them to warm up. */
const timeOf = (work: () => void, milliseconds: number): number => {
  const run = (span: number): number => {
    const began = performance.now()
    let count = 0
    for (; performance.now() - began < span; count += 1) work()
    return ((performance.now() - began) * 1000) / count
  }
  run(milliseconds / 10)
  return run(milliseconds)
}

const runWorker = (seconds: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { seconds } })
    worker.once('message', resolve)
    worker.once('error', reject)
  })

/** Rounds a second on this thread. */
const work = (seconds: number): number => {
  const { spki, tbs, signature, own } = makeCase()
  const mean = timeOf(() => {
    verifyOctets('sha256', tbs, importKey(spki), signature)
    verifyOctets('sha256', tbs, own.publicKey, signOctets('sha256', tbs, own.privateKey))
  }, seconds * 1000)
  return 1e6 / mean
}

if (!isMainThread) parentPort?.postMessage(work((workerData as { seconds: number }).seconds))
else if (import.meta.main) console.log(await measureFloor(3))

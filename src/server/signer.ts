/**
 * A signer process. It has keys, PINs and passphrases, and one socket, to the service that started it: no listener, no
 * database, no request. It lives as long as that socket and its parent, and ends itself as soon as only a fresh start
 * would help.
 */
import { flushCompileCache } from 'node:module'
import { Socket } from 'node:net'

import { loadConfig } from '../config/config.ts'
import type { KeyLoad } from '../keys/key-load.ts'
import { openKeyring } from '../keys/keyring.ts'
import { keepOutOfCores } from '../keys/no-core.ts'
import { openPassphrase, roundsFor } from '../keys/passphrase.ts'
import { type Host, hostKeys } from '../keys/signer/host.ts'
import { answers, encodeJson, openSignerStream, type SignerRecord } from '../keys/signer/stream.ts'
import { watchParent } from '../keys/signer/watch.ts'

const main = async (): Promise<void> => {
  keepOutOfCores()
  const parent = process.ppid
  const socket = new Socket({ fd: serviceSocket, readable: true, writable: true, allowHalfOpen: true })
  // What is asked before we are ready is answered when we are.
  const early: SignerRecord[] = []
  let host: Host | undefined
  const stream = openSignerStream(socket, (record) => (host ? host.hear(record) : early.push(record)))
  const lastWord = Promise.withResolvers<void>()
  // The service is gone, or wants no more, and what is under way has no one to go to; or it has heard that we leave.
  socket.on('end', () => (losing ? lastWord.resolve() : end()))
  socket.on('error', end)
  // A Ctrl-C reaches the whole foreground group: the service still drains, and then ends us.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

  let tellLoad = (): void => {}
  let losing = false
  const lost = (reason: string): void => {
    if (losing) return
    losing = true
    // What made us leave is among it.
    tellLoad()
    host?.refuse(reason, beginWithinMs)
    stream.say({ id: 0, kind: answers.leaving, body: Buffer.from(reason) })
    // What lies in the socket was not signed: unanswered, nobody would know.
    const settled = lastWord.promise.then(() => host?.idle())
    void Promise.race([settled, new Promise((resolve) => setTimeout(resolve, settleWithinMs))])
      .then(() => {
        tellLoad()
        return stream.end()
      })
      .then(end)
  }

  try {
    const first = await loadConfig(process.env, 'sign')
    const { dataDir, keys, limits } = first
    const ring = openKeyring({
      dataDir,
      passphrase: openPassphrase(first, () => loadConfig(process.env, 'sign')),
      rounds: roundsFor(keys.passphrase),
      pkcs11: { ...keys.pkcs11, pin, queue: limits.queue, deadlineMs: limits.signingDeadlineMs },
      loading: () => watchParent(parent),
      lost,
    })
    host = hostKeys(ring, stream.say)
    for (const record of early.splice(0)) host.hear(record)
    // Written at an orderly exit only, which is not how we end; without it Node strips types at each start (30 MB).
    flushCompileCache()
    tellLoad = openTelling(ring.load, (body) => stream.say({ id: 0, kind: answers.load, body }))
    setInterval(tellLoad, 1_000).unref()
  } catch (error) {
    stream.say({ id: 0, kind: answers.unfit, body: Buffer.from((error as Error).message) })
    await stream.end()
    end()
  }
}

const pin = async (): Promise<string | undefined> => (await loadConfig(process.env, 'sign')).keys.pkcs11.pin

/** If it has changed. */
const openTelling = (load: () => KeyLoad, tell: (body: Buffer) => void): (() => void) => {
  let told = encodeJson(load())
  return () => {
    const now = encodeJson(load())
    if (!now.equals(told)) tell(now)
    told = now
  }
}

/** At once: an orderly exit would wait for a thread that hangs in a module. */
const end = (): never => {
  process.kill(process.pid, 'SIGKILL')
  throw new Error('killed')
}

const serviceSocket = 3
/** For the signatures that are under way in other sessions. */
const settleWithinMs = 500
/** What has not begun by then does not begin, so that it is answered, as not signed, before we end. */
const beginWithinMs = 400

await main()

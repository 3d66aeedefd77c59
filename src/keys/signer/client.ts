/**
 * Signer processes, seen from the service: one for the keys in files, one for each token; each started when it is first
 * needed, watched, and started again as long as somebody has a key of it. They hold keys, PINs and passphrases; this side
 * holds none. What hangs or crashes in one costs a restart of that one and the signatures that it had under way: each of
 * these is answered with a fault that says whether the key may have been touched. A token that is missing costs the keys
 * of no other: many modules find out what has come and gone only when they start afresh, and with them all that they hold.
 */
import type { Log } from '../../telemetry.ts'
import { type KeyKind, signatureAlgorithm } from '../../x509/algorithms.ts'
import { addLoads, afterEnd, type KeyLoad, noLoad } from '../key-load.ts'
import { isInToken, type Keyring } from '../keyring.ts'
import type { PinGuard } from '../pkcs11/pins.ts'
import { parsePkcs11Uri } from '../pkcs11/uri.ts'
import { SigningFault, type SigningKey } from '../signing-key.ts'
import { type Life, type OpenedKey, openLife, SignerEnded } from './life.ts'

export interface SignerDeps {
  readonly log: Log
  /** What is run, with Node: `src/signer.ts`. */
  readonly script: string
  /** What a signer may know: where keys and secrets are, and nothing of the database. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** For one signature. A signer that is silent for a second longer is killed. */
  readonly deadlineMs: number
  readonly pins: PinGuard
  /** Of one token at most. */
  readonly sessions: number
}

export const openSigners = (deps: SignerDeps): Keyring => {
  const signers = new Map<string, Signer>()
  const signerOf = (uri: string): Signer => {
    const place = placeOf(uri)
    const found = signers.get(place) ?? openSigner(deps, place)
    signers.set(place, found)
    return found
  }
  return {
    open: async (uri) => signerOf(uri).ask(uri),
    create: async (uri, kind) => signerOf(uri).ask(uri, kind),
    load: () => [...signers.values()].map((signer) => signer.load()).reduce(addLoads, noLoad),
    close: async () => void (await Promise.all([...signers.values()].map((signer) => signer.close()))),
  }
}

interface Signer {
  /** An existing key, or a new one of this kind. */
  ask(uri: string, kind?: KeyKind): Promise<SigningKey>
  load(): KeyLoad
  close(): Promise<void>
}

const openSigner = ({ log, script, env, deadlineMs, pins, sessions }: SignerDeps, place: string): Signer => {
  let closed = false
  let restart: NodeJS.Timeout | undefined
  let pauseMs = firstPauseMs
  let notBefore = 0
  let lastReason = ''
  /** The process that is there; and as long as it takes questions. */
  let current: Life | undefined
  let life: Life | undefined
  /** Of the processes that there were. */
  let past = noLoad
  const waiting: ((life: Life) => void)[] = []
  /** That somebody has. Without any, nothing is started until it is asked for: a token that was mistyped is no process. */
  const held = new Set<SigningKey>()

  const nextLife = (): Life | Promise<Life> => {
    if (life) return life
    const next = new Promise<Life>((resolve) => waiting.push(resolve))
    startAgain()
    return next
  }
  const startAgain = (): void => {
    if (current === undefined && !closed) restart ??= setTimeout(start, Math.max(0, notBefore - performance.now()))
  }
  const start = (): void => {
    restart = undefined
    const started = openLife({
      log,
      script,
      env,
      place,
      pins,
      threads: place === files ? fileThreads : sessions + fileThreads,
      leaving: () => {
        life = undefined
      },
      ended: (reason, didWell) => {
        past = addLoads(past, afterEnd(started.load()))
        current = undefined
        ended(reason, didWell)
      },
    })
    current = started
    life = started
    for (const resolve of waiting.splice(0)) resolve(started)
  }
  const ended = (reason: string, didWell: boolean): void => {
    life = undefined
    if (closed) return
    if (didWell) pauseMs = firstPauseMs
    lastReason = reason
    log.error({ event: 'signer.ended', place, reason, pauseMs }, 'a signer process ended')
    notBefore = performance.now() + pauseMs
    pauseMs = Math.min(pauseMs * 2, longestPauseMs)
    if (held.size > 0 || waiting.length > 0) startAgain()
  }
  start()

  /** The same key through every life of the process: opened again in each, and used only if it is still the same. */
  const keyOf = (uri: string, first: OpenedKey): SigningKey => {
    let latest = first
    let openings = 1
    const signAt = async (at: Life, message: Buffer, withinMs: number): Promise<Buffer | SigningFault> => {
      const opened = await at.open(uri)
      if (opened instanceof Error) return new SigningFault('before', opened.message, opened)
      if (!opened.spki.equals(first.spki)) {
        // Looked for again at the next try: the right one may be back.
        at.forget(uri)
        return new SigningFault('before', `another key is at ${uri} now`)
      }
      if (opened !== latest) openings += 1
      latest = opened
      return at.sign(opened.handle, message, withinMs)
    }
    const key: SigningKey = {
      id: first.id,
      algorithm: signatureAlgorithm(first.algorithm),
      spki: first.spki,
      get attributes() {
        return latest.attributes
      },
      get openings() {
        return openings
      },
      sign: (messages, withinMs = deadlineMs) =>
        Promise.all(
          messages.map((message) =>
            life
              ? signAt(life, message, withinMs)
              : new SigningFault('before', `the signer process is being started again: ${lastReason}`),
          ),
        ),
      close: async () => {
        held.delete(key)
        life?.forget(uri)
      },
    }
    held.add(key)
    return key
  }

  return {
    ask: async (uri, kind) => {
      let opened = await (kind ? (await nextLife()).create(uri, kind) : (await nextLife()).open(uri))
      // It was about to end, for a reason of another key's. Opening can be asked again, making cannot.
      if (opened instanceof SignerEnded && kind === undefined) opened = await (await nextLife()).open(uri)
      if (opened instanceof Error) throw opened
      return keyOf(uri, opened)
    },
    load: () => addLoads(past, current?.load() ?? noLoad),
    close: async () => {
      closed = true
      clearTimeout(restart)
      await current?.end()
    },
  }
}

const placeOf = (uri: string): string => {
  if (!isInToken(uri)) return files
  const { modulePath = '', token = '', serial = '' } = parsePkcs11Uri(uri)
  return `module ${modulePath} token ${token} serial ${serial}`
}

const files = 'files'
const fileThreads = 4
const firstPauseMs = 100
const longestPauseMs = 2_000

/**
 * Signer processes, seen from the service: one for the keys in files, one for each token; each started when it is first
 * needed, watched, and started again as long as somebody has a key of it. They hold keys, PINs and passphrases; this side
 * holds none. What hangs or crashes in one costs a restart of that one and the signatures that it had under way: each of
 * these is answered with a fault that says whether the key may have been touched. A token that is missing costs the keys
 * of no other: many modules find out what has come and gone only when they start afresh, and with them all that they hold.
 */
import type { Log } from '../../log.ts'
import { type KeyKind, signatureAlgorithm } from '../../x509/algorithms.ts'
import { addLoads, type KeyLoad, noLoad } from '../key-load.ts'
import { isInToken, type Keyring } from '../keyring.ts'
import { openLogins, type WithLogin } from '../pkcs11/pins.ts'
import { parsePkcs11Uri } from '../pkcs11/uri.ts'
import { SigningFault, type SigningKey } from '../signing-key.ts'
import { type Life, type OpenedKey, SignerEnded } from './life.ts'
import { closedMessage, openLives } from './lives.ts'

export interface SignerDeps {
  readonly log: Log
  /** What is run, with Node: `src/server/signer.ts`. */
  readonly script: string
  /** What a signer may know: where keys and secrets are, and nothing of the database. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** For one signature. A signer that is silent for a second longer is killed. */
  readonly deadlineMs: number
  /** Of one token at most. */
  readonly sessions: number
  /** How long a signer that nobody has a key of, or asks for one, is kept for whoever does next. */
  readonly restMs?: number
}

export const openSigners = (deps: SignerDeps): Keyring => {
  const signers = new Map<string, Signer>()
  const withLogin = openLogins()
  let closed = false
  const signerOf = (uri: string): Signer => {
    if (closed) throw new Error(closedMessage)
    const place = placeOf(uri)
    const found = signers.get(place) ?? openSigner({ ...deps, withLogin }, place)
    signers.set(place, found)
    return found
  }
  return {
    open: async (uri) => signerOf(uri).ask(uri),
    create: async (uri, kind) => signerOf(uri).ask(uri, kind),
    load: () => [...signers.values()].map((signer) => signer.load()).reduce(addLoads, noLoad),
    close: async () => {
      closed = true
      await Promise.all([...signers.values()].map((signer) => signer.close()))
    },
  }
}

interface Signer {
  /** An existing key, or a new one of this kind. */
  ask(uri: string, kind?: KeyKind): Promise<SigningKey>
  load(): KeyLoad
  close(): Promise<void>
}

const openSigner = (deps: SignerDeps & { readonly withLogin: WithLogin }, place: string): Signer => {
  const { log, script, env, deadlineMs, withLogin, sessions, restMs = usualRestMs } = deps
  /** That somebody has. Without any, nothing is started until it is asked for: a token that was mistyped is no process. */
  const held = new Set<SigningKey>()
  let asking = 0
  let resting: NodeJS.Timeout | undefined
  const lives = openLives({
    log,
    script,
    env,
    place,
    withLogin,
    threads: place === files ? fileThreads : sessions + fileThreads,
    isWanted: () => held.size > 0,
  })
  /** Nor is it one for long, with sessions of its token; and neither is the place that a key has moved from. */
  const rest = (): void => {
    clearTimeout(resting)
    if (held.size === 0 && asking === 0) resting = setTimeout(() => void lives.dismiss(), restMs).unref()
  }

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
            lives.now
              ? signAt(lives.now, message, withinMs)
              : new SigningFault('before', `the signer process is being started again: ${lives.reason}`),
          ),
        ),
      close: async () => {
        held.delete(key)
        lives.now?.forget(uri)
        rest()
      },
    }
    held.add(key)
    return key
  }

  const ask = async (uri: string, kind: KeyKind | undefined): Promise<SigningKey> => {
    const life = await lives.next()
    let opened = await (kind ? life.create(uri, kind) : life.open(uri))
    // It was about to end, for a reason of another key's. Opening can be asked again, making cannot.
    if (opened instanceof SignerEnded && kind === undefined) opened = await (await lives.next()).open(uri)
    if (opened instanceof Error) throw opened
    return keyOf(uri, opened)
  }

  return {
    ask: async (uri, kind) => {
      asking += 1
      clearTimeout(resting)
      try {
        return await ask(uri, kind)
      } finally {
        asking -= 1
        rest()
      }
    },
    load: lives.load,
    close: lives.close,
  }
}

const placeOf = (uri: string): string => {
  if (!isInToken(uri)) return files
  const { modulePath: module, token, serial } = parsePkcs11Uri(uri)
  // Encoded as in the URI, so that no label with a space is another one with a serial number.
  const known = Object.entries({ module, token, serial }).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name} ${encodeURI(value.toWellFormed())}`],
  )
  return known.join(' ') || 'any token'
}

const files = 'files'
const fileThreads = 4
/** Longer than the pause of whoever tries again. */
const usualRestMs = 60_000

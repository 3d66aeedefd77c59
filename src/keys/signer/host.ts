/** The inside of the signer process: a ring of keys, and records that ask for them. */
import type { KeyKind } from '../../x509/algorithms.ts'
import type { Keyring } from '../keyring.ts'
import type { RefusedPin } from '../pkcs11/pins.ts'
import { PinRefused } from '../pkcs11/pins.ts'
import { SigningFault, type SigningKey } from '../signing-key.ts'
import {
  answers,
  decodeJson,
  encodeJson,
  type SignerRecord,
  type SignerStream,
  signHeadOctets,
  verbs,
} from './stream.ts'

export interface Host {
  /** Answers a record as soon as its key does. Nothing that is asked makes it throw. */
  hear(record: SignerRecord): void
  /** Resolves when nothing is under way. */
  idle(): Promise<void>
}

interface Question {
  readonly uri: string
  readonly kind: KeyKind
  readonly refused: readonly RefusedPin[]
  readonly handle: number
}

export const hostKeys = (ring: Keyring, say: SignerStream['say']): Host => {
  const keys = new Map<number, SigningKey>()
  const waiting: (() => void)[] = []
  let lastHandle = 0
  let busy = 0

  const done = (): void => {
    busy -= 1
    if (busy === 0) for (const resolve of waiting.splice(0)) resolve()
  }

  const hold = async (id: number, opening: Promise<SigningKey>): Promise<void> => {
    busy += 1
    try {
      const key = await opening
      lastHandle += 1
      keys.set(lastHandle, key)
      const { id: keyId, algorithm, spki, attributes } = key
      const body = { handle: lastHandle, id: keyId, algorithm: algorithm.id, spki: spki.toString('base64'), attributes }
      say({ id, kind: answers.done, body: encodeJson(body) })
    } catch (error) {
      const { message } = error as Error
      if (error instanceof PinRefused)
        say({ id, kind: answers.pinRefused, body: encodeJson({ message, pin: error.pin }) })
      else say({ id, kind: answers.failed, body: Buffer.from(message) })
    }
    done()
  }

  const sign = async (id: number, body: Buffer): Promise<void> => {
    busy += 1
    const key = keys.get(body.readUInt32BE(0))
    const outcome = key
      ? (await key.sign([body.subarray(signHeadOctets)], body.readUInt32BE(4)))[0]
      : new SigningFault('before', 'the key was closed')
    if (Buffer.isBuffer(outcome)) say({ id, kind: answers.done, body: outcome })
    else say({ id, kind: answers[outcome?.when ?? 'unknown'], body: Buffer.from(outcome?.message ?? 'no answer') })
    done()
  }

  const ask: Readonly<Record<number, (id: number, question: Question) => void>> = {
    [verbs.open]: (id, { uri, refused }) => void hold(id, ring.open(uri, refused)),
    [verbs.create]: (id, { uri, kind, refused }) => void hold(id, ring.create(uri, kind, refused)),
    [verbs.close]: (_, { handle }) => {
      void keys.get(handle)?.close()
      keys.delete(handle)
    },
  }

  return {
    hear: ({ id, kind, body }) => {
      if (kind === verbs.sign) void sign(id, body)
      else ask[kind]?.(id, decodeJson(body) as Question)
    },
    idle: () => (busy === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
  }
}

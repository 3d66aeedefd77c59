/** The inside of the signer process: a ring of keys, and records that ask for them. */
import type { KeyKind } from '../../x509/algorithms.ts'
import type { BareKeyring } from '../keyring.ts'
import { SigningFault, type SigningKey } from '../signing-key.ts'
import { encodeFault } from './faults.ts'
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
  /** Signs nothing more of what it hears, and of what it has heard nothing that has not begun within this time. */
  refuse(reason: string, withinMs: number): void
  /** Resolves when nothing is under way. */
  idle(): Promise<void>
}

interface Question {
  readonly uri: string
  readonly kind: KeyKind
  readonly handle: number
}

export const hostKeys = (ring: BareKeyring, say: SignerStream['say']): Host => {
  const keys = new Map<number, SigningKey>()
  const waiting: (() => void)[] = []
  let lastHandle = 0
  let busy = 0
  let refusal: string | undefined

  const done = (): void => {
    busy -= 1
    if (busy === 0) for (const resolve of waiting.splice(0)) resolve()
  }

  const answer = async (id: number, work: Promise<unknown>): Promise<void> => {
    busy += 1
    try {
      say({ id, kind: answers.done, body: encodeJson((await work) ?? null) })
    } catch (error) {
      say({ id, kind: answers.failed, body: encodeFault(error) })
    }
    done()
  }

  const hold = async (opening: Promise<SigningKey>): Promise<object> => {
    const key = await opening
    lastHandle += 1
    keys.set(lastHandle, key)
    const { id, algorithm, spki, attributes } = key
    return { handle: lastHandle, id, algorithm: algorithm.id, spki: spki.toString('base64'), attributes }
  }

  const sign = async (id: number, body: Buffer): Promise<void> => {
    busy += 1
    const key = refusal === undefined ? keys.get(body.readUInt32BE(0)) : undefined
    const outcome = key
      ? (await key.sign([body.subarray(signHeadOctets)], body.readUInt32BE(4)))[0]
      : new SigningFault('before', refusal ?? 'the key was closed')
    if (Buffer.isBuffer(outcome)) say({ id, kind: answers.done, body: outcome })
    else say({ id, kind: answers[outcome?.when ?? 'unknown'], body: Buffer.from(outcome?.message ?? 'no answer') })
    done()
  }

  const ask: Readonly<Record<number, (id: number, question: Question) => void>> = {
    [verbs.open]: (id, { uri }) => void answer(id, hold(ring.open(uri))),
    [verbs.create]: (id, { uri, kind }) => void answer(id, hold(ring.create(uri, kind))),
    [verbs.logIn]: (id, { uri }) => void answer(id, ring.logIn(uri)),
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
    refuse: (reason, withinMs) => {
      refusal = reason
      ring.hurry(withinMs)
    },
    idle: () => (busy === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
  }
}

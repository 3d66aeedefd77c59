/** The keys of one signer process, from its start to its end. Nothing of them outlives it: handles are its own. */
import { openLanes } from '../../lib/semaphore.ts'
import { requestSlabs } from '../../lib/slabs.ts'
import type { KeyKind } from '../../x509/algorithms.ts'
import type { WithLogin } from '../pkcs11/pins.ts'
import { TokenFault } from '../pkcs11/token-fault.ts'
import { type KeyAttributes, longestMessage, SigningFault } from '../signing-key.ts'
import { decodeFault } from './faults.ts'
import { openSignerProcess, type SignerProcess, type SignerProcessDeps } from './process.ts'
import { answers, decodeJson, encodeJson, type SignerRecord, signHeadOctets, verbs } from './stream.ts'

export interface Life extends Pick<SignerProcess, 'load' | 'end'> {
  /** A key of this process: asked for once, and remembered unless it was refused. */
  open(uri: string): Promise<OpenedKey | Error>
  create(uri: string, kind: KeyKind): Promise<OpenedKey | Error>
  sign(handle: number, message: Buffer, withinMs: number): Promise<Buffer | SigningFault>
  forget(uri: string): void
}

export interface OpenedKey {
  readonly handle: number
  readonly id: string
  readonly algorithm: string
  readonly spki: Buffer
  readonly attributes?: KeyAttributes
}

interface Question {
  readonly uri: string
  readonly kind?: KeyKind
}

/** Before it answered; the next one may. */
export class SignerEnded extends TokenFault {
  constructor(reason = 'for an unknown reason') {
    super('token', `The signer process ended before it answered: ${reason}.`)
  }
}

export interface LifeDeps extends Omit<SignerProcessDeps, 'ended'> {
  /** Of all signers. */
  readonly withLogin: WithLogin
  /** Told once, with the reason, and whether it had opened a key. */
  readonly ended: (reason: string, didWell: boolean) => void
}

export const openLife = ({ withLogin, ended, ...deps }: LifeDeps): Life => {
  const opened = new Map<string, Promise<OpenedKey | Error>>()
  let didWell = false
  const signer = openSignerProcess({ ...deps, ended: (reason) => ended(reason, didWell) })

  /** Rejects with a sentence. */
  const askFor = async (verb: number, question: object, patienceMs: number): Promise<unknown> => {
    const answer = await signer.ask(verb, encodeJson(question), patienceMs)
    if (answer === undefined)
      throw signer.unfit === undefined ? new SignerEnded(signer.reason) : new Error(signer.unfit)
    if (answer.kind !== answers.done) throw decodeFault(answer.body)
    return decodeJson(answer.body)
  }
  const logIn = async (uri: string): Promise<void> => void (await askFor(verbs.logIn, { uri }, openWithinMs))
  /** What many passphrases are stretched for at once would take longer than one is waited for, and hold up what signs. */
  const inLane = openLanes(Math.floor(deps.threads / 2))
  const askKey = async (verb: number, question: Question, patienceMs: number): Promise<OpenedKey> => {
    const asking = () => askFor(verb, question, patienceMs)
    const found = await withLogin(question.uri, logIn, () => (verb === verbs.open ? inLane(asking) : asking()))
    didWell = true
    const { spki, ...key } = found as Omit<OpenedKey, 'spki'> & { readonly spki: string }
    return { ...key, spki: Buffer.from(spki, 'base64') }
  }

  /** What is missing may come: only what was opened is remembered. */
  const askOnce = (verb: number, question: Question, patienceMs: number): Promise<OpenedKey | Error> => {
    const { uri } = question
    const asking = askKey(verb, question, patienceMs).catch((error: Error) => error)
    opened.set(uri, asking)
    void asking.then((key) => key instanceof Error && opened.get(uri) === asking && opened.delete(uri))
    return asking
  }

  return {
    open: (uri) => opened.get(uri) ?? askOnce(verbs.open, { uri }, openWithinMs),
    create: (uri, kind) => askOnce(verbs.create, { uri, kind }, createWithinMs),
    sign: async (handle, message, withinMs) => {
      if (signer.reason !== undefined)
        return new SigningFault('before', `the signer process is being started again: ${signer.reason}`)
      // It would break off all that is said to each other.
      if (message.length > longestMessage)
        return new SigningFault('before', `${message.length} octets are more than a signer process takes`)
      const head = Buffer.allocUnsafe(signHeadOctets)
      head.writeUInt32BE(handle, 0)
      head.writeUInt32BE(Math.ceil(withinMs), 4)
      const answer = await signer.ask(verbs.sign, [head, message], withinMs + graceMs)
      return answer
        ? signatureOf(answer)
        : new SigningFault('unknown', `the signer process ended meanwhile: ${signer.reason}`)
    },
    forget: (uri) => {
      const key = opened.get(uri)
      opened.delete(uri)
      void key?.then((found) => {
        if (!(found instanceof Error)) signer.say(verbs.close, encodeJson({ handle: found.handle }))
      })
    },
    load: signer.load,
    end: signer.end,
  }
}

const signatureOf = ({ kind, body }: SignerRecord): Buffer | SigningFault => {
  // A copy: the octets lie in a buffer of many records.
  if (kind === answers.done) {
    const signature = requestSlabs(body.length)
    body.copy(signature)
    return signature
  }
  return new SigningFault(faultTimes[kind] ?? 'unknown', body.toString('utf8'))
}

const faultTimes: Readonly<Record<number, SigningFault['when']>> = {
  [answers.before]: 'before',
  [answers.late]: 'late',
  [answers.unknown]: 'unknown',
}
const graceMs = 1_000
const openWithinMs = 10_000
/** An RSA key of 8192 bits takes ten seconds to make, in some modules a minute. */
const createWithinMs = 300_000

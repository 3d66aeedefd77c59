/** Brings a folder up to its order: looks at what is there, asks when it is time, puts the answer in its place, tells. */
import { createPrivateKey, randomUUID, X509Certificate } from 'node:crypto'

import { Failure, finalKinds } from '../../lib/failure.ts'
import type { Client } from '../rest.ts'
import { Awaited, askedAnew, assertAnswered, theSame } from './approval.ts'
import { type Folder, type Held, isUnderWay, type Pending } from './folder.ts'
import { tellBy } from './hook.ts'
import { assertLeadsTo, assertOfKey, type IssuedAnswer, readIssued } from './issued.ts'
import { bodyFor, digestOf, newKey, type Order, requestFor } from './order.ts'
import type { Life } from './renewal.ts'

/** An order, the folder that it is for, and how that is kept. */
export interface Task {
  readonly order: Order
  readonly folder: Folder
  /** `https://host:port` that is asked. */
  readonly server: string
  /** Renew with the key that is there. */
  readonly reuseKey: boolean
  /** What tells those who use the certificate of a new one, as words. */
  readonly exec: readonly string[] | undefined
  /** Whether a certificate that is there renews itself, where the server lets it. */
  readonly renews: boolean
  /** Whether what is there is to be replaced now. */
  isDue(held: Held): boolean
  /** Whether the answer to a question from long ago is not worth writing any more. */
  isSpent(life: Life): boolean
}

export interface Obtained {
  readonly held: Held
  /** What was written now; undefined where what is there will do. */
  readonly issued: IssuedAnswer | undefined
  /** Why the certificate could not renew itself, where it was asked for anew instead. */
  readonly refusal: Failure | undefined
  /** Those who use it could not be told, and will be next time. */
  readonly failure: Failure | undefined
}

/**
 * May be ended anywhere, and run again: at most one certificate comes of a question, whose key and Idempotency-Key are on
 * the disk before it is asked, and go when the answer is. Of two at once, both ask the same, and one writes the answer.
 * Throws `Awaited` where people must approve it first, and `conflict` where another command has another order for the folder.
 */
export const obtain = async (task: Task, client: Client, signal?: AbortSignal): Promise<Obtained> => {
  const { folder, exec } = task
  const { issued: answer, refusal } = await renew(task, client, signal)
  const held = await folder.held()
  if (held === undefined) throw new Failure('failed', `${folder.path} has lost its certificate while it was written.`)
  if (held.orderDigest !== digestOf(task.order, task.server))
    throw new Failure('conflict', `Another command has put another certificate into ${folder.path} meanwhile.`)
  // Another command may have been at it as well, and be ahead by now.
  const issued = answer?.serial === held.serial ? answer : undefined
  // Without a command nobody is told, and whoever runs it with one later still has to.
  if (!held.untold || exec === undefined) return { held, issued, refusal, failure: undefined }
  const failure = await tellBy(exec, signal)
  if (failure === undefined) await folder.told(held.serial)
  return { held, issued, refusal, failure }
}

interface Renewed {
  readonly issued?: IssuedAnswer
  readonly refusal?: Failure
}

/** What was tried before, in vain. */
interface Tried {
  /** Why the certificate could not renew itself. */
  readonly refusal?: Failure | undefined
  /** The key that is there is not certified again. */
  readonly isKeySpent?: boolean
}

const renew = async (task: Task, client: Client, signal?: AbortSignal, tried: Tried = {}): Promise<Renewed> => {
  const { folder, order, exec } = task
  const { refusal, isKeySpent = false } = tried
  const orderDigest = digestOf(order, task.server)
  const held = await folder.held()
  const isHeld = held?.orderDigest === orderDigest
  const asksItself = task.renews && isHeld
  const waiting = await pendingOf(folder, orderDigest, { held, isVain: asksItself && !client.hasToken })
  if (waiting === undefined && isHeld && refusal === undefined && !task.isDue(held)) return {}
  const replaced = asksItself && refusal === undefined ? held : undefined
  const pending = waiting ?? (await folder.keep(await newPending(task, { orderDigest, held, replaced, isKeySpent })))
  if (pending.orderDigest !== orderDigest) throw otherOrder(folder)
  const asking = { order, client, signal, held }
  const answer = await ask(asking, pending).catch(async (error: unknown) => {
    // It waits, whether or not that can be written.
    if (error instanceof Awaited) await folder.awaits(pending, error.request.expiresAt).catch(() => {})
    // It was turned down, so that there is no certificate to be had under this key. Anything else may have been one.
    if (!(error instanceof Failure) || !isFinal(error, pending, asksItself)) throw error
    await folder.forget(pending)
    if (isKeyBlocked(error) && pending.keyPem === held?.keyPem) return { refusal, isKeySpent: true }
    if (pending.replaces === undefined) throw withRefusal(askedAnew(error, theSame), refusal)
    if (client.hasToken) return { refusal: error, isKeySpent }
    throw new Failure(error.kind, `${error.message}\nThere is no token to ask for a new one with.`, error.problem)
  })
  if ('refusal' in answer) return renew(task, client, signal, answer)
  assertOurs(answer, pending)
  // One that is asked for now and spent already would be so the next time.
  if (waiting !== undefined && answer.replayed && task.isSpent(lifeOf(answer))) {
    await folder.forget(pending)
    return renew(task, client, signal, tried)
  }
  const contents = await contentsOf(answer, pending, asking)
  await folder.install(contents, { pending, untold: exec !== undefined })
  return { issued: answer, ...(refusal && { refusal }) }
}

/** What keeps a certificate from renewing itself may pass, and is the reason why a token is needed at all. */
const withRefusal = (error: Failure, refusal: Failure | undefined): Failure => {
  if (refusal === undefined) return error
  const [reason] = refusal.message.split('\n', 1)
  const hint = `It was asked for anew, since it could not renew itself: ${reason}`
  return new Failure(error.kind, `${error.message}\n${hint}`, error.problem)
}

/**
 * What waits for another certificate than the one that is wanted now is of no use; nor is a renewal of one that is not there
 * any more: it was written already. `isVain`: nor what only a token gets an answer to.
 */
const pendingOf = async (
  folder: Folder,
  orderDigest: string,
  { held, isVain }: { readonly held: Held | undefined; readonly isVain: boolean },
): Promise<Pending | undefined> => {
  const pending = await folder.pending()
  if (pending === undefined) return undefined
  const { replaces } = pending
  const isOfOther = pending.orderDigest !== orderDigest
  if (!isOfOther && replaces === undefined && (!isVain || isWaitedFor(pending))) return pending
  if (!isOfOther && replaces !== undefined && replaces === held?.serial) return pending
  if (isOfOther && isUnderWay(pending)) throw otherOrder(folder)
  await folder.forget(pending)
  return undefined
}

const otherOrder = ({ path }: Folder): Failure =>
  new Failure('conflict', `Another command asks for another certificate in ${path} right now.`)

interface Wanted {
  readonly orderDigest: string
  readonly held: Held | undefined
  /** What renews itself. */
  readonly replaced: Held | undefined
  readonly isKeySpent: boolean
}

const newPending = async (
  { order, reuseKey }: Task,
  { orderDigest, held, replaced, isKeySpent }: Wanted,
): Promise<Pending> => {
  const again = reuseKey && !isKeySpent && held?.orderDigest === orderDigest
  const key = again ? createPrivateKey(held.keyPem) : await newKey(order.keyKind)
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }) as string
  const question = { orderDigest, idempotencyKey: randomUUID(), keyPem, csr: requestFor(order, key) }
  return { ...question, ...(replaced && { replaces: replaced.serial }) }
}

interface Asking {
  readonly client: Client
  readonly signal: AbortSignal | undefined
  readonly order: Order
  readonly held: Held | undefined
}

/**
 * The one place that decides how a certificate is asked for: by the one that it is to replace, over mutual TLS, or by the
 * issuing call.
 */
const ask = async (asking: Asking, { idempotencyKey, csr, replaces }: Pending): Promise<IssuedAnswer> => {
  const { order, client, signal, held } = asking
  const call = { headers: { 'idempotency-key': idempotencyKey }, signal }
  if (replaces === undefined || held === undefined) {
    const answer = await client.call('POST', '/v1/certificates', { ...call, body: bodyFor(order, csr) })
    return readIssued(assertAnswered(answer))
  }
  const { profile: _, ...body } = bodyFor(order, csr)
  const itself = client.as({ cert: held.certificatePem, key: held.keyPem })
  return readIssued(await itself.call('POST', `/v1/certificates/${replaces}/renewal`, { ...call, body }))
}

/** Reported as compromised, or another's: no certificate is issued for this key any more. */
const isKeyBlocked = ({ problemCode }: Failure): boolean =>
  problemCode === 'key.blocked' || problemCode === 'key.in_use'

/**
 * A token may be replaced by a right one; what holding a certificate does not give is not had by it under this key. Where the
 * token is turned down and there is a certificate, that is to ask again the next time: what kept it from renewing may be over.
 * Not while what was asked is waited for.
 */
const isFinal = ({ kind }: Failure, pending: Pending, asksItself: boolean): boolean =>
  finalKinds.has(kind) ||
  (kind === 'denied' && (pending.replaces !== undefined || (asksItself && !isWaitedFor(pending))))

/** Another command is at it, or people decide: whoever forgets it asks them again, and nobody has the key of what they approve. */
const isWaitedFor = (pending: Pending): boolean =>
  isUnderWay(pending) || Date.parse(pending.awaitedUntil ?? '') > Date.now()

/** With the key that is there, the certificate that is there would do, too. */
const assertOurs = (answer: IssuedAnswer, { keyPem, replaces }: Pending): void => {
  assertOfKey(answer, keyPem)
  if (answer.serial !== replaces) return
  throw new Failure('failed', 'The server answered with the certificate that is to be replaced; nothing was written.')
}

const contentsOf = async (
  answer: IssuedAnswer,
  { keyPem, replaces }: Pending,
  { client, signal }: Pick<Asking, 'client' | 'signal'>,
) => {
  const { certificate, chain, serial } = answer
  const itself = client.as({ cert: certificate, key: keyPem })
  // What those who meet the certificate must trust: while roots are replaced, the old and the new one.
  const bundle = { query: { anchors: 'roots' }, accept: 'application/x-pem-file', signal }
  const rootsBy = async (reader: Client): Promise<string> =>
    (await reader.call('GET', `/v1/certificates/${serial}/bundle`, bundle)).text
  const roots = await (replaces === undefined ? firstRoots(client, itself, rootsBy) : rootsBy(itself))
  assertLeadsTo(answer, roots)
  return {
    'key.pem': keyPem,
    'certificate.pem': certificate,
    'chain.pem': chain.join(''),
    'fullchain.pem': [certificate, ...chain].join(''),
    'root.pem': roots,
  }
}

/**
 * A token that counts once was spent by asking for the certificate, which may say for itself who asks. It cannot where the
 * service takes no certificates, or a proxy keeps them.
 */
const firstRoots = (client: Client, itself: Client, rootsBy: (reader: Client) => Promise<string>): Promise<string> =>
  client.mayCountOnce ? rootsBy(itself).catch(() => rootsBy(client)) : rootsBy(client)

const lifeOf = ({ certificate }: IssuedAnswer): Life => {
  const { validFromDate: notBefore, validToDate: notAfter } = new X509Certificate(certificate)
  return { notBefore, notAfter }
}

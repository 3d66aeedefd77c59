/** Brings a folder up to its order: looks at what is there, asks when it is time, puts the answer in its place, tells. */
import { createPrivateKey, randomUUID, X509Certificate } from 'node:crypto'

import type { Client } from '../client.ts'
import { Failure } from '../failure.ts'
import type { Folder, Held, Pending } from './folder.ts'
import { bodyFor, digestOf, newKey, type Order, requestFor } from './order.ts'
import type { Life } from './renewal.ts'
import { tellBy } from './tell.ts'

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
  /** Whether what is there is to be replaced now. */
  isDue(held: Held): boolean
  /** Whether the answer to a question from long ago is not worth writing any more. */
  isSpent(life: Life): boolean
}

export interface Obtained {
  readonly held: Held
  /** What was written now; undefined where what is there will do. */
  readonly issued: IssuedAnswer | undefined
  /** Those who use it could not be told, and will be next time. */
  readonly failure: Failure | undefined
}

export interface IssuedAnswer {
  readonly serial: string
  readonly certificate: string
  readonly chain: readonly string[]
  readonly issuer: string
  readonly notAfter: string
  readonly notes: readonly { readonly field: string; readonly reason: string }[]
  readonly replayed: boolean
}

/**
 * May be ended anywhere, and run again: at most one certificate comes of a question, whose key and Idempotency-Key are on
 * the disk before it is asked, and go when the answer is. Of two at once, both write the same.
 */
export const obtain = async (task: Task, client: Client, signal?: AbortSignal): Promise<Obtained> => {
  const { folder, exec } = task
  const issued = await renew(task, client, signal)
  const held = await folder.held()
  if (held === undefined) throw new Failure('failed', `${folder.path} has lost its certificate while it was written.`)
  // Without a command nobody is told, and whoever runs it with one later still has to.
  if (!held.untold || exec === undefined) return { held, issued, failure: undefined }
  const failure = await tellBy(exec, signal)
  if (failure === undefined) await folder.told()
  return { held, issued, failure }
}

const renew = async (task: Task, client: Client, signal?: AbortSignal): Promise<IssuedAnswer | undefined> => {
  const { folder, order, exec } = task
  const orderDigest = digestOf(order, task.server)
  const held = await folder.held()
  const waiting = await pendingOf(folder, orderDigest)
  if (waiting === undefined && held?.orderDigest === orderDigest && !task.isDue(held)) return undefined
  const pending = waiting ?? (await folder.keep(await newPending(task, orderDigest, held)))
  if (pending.orderDigest !== orderDigest)
    throw new Failure('conflict', `Another command asks for another certificate in ${folder.path} right now.`)
  const issued = await ask({ order, client, signal }, pending).catch(async (error: unknown) => {
    // It was turned down, so that there is no certificate to be had under this key. Anything else may have been one.
    if (error instanceof Failure && forgettable.has(error.kind)) await folder.forget(pending)
    throw error
  })
  const contents = await contentsOf(issued, pending, { client, signal })
  if (issued.replayed && task.isSpent(lifeOf(issued))) {
    await folder.forget(pending)
    return renew(task, client, signal)
  }
  await folder.install(contents, { orderDigest, untold: exec !== undefined })
  await folder.forget(pending)
  return issued
}

/** What waits for another certificate than the one that is wanted now is of no use. */
const pendingOf = async (folder: Folder, orderDigest: string): Promise<Pending | undefined> => {
  const pending = await folder.pending()
  if (pending === undefined || pending.orderDigest === orderDigest) return pending
  await folder.forget(pending)
  return undefined
}

const newPending = async ({ order, reuseKey }: Task, orderDigest: string, held?: Held): Promise<Pending> => {
  const again = reuseKey && held?.orderDigest === orderDigest
  const key = again ? createPrivateKey(held.keyPem) : await newKey(order.keyKind)
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }) as string
  return { orderDigest, idempotencyKey: randomUUID(), keyPem, csr: requestFor(order, key) }
}

interface Asking {
  readonly order: Order
  readonly client: Client
  readonly signal: AbortSignal | undefined
}

/** The one place that decides how a certificate is asked for, the first as well as the next one: by the issuing call. */
const ask = async ({ order, client, signal }: Asking, { idempotencyKey, csr }: Pending): Promise<IssuedAnswer> => {
  const headers = { 'idempotency-key': idempotencyKey }
  const answer = await client.call('POST', '/v1/certificates', { headers, body: bodyFor(order, csr), signal })
  return answer.json<IssuedAnswer>()
}

const contentsOf = async (
  { certificate, chain, issuer }: IssuedAnswer,
  { keyPem }: Pending,
  { client, signal }: Pick<Asking, 'client' | 'signal'>,
) => {
  if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(keyPem)))
    throw new Failure('failed', 'The server answered with a certificate of another key; nothing was written.')
  return {
    'key.pem': keyPem,
    'certificate.pem': certificate,
    'chain.pem': chain.join(''),
    'fullchain.pem': [certificate, ...chain].join(''),
    'root.pem': await rootsOf(issuer, client, signal),
  }
}

interface AuthorityAnswer {
  readonly name: string
  readonly issuers: readonly { readonly name: string }[]
}

/** What those who meet the certificate must trust: while roots are replaced, the old and the new one. */
const rootsOf = async (issuer: string, client: Client, signal?: AbortSignal): Promise<string> => {
  const { items } = (await client.call('GET', '/v1/authorities', { signal })).json<{ items: AuthorityAnswer[] }>()
  const authority = items.find(({ issuers }) => issuers.some(({ name }) => name === issuer))
  if (authority === undefined) throw new Failure('failed', `The server knows no authority of the issuer ${issuer}.`)
  const call = { query: { anchors: 'roots' }, accept: 'application/x-pem-file', signal }
  return (await client.call('GET', `/v1/authorities/${authority.name}/bundle`, call)).text
}

const lifeOf = ({ certificate }: IssuedAnswer): Life => {
  const { validFromDate: notBefore, validToDate: notAfter } = new X509Certificate(certificate)
  return { notBefore, notAfter }
}

const forgettable: ReadonlySet<Failure['kind']> = new Set(['refused', 'missing', 'conflict'])

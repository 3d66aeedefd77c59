/** `chancery issue --name … --out DIR`: key, request and files are made here; only the request goes to the server. */
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'

import type { Client } from '../client.ts'
import { Failure } from '../failure.ts'
import { type Output, visible } from '../output.ts'
import { durationText } from '../progress.ts'
import type { Ward } from './daemon.ts'
import { fileNames, type Held, openFolder } from './folder.ts'
import { type IssuedAnswer, type Obtained, obtain, type Task } from './obtain.ts'
import { type NameOptions, type Order, readKeyKindOption, readNames } from './order.ts'
import { dueAt, momentOf, type RenewBefore, readRenewBefore } from './renewal.ts'
import { wordsOf } from './words.ts'

/** As the command line has them. */
export interface OrderOptions extends NameOptions {
  readonly profile?: string
  readonly validity?: string
  readonly commonName?: string
  readonly keyType?: string
}

export interface IntoOptions extends OrderOptions {
  readonly out?: string
  readonly renewBefore?: string
  readonly reuseKey?: boolean
  readonly keyMode?: string
  readonly owner?: string
  readonly exec?: string
  readonly shell?: boolean
}

export type TaskOfOptions = Omit<Task, 'isDue' | 'isSpent'> & { readonly before: RenewBefore | undefined }

/** Throws a usage failure, also where nothing names what is wanted. */
export const readOrder = (options: OrderOptions): Order => {
  const { profile, validity, commonName, keyType = 'p-256' } = options
  if (profile === undefined) throw new Failure('usage', 'Name the profile by --profile.')
  const names = readNames(options)
  if (names.length === 0 && commonName === undefined)
    throw new Failure('usage', 'Say what the certificate is for by --name, or give a request by --csr.')
  return {
    profile,
    names,
    keyKind: readKeyKindOption(keyType),
    ...(validity !== undefined && { validity }),
    ...(commonName !== undefined && { commonName }),
  }
}

/** Everything of the task but when it is due. Throws a usage failure before anything is asked. */
export const readTask = async (options: IntoOptions, server: string): Promise<TaskOfOptions> => {
  const { out, reuseKey = false, keyMode, owner, exec, shell = false, renewBefore } = options
  if (out === undefined) throw new Failure('usage', 'Name the folder for the key and the certificate by --out.')
  const order = readOrder(options)
  const before = renewBefore === undefined ? undefined : readRenewBefore(renewBefore)
  const words = exec === undefined ? undefined : shell ? ['/bin/sh', '-c', exec] : wordsOf(exec)
  const folder = await openFolder(out, {
    ...(keyMode !== undefined && { keyMode: readMode(keyMode) }),
    ...(owner !== undefined && { owner }),
  })
  return { order, folder, server, reuseKey, exec: words, before }
}

/** Now, one after the other: what is there stays if it has longer than `--renew-before`. One that fails stops no other. */
export const issueInto = async (orders: readonly IntoOptions[], client: Client, out: Output): Promise<void> => {
  const tasks: TaskOfOptions[] = []
  for (const options of orders) tasks.push(await readTask(options, client.origin))
  const failures: Failure[] = []
  const told = (error: unknown): undefined => {
    if (!(error instanceof Failure)) throw error
    failures.push(error)
  }
  for (const task of tasks) {
    const obtained = await obtain(atOnce(task), client).catch(told)
    if (obtained) out.show(viewOf(obtained, task), textOf(obtained, task))
    if (obtained?.failure) failures.push(obtained.failure)
  }
  const [first] = failures
  if (first === undefined) return
  throw new Failure(first.kind, failures.map(({ message }) => message).join('\n'), first.problem)
}

/** Due when a person asks. */
const atOnce = (task: TaskOfOptions): Task => {
  const { before } = task
  const isPast = (moment: Date): boolean => Date.now() >= moment.getTime()
  return {
    ...task,
    isDue: (held) => before === undefined || isPast(dueAt(held, before)),
    isSpent: (life) => isPast(before === undefined ? life.notAfter : dueAt(life, before)),
  }
}

export interface WardDeps {
  readonly now: () => number
  readonly openClient: () => Promise<Client>
}

/** Looked after by a daemon: due at a moment of its own. The client is opened each time, for a token that was replaced. */
export const wardOf = (task: TaskOfOptions, { now, openClient }: WardDeps): Ward => {
  const { folder, before = standardBefore } = task
  const renewAtOf = (held: Held): Date => momentOf(held, before, held.digest)
  const daemonTask: Task = {
    ...task,
    isDue: (held) => now() >= renewAtOf(held).getTime(),
    isSpent: (life) => now() >= dueAt(life, before).getTime(),
  }
  return {
    name: folder.path,
    pass: async (signal) => {
      const { held, issued, failure } = await obtain(daemonTask, await openClient(), signal)
      const { serial, notBefore, notAfter } = held
      return { serial, notBefore, notAfter, renewAt: renewAtOf(held), issued: issued !== undefined, failure }
    },
    note: (status) => folder.note('status.json', `${JSON.stringify(status)}\n`),
  }
}

const viewOf = ({ held, issued }: Obtained, { folder }: Pick<Task, 'folder'>): object => ({
  issued: issued !== undefined,
  serial: held.serial,
  notBefore: held.notBefore.toISOString(),
  notAfter: held.notAfter.toISOString(),
  ...(issued && { issuer: issued.issuer, notes: issued.notes, replayed: issued.replayed }),
  files: Object.fromEntries(fileNames.map((name) => [name, join(folder.path, name)])),
})

const textOf = ({ held, issued }: Obtained, task: TaskOfOptions): string => {
  const { before } = task
  const until = `${held.notAfter.toISOString()}, ${timeLeft(held.notAfter)} from now`
  if (issued !== undefined) return issuedText(issued, task, until)
  const due = before === undefined ? '' : ` It will be renewed from ${dueAt(held, before).toISOString()} on.`
  return `${task.folder.path} holds ${held.serial}, valid until ${until}: nothing to do.${due}`
}

const issuedText = (issued: IssuedAnswer, { order, folder }: TaskOfOptions, until: string): string => {
  const { subjectAltName = '', subject } = new X509Certificate(issued.certificate)
  const lines = [
    ['serial', issued.serial],
    ['names', subjectAltName || subject.replaceAll('\n', ', ')],
    ['valid until', until],
    ['profile', `${order.profile}, by the issuer ${issued.issuer}`],
    ['key', `${join(folder.path, 'key.pem')} (${order.keyKind})`],
    ['certificate', `${join(folder.path, 'fullchain.pem')} (certificate.pem and chain.pem in one)`],
    ['root', join(folder.path, 'root.pem')],
    ...issued.notes.map(({ field, reason }) => ['note', `${field} ${reason}`]),
  ]
  return lines.map(([label = '', value = '']) => `${label.padEnd(13)}${visible(value)}`).join('\n')
}

const timeLeft = (end: Date): string => {
  const seconds = (end.getTime() - Date.now()) / 1_000
  return seconds > 2 * 86_400 ? `${Math.floor(seconds / 86_400)} days` : durationText(seconds)
}

/** What the owner cannot read is of no use; what others can write is no key. */
const readMode = (text: string): number => {
  if (!/^0?[46][04][04]$/.test(text))
    throw new Failure('usage', `--key-mode ${text} is none of 0600, 0640, 0644, 0400 and the like.`)
  return Number.parseInt(text, 8)
}

/** As many do: a third of a life is time enough to mend whatever keeps it from being renewed. */
const standardBefore: RenewBefore = { share: 0.33 }

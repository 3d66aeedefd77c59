/** `chancery issue --name … --out DIR`: key, request and files are made here; only the request goes to the server. */
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'

import type { Client } from '../client.ts'
import { Failure } from '../failure.ts'
import { type Output, visible } from '../output.ts'
import { durationText } from '../progress.ts'
import { fileNames, openFolder } from './folder.ts'
import { type IssuedAnswer, type Obtained, obtain, type Task } from './obtain.ts'
import { type NameOptions, type Order, readKeyKindOption, readNames } from './order.ts'
import { dueAt, type RenewBefore, readRenewBefore } from './renewal.ts'
import { wordsOf } from './words.ts'

/** As the command line has them. */
export interface OrderOptions extends NameOptions {
  readonly profile: string
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

/** Throws a usage failure, also where nothing names what is wanted. */
export const readOrder = (options: OrderOptions): Order => {
  const { profile, validity, commonName, keyType = 'p-256' } = options
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

export type TaskOfOptions = Omit<Task, 'isDue' | 'isSpent'>

/** Everything of the task but when it is due. Throws a usage failure before anything is asked. */
export const readTask = async (options: IntoOptions, server: string): Promise<TaskOfOptions> => {
  const { out, reuseKey = false, keyMode, owner, exec, shell = false } = options
  if (out === undefined) throw new Failure('usage', 'Name the folder for the key and the certificate by --out.')
  const order = readOrder(options)
  const folder = await openFolder(out, {
    ...(keyMode !== undefined && { keyMode: readMode(keyMode) }),
    ...(owner !== undefined && { owner }),
  })
  const words = exec === undefined ? undefined : shell ? ['/bin/sh', '-c', exec] : wordsOf(exec)
  return { order, folder, server, reuseKey, exec: words }
}

/** Once, now: what is there stays if it has longer than `--renew-before`. */
export const issueInto = async (options: IntoOptions, client: Client, out: Output): Promise<void> => {
  const before = options.renewBefore === undefined ? undefined : readRenewBefore(options.renewBefore)
  const task = await readTask(options, client.origin)
  const isPast = (moment: Date): boolean => Date.now() >= moment.getTime()
  const obtained = await obtain(
    {
      ...task,
      isDue: (held) => before === undefined || isPast(dueAt(held, before)),
      isSpent: (life) => isPast(before === undefined ? life.notAfter : dueAt(life, before)),
    },
    client,
  )
  out.show(viewOf(obtained, task), textOf(obtained, task, before))
}

const viewOf = ({ held, issued }: Obtained, { folder }: Pick<Task, 'folder'>): object => ({
  issued: issued !== undefined,
  serial: held.serial,
  notBefore: held.notBefore.toISOString(),
  notAfter: held.notAfter.toISOString(),
  ...(issued && { issuer: issued.issuer, notes: issued.notes, replayed: issued.replayed }),
  files: Object.fromEntries(fileNames.map((name) => [name, join(folder.path, name)])),
})

const textOf = ({ held, issued }: Obtained, task: TaskOfOptions, before: RenewBefore | undefined): string => {
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

/** `chancery issue --name … --out DIR`: key, request and files are made here; only the request goes to the server. */
import { X509Certificate } from 'node:crypto'
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'

import { Failure } from '../../lib/failure.ts'
import { type Output, visible } from '../../lib/output.ts'
import { durationText } from '../../lib/progress.ts'
import { hasEnded } from '../../policy/validity.ts'
import type { Client } from '../rest.ts'
import { Awaited, theSame, untilDecided } from './approval.ts'
import type { Standing, Ward } from './daemon.ts'
import { type Obtained, obtain, type Task } from './ensure.ts'
import { fileNames, type Held, openFolder } from './folder.ts'
import type { IssuedAnswer } from './issued.ts'
import { digestOf, type NameOptions, type Order, readKeyKindOption, readNames } from './order.ts'
import { dueAt, momentOf, oddity, type RenewBefore, readRenewBefore } from './renewal.ts'
import { type Advice, type Advised, adviceFor, knownAdvice, momentIn } from './renewal-info.ts'
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
  /** While people have to approve it. */
  readonly wait?: boolean
}

export type TaskOfOptions = Omit<Task, 'isDue' | 'isSpent' | 'renews'> & {
  readonly before: RenewBefore | undefined
  /** For people, where they have to approve it; it is asked for again later otherwise. */
  readonly waits: boolean
}

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
  const { out, reuseKey = false, keyMode, owner, exec, shell = false, renewBefore, wait = false } = options
  if (out === undefined || out === '')
    throw new Failure('usage', 'Name the folder for the key and the certificate by --out.')
  // Elsewhere it is standard output, where no key belongs.
  if (out === '-') throw new Failure('usage', '--out is a folder, which - is not; for one of that name say ./-.')
  const order = readOrder(options)
  const before = renewBefore === undefined ? undefined : readRenewBefore(renewBefore)
  const words = exec === undefined ? undefined : shell ? ['/bin/sh', '-c', exec] : wordsOf(exec)
  const folder = await openFolder(out, {
    ...(keyMode !== undefined && { keyMode: readMode(keyMode) }),
    ...(owner !== undefined && { owner }),
    orderDigest: digestOf(order, server),
  })
  // Where there may be something to use meanwhile, others are due as well.
  return { order, folder, server, reuseKey, exec: words, before, waits: wait && before === undefined }
}

/** All of them, each in a folder of its own. Throws a usage failure before anything is asked. */
export const readTasks = async (orders: readonly IntoOptions[], server: string): Promise<readonly TaskOfOptions[]> => {
  const tasks: TaskOfOptions[] = []
  for (const [i, options] of orders.entries()) {
    const task = await readTask(options, server).catch((error: unknown) => {
      if (!(error instanceof Failure) || orders.length === 1) throw error
      throw new Failure(error.kind, `Order ${i + 1}: ${error.message}`, error.problem)
    })
    tasks.push(task)
  }
  // Behind a link as well: each would take what the other has put there for something else.
  const places = await Promise.all(tasks.map(({ folder }) => realpath(folder.path)))
  const twice = places.find((place, i) => places.indexOf(place) !== i)
  if (twice !== undefined) throw new Failure('usage', `Two orders are for ${twice}; each takes a folder of its own.`)
  return tasks
}

/**
 * Now, one after the other: what is there stays if it has longer than `--renew-before`. One that fails stops no other; nor
 * does one that people must approve first: those are waited for together, once all have been asked for.
 */
export const issueInto = async (orders: readonly IntoOptions[], client: Client, out: Output): Promise<void> => {
  const tasks = await readTasks(orders, client.origin)
  const failures: FailedOrder[] = []
  const failed = ({ folder }: TaskOfOptions, failure: Failure): void =>
    void failures.push({ out: folder.path, failure })
  const inTurn = openLane()
  const advising = openAdvising(client)
  /** What it waits for. */
  const attempt = async (task: TaskOfOptions): Promise<Awaited['request'] | undefined> => {
    try {
      const obtained = await obtain(await atOnce(task, advising), client)
      out.show(viewOf(obtained, task), textOf(obtained, task))
      if (obtained.failure) failed(task, obtained.failure)
    } catch (error) {
      if (error instanceof Awaited && task.waits) return error.request
      if (!(error instanceof Failure)) throw error
      failed(task, error)
    }
    return undefined
  }
  const ending = new AbortController()
  const polite = openPolite(client)
  const settle = async (task: TaskOfOptions): Promise<void> => {
    const name = tasks.length > 1 ? `${task.folder.path}: ` : ''
    const tell = (text: string): void => void process.stderr.write(`${name}${text}`)
    const waiting = { client: polite, tell, again: theSame, signal: ending.signal }
    for (let request = await inTurn(() => attempt(task)); request; request = await inTurn(() => attempt(task)))
      await untilDecided(request, waiting)
  }
  const settled = tasks.map((task) =>
    settle(task).catch((error: unknown) => {
      if (error instanceof Failure) return failed(task, error)
      ending.abort()
      throw error
    }),
  )
  await Promise.all(settled)
  if (failures.length > 0) throw orders.length === 1 ? failures[0]?.failure : failureOfAll(failures)
}

interface FailedOrder {
  /** Its folder. */
  readonly out: string
  readonly failure: Failure
}

/** The first decides how the command ends; each is told of, with its folder. */
const failureOfAll = (failures: readonly FailedOrder[]): Failure => {
  const { kind, message, problem, exitCode } = (failures[0] as FailedOrder).failure
  const text = failures.map(({ out, failure }) => `${out}: ${failure.message}`).join('\n')
  const first = problem ?? { failure: kind, exitCode, detail: message }
  return new Failure(kind, text, {
    ...first,
    orders: failures.map(({ out, failure }) => ({ out, ...failure.toJSON() })),
  })
}

/** One after the other, in the order in which they come. */
const openLane = () => {
  let last: Promise<unknown> = Promise.resolve()
  return <T>(work: () => Promise<T>): Promise<T> => {
    const next = last.then(work)
    last = next.catch(() => {})
    return next
  }
}

/** However many wait, the server is asked by a few at a time. */
const openPolite = (client: Client): Client => {
  const lanes = Array.from({ length: mostAtOnce }, openLane)
  let calls = 0
  return {
    ...client,
    call: (method, path, call) => {
      calls += 1
      return (lanes[calls % mostAtOnce] as (typeof lanes)[0])(() => client.call(method, path, call))
    },
  }
}

/** Due when a person asks; with `--renew-before` when it is time, or earlier where the server says so. */
const atOnce = async (task: TaskOfOptions, advise: Advise): Promise<Task> => {
  const { before } = task
  const isPast = (moment: Date): boolean => Date.now() >= moment.getTime()
  if (before === undefined)
    return { ...task, renews: false, isDue: () => true, isSpent: (life) => hasEnded(life.notAfter, new Date()) }
  const held = await heldFor(task)
  const advice = held && !isPast(dueAt(held, before)) ? await advise(held, task) : null
  return {
    ...task,
    renews: true,
    isDue: (held) => isPast(earliest(dueAt(held, before), advice, held)),
    isSpent: (life) => isPast(dueAt(life, before)),
  }
}

type Advise = (held: Held, task: Pick<Task, 'folder'>) => Promise<Advice | undefined>

/** A server that could not be asked for one is not asked for the others either. */
const openAdvising = (client: Client): Advise => {
  let isThere = true
  return async (held, { folder }) => {
    if (!isThere) return knownAdvice(held, folder)
    const advice = await adviceFor(held, { folder, client, now: Date.now() })
    if (advice.asked instanceof Failure) isThere = false
    return advice
  }
}

/** The certificate that is there, if it is what is asked for. */
const heldFor = async ({ folder, order, server }: TaskOfOptions): Promise<Held | undefined> => {
  const held = await folder.held()
  return held?.orderDigest === digestOf(order, server) ? held : undefined
}

/** What the server suggests outweighs what is usual here, and is outweighed by what somebody has said. */
const earliest = (moment: Date, advice: Advice | null | undefined, held: Held): Date => {
  const suggested = advice?.serial === held.serial ? momentIn(advice, held) : undefined
  return suggested !== undefined && suggested < moment ? suggested : moment
}

export interface WardDeps {
  readonly now: () => number
  readonly openClient: () => Promise<Client>
}

/** Looked after by a daemon: due at a moment of its own. The client is opened each time, for a token that was replaced. */
export const wardOf = (task: TaskOfOptions, { now, openClient }: WardDeps): Ward => {
  const { folder } = task
  const before = task.before ?? standardBefore
  const renewAtOf = (held: Held, advice: Advice | undefined): Date => {
    const suggested = advice?.serial === held.serial ? momentIn(advice, held) : undefined
    // However late the server would have it: what has expired renews nothing.
    if (task.before === undefined && suggested !== undefined)
      return earliest(momentOf(held, latestBefore, held.digest), advice, held)
    return earliest(momentOf(held, before, held.digest), advice, held)
  }
  const daemonTask = (advice: Advice | undefined): Task => ({
    ...task,
    renews: true,
    isDue: (held) => now() >= renewAtOf(held, advice).getTime(),
    isSpent: (life) => now() >= dueAt(life, before).getTime(),
  })
  const standingOf = (held: Held, advice: Advised | undefined): Omit<Standing, 'issued' | 'failure'> => {
    const { serial, notBefore, notAfter } = held
    return {
      ...{ serial, notBefore, notAfter, renewAt: renewAtOf(held, advice) },
      ...(advice && { lookAt: new Date(advice.askAt), reason: advice.reason, asked: advice.asked }),
    }
  }
  return {
    name: folder.path,
    look: async () => {
      const held = await heldFor(task)
      return held && { ...standingOf(held, await knownAdvice(held, folder)), issued: false, failure: undefined }
    },
    pass: async (signal, mayAsk = true) => {
      const client = await openClient()
      const ask = async (held: Held): Promise<Advised | undefined> =>
        mayAsk ? adviceFor(held, { folder, client, now: now(), signal }) : knownAdvice(held, folder)
      const before = await heldFor(task)
      const said = before && (await knownAdvice(before, folder))
      // What is due is renewed, and nobody is asked first whether it is.
      const isDue = before !== undefined && now() >= renewAtOf(before, said).getTime()
      const known = before && !isDue ? await ask(before) : said
      const { held, issued, refusal, failure } = await obtain(daemonTask(known), client, signal)
      const advice: Advised | undefined = issued ? await ask(held) : known
      return {
        ...{ ...standingOf(held, advice), issued: issued !== undefined, failure },
        ...(refusal && { refusal: refusal.message }),
      }
    },
    note: (status) => folder.note('status.json', `${JSON.stringify(status)}\n`),
  }
}

const viewOf = ({ held, issued, refusal }: Obtained, { folder }: Pick<Task, 'folder'>): object => ({
  issued: issued !== undefined,
  serial: held.serial,
  notBefore: held.notBefore.toISOString(),
  notAfter: held.notAfter.toISOString(),
  ...(issued && { issuer: issued.issuer, notes: issued.notes, replayed: issued.replayed }),
  ...(refusal && { askedAnew: refusal.problem ?? refusal.message }),
  files: Object.fromEntries(fileNames.map((name) => [name, join(folder.path, name)])),
})

const textOf = ({ held, issued, refusal }: Obtained, task: TaskOfOptions): string => {
  const { before } = task
  const until = `${held.notAfter.toISOString()}, ${timeLeft(held.notAfter)} from now`
  if (issued !== undefined) return issuedText(issued, task, { until, odd: oddText(held, before), refusal })
  const due = before === undefined ? '' : ` It will be renewed from ${dueAt(held, before).toISOString()} on.`
  return `${task.folder.path} holds ${held.serial}, valid until ${until}: nothing to do.${due}`
}

interface IssuedNotes {
  readonly until: string
  readonly odd: string | undefined
  readonly refusal: Failure | undefined
}

const issuedText = (
  issued: IssuedAnswer,
  { order, folder }: TaskOfOptions,
  { until, odd, refusal }: IssuedNotes,
): string => {
  const { subjectAltName = '', subject } = new X509Certificate(issued.certificate)
  const lines = [
    ['serial', issued.serial],
    ['names', subjectAltName || subject.replaceAll('\n', ', ')],
    ['valid until', until],
    ['profile', `${order.profile}, by the issuer ${issued.issuer}`],
    ['key', `${join(folder.path, 'key.pem')} (${order.keyKind})`],
    ['certificate', `${join(folder.path, 'fullchain.pem')} (certificate.pem and chain.pem in one)`],
    ['root', join(folder.path, 'root.pem')],
    ...(odd ? [['note', odd]] : []),
    ...(refusal ? [['note', `asked for anew, since it could not renew itself: ${firstLine(refusal)}`]] : []),
    ...issued.notes.map(({ field, reason }) => ['note', `${field} ${reason}`]),
  ]
  return lines.map(([label = '', value = '']) => `${label.padEnd(13)}${visible(value)}`).join('\n')
}

const oddText = (held: Held, before: RenewBefore | undefined): string | undefined => {
  const now = new Date()
  const odd = oddity(held, before, now)
  return odd && `here it is ${now.toISOString()}, and ${odd}`
}

const firstLine = ({ message }: Failure): string => message.split('\n', 1)[0] ?? ''

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

const mostAtOnce = 4
/** As many do: a third of a life is time enough to mend whatever keeps it from being renewed. */
const standardBefore: RenewBefore = { share: 0.33 }
const latestBefore: RenewBefore = { share: 0.1 }

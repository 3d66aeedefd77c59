/**
 * `chancery issue --daemon`: keeps certificates fresh for as long as it runs. Whatever happens it neither ends nor
 * hammers: a server that is away is asked by one order at a time and ever more rarely, also where it only does not say when to
 * renew; what is due goes first; what is refused is tried again by itself, since policy and tokens change. Waits are short and the clock is looked at after each, so that a machine that slept
 * or a clock that was set is noticed within a minute.
 */
import type { ProblemCode } from '../../errors.ts'
import { Failure } from '../../lib/failure.ts'
import { hasEnded as hasExpired } from '../../policy/validity.ts'
import { hasEnded } from './approval.ts'
import { ExecFailure } from './hook.ts'
import { pauseOf } from './renewal.ts'

/** One certificate that is looked after. */
export interface Ward {
  /** What the log calls it. */
  readonly name: string
  /** Renews it if it is time. The server may be asked when that is, unless `mayAsk` says otherwise. */
  pass(signal: AbortSignal, mayAsk?: boolean): Promise<Standing>
  /** By what is there; nobody is asked. Undefined where there is no certificate. */
  look(): Promise<Standing | undefined>
  /** Leaves word of how it stands, for whoever looks. */
  note(status: Status): Promise<void>
}

export interface Standing {
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** When it will be renewed. */
  readonly renewAt: Date
  readonly issued: boolean
  /** When to look again, since the server may say otherwise then; within an hour in any case. */
  readonly lookAt?: Date
  /** Why then, as the server says it. */
  readonly reason?: string | null
  /** What became of asking the server for that; absent where it was not asked. */
  readonly asked?: 'answered' | Failure | undefined
  /** Why it could not renew itself and was asked for anew. */
  readonly refusal?: string
  /** What is not as it should be all the same. */
  readonly failure: Error | undefined
}

/** `failing` has a certificate that still holds; `expired` has one that does not; `missing` has none yet. */
export interface Status {
  readonly state: 'fresh' | 'failing' | 'expired' | 'missing'
  readonly serial: string | null
  readonly notAfter: string | null
  readonly renewAt: string | null
  /** Of the last try that failed, where the last one did. */
  readonly failure: string | null
  readonly failures: number
  readonly at: string
}

export interface DaemonDeps {
  /** The wall's clock, in milliseconds; it may jump. */
  readonly now: () => number
  /** Milliseconds that have gone by, whatever the wall's clock does; it may stop while the machine sleeps. */
  readonly elapsed: () => number
  /** Resolves early, and never rejects, when the signal comes. */
  readonly sleep: (milliseconds: number, signal: AbortSignal) => Promise<void>
  /** Within 0 and 1. */
  readonly chance: () => number
  readonly log: (line: LogLine) => void
  readonly signal: AbortSignal
}

export interface LogLine {
  readonly event: 'kept' | 'renewed' | 'failed' | 'unreachable'
  readonly name: string
  readonly text: string
}

/** Until the signal comes; then within what ending a request takes. */
export const lookAfter = async (wards: readonly Ward[], clocks: DaemonDeps): Promise<void> => {
  const deps = { ...clocks, elapsed: throughSleep(clocks) }
  const cares = wards.map(newCare)
  let turns = 0
  const server: Server = { ...newPatience(), advice: newPatience() }
  while (!deps.signal.aborted) {
    // Whoever was tried last comes last, or one whose tries hold up the others would always be the first.
    const isLater = (care: Care): number => Number(!isDue(care, deps))
    for (const care of cares.toSorted((one, other) => isLater(one) - isLater(other) || one.turn - other.turn)) {
      if (deps.signal.aborted || deps.elapsed() < server.retryAt) break
      if (waitOf(care, deps) > 0) continue
      turns += 1
      care.turn = turns
      await turn(care, server, deps)
    }
    const next = Math.max(server.retryAt - deps.elapsed(), Math.min(...cares.map((care) => waitOf(care, deps))))
    if (!deps.signal.aborted) await deps.sleep(Math.min(Math.max(next, shortestMs), longestMs), deps.signal)
  }
}

/**
 * A pause goes on while the machine sleeps, which the wall's clock alone tells. One that was set looks the same, whichever way, and
 * ends pauses as well: what was put off by the time of before may be due, or right by now.
 */
const throughSleep = ({ now, elapsed }: Pick<DaemonDeps, 'now' | 'elapsed'>): (() => number) => {
  let apart = now() - elapsed()
  let slept = 0
  return () => {
    const jump = now() - elapsed() - apart
    if (Math.abs(jump) > shortestJumpMs) {
      slept += Math.abs(jump)
      apart += jump
    }
    return elapsed() + slept
  }
}

interface Patience {
  /** In a row. */
  failures: number
  /** By `elapsed`. */
  retryAt: number
}

interface Server extends Patience {
  /** Of asking when to renew, which keeps nothing that is due waiting. */
  readonly advice: Patience
}

const newPatience = (): Patience => ({ failures: 0, retryAt: Number.NEGATIVE_INFINITY })

interface Care extends Patience {
  readonly ward: Ward
  standing: Standing | undefined
  /** When it was last tried, by the number of the try. */
  turn: number
  /** By `elapsed`: somebody may have changed the files meanwhile. */
  lookAt: number
}

const newCare = (ward: Ward): Care => ({
  ...newPatience(),
  ...{ ward, standing: undefined, turn: 0, lookAt: Number.NEGATIVE_INFINITY },
})

const isDue = ({ standing }: Care, { now }: DaemonDeps): boolean =>
  standing === undefined || standing.renewAt.getTime() <= now()

/** Milliseconds until it is to be looked at. */
const waitOf = ({ standing, failures, retryAt, lookAt }: Care, { now, elapsed }: DaemonDeps): number => {
  if (failures > 0) return retryAt - elapsed()
  return Math.min(lookAt - elapsed(), standing === undefined ? 0 : standing.renewAt.getTime() - now())
}

const turn = async (care: Care, server: Server, deps: DaemonDeps): Promise<void> => {
  const { ward } = care
  try {
    const mayAsk = deps.elapsed() >= server.advice.retryAt
    const standing = await ward.pass(deps.signal, mayAsk)
    heed(standing, care, { server, deps })
    const isMended = care.failures > 0 && standing.failure === undefined
    const isMoved = care.standing?.renewAt.getTime() !== standing.renewAt.getTime()
    const isNews = standing.issued || care.standing?.serial !== standing.serial || isMoved || isMended
    care.standing = standing
    care.lookAt = deps.elapsed() + untilLook(standing, server.advice, deps)
    if (standing.issued) server.failures = 0
    // Asked for again at once, it would be so for ever.
    if (standing.issued && standing.renewAt.getTime() <= deps.now())
      throw new Failure('failed', `${standing.serial} is to be renewed already: one of the two clocks is wrong.`, {
        retryAfter: Math.min(longSeconds, lifeOf(standing) / 2_000),
      })
    if (standing.failure === undefined) care.failures = 0
    // The note first: whoever reads the line finds it.
    if (isNews) await leaveNote(care, standing.failure && briefOf(standing.failure), deps)
    if (isNews) deps.log({ event: standing.issued ? 'renewed' : 'kept', name: ward.name, text: standingText(standing) })
    if (standing.failure) throw standing.failure
  } catch (error) {
    if (deps.signal.aborted) return
    await fail(care, server, { deps, error })
  }
}

/** Where nobody says when to renew, nobody else of ours need ask; whoever did comes last the next time. */
const heed = (
  { asked }: Standing,
  care: Care,
  { server: { advice }, deps }: { readonly server: Server; readonly deps: DaemonDeps },
): void => {
  if (asked === 'answered') advice.failures = 0
  if (!(asked instanceof Failure)) return
  const { retryAfter } = reasonOf(asked)
  const pause = waitLonger(advice, { life: undefined, retryAfter }, deps)
  care.turn = Number.MAX_SAFE_INTEGER
  const text = `The server does not say when to renew: ${asked.message} Next try in ${Math.ceil(pause / 1_000)} s.`
  deps.log({ event: 'unreachable', name: care.ward.name, text })
}

const waitLonger = (
  patience: Patience,
  { life, retryAfter }: { readonly life: number | undefined; readonly retryAfter: number | undefined },
  deps: DaemonDeps,
): number => {
  patience.failures += 1
  const pause = pauseOf({ failures: patience.failures, life, retryAfter, chance: deps.chance() })
  patience.retryAt = deps.elapsed() + pause
  return pause
}

const lifeOf = ({ notBefore, notAfter }: Standing): number => notAfter.getTime() - notBefore.getTime()

const fail = async (
  care: Care,
  server: Patience,
  { deps, error }: { readonly deps: DaemonDeps; readonly error: unknown },
): Promise<void> => {
  const { retryAfter, isOfServer } = reasonOf(error)
  // As after a start: what is there is there, though nothing could be asked.
  care.standing ??= await care.ward.look().catch(() => undefined)
  const life = care.standing && lifeOf(care.standing)
  const wait = (patience: Patience): number => waitLonger(patience, { life, retryAfter }, deps)
  const own = wait(care)
  // Nobody else of ours need ask a server that is not there.
  const pause = isOfServer ? wait(server) : own
  care.retryAt = deps.elapsed() + pause
  const sentence = error instanceof Error ? error.message : String(error)
  const text = `${sentence} Next try in ${Math.ceil(pause / 1_000)} s.`
  await leaveNote(care, briefOf(error), deps)
  deps.log({ event: isOfServer ? 'unreachable' : 'failed', name: care.ward.name, text })
}

interface Reason {
  readonly retryAfter: number | undefined
  /** Not of this order: nobody answers, or it was said to come less often. */
  readonly isOfServer: boolean
}

const reasonOf = (error: unknown): Reason => {
  if (!(error instanceof Failure)) return { retryAfter: undefined, isOfServer: false }
  const { problemCode: code = '', retryAfter } = error
  // People have said no, or nothing, and each try would ask them again.
  if (hasEnded(code)) return { retryAfter: longSeconds, isOfServer: false }
  return { retryAfter, isOfServer: error.kind === 'later' && (code === '' || ofAll.has(code)) }
}

/** What is said to whoever asks, whatever is asked for. Limits of certificates and names are of one order's profile. */
const ofAll: ReadonlySet<string> = new Set<ProblemCode>([
  'rate.limited',
  'limit.requests',
  'limit.concurrent',
  'limit.address_requests',
  'limit.address_concurrent',
  'limit.room',
  'limit.failed_authentication',
])

/** Others read the note: what a command has printed is for the log alone. */
const briefOf = (error: unknown): string =>
  error instanceof ExecFailure ? error.brief : error instanceof Error ? error.message : String(error)

const leaveNote = async (care: Care, failure: string | undefined, deps: DaemonDeps): Promise<void> => {
  const { ward, standing, failures } = care
  const status: Status = {
    state: stateOf(standing, failure, deps.now()),
    serial: standing?.serial ?? null,
    notAfter: standing?.notAfter.toISOString() ?? null,
    renewAt: standing?.renewAt.toISOString() ?? null,
    failure: failure ?? null,
    failures,
    at: new Date(deps.now()).toISOString(),
  }
  await ward.note(status).catch((error: Error) => {
    deps.log({ event: 'failed', name: ward.name, text: `Its status cannot be written: ${error.message}` })
  })
}

const stateOf = (standing: Standing | undefined, failure: string | undefined, now: number): Status['state'] => {
  if (standing === undefined) return 'missing'
  if (hasExpired(standing.notAfter, new Date(now))) return 'expired'
  return failure === undefined ? 'fresh' : 'failing'
}

const standingText = ({ serial, notAfter, renewAt, issued, reason, refusal }: Standing): string =>
  [
    `${serial} is ${issued ? 'new' : 'there'}, valid until ${notAfter.toISOString()}; to be renewed at ${renewAt.toISOString()}`,
    reason && reason !== 'age' ? ` (${reason})` : '',
    refusal === undefined ? '.' : `. It was asked for anew, since it could not renew itself: ${refusal}`,
  ].join('')

/** Milliseconds. */
const untilLook = ({ lookAt }: Standing, advice: Patience, { now, elapsed }: DaemonDeps): number => {
  const soonest = Math.max(shortestMs, advice.retryAt - elapsed())
  return lookAt === undefined ? lookEveryMs : Math.min(Math.max(lookAt.getTime() - now(), soonest), lookEveryMs)
}

const shortestMs = 50
/** Less than that is how finely two clocks are read. */
const shortestJumpMs = 1_000
const longestMs = 60_000
const lookEveryMs = 3_600_000
const longSeconds = 3_600

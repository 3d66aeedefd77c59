/**
 * `chancery issue --daemon`: keeps certificates fresh for as long as it runs. Whatever happens it neither ends nor
 * hammers: a server that is away is asked by one order at a time and ever more rarely; what is refused is tried again by
 * itself, since policy and tokens change. Waits are short and the clock is looked at after each, so that a machine that slept
 * or a clock that was set is noticed within a minute.
 */
import type { ProblemCode } from '../../errors.ts'
import { Failure } from '../failure.ts'
import { pauseOf } from './renewal.ts'

/** One certificate that is looked after. */
export interface Ward {
  /** What the log calls it. */
  readonly name: string
  /** Renews it if it is time. */
  pass(signal: AbortSignal): Promise<Standing>
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
  /** Milliseconds that have gone by, whatever the wall's clock does. */
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
export const lookAfter = async (wards: readonly Ward[], deps: DaemonDeps): Promise<void> => {
  const cares = wards.map(newCare)
  let turns = 0
  const server: Patience = { failures: 0, retryAt: Number.NEGATIVE_INFINITY }
  while (!deps.signal.aborted) {
    // Whoever was tried last comes last, or one whose tries hold up the others would always be the first.
    for (const care of cares.toSorted((one, other) => one.turn - other.turn)) {
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

interface Patience {
  /** In a row. */
  failures: number
  /** By `elapsed`. */
  retryAt: number
}

interface Care extends Patience {
  readonly ward: Ward
  standing: Standing | undefined
  /** When it was last tried, by the number of the try. */
  turn: number
  /** By `elapsed`: somebody may have changed the files meanwhile. */
  lookAt: number
}

const newCare = (ward: Ward): Care => ({
  ward,
  standing: undefined,
  turn: 0,
  failures: 0,
  retryAt: Number.NEGATIVE_INFINITY,
  lookAt: Number.NEGATIVE_INFINITY,
})

/** Milliseconds until it is to be looked at. */
const waitOf = ({ standing, failures, retryAt, lookAt }: Care, { now, elapsed }: DaemonDeps): number => {
  if (failures > 0) return retryAt - elapsed()
  return Math.min(lookAt - elapsed(), standing === undefined ? 0 : standing.renewAt.getTime() - now())
}

const turn = async (care: Care, server: Patience, deps: DaemonDeps): Promise<void> => {
  const { ward } = care
  try {
    const standing = await ward.pass(deps.signal)
    const isMended = care.failures > 0 && standing.failure === undefined
    const isMoved = care.standing?.renewAt.getTime() !== standing.renewAt.getTime()
    const isNews = standing.issued || care.standing?.serial !== standing.serial || isMoved || isMended
    care.standing = standing
    care.lookAt = deps.elapsed() + untilLook(standing, deps)
    if (standing.issued) server.failures = 0
    // Asked for again at once, it would be so for ever.
    if (standing.issued && standing.renewAt.getTime() <= deps.now())
      throw new Failure('failed', `${standing.serial} is to be renewed already: one of the two clocks is wrong.`)
    if (standing.failure === undefined) care.failures = 0
    // The note first: whoever reads the line finds it.
    if (isNews) await leaveNote(care, standing.failure?.message, deps)
    if (isNews) deps.log({ event: standing.issued ? 'renewed' : 'kept', name: ward.name, text: standingText(standing) })
    if (standing.failure) throw standing.failure
  } catch (error) {
    if (deps.signal.aborted) return
    await fail(care, server, { deps, error })
  }
}

const fail = async (
  care: Care,
  server: Patience,
  { deps, error }: { readonly deps: DaemonDeps; readonly error: unknown },
): Promise<void> => {
  const { retryAfter, isOfServer } = reasonOf(error)
  const { standing } = care
  const life = standing && standing.notAfter.getTime() - standing.notBefore.getTime()
  const wait = (patience: Patience): number => {
    patience.failures += 1
    const pause = pauseOf({ failures: patience.failures, life, retryAfter, chance: deps.chance() })
    patience.retryAt = deps.elapsed() + pause
    return pause
  }
  const own = wait(care)
  // Nobody else of ours need ask a server that is not there.
  const pause = isOfServer ? wait(server) : own
  care.retryAt = deps.elapsed() + pause
  const sentence = error instanceof Error ? error.message : String(error)
  const text = `${sentence} Next try in ${Math.ceil(pause / 1_000)} s.`
  await leaveNote(care, sentence, deps)
  deps.log({ event: isOfServer ? 'unreachable' : 'failed', name: care.ward.name, text })
}

interface Reason {
  readonly retryAfter: number | undefined
  /** Not of this order: nobody answers, or it was said to come less often. */
  readonly isOfServer: boolean
}

const reasonOf = (error: unknown): Reason => {
  if (!(error instanceof Failure)) return { retryAfter: undefined, isOfServer: false }
  const { code = '', retryAfter } = (error.problem ?? {}) as { code?: string; retryAfter?: number }
  // People have said no, or nothing, and each try would ask them again.
  if (endings.has(code)) return { retryAfter: longSeconds, isOfServer: false }
  return { retryAfter, isOfServer: error.kind === 'later' && (error.problem === undefined || ofAll.has(code)) }
}

/** What is said to whoever asks, whatever is asked for. Limits of certificates and names are of one order's profile. */
const ofAll: ReadonlySet<string> = new Set<ProblemCode>([
  'rate.limited',
  'limit.requests',
  'limit.concurrent',
  'limit.address_requests',
  'limit.address_concurrent',
  'limit.failed_authentication',
])

const endings: ReadonlySet<string> = new Set<ProblemCode>(['approval.rejected', 'approval.expired'])

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
  if (standing.notAfter.getTime() <= now) return 'expired'
  return failure === undefined ? 'fresh' : 'failing'
}

const standingText = ({ serial, notAfter, renewAt, issued, reason, refusal }: Standing): string =>
  [
    `${serial} is ${issued ? 'new' : 'there'}, valid until ${notAfter.toISOString()}; to be renewed at ${renewAt.toISOString()}`,
    reason && reason !== 'age' ? ` (${reason})` : '',
    refusal === undefined ? '.' : `. It was asked for anew, since it could not renew itself: ${refusal}`,
  ].join('')

/** Milliseconds. */
const untilLook = ({ lookAt }: Standing, { now }: DaemonDeps): number =>
  lookAt === undefined ? lookEveryMs : Math.min(Math.max(lookAt.getTime() - now(), shortestMs), lookEveryMs)

const shortestMs = 50
const longestMs = 60_000
const lookEveryMs = 3_600_000
const longSeconds = 3_600

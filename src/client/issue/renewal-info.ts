/**
 * What the server says of when a certificate is best renewed (RFC 9773), kept beside it until it is to be asked for again: so
 * neither a restart nor a timer that comes every minute asks more often.
 */

import { Failure } from '../../lib/failure.ts'
import type { Client } from '../rest.ts'
import type { Folder, Held } from './folder.ts'

export interface Advice {
  readonly serial: string
  /** RFC 3339; null where the server could not be asked. */
  readonly window: { readonly start: string; readonly end: string } | null
  readonly reason: string | null
  /** When it may be asked for again. */
  readonly askAt: string
}

export interface Advised extends Advice {
  /** What became of asking the server; absent where it was not asked now. `later` alone is no answer. */
  readonly asked?: 'answered' | Failure
}

export interface AdviceDeps {
  readonly folder: Pick<Folder, 'note' | 'noted'>
  readonly client: Client
  readonly now: number
  readonly signal?: AbortSignal | undefined
}

/** The newest that is known of this certificate. A server that cannot be asked is no reason not to renew: never rejects for it. */
export const adviceFor = async (held: Held, deps: AdviceDeps): Promise<Advised> => {
  const { folder, now } = deps
  const known = await knownAdvice(held, folder)
  if (known && isPatient(known, now)) return known
  const { asked, ...advice } = await askFor(held, deps).catch((error: unknown) =>
    withoutAnswer(error, held, known, now),
  )
  await folder.note(adviceName, `${JSON.stringify(advice)}\n`)
  return { ...advice, asked }
}

/** What was said last; nobody is asked. */
export const knownAdvice = async (
  { serial }: Pick<Held, 'serial'>,
  folder: Pick<Folder, 'noted'>,
): Promise<Advice | undefined> => readAdvice(await folder.noted(adviceName), serial)

/**
 * The moment within the window that is this certificate's. It comes from its digest, which is as good as chance and the same
 * after a restart.
 */
export const momentIn = ({ window }: Advice, { digest }: Pick<Held, 'digest'>): Date | undefined => {
  if (window === null) return undefined
  const [start, end] = [Date.parse(window.start), Date.parse(window.end)]
  return new Date(start + (end - start) * (digest.readUInt32BE(0) / 2 ** 32))
}

/** A clock that was set back makes nobody wait for years. */
const isPatient = ({ askAt }: Advice, now: number): boolean => {
  const wait = Date.parse(askAt) - now
  return wait > 0 && wait <= longestMs
}

const askFor = async (held: Held, { client, now, signal }: AdviceDeps): Promise<Required<Advised>> => {
  const path = `/v1/certificates/${held.serial}/renewal-info`
  const byItself = client.as({ cert: held.certificatePem, key: held.keyPem })
  const answer = await byItself.call('GET', path, { signal }).catch((error: unknown) => {
    if (!(error instanceof Failure) || error.kind !== 'denied' || !client.hasToken) throw error
    return client.call('GET', path, { signal })
  })
  const { suggestedWindow, reason } = answer.json<Partial<Told> | null>() ?? {}
  if (!isWindow(suggestedWindow)) throw new Failure('failed', 'The server suggests no window that can be read.')
  const pause = patienceOf(Number(answer.headers['retry-after'] ?? Number.NaN)) ?? usualMs
  const why = typeof reason === 'string' ? reason : null
  const askAt = new Date(now + pause).toISOString()
  return { serial: held.serial, window: suggestedWindow, reason: why, askAt, asked: 'answered' }
}

/** What was known goes on to hold. Whoever ends us has not been turned down. */
const withoutAnswer = (error: unknown, { serial }: Held, known: Advice | undefined, now: number): Required<Advised> => {
  if (!(error instanceof Failure)) throw error
  const isLater = error.kind === 'later'
  const pause = isLater ? (patienceOf(error.retryAfter ?? 0) ?? shortestMs) : usualMs
  const askAt = new Date(now + pause).toISOString()
  const asked = isLater ? error : 'answered'
  return { serial, window: known?.window ?? null, reason: known?.reason ?? null, askAt, asked }
}

/** Milliseconds, of what the server has said in seconds. */
const patienceOf = (seconds: number): number | undefined =>
  Number.isFinite(seconds) ? Math.min(Math.max(seconds * 1_000, shortestMs), longestMs) : undefined

const readAdvice = (text: string | undefined, serial: string): Advice | undefined => {
  if (text === undefined) return undefined
  try {
    const advice = JSON.parse(text) as Advice
    const isSound = advice.serial === serial && (advice.window === null || isWindow(advice.window))
    return isSound && !Number.isNaN(Date.parse(advice.askAt)) ? advice : undefined
  } catch {
    return undefined
  }
}

type Window = NonNullable<Advice['window']>

/** What the server says, as far as it is what it should be. */
interface Told {
  readonly suggestedWindow: unknown
  readonly reason: unknown
}

const isWindow = (window: unknown): window is Window => {
  const { start, end } = (window ?? {}) as Readonly<Record<string, unknown>>
  return typeof start === 'string' && typeof end === 'string' && Date.parse(end) >= Date.parse(start)
}

const adviceName = 'renewal-info.json'
const shortestMs = 60_000
/** RFC 9773 4.3. */
const usualMs = 6 * 3_600_000
const longestMs = 24 * 3_600_000

/** When a certificate is renewed: arithmetic of times, and nothing else. */

import { Failure } from '../../lib/failure.ts'
import { parseDuration } from '../../policy/duration.ts'
import { hasEnded } from '../../policy/validity.ts'
import { askedMs } from '../rejected.ts'

/** How much is left when it is time: a share of the whole life, or milliseconds. */
export type RenewBefore = { readonly share: number } | { readonly ms: number }

export interface Life {
  readonly notBefore: Date
  readonly notAfter: Date
}

/** `30%` or `720h`. Throws a usage failure. */
export const readRenewBefore = (text: string): RenewBefore => {
  const share = /^([1-9][0-9]?)%$/.exec(text)?.[1]
  if (share !== undefined) return { share: Number(share) / 100 }
  if (/^[1-9][0-9]{0,9}[smhd]$/.test(text)) return { ms: parseDuration(text) * 1_000 }
  throw new Failure('usage', `--renew-before ${text} is neither a share of the life like 30% nor a time like 720h.`)
}

/**
 * From when on it is to be renewed. Where more is to be left than there ever is, half of the life has to do: a
 * certificate that is due from its first second on would be asked for again and again.
 */
export const dueAt = ({ notBefore, notAfter }: Life, before: RenewBefore): Date => {
  const life = notAfter.getTime() - notBefore.getTime()
  const wanted = 'share' in before ? life * before.share : before.ms
  return new Date(notAfter.getTime() - (wanted < life ? wanted : life / 2))
}

/** What is odd about one that is new, and why that may be; undefined if nothing is. Whoever asks by a timer asks again each time. */
export const oddity = (life: Life, before: RenewBefore | undefined, now: Date): string | undefined => {
  const isWrong = 'this clock or the server’s is wrong'
  if (now < life.notBefore) return `it is yet to begin: ${isWrong}`
  if (hasEnded(life.notAfter, now)) return `it has ended: ${isWrong}`
  if (before === undefined || now < dueAt(life, before)) return undefined
  return `it is to be renewed already: ${isWrong}, or --renew-before leaves it no time`
}

/**
 * A moment for it that differs from certificate to certificate, so that what was issued at once is not renewed at once:
 * up to half of what is to be left before `dueAt`, so that it stays left. It comes from the certificate's own digest, which
 * is as good as chance and the same after a restart.
 */
export const momentOf = (life: Life, before: RenewBefore, certificateDigest: Buffer): Date => {
  const due = dueAt(life, before).getTime()
  const room = Math.min((life.notAfter.getTime() - due) / 2, (due - life.notBefore.getTime()) / 2)
  return new Date(due - room * (certificateDigest.readUInt32BE(0) / 2 ** 32))
}

export interface Pause {
  /** How many tries have failed, this one included. */
  readonly failures: number
  /** Milliseconds of the whole life, where there is a certificate. */
  readonly life: number | undefined
  /** Seconds, where the server has said so. */
  readonly retryAfter: number | undefined
  /** Within 0 and 1. */
  readonly chance: number
}

/**
 * Milliseconds until the next try: doubled each time, never longer than five minutes or the fortieth part of a life, and
 * spread by half, so that those who lost their server together do not come back together. What the server asks for is
 * waited for, but no longer than an hour.
 */
export const pauseOf = ({ failures, life, retryAfter, chance }: Pause): number => {
  const cap = Math.max(firstPauseMs, Math.min(longestPauseMs, (life ?? Number.POSITIVE_INFINITY) / 40))
  const own = Math.min(cap, firstPauseMs * 2 ** Math.min(failures - 1, 20))
  return Math.max(own, askedMs(retryAfter)) * (1 + chance / 2)
}

const firstPauseMs = 2_000
const longestPauseMs = 300_000

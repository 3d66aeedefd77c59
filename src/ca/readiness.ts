/** Whether this instance can issue: each part is asked, and each answer has a reason. */
import { withDeadline } from '../lib/timeout.ts'
import { hasEnded } from '../policy/validity.ts'
import type { Health, HealthCheck } from './health.ts'
import type { Issuer } from './issuers/issuer.ts'
import type { Issuers } from './issuers/issuers.ts'

export interface ReadinessDeps {
  readonly issuers: Issuers
  /** The database's clock, which dates what is issued. */
  readonly now: () => Date
  /** Undefined, or why the database takes no records. Also refreshes what is known of its clock. */
  readonly databaseFault: () => Promise<string | undefined>
  readonly clockFault: () => string | undefined
  /** When the database's clock was read last, by the clock of this machine. */
  readonly clockReadAt: () => Date
  /** Why no checkpoint can be signed, or kept. */
  readonly rollFault: () => Promise<string | undefined>
  /** That somebody has seen another roll. */
  readonly rollWarning: () => string | undefined
  /** Why relying parties may soon find no list that they can use. */
  readonly crlFault: () => string | undefined
  /** What somebody should see to before long. */
  readonly crlWarning: () => string | undefined
  readonly queue: () => { readonly pending: number; readonly bound: number }
  readonly isStopping: () => boolean
}

export const openHealth = (deps: ReadinessDeps): Health => {
  let answer: { readonly checks: Promise<readonly HealthCheck[]>; readonly at: number } | undefined
  return {
    ready: () => {
      const now = performance.now()
      if (!answer || now - answer.at > rememberMs) answer = { checks: ask(deps), at: now }
      return answer.checks
    },
  }
}

const ask = async (deps: ReadinessDeps): Promise<readonly HealthCheck[]> => {
  const readBefore = deps.clockReadAt()
  const database = await inTime(deps.databaseFault())
  const isRead = deps.clockReadAt() !== readBefore
  const [key, roll] = await Promise.all([inTime(keyFault(deps.issuers, deps.now())), inTime(deps.rollFault())])
  const { pending, bound } = deps.queue()
  return [
    check('database', database, 'takes records'),
    check('key', key, 'every active issuer signs'),
    check('clock', deps.clockFault(), isRead ? 'agrees with the database' : unreadSince(readBefore)),
    check('crls', deps.crlFault(), deps.crlWarning() ?? 'are published and fresh'),
    check('roll', roll, deps.rollWarning() ?? 'is whole, and its checkpoints are signed'),
    check(
      'queue',
      deps.isStopping() ? 'the service is stopping' : pending >= bound ? `${pending} requests wait` : undefined,
      `${pending} of ${bound} places are taken`,
    ),
  ]
}

/** No fault of the clock, nor known to be none: the database, which was not read, has the fault. */
const unreadSince = (readAt: Date): string =>
  `is not known to agree with the database, whose clock was last read at ${readAt.toISOString()}`

const check = (name: HealthCheck['name'], fault: string | undefined, fine: string): HealthCheck => ({
  name,
  ok: fault === undefined,
  reason: fault ?? fine,
})

/** One that is known to have failed is tried again by its own job, and nobody waits for that here. */
const keyFault = async (issuers: Issuers, now: Date): Promise<string | undefined> => {
  const active = issuers.all().filter(({ state }) => state === 'active')
  if (active.length === 0) return 'there is no active issuer'
  const faults = await Promise.all(
    active.map(async ({ issuer }) => ({
      name: issuer.name,
      fault: ended(issuer, now) ?? issuer.fault ?? (await issuer.probe()),
    })),
  )
  const broken = faults.filter(({ fault }) => fault !== undefined)
  return broken.length === 0 ? undefined : broken.map(({ name, fault }) => `${name}: ${fault}`).join('; ')
}

/** Its key signs for ever, and nothing that it signs holds any more. */
const ended = ({ bounds: { notAfter } }: Issuer, now: Date): string | undefined =>
  hasEnded(notAfter, now)
    ? `its certificate ended at ${notAfter.toISOString()}: bring and activate another one, or halt it`
    : undefined

/** A part that does not answer is a part that does not work. */
const inTime = async (fault: Promise<string | undefined>): Promise<string | undefined> => {
  const told = fault.catch((error: unknown) => (error instanceof Error ? error.message : 'it failed'))
  const answer = await withDeadline(told, 1_000)
  return answer === 'late' ? 'no answer within a second' : answer
}

const rememberMs = 2_000

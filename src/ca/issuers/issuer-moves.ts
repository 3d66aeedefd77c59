/** The moves of an issuer from state to state: a table of steps, each with guards that say why they refuse. Nothing but decisions. */
import { Problem, type Violation } from '../../errors.ts'
import { hasEnded } from '../../policy/validity.ts'
import type { IssuerMoved } from '../../tlog/entries.ts'
import type { KeyAlgorithmId } from '../../x509/algorithms.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import type { IssuerState } from '../records.ts'
import type { Now } from '../revocation/revoke.ts'
import { waysUp } from './bundle.ts'
import type { IssuerRow } from './issuer.ts'

export const moves = ['activate', 'retire', 'close', 'discard', 'end', 'halt'] as const
export type Move = (typeof moves)[number]

export interface World {
  readonly now: Now
  readonly stagingMs: number
  /** Whether certificates of the issuer are still valid; where that is on record, until when the last one is. */
  readonly living: boolean | Date
  readonly keyFault: string | undefined
  /** By a CA above: whoever looks at its list takes nothing that is signed. */
  readonly isRevoked: boolean
}

/** An issuer that is to move, among all of its authority. */
interface Moving extends World {
  readonly issuer: IssuerRow
  readonly siblings: readonly IssuerRow[]
}

export interface Decided {
  readonly issuer: IssuerRow
  readonly to: IssuerState
  readonly type: IssuerMoved['type']
}

/** Undefined, or why the move must not be made. */
type Guard = (moving: Moving) => string | undefined

interface Step {
  readonly from: readonly IssuerState[]
  readonly to: IssuerState
  readonly type: IssuerMoved['type']
  readonly guards: Readonly<Record<string, Guard>>
}

const steps: Readonly<Record<Move, Step>> = {
  activate: {
    from: ['staged', 'retiring'],
    to: 'active',
    type: 'issuer.activated',
    guards: {
      'issuer.published': ({ issuer, siblings, now, stagingMs }) => {
        const until = new Date(issuer.since.getTime() + stagingMs)
        // Nobody is served until it is active, or by one that has expired, so nobody is helped by waiting.
        if (issuer.state !== 'staged' || !siblings.some(servesAt(now())) || until <= now()) return undefined
        return `its chain must have been published until ${until.toISOString()}`
      },
      'issuer.valid': ({ issuer, now }) =>
        waysUp(issuer).some((way) => [issuer.certificate, ...way].every((der) => isValidAt(der, now())))
          ? undefined
          : 'a certificate of its chain is expired or not valid yet',
      'issuer.revoked': ({ isRevoked }) => (isRevoked ? 'a CA above has revoked it: bring another one' : undefined),
      'issuer.key': ({ keyFault }) => keyFault,
    },
  },
  retire: {
    from: ['active'],
    to: 'retiring',
    type: 'issuer.retiring',
    guards: {
      'issuer.last': ({ siblings, now }) =>
        siblings.some(servesAt(now()))
          ? undefined
          : 'no other issuer of its authority is active and has not expired: activate another one, or halt it',
    },
  },
  close: { from: ['retiring'], to: 'crl-only', type: 'issuer.closed', guards: {} },
  discard: { from: ['staged'], to: 'retired', type: 'issuer.discarded', guards: {} },
  end: {
    from: ['retiring', 'crl-only'],
    to: 'retired',
    type: 'issuer.retired',
    guards: {
      'issuer.living': ({ living }) => {
        if (!living) return undefined
        const last = living instanceof Date ? `, and the last one is valid until ${living.toISOString()}` : ''
        return `certificates that it signed have not expired yet${last}`
      },
    },
  },
  halt: { from: ['staged', 'active', 'retiring'], to: 'crl-only', type: 'issuer.halted', guards: {} },
}

/**
 * What moves: the issuer, and with one that is activated the one in whose place it comes, of the same type of key.
 * Throws `issuer.not_found`, and `issuer.state` with all that stands against it.
 */
export const decideMove = (
  issuers: readonly IssuerRow[],
  name: string,
  move: Move,
  world: World,
): readonly Decided[] => {
  const issuer = issuers.find((candidate) => candidate.name === name)
  if (!issuer) throw noIssuer(name)
  const { from, to, type, guards } = steps[move]
  const siblings = issuers.filter(({ authority, name: other }) => authority === issuer.authority && other !== name)
  const reasons: Record<string, string | undefined> = from.includes(issuer.state)
    ? Object.fromEntries(Object.entries(guards).map(([check, guard]) => [check, guard({ ...world, issuer, siblings })]))
    : { 'issuer.state': `it is ${issuer.state}, and this move begins at ${from.join(' or ')}` }
  const violations = Object.entries(reasons).flatMap(([check, reason]): Violation[] =>
    reason === undefined ? [] : [{ check, field: '/move', value: move, reason }],
  )
  if (violations.length > 0)
    throw new Problem('issuer.state', `The issuer ${name}: ${violations.map(({ reason }) => reason).join('; ')}.`, {
      violations,
    })
  const replaced = move === 'activate' ? siblings.filter(isReplacedBy(issuer)) : []
  return [
    { issuer, to, type },
    ...replaced.map((sibling) => ({ issuer: sibling, to: 'retiring', type: 'issuer.retiring' }) as const),
  ]
}

const isReplacedBy =
  (issuer: IssuerRow) =>
  (other: IssuerRow): boolean =>
    other.state === 'active' && keyTypeOf(other) === keyTypeOf(issuer)

const keyTypeOf = ({ certificate }: IssuerRow): KeyAlgorithmId =>
  parsePublicKey(parseCertificate(certificate).facts.spki).algorithm.id

const servesAt =
  (now: Date) =>
  ({ state, certificate }: IssuerRow): boolean =>
    state === 'active' && isValidAt(certificate, now)

const isValidAt = (der: Buffer, now: Date): boolean => {
  const { notBefore, notAfter } = parseCertificate(der).facts
  return notBefore <= now && !hasEnded(notAfter, now)
}

export const noIssuer = (name: string): Problem =>
  new Problem('issuer.not_found', `There is no issuer, and no request for one, called ${JSON.stringify(name)}.`)

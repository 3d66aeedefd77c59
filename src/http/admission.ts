/**
 * Who is let in, and how much of it: the address first, while nobody knows who asks; then the caller; then what its grants
 * allow. Everything that was taken is given back when the answer is out, or a while after its connection has gone.
 */
import { hash } from 'node:crypto'
import type { Socket } from 'node:net'

import type { FastifyRequest } from 'fastify'

import type { Caller, Identities } from '../ca/access/access.ts'
import type { Leave, PrincipalLimits } from '../ca/access/principal-limits.ts'
import { isProblem } from '../errors.ts'
import type { Metrics } from '../metrics.ts'
import { type AddressLimits, type Entry, openAddresses } from './addresses.ts'
import { type AccessRule, authorise, type Shown, shownBy } from './auth.ts'
import { handlerTimeout, pageRoom } from './bounds.ts'
import { openLastKnown } from './last-known.ts'
import { openPeers, type Peer, type ProxySettings } from './peers.ts'
import { openRoom, type Room } from './room.ts'

export interface AdmissionDeps {
  readonly identities: Identities
  readonly principalLimits: PrincipalLimits
  readonly addressLimits: AddressLimits
  readonly proxies: ProxySettings
  /** How many instances share the limits of addresses. */
  readonly replicas: () => number
  readonly metrics: Pick<Metrics, 'authenticated' | 'limited'>
  readonly clock: () => Date
}

export interface Admission {
  /** Resolves to the caller whom the rule lets in, null where nobody need say who they are. Throws auth.* and limit.*. */
  admit(request: FastifyRequest, rule: AccessRule): Promise<Caller | null>
  /** For paths that there are not: nobody is asked who they are. Throws limit.address_*. */
  admitAnyone(request: FastifyRequest): void
}

/** What one request has taken. */
export class Visit {
  readonly entry: Entry
  /** For answers that wait to be read. */
  readonly pages: Room
  #leaves: Leave[] = []
  #isOver = false

  constructor(entry: Entry, pages: Room, leave: Leave) {
    this.entry = entry
    this.pages = pages
    this.#leaves.push(leave)
  }

  /** Given back at once where it is over already. */
  add(leave: Leave): void {
    if (this.#isOver) leave()
    else this.#leaves.push(leave)
  }

  end(): void {
    this.#isOver = true
    for (const leave of this.#leaves.splice(0)) leave()
  }
}

export const openAdmission = (deps: AdmissionDeps): Admission => {
  const { identities, principalLimits, metrics } = deps
  const peerOf = openPeers(deps.proxies)
  const addresses = openAddresses({
    limits: deps.addressLimits,
    replicas: deps.replicas,
    now: () => performance.now(),
    clock: deps.clock,
    limited: metrics.limited,
  })
  const pages = openRoom(pageRoom)
  const lastKnown = openLastKnown<Caller | null>(() => performance.now())
  const visits = new WeakMap<Socket, Visit[]>()

  /** A connection that breaks ends no work: whoever breaks many has as much under way as before. */
  const visitsOf = (socket: Socket): Visit[] => {
    const known = visits.get(socket)
    if (known) return known
    const open: Visit[] = []
    visits.set(socket, open)
    socket.once('close', () => {
      if (open.length === 0) return
      const end = (): void => {
        for (const visit of open.slice()) visit.end()
      }
      setTimeout(end, handlerTimeout).unref()
    })
    return open
  }

  const visit = (request: FastifyRequest, peer: Peer): Visit => {
    const entry = addresses.enter(peer.address)
    const open = visitsOf(request.raw.socket)
    const begun: Visit = new Visit(entry, pages, () => {
      addresses.leave(entry)
      open.splice(open.indexOf(begun), 1)
    })
    open.push(begun)
    request.visit = begun
    return begun
  }

  const identify = async (entry: Entry, rule: AccessRule, shown: Shown): Promise<Caller | null> => {
    const credentials = (): string => digestOf(shown)
    const kind = kindOf(shown)
    if (rule !== 'open' && kind !== 'none') addresses.assertTrusted(entry, credentials)
    try {
      const caller = await authorise(identities, rule, shown)
      if (caller) {
        metrics.authenticated(kind, 'accepted')
        addresses.succeeded(entry, caller, credentials)
      }
      return caller
    } catch (error) {
      if (isProblem(error)) metrics.authenticated(kind, error.code)
      if (kind !== 'none' && isFailed(error)) addresses.failed(entry, credentials)
      throw error
    }
  }

  return {
    admitAnyone: (request) => {
      request.peer = peerOf(request)
      visit(request, request.peer)
    },
    admit: async (request, rule) => {
      const peer = peerOf(request)
      request.peer = peer
      const shown = shownBy(request)
      if (request.routeOptions.config.probe && kindOf(shown) === 'none') return null
      const begun = visit(request, peer)
      const look = (): Promise<Caller | null> => identify(begun.entry, rule, shown)
      const { url = '', config } = request.routeOptions
      const { value: caller, isOld } = config.outlivesDatabase
        ? await lastKnown.of(`${url} ${digestOf(shown)}`, look)
        : { value: await look(), isOld: false }
      const leave = isOld || !caller ? undefined : principalLimits.enter(caller)
      if (leave) begun.add(leave)
      return caller
    },
  }
}

/** Whoever shows nothing, or what nobody asks for, has guessed nothing; a certificate of somebody else's making is a guess. */
const isFailed = (error: unknown): boolean =>
  isProblem(error) && ((error.kind.status === 401 && error.code !== 'auth.missing') || error.code === 'renewal.foreign')

type CredentialKind = 'none' | 'token' | 'jwt' | 'certificate'

/** As it looks: whether it is one is found out later. */
const kindOf = ({ header, certificate }: Shown): CredentialKind => {
  if (header === undefined) return certificate === undefined ? 'none' : 'certificate'
  return header.includes('.') ? 'jwt' : 'token'
}

/** Of a token itself, however it is written in its field. */
const digestOf = ({ header, certificate }: Shown): string =>
  hash('sha256', header?.replace(/^Bearer +/i, '').trimEnd() ?? certificate ?? '', 'base64')

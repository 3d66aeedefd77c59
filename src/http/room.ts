/**
 * Room for large bodies: whoever may send one could send thousands at once, each a piece at a time, and all of them would be in
 * memory until the last is there.
 */
import type { FastifyRequest } from 'fastify'

import { Problem } from '../errors.ts'
import { callerOf } from './auth.ts'

export interface RoomBounds {
  /** Octets of one body. */
  readonly body: number
  /** Octets of the bodies of one principal at once, and of all together. */
  readonly ofOne: number
  readonly ofAll: number
}

/**
 * For `onRequest`: takes room for a body as long as the request says, or as long as it may be, until it is answered. Throws
 * `overload.queue` where there is none.
 */
export const openRoom = ({ body, ofOne, ofAll }: RoomBounds): ((request: FastifyRequest) => Promise<void>) => {
  const taken = new Map<string, number>()
  let all = 0
  const take = (principal: string, octets: number): void => {
    const own = (taken.get(principal) ?? 0) + octets
    all += octets
    if (own > 0) taken.set(principal, own)
    else taken.delete(principal)
  }
  return async (request) => {
    const { principal } = callerOf(request)
    const octets = Math.min(body, Number(request.headers['content-length'] ?? body))
    const own = taken.get(principal) ?? 0
    if (own + octets > ofOne) throw full(`${own} octets of your bodies`)
    if (all + octets > ofAll) throw full(`${all} octets of bodies`)
    take(principal, octets)
    request.visit?.add(() => take(principal, -octets))
  }
}

const full = (what: string): Problem => new Problem('overload.queue', `${what} are under way here.`, { retryAfter: 1 })

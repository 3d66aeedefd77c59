/**
 * Room in memory for what lasts as long as the other end likes: large bodies, sent a piece at a time, and large answers that nobody
 * reads. Whoever may have one of them could have thousands at once.
 */
import type { ServerResponse } from 'node:http'

import type { Leave } from '../ca/access/principal-limits.ts'
import { Problem, type ProblemCode } from '../errors.ts'

export interface RoomBounds {
  /** What they are, as a refusal tells it. */
  readonly what: string
  /** Octets of one principal at once, or of one address where nobody says who it is, and of all together. */
  readonly ofOne: number
  readonly ofAll: number
}

export interface Room {
  /** Throws `limit.room` where one has all of its own, and `overload.queue` where all have all. To leave twice is to leave once. */
  take(whose: string, octets: number): Leave
}

/** Leaves when the answer is out or its connection is gone; at once where it is gone already, and will not say so again. */
export const leaveWith = (answer: Pick<ServerResponse, 'destroyed' | 'once'>, leave: Leave): void => {
  if (answer.destroyed) leave()
  else answer.once('close', leave)
}

export const openRoom = ({ what, ofOne, ofAll }: RoomBounds): Room => {
  const taken = new Map<string, number>()
  let all = 0
  const add = (whose: string, octets: number): void => {
    const own = (taken.get(whose) ?? 0) + octets
    all += octets
    if (own > 0) taken.set(whose, own)
    else taken.delete(whose)
  }
  return {
    take: (whose, octets) => {
      const own = taken.get(whose) ?? 0
      const refuse = (code: ProblemCode, found: string): never => {
        throw new Problem(code, `${found} are under way here.`, { retryAfter: 1 })
      }
      // What one does alone says nothing of how the service is.
      if (own + octets > ofOne) refuse('limit.room', `${own} octets of your ${what}`)
      if (all + octets > ofAll) refuse('overload.queue', `${all} octets of ${what}`)
      add(whose, octets)
      let isTaken = true
      return () => {
        if (isTaken) add(whose, -octets)
        isTaken = false
      }
    },
  }
}

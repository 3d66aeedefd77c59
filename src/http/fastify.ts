/** Fastify as it is used here: its application, and what routes and requests carry. */

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'

import type { Caller } from '../ca/access/access.ts'
import type { ProblemCode } from '../errors.ts'
import type { Visit } from './admission.ts'
import type { AccessRule } from './auth.ts'
import type { MediaType } from './media.ts'
import type { Peer } from './peers.ts'

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call. A route without it is not registered. */
    access?: AccessRule
    /** Media types of the body; none: no body is taken. */
    accepts?: readonly MediaType[]
    /** Problem codes of this route, beside those that its shape implies. */
    problems?: readonly ProblemCode[]
    /** What a body beyond the bound is called here. */
    tooLarge?: ProblemCode
    /** Adds to the load that is bounded by `limits.queue`. */
    queued?: boolean
    /**
     * The handler keeps the deadline itself: that costs a fifth of what Fastify's way does, and does not cut off an
     * answer that is on its way to a slow client.
     */
    ownDeadline?: boolean
    /** Further representations of the successful answer. */
    offers?: readonly MediaType[]
    /** Whoever asks without credentials is never limited: a probe that was refused would restart what is well. */
    probe?: boolean
    /** Needs no database itself: whoever was let in within the last day is let in while that is away. */
    outlivesDatabase?: boolean
    /** Quiet routes are logged at debug: probes come every second. */
    quiet?: boolean
  }
  interface FastifyRequest {
    caller: Caller | null
    /** Who has proved who they are, let in or not: for the log alone. */
    met: Caller | null
    /** The pattern of the route, for the log and for metrics; '' where there is none. */
    pattern: string
    problem: ProblemCode | null
    /** For the log: in which of several ways it came to that problem. */
    reason: string | null
    /** The other end; known once the request comes to be admitted. */
    peer: Peer | null
    /** What it has taken of limits. */
    visit: Visit | null
    /** performance.now() when it was asked who sends it; 0 where nobody asked. */
    admittedAt: number
    /** performance.now() when an issuance was done; 0 elsewhere. */
    issuedAt: number
  }
}

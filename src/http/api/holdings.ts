/** What the calls on principals and on what they hold have in common: grants, tokens, credentials. */

import { own } from '../../ca/own.ts'
import { Problem, type ProblemCode } from '../../errors.ts'
import { closed, type Static, type TSchema, Type } from '../../lib/schema.ts'
import { callerOf } from '../auth.ts'
import type { App } from '../fastify.ts'
import { type ById, formed, PrincipalName, Time } from './schemas.ts'

export const mayRead = ['auditor', 'admin'] as const
export const tags = ['access']

export const NullableTime = Type.Union([Time, Type.Null()])
export const HoldingLabel = formed('must have no control characters, and no halves of characters', {
  minLength: 1,
  maxLength: 128,
  pattern: '^[^\\u0000-\\u001f\\u007f\\uD800-\\uDFFF]*$',
  description: 'what it is for',
})
export const OfPrincipal = Type.Object({ principal: Type.Optional(PrincipalName) }, closed)
export const ByName = Type.Object({ name: PrincipalName }, closed)

interface ListCall {
  readonly operationId: string
  readonly summary: string
  readonly description: string
  readonly querystring?: typeof OfPrincipal
  readonly row: TSchema
  /** All there are, or those of one principal. */
  readonly rows: (principal: string | undefined) => Promise<readonly object[]>
}

/** A list as a whole: those who may ask are few. */
export const listRoute = (app: App, url: string, { row, rows, ...schema }: ListCall): void => {
  app.get<{ Querystring: Static<typeof OfPrincipal> }>(
    url,
    {
      config: { access: [...mayRead] },
      schema: { ...schema, tags, response: { 200: Type.Object({ items: Type.Array(row) }, closed) } },
    },
    async (request) => ({ items: await rows(request.query.principal) }),
  )
}

interface EndCall {
  readonly operationId: string
  readonly summary: string
  readonly description: string
  readonly params: typeof ById | typeof ByName
  readonly problems: readonly ProblemCode[]
  readonly end: (key: string, by: string) => Promise<void>
}

/** What an administrator ends stays ended. */
export const endRoute = (app: App, url: string, { problems, end, ...schema }: EndCall): void => {
  app.delete<{ Params: Readonly<Record<string, string>> }>(
    url,
    {
      config: { access: ['admin'], problems },
      schema: { ...schema, tags, response: { 204: Type.Null({ description: 'Done' }) } },
    },
    async (request, reply) => {
      const [key = ''] = Object.values(request.params)
      await end(key, callerOf(request).principal)
      return reply.code(204).send()
    },
  )
}

/** Whoever had its token would be the service to everybody who reads the record. */
export const assertNotOwn = (name: string): void => {
  if (name === own.principal) throw new Problem('state.reserved', `The principal "${name}" is the service itself.`)
}

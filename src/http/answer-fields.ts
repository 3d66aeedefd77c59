/** Header fields of answers that a client acts on, for the description; which answers have which follows from their call. */
import type { RouteOptions } from 'fastify'

import type { ProblemCode } from '../errors.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The statuses with which an answer of this call has these: for the description only. */
    tells?: Partial<Record<AnswerField, readonly number[]>>
  }
}

export type AnswerField = keyof typeof words

/** As a schema of an answer takes them; undefined where there are none. `codes` are of the problems that the answer may be. */
export const fieldsOf = (
  route: Pick<RouteOptions, 'config' | 'schema'>,
  status: number,
  codes: readonly ProblemCode[],
): Readonly<Record<string, object>> | undefined => {
  const names = Object.keys(words) as AnswerField[]
  const has = names.filter((name) => route.config?.tells?.[name]?.includes(status) || rules[name](route, status, codes))
  return has.length === 0
    ? undefined
    : Object.fromEntries(has.map((name) => [name, { type: 'string', description: words[name] }]))
}

const words = {
  ETag: 'names this very content; what If-Match and If-None-Match take',
  Link: 'the page after this one, where there is one, as its URL in angle brackets with rel="next"',
  Location: 'where it can be read from now on',
  'Retry-After': 'seconds to wait before it is worth asking again',
  'WWW-Authenticate': 'which credentials are wanted (RFC 6750 3)',
}

type Rule = (route: Pick<RouteOptions, 'config' | 'schema'>, status: number, codes: readonly ProblemCode[]) => boolean

const rules: Readonly<Record<AnswerField, Rule>> = {
  // Whoever looks at If-None-Match has told a tag before.
  ETag: ({ config }, status) => [200, 201, 304].includes(status) && config?.headers?.['If-None-Match'] !== undefined,
  Link: ({ schema }, status) => status === 200 && hasCursor(schema?.querystring),
  Location: () => false,
  'Retry-After': (_route, status) => status === 429 || status === 503,
  'WWW-Authenticate': (_route, status, codes) => status === 401 || codes.includes('auth.forbidden'),
}

const hasCursor = (query: unknown): boolean =>
  (query as { readonly properties?: { readonly cursor?: unknown } } | undefined)?.properties?.cursor !== undefined

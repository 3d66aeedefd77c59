/** Queries, where their schema alone would tell less than what is wrong, or does not see it. */
import type { FastifyRequest } from 'fastify'

import { Problem } from '../errors.ts'
import { plainName, type SchemaError, schemaProblem } from './problem.ts'

/** Throws `request.malformed` for what a query says twice: both can't be heeded. */
export const assertSingle = ({ query }: Pick<FastifyRequest, 'query'>): void => {
  const doubled = Object.entries(query as object).filter(([, value]) => Array.isArray(value))
  if (doubled.length === 0) return
  const violations = doubled.slice(0, mostTold).map(([name]) => ({
    check: 'request.query',
    field: plainName.test(name) ? `/${name}` : '',
    value: '',
    reason: 'occurs more than once',
  }))
  throw new Problem('request.malformed', 'A parameter of the query occurs more than once.', { violations })
}

/**
 * Throws `request.malformed` where a query has a % that begins no octet, or octets that are no UTF-8: these would be taken for the
 * very letters that they are, and a search would find nothing where nothing was asked for.
 */
export const assertDecodable = (url: string): void => {
  const start = url.indexOf('?')
  if (start === -1 || !url.includes('%', start)) return
  try {
    decodeURIComponent(url.slice(start))
  } catch {
    throw new Problem('request.malformed', 'The query is not percent-encoded UTF-8 (RFC 3986 2.1).')
  }
}

/** Before it makes a body together with raw octets: what is wrong with it would be told as a fault of the body. */
export const assertQuery = (request: FastifyRequest): void => {
  const check = request.getValidationFunction('querystring')
  if (check?.(request.query) === false) throw schemaProblem((check.errors ?? []) as SchemaError[], 'querystring')
  const { required = [] } = (request.routeOptions.schema?.body ?? {}) as { readonly required?: readonly string[] }
  const missing = required.filter((name) => name !== 'csr' && (request.query as object)[name as never] === undefined)
  const errors = missing.map((name) => ({ keyword: 'required', instancePath: '', params: { missingProperty: name } }))
  if (errors.length > 0) throw schemaProblem(errors, 'querystring')
}

const mostTold = 20

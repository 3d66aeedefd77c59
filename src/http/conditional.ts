/** Conditions (RFC 9110 13.1): whether the client has already what it asks for, and what a change hangs on. */
import type { IncomingHttpHeaders } from 'node:http'

import type { FastifyReply, FastifyRequest } from 'fastify'

import { Problem } from '../errors.ts'

/** Octets of a representation, and what tells it from others. */
export interface Representation {
  readonly octets: Buffer
  readonly type: string
  /** With its quotes. */
  readonly tag: string
  readonly modified?: Date
  /** There may be another one of that second, so that only the tag tells them apart (RFC 9110 8.8.2.2, 13.1.3). */
  readonly sharesDate?: boolean
  readonly cacheControl: string
}

/** Sends it, or 304 where the client has it already. */
export const sendFresh = (
  request: Pick<FastifyRequest, 'headers' | 'method'>,
  reply: FastifyReply,
  { octets, type, tag, modified, sharesDate, cacheControl }: Representation,
): FastifyReply => {
  reply.header('etag', tag).header('cache-control', cacheControl)
  if (modified) reply.header('last-modified', modified.toUTCString())
  if (!isUnchanged(request.headers, { tag, ...(modified && !sharesDate && { modified }) }))
    return reply.type(type).send(octets)
  // Fastify takes no body for one of no octets, and says so to HEAD; caches would believe it (RFC 9110 8.6).
  return reply.code(304).send(request.method === 'HEAD' ? octets : undefined)
}

/** `tag` is an entity tag with its quotes; If-None-Match is compared weakly (8.8.3.2), and outweighs the date. */
export const isUnchanged = (
  headers: IncomingHttpHeaders,
  { tag, modified }: { readonly tag: string; readonly modified?: Date },
): boolean => {
  const wanted = headers['if-none-match']
  if (wanted !== undefined)
    return wanted.trim() === '*' || [...wanted.matchAll(entityTag)].some(([found]) => found === tag)
  const since = headers['if-modified-since']
  if (since === undefined || modified === undefined || !httpDate.test(since)) return false
  return Math.floor(modified.getTime() / 1000) * 1000 <= Date.parse(since)
}

/**
 * Throws `request.malformed` where a change hangs on what its call does not read (`read` names what it does): it would be made
 * whether or not that holds, and of a part as if it were the whole (RFC 9110 13.1.1, 14.5).
 */
export const assertHeeded = (
  { method, headers }: Pick<FastifyRequest, 'method' | 'headers'>,
  read: Readonly<Record<string, string>> = {},
): void => {
  if (method === 'GET' || method === 'HEAD') return
  const passed = conditions.find((name) => headers[name.toLowerCase()] !== undefined && read[name] === undefined)
  if (passed) throw new Problem('request.malformed', `This call does not heed ${passed}: send it without.`)
}

const conditions = ['If-Match', 'If-None-Match', 'Content-Range']

/** Those of If-Match that can match: it compares strongly (RFC 9110 13.1.1). Without their quotes; none of what is no list. */
export const strongTags = (list: string): readonly string[] =>
  /^[\t ,]*$/.test(list.replaceAll(anyTag, ''))
    ? [...list.matchAll(anyTag)].flatMap(([, weak, tag = '']) => (weak === undefined ? [tag] : []))
    : []

const anyTag = /(W\/)?"([\x21\x23-\x7e]*)"/g
/** Without what would make it a weak one. */
const entityTag = /"[\x21\x23-\x7e]*"/g
/** IMF-fixdate, the one form that is still sent (5.6.7). */
const httpDate = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/

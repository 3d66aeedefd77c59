/** The description of the API, to be had by anyone. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import { descriptionRoom } from './bounds.ts'
import type { App } from './fastify.ts'
import { leaveWith, openRoom } from './room.ts'

/**
 * It is written down when it is first asked for, and kept: else each answer would be a third of a megabyte of its own, and some
 * milliseconds in which nobody else is served. What is JSON is YAML 1.2 as well.
 *
 * TLS keeps a copy of an answer until it is read, and the room for it as long as the connection lasts (measured: 370 KB of this
 * one, 140 KB of a file that is sent in pieces). So there is room for some at a time, and the connection ends with each.
 */
export const serveDescription = (app: App): void => {
  let octets: Buffer | undefined
  const room = openRoom(descriptionRoom)
  const bound = ({ peer }: FastifyRequest, reply: FastifyReply, kept: number): void => {
    reply.header('connection', 'close')
    leaveWith(reply.raw, room.take(peer?.address ?? '', kept))
  }
  const sendAs =
    (type: string) =>
    async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
      octets ??= Buffer.from(JSON.stringify(app.swagger()))
      bound(request, reply, octets.length)
      return reply.type(type).send(octets)
    }
  const boundFile = async (request: FastifyRequest, reply: FastifyReply): Promise<void> =>
    bound(request, reply, keptOfFile)
  app.addHook('onRoute', (route) => {
    const type = pages.get(route.url)
    if (type !== undefined) route.handler = sendAs(type)
    if (route.url.startsWith('/docs/')) route.onRequest = [...[route.onRequest ?? []].flat(), ignoreConditions]
    if (route.url.startsWith('/docs/static/')) route.onRequest = [...[route.onRequest ?? []].flat(), boundFile]
  })
  app.get('/openapi.json', { config: { access: 'open' }, schema: { hide: true } }, sendAs(json) as never)
}

/**
 * What serves the files of swagger-ui fails where a part is asked for that there is not, or a version: a part need not be given
 * (RFC 9110 14.2), and nothing is changed there (13.1.1).
 */
const ignoreConditions = ({ headers }: FastifyRequest, _reply: unknown, done: () => void): void => {
  for (const field of ['range', 'if-match', 'if-unmodified-since']) delete headers[field]
  done()
}

const json = 'application/json; charset=utf-8'
/** Of swagger-ui, which would make them anew for each who asks. */
const pages: ReadonlyMap<string, string> = new Map([
  ['/docs/json', json],
  ['/docs/yaml', 'application/yaml'],
])
/** Octets of a file of swagger-ui that may be in memory at once. */
const keptOfFile = 256 * 1024

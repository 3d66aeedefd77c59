/** The description of the API, to be had by anyone. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import type { App } from './app.ts'
import { descriptionRoom } from './bounds.ts'
import { leaveWith, openRoom } from './room.ts'

/**
 * It is written down when it is first asked for, and kept: else each answer would be a third of a megabyte of its own, and some
 * milliseconds in which nobody else is served. What is JSON is YAML 1.2 as well.
 */
export const serveDescription = (app: App): void => {
  let octets: Buffer | undefined
  // One buffer serves all, but TLS keeps a copy for each until it is read.
  const room = openRoom(descriptionRoom)
  const sendAs =
    (type: string) =>
    async ({ peer }: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
      octets ??= Buffer.from(JSON.stringify(app.swagger()))
      leaveWith(reply.raw, room.take(peer?.address ?? '', octets.length))
      return reply.type(type).send(octets)
    }
  app.addHook('onRoute', (route) => {
    const type = pages.get(route.url)
    if (type !== undefined) route.handler = sendAs(type)
    if (route.url.startsWith('/docs/')) route.onRequest = [...[route.onRequest ?? []].flat(), ignoreConditions]
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

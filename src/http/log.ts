/**
 * The roll as C2SP tlog-tiles: its newest checkpoint, the tree in tiles of 256 hashes, and the entries in bundles. Everything
 * but the checkpoint is the same for ever. Nothing is served that lies behind the checkpoint that is.
 */
import type { FastifyReply } from 'fastify'

import type { Checkpoints } from '../ca/log/checkpoints.ts'
import type { RollTiles } from '../ca/records.ts'
import { Problem } from '../errors.ts'
import { Type } from '../lib/schema.ts'
import { isRollFault } from '../tlog/fault.ts'
import { encodeTilePath, hashesPerTile, parseTilePath, type Tile } from '../tlog/tiles.ts'
import { type AccessRule, callerOf } from './auth.ts'
import { handlerTimeout, publicTileRoom } from './bounds.ts'
import { sendFresh } from './conditional.ts'
import { type Copies, openCopies } from './copies.ts'
import type { HttpDeps } from './deps.ts'
import type { App } from './fastify.ts'
import { noProxies, openPeers } from './peers.ts'
import { leaveWith, openRoom } from './room.ts'

export interface RollDeps {
  readonly checkpoints: Pick<Checkpoints, 'newest' | 'shown'>
  readonly tiles: RollTiles
}

/** Of those who have to be let in, it is on record who takes entries. */
export const auditedRollRoutes = (app: App, deps: Pick<HttpDeps, 'accesses' | 'log'> & RollDeps): void => {
  const { accesses, log } = deps
  const copies = openCopies({ record: (access) => accesses.record(access), log, now: () => performance.now() })
  const timer = setInterval(() => void copies.sweep(), sweepMs)
  timer.unref()
  app.addHook('onClose', async () => {
    clearInterval(timer)
    await copies.close()
  })
  rollRoutes(app, deps, ['auditor', 'admin'], copies)
}

export const rollRoutes = (
  app: App,
  { checkpoints, tiles }: RollDeps,
  access: AccessRule,
  copies?: Pick<Copies, 'note'>,
): void => {
  const room = openRoom(publicTileRoom)
  const peerOf = openPeers(noProxies)
  app.get(
    '/roll/checkpoint',
    {
      config: { access, problems: access === 'open' ? [] : rollProblems },
      handlerTimeout,
      schema: {
        operationId: 'readCheckpoint',
        summary: 'The newest checkpoint of the roll',
        description:
          'A signed note (c2sp.org/tlog-checkpoint), as text/plain: at most a second older than the newest entry; with cosignatures of witnesses, where there are any, some seconds.',
        tags: ['roll'],
        produces: ['text/plain'],
        response: { 200: Type.String({ description: 'A signed note' }) },
      },
    },
    async (_request, reply) =>
      (reply as FastifyReply)
        .type('text/plain; charset=utf-8')
        // A proxy may have verified the client: then there is no Authorization to keep a cache from storing it (RFC 9111 3.5).
        .header('cache-control', access === 'open' ? 'no-cache' : 'private, no-cache')
        .send((await checkpoints.shown()).note),
  )

  app.get(
    '/roll/tile/*',
    {
      config: {
        access,
        problems: access === 'open' ? [] : ['roll.not_found', ...rollProblems],
        headers: { 'If-None-Match': 'the ETag of the tile that is held: 304, for it never changes' },
      },
      handlerTimeout,
      schema: {
        operationId: 'readTile',
        summary: 'A tile of the roll, or a bundle of entries',
        description:
          'c2sp.org/tlog-tiles: `/roll/tile/<L>/<N>[.p/<W>]` and `/roll/tile/entries/<N>[.p/<W>]`, as application/octet-stream.',
        tags: ['roll'],
        produces: ['application/octet-stream'],
        response: { 200: Type.String({ description: 'Hashes of 32 octets each, or entries behind their lengths' }) },
      },
    },
    async (request, reply) => {
      const tile = readPath(access === 'open' ? request.url : request.url.replaceAll(/%2f/gi, '/'))
      // Another replica may have shown a checkpoint that this one has not come to yet.
      const { size } = await checkpoints.newest(endOf(tile))
      if (endOf(tile) > size)
        throw new Problem('roll.not_found', `The roll ends at ${size}, before the end of this tile.`)
      const octets = Buffer.from(await tiles.read(tile))
      if (copies && tile.level === 'entries' && request.method === 'GET')
        await copies.note(callerOf(request).principal, { ...spanOf(tile), size })
      if (access === 'open') leaveWith(reply.raw, room.take(peerOf(request).address, octets.length))
      return sendFresh(request, reply as FastifyReply, {
        octets,
        type: 'application/octet-stream',
        tag: `"/roll/${encodeTilePath(tile)}"`,
        cacheControl: `${access === 'open' ? 'public' : 'private'}, max-age=31536000, immutable`,
      })
    },
  )
}

/** Clients that were made from the description write each slash of a parameter as %2F; caches of everybody see one spelling only. */
const readPath = (url: string): Tile => {
  try {
    return parseTilePath(url.slice('/roll/'.length))
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Problem('roll.not_found', 'This is not the path of a tile.')
  }
}

const spanOf = ({ index, width }: Tile) => ({ from: index * hashesPerTile, before: index * hashesPerTile + width })

/** How many entries there must be for a tile of this width. */
const endOf = ({ level, index, width }: Tile): number =>
  (index * hashesPerTile + width) * hashesPerTile ** (level === 'entries' ? 0 : level)

/** Of whoever wants a signed checkpoint. */
export const rollProblems = ['roll.unanchored', 'roll.inconsistent', 'key.unavailable', 'key.bad_signature'] as const

/** Milliseconds. */
const sweepMs = 10_000

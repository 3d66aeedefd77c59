/** Lists of what is revoked (RFC 5280 4.2.1.13; RFC 2585 4), from memory. */
import { hash } from 'node:crypto'

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { IssuerRecord } from '../../ca/records.ts'
import type { ShelvedCrl } from '../../ca/revocation/crl-cache.ts'
import { Problem } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { Label } from '../api/schemas.ts'
import { handlerTimeout } from '../bounds.ts'
import { sendFresh } from '../conditional.ts'
import type { PublicDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import type { FindIssuer } from './known-issuers.ts'

export const crlRoutes = (app: App, { crls, crlImports, records, clock }: PublicDeps, issuerOf: FindIssuer): void => {
  app.get(
    '/crl/:issuer/:file',
    {
      config: { access: 'open' },
      handlerTimeout,
      schema: { params: Type.Object({ issuer: Label, file: FileName }, closed) },
    },
    async (request, reply) => {
      const { issuer, file } = request.params
      const shard = Number.parseInt(file, 10)
      const list = crls.find(issuer, shard)
      if (list) return sendList(request, reply as FastifyReply, list, clock())
      // Those of a new issuer are made one after the other, within seconds or as its token lets it.
      if ((await records.issuers('fresh')).some(isToHave(issuer, shard)))
        throw new Problem('crl.unavailable', 'This list has not been published yet.', {
          retryAfter: 5,
        })
      throw new Problem('crl.not_found', 'There is no list of what is revoked at this path.')
    },
  )

  // The files of the lists, a line each, for those who fetch all of them.
  app.get(
    '/crl/:issuer/',
    { config: { access: 'open' }, handlerTimeout, schema: { params: Type.Object({ issuer: Label }, closed) } },
    async (request, reply) => {
      const issuer = await issuerOf(request.params.issuer)
      const there = issuer === undefined ? [] : shardsThere(issuer, crls)
      if (there.length === 0) throw new Problem('crl.not_found', 'There is no issuer with this name that has lists.')
      const octets = Buffer.from(there.map((shard) => `${shard}.crl\n`).join(''))
      return sendFresh(request, reply as FastifyReply, {
        octets,
        type: 'text/plain; charset=utf-8',
        tag: `"${hash('sha256', octets)}"`,
        cacheControl: `public, max-age=${maxAge}`,
      })
    },
  )

  // Where a ceremony has put the list of an offline root.
  app.get('/*', { config: { access: 'open' }, handlerTimeout }, async (request, reply) => {
    const list = crlImports.find(request.url.split('?', 1)[0] as string, request.host)
    if (!list) throw new Problem('request.not_found', 'There is nothing at this path.')
    // People date them, and may do so by the day.
    return sendList(request, reply as FastifyReply, { ...list, sharesDate: true }, clock())
  })
}

/** The last lists of one that has retired stay, and whoever fetches them beside those of others is not to be turned away. */
const shardsThere = ({ name, state, shards }: IssuerRecord, crls: PublicDeps['crls']): readonly number[] =>
  Array.from({ length: shards }, (_, shard) => shard).filter((shard) => state !== 'retired' || crls.find(name, shard))

const isToHave =
  (issuer: string, shard: number) =>
  ({ name, state, shards }: IssuerRecord): boolean =>
    name === issuer && state !== 'retired' && shard < shards

type List = Pick<ShelvedCrl, 'der' | 'sha256' | 'thisUpdate' | 'nextUpdate' | 'sharesDate'>

/** A cache may keep it for a minute, never beyond its end: so long may a revocation stay unknown. */
const sendList = (request: FastifyRequest, reply: FastifyReply, list: List, now: Date): FastifyReply => {
  const { der, thisUpdate, nextUpdate, sharesDate } = list
  const left = Math.floor((nextUpdate.getTime() - now.getTime()) / 1000)
  return sendFresh(request, reply, {
    octets: der,
    type: 'application/pkix-crl',
    tag: `"${list.sha256}"`,
    // After a clock was set back, or of a root that is dated a moment ahead: no answer is of before what it tells (RFC 9110 8.8.2.1).
    ...(thisUpdate <= now && { modified: thisUpdate }),
    sharesDate,
    cacheControl: `public, max-age=${Math.max(0, Math.min(maxAge, left))}`,
  })
}

const FileName = Type.String({ pattern: '^(0|[1-9][0-9]{0,4})[.]crl$', maxLength: 9 })
const maxAge = 60

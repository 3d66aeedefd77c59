/** Lists of what is revoked (RFC 5280 4.2.1.13; RFC 2585 4), from memory. */
import { Type } from 'typebox'

import type { ShelvedCrl } from '../../ca/crl-shelf.ts'
import { Problem } from '../../errors.ts'
import { closed, Label } from '../api/schemas.ts'
import type { App } from '../app.ts'
import { handlerTimeout } from '../bounds.ts'
import { isUnchanged } from '../conditional.ts'
import type { PublicDeps } from '../deps.ts'

export const crlRoutes = (app: App, { crls, clock }: PublicDeps): void => {
  app.get(
    '/crl/:issuer/:file',
    {
      config: { access: 'open' },
      handlerTimeout,
      schema: {
        params: Type.Object(
          { issuer: Label, file: Type.String({ pattern: '^(0|[1-9][0-9]{0,4})[.]crl$', maxLength: 9 }) },
          closed,
        ),
      },
    },
    async (request, reply) => {
      const { issuer, file } = request.params
      const list = crls.find(issuer, Number.parseInt(file, 10))
      if (!list) throw missing(crls.knows(issuer))
      for (const [name, value] of Object.entries(headersOf(list, clock()))) reply.header(name, value)
      if (isUnchanged(request.headers, { tag: tagOf(list), modified: list.thisUpdate })) {
        return reply.code(304).send(request.method === 'HEAD' ? list.der : undefined)
      }
      return reply.type('application/pkix-crl').send(list.der)
    },
  )
}

/** Of an issuer that has lists, one that is not there yet will be. */
const missing = (isKnown: boolean): Problem =>
  isKnown
    ? new Problem('crl.unavailable', 'This list has not been published yet.', { retryAfter: 5 })
    : new Problem('crl.not_found', 'There is no list of what is revoked at this path.')

/** A cache may keep it for a minute, never beyond its end: so long may a revocation stay unknown. */
const headersOf = (list: ShelvedCrl, now: Date): Readonly<Record<string, string>> => {
  const left = Math.floor((list.nextUpdate.getTime() - now.getTime()) / 1000)
  return {
    etag: tagOf(list),
    'last-modified': list.thisUpdate.toUTCString(),
    'cache-control': `public, max-age=${Math.max(0, Math.min(maxAge, left))}`,
  }
}

const tagOf = ({ sha256 }: ShelvedCrl): string => `"${sha256}"`

const maxAge = 60

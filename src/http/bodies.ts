/** Bodies of requests: which types a route takes, and how each is read. */
import type { IncomingMessage } from 'node:http'

import type { FastifyReply, FastifyRequest } from 'fastify'

import { isProblem, Problem } from '../errors.ts'
import { parseYaml } from '../lib/yaml.ts'
import { show } from '../policy/names.ts'
import { batchPath } from './bounds.ts'
import type { App } from './fastify.ts'
import { largeBody, parseJson, smallBody } from './json.ts'
import { assertMediaType } from './media.ts'
import { isPrivateKey, keyInBody } from './private-keys.ts'
import { assertQuery } from './query.ts'

/**
 * The type of a body is settled before its first octet is read; a coding would hide its true size. A body that nobody reads
 * would be taken for one that was heeded, as filters that are sent with a search.
 */
export const assertBodyType = (request: FastifyRequest, spellings: ReadonlySet<string>): Promise<void> | undefined => {
  const { headers, raw } = request
  const takesNone = spellings.size === 0
  if (takesNone && isChunked(headers)) return assertEmpty(request)
  if (hasBody(raw)) {
    assertMediaType(headers['content-type'], spellings)
    assertUncoded(headers)
    return undefined
  }
  if (!takesNone) throw noBody(spellings)
  // Many libraries say with every call what type they would send. Fastify would look for a body of it.
  delete headers['content-type']
  return undefined
}

/** In the place of what its schema would find in nothing. */
const noBody = (types: Iterable<string>): Problem => {
  const plain = [...types].filter((type) => !type.includes(';')).join(' or ')
  return new Problem('request.malformed', `The request has no body: send one, with Content-Type ${plain}.`)
}

/** Throws `request.media_type` for a body that is not written as it is. */
export const assertUncoded = (headers: IncomingMessage['headers']): void => {
  const { 'content-encoding': coding = 'identity' } = headers
  // Node undoes the last transfer coding alone (RFC 9112 7).
  if (coding !== 'identity' || (headers['transfer-encoding'] !== undefined && !isChunked(headers)))
    throw new Problem('request.media_type', 'The body must not be compressed.')
}

const isChunked = ({ 'transfer-encoding': transfer }: IncomingMessage['headers']): boolean =>
  transfer?.toLowerCase() === 'chunked'

/**
 * Proxies and gateways pass a GET or a DELETE on as chunked before they know that nothing comes, and then send no octet; so do
 * clients that are given an empty stream. Fastify would look for a body of a DELETE.
 */
const assertEmpty = async (request: FastifyRequest): Promise<void> => {
  for await (const _ of request.raw.iterator({ destroyOnReturn: false })) assertMediaType(undefined, new Set())
  delete request.headers['content-type']
  delete request.headers['transfer-encoding']
}

/**
 * Where the connection is gone once it is known who asks, the body was dropped with it: Fastify would wait for its end for good,
 * and nothing would be logged.
 */
export const assertBodyComes = (
  { raw }: FastifyRequest,
  _reply: FastifyReply,
  _body: unknown,
  done: (error?: Error) => void,
): void => {
  // One that was read to its end is destroyed as well.
  const isLost = raw.destroyed && !raw.readableEnded
  if (isLost && (hasBody(raw) || raw.headers['content-type'] !== undefined))
    return done(new Problem('request.malformed', 'The connection ended before the body was read.'))
  done()
}

/** RFC 9112 6. */
const hasBody = ({ headers }: Pick<IncomingMessage, 'headers'>): boolean =>
  headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'

/** Whatever a body is written in, it arrives at the one schema of its route as the same plain data. */
export const addParsers = (app: App): void => {
  app.removeAllContentTypeParsers()
  const asBuffer = { parseAs: 'buffer' } as const
  app.addContentTypeParser('application/json', asBuffer, async (request: FastifyRequest, octets: Buffer) => {
    assertThere(request, octets)
    const bounds = request.routeOptions.url === batchPath ? largeBody : smallBody
    return read(octets, (body) => parseJson(body, bounds))
  })
  app.addContentTypeParser('application/yaml', asBuffer, async (request: FastifyRequest, octets: Buffer) => {
    assertThere(request, octets)
    return read(octets, (body) => parseDocument(utf8.decode(body)))
  })
  // Octets as they are, one character each: the reader of requests knows by the media type what they mean. What else
  // a JSON body says comes from the query here.
  app.addContentTypeParser(
    ['application/pkcs10', 'application/x-pem-file'],
    asBuffer,
    async (request: FastifyRequest, octets: Buffer) => {
      assertThere(request, octets)
      assertQuery(request)
      const { profile, validity } = request.query as Readonly<Record<string, unknown>>
      return {
        csr: octets.toString('latin1'),
        ...(profile !== undefined && { profile }),
        ...(validity !== undefined && { validity }),
      }
    },
  )
  app.addContentTypeParser('application/jose', asBuffer, async (request: FastifyRequest, octets: Buffer) => {
    assertThere(request, octets)
    return octets.toString('latin1')
  })
}

/** Of one whose length is not told before, nothing came. */
const assertThere = ({ routeOptions }: FastifyRequest, { length }: Buffer): void => {
  if (length === 0) throw noBody(routeOptions.config.accepts ?? [])
}

/** Reports a private key where the body cannot be parsed: in a shell, text with lines is easily put in as it is. */
const read = async (octets: Buffer, parse: (octets: Buffer) => unknown): Promise<unknown> => {
  try {
    return await parse(octets)
  } catch (error) {
    if (isPrivateKey(octets.toString('latin1'))) throw keyInBody()
    throw isProblem(error) ? error : new Problem('request.malformed', 'The body is not UTF-8.')
  }
}

const parseDocument = async (text: string): Promise<unknown> => {
  if (text.length > yamlLimit)
    throw new Problem('request.too_large', `YAML is taken up to ${yamlLimit} characters; send JSON.`)
  try {
    return await parseYaml(text)
  } catch (error) {
    const [reason = ''] = (error as Error).message.split('\n', 1)
    throw new Problem('request.malformed', `The body is not plain YAML: ${show(reason)}.`)
  }
}

const utf8 = new TextDecoder('utf8', { fatal: true })
/** What the library reads in 50 ms, whatever it is (measured); a profile has one or two thousand. */
const yamlLimit = 16 * 1024

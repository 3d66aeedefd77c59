/** Documents that are kept in versions: reading them, and the next one. */
import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Role } from '../../ca/access/access.ts'
import type { Precondition } from '../../ca/policies.ts'
import { Problem, type ProblemCode } from '../../errors.ts'
import { closed, type TSchema, Type } from '../../lib/schema.ts'
import { callerOf } from '../auth.ts'
import { isUnchanged, strongTags } from '../conditional.ts'
import type { App } from '../fastify.ts'
import { Label, wholeNumber } from './schemas.ts'

/** What is particular to one kind of document; `S` is how a version of it is stored. */
export interface VersionCalls<S> {
  readonly url: string
  readonly tag: string
  /** For sentences: `profile`. */
  readonly title: string
  readonly articled: string
  /** Part of the names of the calls, in one and many: `Profile`, `Profiles`. */
  readonly operation: readonly [one: string, many: string]
  readonly mayRead: readonly [Role, ...Role[]]
  readonly view: TSchema
  /** Of the first version of one. */
  readonly exampleName: string
  readonly document: TSchema
  readonly missing: ProblemCode
  readonly invalid: ProblemCode
  /** Beside those, of a change. */
  readonly problems: readonly ProblemCode[]
  readonly store: {
    list(): Promise<readonly S[]>
    versions(name: string): Promise<readonly S[]>
    read(name: string, version?: number): Promise<S>
    put(
      document: unknown,
      by: string,
      precondition: Precondition,
    ): Promise<{ readonly stored: S; readonly created: boolean }>
  }
  readonly show: (stored: S) => Shown
  /** What whoever has applied it is told beside; never rejects. */
  readonly beside?: (stored: S) => Promise<object>
  /** Throws for a change that is nobody's to make, and `invalid` with every fault of the document that is to have this name. */
  readonly assertMayChange: (name: string, document: unknown) => Promise<void>
}

interface Shown {
  readonly name: string
  readonly version: number
  readonly sha256: string
}

export const versionRoutes = <S>(app: App, calls: VersionCalls<S>): void => {
  readRoutes(app, calls)
  applyRoute(app, calls)
}

const readRoutes = <S>(app: App, { operation: [one, many], ...calls }: VersionCalls<S>): void => {
  const { url, title, articled, tag, mayRead, missing, view, store, show } = calls
  const tags = [tag]
  const params = paramsOf(calls)
  const config = { access: mayRead, problems: [missing] }
  const tagged = {
    ...config,
    headers: { 'If-None-Match': 'the ETag of the version that is held: 304 while it is the one' },
  }
  const list = Type.Object({ items: Type.Array(view) }, closed)
  app.get(
    url,
    {
      config: { access: mayRead },
      schema: {
        operationId: `list${many}`,
        summary: `List ${title}s in their newest version`,
        description: 'By name; the versions before are in `versions` of each.',
        tags,
        response: { 200: list },
      },
    },
    async () => ({ items: (await store.list()).map(show) }),
  )
  app.get<{ Params: Named }>(
    `${url}/:name`,
    {
      config: tagged,
      schema: {
        operationId: `read${one}`,
        summary: `Read the newest version of ${articled}`,
        description: 'Its ETag is what If-Match takes.',
        tags,
        params,
        response: { 200: view },
      },
    },
    async (request, reply) => freshOf(request, reply as FastifyReply, show(await store.read(request.params.name))),
  )
  app.get<{ Params: Named }>(
    `${url}/:name/versions`,
    {
      config,
      schema: {
        operationId: `list${one}Versions`,
        summary: `List the versions of ${articled}, newest first`,
        description: 'All that there were, whole. None is ever changed or taken away.',
        tags,
        params,
        response: { 200: list },
      },
    },
    async (request) => ({ items: (await store.versions(request.params.name)).map(show) }),
  )
  app.get<{ Params: Named & { readonly version: string } }>(
    `${url}/:name/versions/:version`,
    {
      config: tagged,
      schema: {
        operationId: `read${one}Version`,
        summary: `Read one version of ${articled}`,
        description: `As it was applied, by whom and when, whether or not it is the ${title} that is in force.`,
        tags,
        params: Type.Object({ ...params.properties, version: Version }, closed),
        response: { 200: view },
      },
    },
    async (request, reply) =>
      freshOf(
        request,
        reply as FastifyReply,
        show(await store.read(request.params.name, Number(request.params.version))),
      ),
  )
}

const applyRoute = <S>(app: App, { operation: [one], ...calls }: VersionCalls<S>): void => {
  const { url, title, articled, tag, invalid, missing, problems, view, document, store, show } = calls
  const params = paramsOf(calls)
  app.put<{ Params: Named; Body: unknown }>(
    `${url}/:name`,
    {
      config: {
        access: ['admin'],
        accepts: ['application/json', 'application/yaml'],
        problems: [invalid, missing, ...problems, 'state.reserved', 'precondition.failed', 'precondition.required'],
        document,
        headers: {
          'If-Match':
            'The ETag of the version that the change was made from, several of which one is there, or * for whichever is.',
          'If-None-Match': `* to create ${articled} that does not exist.`,
        },
        tells: { Location: [201] },
      },
      schema: {
        operationId: `apply${one}`,
        summary: `Apply ${articled} as its next version`,
        description:
          'The same content makes no new version. A broken document is refused with all its faults and their places.',
        tags: [tag],
        params,
        // The parser of documents judges it, and names all of its faults at once.
        body: Type.Unknown(),
        response: {
          200: { ...view, description: 'Applied, or unchanged' },
          201: { ...view, description: 'The first version' },
        },
      },
    },
    async (request, reply) => {
      const { body } = request
      const { name: named } = request.params
      const precondition = preconditionOf(request.headers, title)
      await calls.assertMayChange(named, body)
      const { stored, created } = await store.put(body, callerOf(request).principal, precondition)
      const shown = show(stored)
      if (created && shown.version === 1) reply.code(201).header('location', `${url}/${shown.name}`)
      withTag(reply as FastifyReply, shown, 'no-store')
      return { ...shown, ...(await calls.beside?.(stored)) }
    },
  )
}

interface Named {
  readonly name: string
}

/** A strong tag: the same content has the same canonical form, and so the same hash (RFC 9110 8.8.3). */
const tagOf = ({ sha256 }: Shown): string => `"${sha256}"`

/** A proxy that compressed it would change its tag (RFC 9110 8.8.1), or make it a weak one, which If-Match never takes. */
const withTag = (reply: FastifyReply, shown: Shown, cacheControl: string): FastifyReply =>
  reply.header('etag', tagOf(shown)).header('cache-control', `${cacheControl}, no-transform`)

/** The version, or 304 where the client has it. */
const freshOf = (request: FastifyRequest, reply: FastifyReply, shown: Shown): Shown | FastifyReply => {
  withTag(reply, shown, 'private, no-cache')
  if (!isUnchanged(request.headers, { tag: tagOf(shown) })) return shown
  // As in `sendFresh`: HEAD is told the length that GET would have.
  return reply.code(304).send(request.method === 'HEAD' ? shown : undefined)
}

/** RFC 9110 13.1: exactly one of If-Match with `*` or strong tags, and If-None-Match with `*`. Throws 428, 412, 400. */
const preconditionOf = (
  headers: Readonly<Record<string, string | string[] | undefined>>,
  title: string,
): Precondition => {
  const ifMatch = headers['if-match']
  const ifNoneMatch = headers['if-none-match']
  if (ifMatch === undefined && ifNoneMatch === undefined) {
    throw new Problem(
      'precondition.required',
      'Say what you believe is there: If-Match with an ETag, or If-None-Match: *.',
    )
  }
  if (ifMatch !== undefined && ifNoneMatch !== undefined) {
    throw new Problem('request.malformed', 'Send either If-Match or If-None-Match.')
  }
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch === '*') return { ifNoneMatch }
    throw new Problem('request.malformed', 'If-None-Match takes * here.')
  }
  if (ifMatch === '*') return { ifMatch }
  const tags = strongTags(String(ifMatch)).filter((tag) => ourTag.test(tag))
  // A tag of another form is well-formed HTTP, and matches nothing that is here.
  if (tags.length === 0)
    throw new Problem('precondition.failed', `If-Match holds no ETag of any ${title}${changedBy(String(ifMatch))}.`)
  return { ifMatch: tags }
}

/** Those of nginx and HAProxy are weak then; others, as Apache, put a suffix to them: `-gzip`, `--gzip`, `;br`. */
const changedBy = (ifMatch: string): string =>
  /W\/"[0-9a-f]{64}|"[0-9a-f]{64}[^0-9a-f"][^"]*"/.test(ifMatch)
    ? ', but one as a proxy makes it that compresses answers: send the sha256 of the version in quotes'
    : ''

const paramsOf = ({ exampleName }: Pick<VersionCalls<unknown>, 'exampleName'>) =>
  Type.Object({ name: { ...Label, examples: [exampleName] } }, closed)
const Version = wholeNumber(
  'must be a whole number from 1 on',
  { minimum: 1, maximum: 999_999_999 },
  {
    pattern: '^[1-9][0-9]{0,8}$',
    examples: ['1'],
  },
)
const ourTag = /^[0-9a-f]{64}$/

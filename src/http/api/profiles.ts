/** Profiles: every version ever applied, and the next one. */
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'

import { isOwnProfile, own } from '../../ca/own.ts'
import type { Precondition, StoredProfile } from '../../ca/policies.ts'
import { Problem } from '../../errors.ts'
import { ProfileDocumentSchema } from '../../policy/document.ts'
import type { App } from '../app.ts'
import { callerOf } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import * as examples from './examples.ts'
import { closed, Label, named, PrincipalName, Sha256, Time } from './schemas.ts'

const mayRead = ['approver', 'operator', 'auditor', 'admin'] as const

const ProfileVersion = Type.Object(
  {
    name: Label,
    version: Type.Integer({ minimum: 1 }),
    sha256: Sha256,
    authority: Label,
    document: Type.Object({}, { additionalProperties: true, description: 'as it was applied, in canonical form' }),
    createdAt: Time,
    createdBy: PrincipalName,
  },
  named('Profile', examples.profileVersion),
)

const ProfileList = Type.Object({ items: Type.Array(ProfileVersion) }, closed)
const NameParams = Type.Object({ name: Label }, closed)
const VersionParams = Type.Object(
  { name: Label, version: Type.String({ pattern: '^[1-9][0-9]{0,8}$', maxLength: 9 }) },
  closed,
)

export const profileRoutes = (app: App, { policies }: HttpDeps): void => {
  app.get(
    '/v1/profiles',
    {
      config: { access: [...mayRead] },
      schema: {
        operationId: 'listProfiles',
        summary: 'List profiles in their newest version',
        tags: ['profiles'],
        response: { 200: ProfileList },
      },
    },
    async () => ({ items: (await policies.list()).map(profileView) }),
  )

  app.get(
    '/v1/profiles/:name',
    {
      config: { access: [...mayRead], problems: ['profile.not_found'] },
      schema: {
        operationId: 'readProfile',
        summary: 'Read the newest version of a profile',
        description: 'Its ETag is what If-Match takes.',
        tags: ['profiles'],
        params: NameParams,
        response: { 200: ProfileVersion },
      },
    },
    async (request, reply) => withTag(reply as FastifyReply, await policies.read(request.params.name)),
  )

  app.put(
    '/v1/profiles/:name',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json', 'application/yaml'],
        problems: [
          'profile.invalid',
          'profile.not_found',
          'authority.not_found',
          'state.reserved',
          'precondition.failed',
          'precondition.required',
        ],
        document: { ...ProfileDocumentSchema, title: 'ProfileDocument' },
        headers: {
          'If-Match': 'The ETag of the version that the change was made from, or * for whichever is there.',
          'If-None-Match': '* to create a profile that does not exist.',
        },
      },
      schema: {
        operationId: 'applyProfile',
        summary: 'Apply a profile as its next version',
        description:
          'The same content makes no new version. A broken document is refused with all its faults and their places.',
        tags: ['profiles'],
        params: NameParams,
        // The parser of profiles judges the document, and names all of its faults at once.
        body: Type.Unknown(),
        response: {
          200: { ...ProfileVersion, description: 'Applied, or unchanged' },
          201: {
            ...ProfileVersion,
            description: 'The first version',
            examples: [{ ...examples.profileVersion, version: 1 }],
          },
        },
      },
    },
    async (request, reply) => {
      assertNotOwn(request.params.name)
      const precondition = preconditionOf(request.headers)
      assertSameName(request.body, request.params.name)
      const { stored, created } = await policies.put(request.body, callerOf(request).principal, precondition)
      const { name, version } = stored.profile
      if (created && version === 1) reply.code(201).header('location', `/v1/profiles/${name}`)
      return withTag(reply as FastifyReply, stored)
    },
  )

  app.get(
    '/v1/profiles/:name/versions',
    {
      config: { access: [...mayRead], problems: ['profile.not_found'] },
      schema: {
        operationId: 'listProfileVersions',
        summary: 'List the versions of a profile, newest first',
        tags: ['profiles'],
        params: NameParams,
        response: { 200: ProfileList },
      },
    },
    async (request) => ({ items: (await policies.versions(request.params.name)).map(profileView) }),
  )

  app.get(
    '/v1/profiles/:name/versions/:version',
    {
      config: { access: [...mayRead], problems: ['profile.not_found'] },
      schema: {
        operationId: 'readProfileVersion',
        summary: 'Read one version of a profile',
        tags: ['profiles'],
        params: VersionParams,
        response: { 200: ProfileVersion },
      },
    },
    async (request, reply) =>
      withTag(reply as FastifyReply, await policies.read(request.params.name, Number(request.params.version))),
  )
}

const profileView = ({ profile, createdAt, createdBy }: StoredProfile) => ({
  name: profile.name,
  version: profile.version,
  sha256: profile.sha256,
  authority: profile.authority,
  document: profile.document,
  createdAt: createdAt.toISOString(),
  createdBy,
})

/** A strong tag: the same content has the same canonical form, and so the same hash (RFC 9110 8.8.3). */
const withTag = (reply: FastifyReply, stored: StoredProfile) => {
  reply.header('etag', `"${stored.profile.sha256}"`)
  return profileView(stored)
}

/** RFC 9110 13.1: exactly one of If-Match with `*` or one strong tag, and If-None-Match with `*`. Throws 428, 412, 400. */
const preconditionOf = (headers: Readonly<Record<string, string | string[] | undefined>>): Precondition => {
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
  const tag = strongTag.exec(String(ifMatch))?.[1]
  // A tag of another form is well-formed HTTP, and matches nothing that is here.
  if (tag === undefined) throw new Problem('precondition.failed', 'If-Match holds no ETag of a profile.')
  return { ifMatch: tag }
}

/** The service writes these itself, and would write them again: a change would hold until its next renewal. */
const assertNotOwn = (name: string): void => {
  if (isOwnProfile(name))
    throw new Problem(
      'state.reserved',
      `Profiles called ${own.profile}-… and ${own.responderProfile}-… are those of the service's own certificates.`,
    )
}

const assertSameName = (document: unknown, name: string): void => {
  const written = typeof document === 'object' && document !== null && 'name' in document ? document.name : undefined
  if (written === undefined || written === name) return
  throw new Problem('profile.invalid', 'The document names another profile than the path.', {
    violations: [{ check: 'profile.name', field: '/name', value: '', reason: `is not ${name}` }],
  })
}

const strongTag = /^"([0-9a-f]{64})"$/

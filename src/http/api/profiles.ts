/** Profiles: every version ever applied, and the next one. */
import { isOwnProfile, own } from '../../ca/own.ts'
import type { StoredProfile } from '../../ca/policies.ts'
import { Problem } from '../../errors.ts'
import { Type } from '../../lib/schema.ts'
import { ProfileDocumentSchema } from '../../policy/document.ts'
import { parseProfile } from '../../policy/profile.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import * as asked from './request-examples.ts'
import { Label, named, PrincipalName, Sha256, Time } from './schemas.ts'
import { versionRoutes } from './versions.ts'

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
  named('Profile'),
)

export const profileRoutes = (app: App, { policies }: HttpDeps): void =>
  versionRoutes(app, {
    url: '/v1/profiles',
    tag: 'profiles',
    title: 'profile',
    articled: 'a profile',
    operation: ['Profile', 'Profiles'],
    mayRead: ['approver', 'operator', 'auditor', 'admin'],
    view: ProfileVersion,
    exampleName: asked.profile.name,
    document: { ...ProfileDocumentSchema, title: 'ProfileDocument', examples: [asked.profile] },
    missing: 'profile.not_found',
    invalid: 'profile.invalid',
    problems: ['authority.not_found'],
    store: policies,
    show: profileView,
    assertMayChange: async (name, document) => {
      assertNotOwn(name)
      parseProfile(document, { version: 1, name })
    },
  })

const profileView = ({ profile, createdAt, createdBy }: StoredProfile) => ({
  name: profile.name,
  version: profile.version,
  sha256: profile.sha256,
  authority: profile.authority,
  document: profile.document,
  createdAt: createdAt.toISOString(),
  createdBy,
})

/** The service writes these itself, and would write them again: a change would hold until its next renewal. */
const assertNotOwn = (name: string): void => {
  if (isOwnProfile(name))
    throw new Problem(
      'state.reserved',
      `Profiles called ${own.profile}-… and ${own.responderProfile}-… are those of the service's own certificates.`,
    )
}

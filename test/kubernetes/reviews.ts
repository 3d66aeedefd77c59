/** Kinds that are asked and never stored: who a token is of, and what somebody may do. */
import { type User, userTree } from './people.ts'
import type { Action } from './rbac.ts'
import { badRequest, invalid, invalidValue } from './refusal.ts'
import { type Context, type Resource, resourceOf } from './resource.ts'
import { objectShape } from './shape.ts'
import { isTree, nameOf, namespaceOf, type Tree, textAt, textsAt, treeAt } from './values.ts'

const asked = (
  group: string,
  plural: string,
  kind: string,
  answer: (asked: Tree, context: Context) => Tree,
): Resource =>
  resourceOf(
    { group, version: 'v1', plural, kind, namespaced: false, verbs: ['create'], shape: objectShape() },
    { decode: (object) => ({ object: { ...object, spec: treeAt(object, 'spec') }, unknown: [] }), answer },
  )

export const tokenReviews = asked(
  'authentication.k8s.io',
  'tokenreviews',
  'TokenReview',
  (review, { review: look }) => {
    const token = textAt(review, 'spec', 'token')
    if (token === '') throw badRequest('token is required for TokenReview in authentication')
    return { ...review, status: look(token, textsAt(review, 'spec', 'audiences')) }
  },
)

export const subjectAccessReviews = asked(
  'authorization.k8s.io',
  'subjectaccessreviews',
  'SubjectAccessReview',
  (review, context) => {
    const user: User = { username: textAt(review, 'spec', 'user'), groups: textsAt(review, 'spec', 'groups') }
    if (user.username === '' && user.groups.length === 0)
      throw fault('spec.user', '""', 'at least one of user or group must be specified')
    return decided(review, user, context)
  },
)

export const selfSubjectAccessReviews = asked(
  'authorization.k8s.io',
  'selfsubjectaccessreviews',
  'SelfSubjectAccessReview',
  (review, context) => decided(review, context.user, context),
)

const decided = (review: Tree, user: User, { may }: Context): Tree => {
  const { resourceAttributes, nonResourceAttributes } = treeAt(review, 'spec')
  if (isTree(resourceAttributes) === isTree(nonResourceAttributes)) {
    const detail = 'exactly one of nonResourceAttributes or resourceAttributes must be specified'
    throw fault('spec.resourceAttributes', 'null', detail)
  }
  const { allowed, reason } = may(user, actionOf(treeAt(resourceAttributes)))
  return { ...review, status: { allowed, ...(reason === undefined ? {} : { reason }) } }
}

const actionOf = (said: Tree): Action => {
  const subresource = textAt(said, 'subresource')
  return {
    verb: textAt(said, 'verb'),
    group: textAt(said, 'group'),
    resource: subresource === '' ? textAt(said, 'resource') : `${textAt(said, 'resource')}/${subresource}`,
    namespace: textAt(said, 'namespace'),
    name: textAt(said, 'name'),
  }
}

/** These kinds have no name in their refusals. */
const fault = (field: string, value: string, detail: string): Error =>
  invalid({ group: 'authorization.k8s.io', kind: '' }, [invalidValue(field, value, detail)])

export const reviewStatus = (
  found: { readonly user: User; readonly audiences: readonly string[] } | { readonly error: string },
): Tree =>
  'error' in found
    ? { user: {}, error: found.error }
    : { authenticated: true, user: userTree(found.user), audiences: [...found.audiences] }

/** TokenRequest, which is a subresource of service accounts. */
export const requestToken = (asked: Tree, account: Tree, { issueToken, now }: Context): Tree => {
  const spec = treeAt(asked, 'spec')
  const audiences = textsAt(spec, 'audiences')
  const seconds = typeof spec['expirationSeconds'] === 'number' ? spec['expirationSeconds'] : 3600
  if (seconds < 600)
    throw invalid({ group: 'authentication.k8s.io', kind: 'TokenRequest' }, [
      invalidValue('spec.expirationSeconds', String(seconds), 'may not specify a duration less than 10 minutes'),
    ])
  const pod = textAt(spec, 'boundObjectRef', 'name')
  const token = issueToken(`${namespaceOf(account)}/${nameOf(account)}`, {
    ...(audiences.length === 0 ? {} : { audiences }),
    expiresIn: seconds,
    ...(pod === '' ? {} : { pod }),
  })
  return {
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { name: nameOf(account), namespace: namespaceOf(account) },
    spec,
    status: {
      token,
      expirationTimestamp: new Date(now.getTime() + seconds * 1000).toISOString().replace(/\.\d+Z/, 'Z'),
    },
  }
}
